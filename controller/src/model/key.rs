//! Names of objects, replicas and templates, and the labels that write them on disk beside each container.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The label names under which a container or volume says whose it is. Contract: changing one orphans live containers.
pub mod labels {
    /// `ObjectKey.stack`.
    pub const STACK: &str = "boxship.stack";
    /// `ObjectKey.kind`, lower case.
    pub const KIND: &str = "boxship.kind";
    /// `ObjectKey.name`.
    pub const NAME: &str = "boxship.name";
    /// `ReplicaKey.ordinal`, decimal.
    pub const ORDINAL: &str = "boxship.ordinal";
    /// `TemplateHash`.
    pub const TEMPLATE: &str = "boxship.template";
    /// How many containers this replica had before, decimal.
    pub const ATTEMPT: &str = "boxship.attempt";
    /// The manifest file it comes from; lets a lost state database freeze what a broken file defined.
    pub const SOURCE: &str = "boxship.source";
    /// What its App or Job depends on, keys with spaces between: once no manifest names them, this is the order they
    /// are stopped in.
    pub const DEPENDS_ON: &str = "boxship.depends-on";
    /// The root that file is relative to.
    pub const ROOT: &str = "boxship.root";
    /// On a pod's holder: its containers as `role:name` with spaces between, in the order of starting.
    pub const MEMBERS: &str = "boxship.members";
    /// On a member of a pod: its name there.
    pub const MEMBER: &str = "boxship.member";
    /// On a member: ends in a row that led to it, decimal.
    pub const FAILURES: &str = "boxship.failures";
    /// On a volume that goes with one pod: the holder's id.
    pub const SCRATCH_OF: &str = "boxship.scratch-of";
}

/// Kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An image this host holds.
    Image,
    /// A replicated, long-running workload.
    App,
    /// A workload that runs to completion.
    Job,
    /// Data that outlives containers.
    Volume,
    /// Content mounted into containers or read into their environment.
    Config,
    /// The same, kept encrypted and shown to nobody else.
    Secret,
    /// Names and published ports for Apps with certain labels.
    Service,
    /// A network beside the stack's own.
    Network,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] =
        [Self::Image, Self::App, Self::Job, Self::Volume, Self::Config, Self::Secret, Self::Service, Self::Network];

    /// Lower case, as in `app/web`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::App => "app",
            Self::Job => "job",
            Self::Volume => "volume",
            Self::Config => "config",
            Self::Secret => "secret",
            Self::Service => "service",
            Self::Network => "network",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The `Volume` that the replica of this number has for a claim of its App. Contract: it names the volume on disk.
#[must_use]
pub fn claim_key(app: &ObjectKey, claim: &str, ordinal: u32) -> ObjectKey {
    ObjectKey { stack: app.stack.clone(), kind: Kind::Volume, name: format!("{claim}-{}-{ordinal}", app.name) }
}

/// One object of one stack. Prints and serializes as `shop/app/web`, so that it can be a key in JSON.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectKey {
    /// The stack: first path component under the manifest root, or what the file names.
    pub stack: String,
    /// Its kind.
    pub kind: Kind,
    /// Its name, a DNS label.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.stack, self.kind, self.name)
    }
}

impl FromStr for ObjectKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bad = || KeyError(text.to_owned());
        let mut parts = text.split('/');
        let (Some(stack), Some(kind), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind).ok_or_else(bad)?;
        Ok(Self { stack: stack.to_owned(), kind, name: name.to_owned() })
    }
}

impl TryFrom<String> for ObjectKey {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<ObjectKey> for String {
    fn from(key: ObjectKey) -> String {
        key.to_string()
    }
}

/// Text that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not `stack/kind/name`")]
pub struct KeyError(String);

/// One slot of a workload. Prints as `web-2`, its name in DNS and on screen; serializes as `shop/app/web#2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplicaKey {
    /// Whose.
    pub workload: ObjectKey,
    /// From 1.
    pub ordinal: u32,
}

impl TryFrom<String> for ReplicaKey {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Self, KeyError> {
        let bad = || KeyError(text.clone());
        let (workload, ordinal) = text.split_once('#').ok_or_else(bad)?;
        Ok(Self { workload: workload.parse()?, ordinal: ordinal.parse().map_err(|_| bad())? })
    }
}

impl From<ReplicaKey> for String {
    fn from(key: ReplicaKey) -> String {
        format!("{}#{}", key.workload, key.ordinal)
    }
}

impl fmt::Display for ReplicaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.workload.name, self.ordinal)
    }
}

/// Hash over the fields of a template whose change needs a new container, and over the image's digest:
/// `v1-` and 16 hex digits. The list of fields is `plan::template_hash`, versioned and golden.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TemplateHash(pub String);

impl fmt::Display for TemplateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place in a manifest, for reasons and errors. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourceRef {
    /// Path relative to the manifest root.
    pub file: String,
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

impl fmt::Display for SourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}
