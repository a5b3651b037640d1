//! What to tell a person about a manifest: a value with a stable code and a place. Rendering is in `manifest::render`.
//!
//! The codes are listed once, in [`codes`]; they are a contract and never change their meaning.

use serde::{Deserialize, Serialize};

use super::{ObjectKey, SourceRef};

/// A stretch of a manifest. Lines and columns count from 1, columns in characters; the end is exclusive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// Path relative to the manifest root.
    pub file: String,
    /// First line.
    pub line: u32,
    /// First column.
    pub column: u32,
    /// Last line.
    pub end_line: u32,
    /// Column after the last character.
    pub end_column: u32,
}

impl Span {
    /// The beginning of a file, for what concerns all of it.
    #[must_use]
    pub fn file(file: impl Into<String>) -> Self {
        Self { file: file.into(), line: 1, column: 1, end_line: 1, end_column: 1 }
    }

    /// Where it begins.
    #[must_use]
    pub fn start(&self) -> SourceRef {
        SourceRef { file: self.file.clone(), line: self.line, column: self.column }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object (or file) is not taken; its last good version stays.
    Error,
    /// Taken, but something is not honoured.
    Warning,
}

/// A further place or remark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What is to be said.
    pub text: String,
    /// Where, if it has a place of its own.
    pub span: Option<Span>,
}

/// One problem, complete: what, where, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// `BX01nn`, see [`codes`].
    pub code: String,
    /// One line: what is wrong.
    pub what: String,
    /// Short text at the caret: the reason, or `did you mean …?`.
    pub why: Option<String>,
    /// What to do, runnable or copyable where possible.
    pub help: Option<String>,
    /// The nearest right spelling, as data.
    pub suggestion: Option<String>,
    /// Where.
    pub span: Option<Span>,
    /// Further places and remarks.
    pub notes: Vec<Note>,
    /// The object that is broken by it, as far as it is known.
    pub object: Option<ObjectKey>,
}

impl Diagnostic {
    /// An error with a code from [`codes`].
    #[must_use]
    pub fn error(code: &str, what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code: code.to_owned(),
            what: what.into(),
            why: None,
            help: None,
            suggestion: None,
            span: None,
            notes: Vec::new(),
            object: None,
        }
    }

    /// A warning with a code from [`codes`].
    #[must_use]
    pub fn warning(code: &str, what: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, what) }
    }

    /// Adds the place.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    /// Adds the text at the caret.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the nearest right spelling; also as the text at the caret, unless there is one.
    #[must_use]
    pub fn suggest(mut self, suggestion: Option<String>) -> Self {
        if let (Some(word), None) = (&suggestion, &self.why) {
            self.why = Some(format!("did you mean `{word}`?"));
        }
        self.suggestion = suggestion;
        self
    }

    /// Adds a remark without a place.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(Note { text: text.into(), span: None });
        self
    }

    /// Adds a further place.
    #[must_use]
    pub fn also_at(mut self, text: impl Into<String>, span: Span) -> Self {
        self.notes.push(Note { text: text.into(), span: Some(span) });
        self
    }

    /// Says which object it breaks.
    #[must_use]
    pub fn of(mut self, object: &ObjectKey) -> Self {
        self.object = Some(object.clone());
        self
    }

    /// Whether it keeps an object from being taken.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Every code of manifests and of accepting them. Contract: a number never gets another meaning.
pub mod codes {
    /// Not YAML.
    pub const SYNTAX: &str = "BX0101";
    /// An `apiVersion` of ours that this version does not know.
    pub const API_VERSION: &str = "BX0102";
    /// A kind that does not exist.
    pub const KIND: &str = "BX0103";
    /// A field that does not exist.
    pub const UNKNOWN_FIELD: &str = "BX0104";
    /// A field that must be there.
    pub const MISSING_FIELD: &str = "BX0105";
    /// A key twice in one mapping.
    pub const DUPLICATE_KEY: &str = "BX0106";
    /// A value of the wrong type or out of range.
    pub const WRONG_TYPE: &str = "BX0107";
    /// Anchors, aliases, merge keys, tags.
    pub const YAML_FEATURE: &str = "BX0108";
    /// Too large, too deep, too many.
    pub const LIMIT: &str = "BX0109";
    /// Not a name.
    pub const NAME: &str = "BX0110";
    /// `command`, which means opposite things to Docker and to Kubernetes.
    pub const COMMAND: &str = "BX0111";
    /// Not an image reference.
    pub const REFERENCE: &str = "BX0112";
    /// Not a quantity.
    pub const QUANTITY: &str = "BX0113";
    /// Not a duration.
    pub const DURATION: &str = "BX0114";
    /// A mount that shows nothing, or two things.
    pub const MOUNT: &str = "BX0115";
    /// Not a port or a port mapping.
    pub const PORT: &str = "BX0116";
    /// A health check that tries nothing, or two things.
    pub const HEALTHCHECK: &str = "BX0117";
    /// Not a schedule or time zone.
    pub const SCHEDULE: &str = "BX0118";
    /// Known, but not built yet: refused rather than ignored.
    pub const NOT_YET: &str = "BX0119";
    /// A variable that is not set.
    pub const VARIABLE: &str = "BX0120";
    /// A reference to an object or key that does not exist.
    pub const DANGLING: &str = "BX0121";
    /// Two objects of one name.
    pub const SAME_NAME: &str = "BX0122";
    /// Two objects publish one port.
    pub const PORT_CONFLICT: &str = "BX0123";
    /// Objects that wait for each other.
    pub const CYCLE: &str = "BX0124";
    /// A file named by `file:` cannot be read.
    pub const FILE: &str = "BX0125";
    /// Fields that exclude each other.
    pub const CONFLICT: &str = "BX0126";
    /// Any other value that cannot be.
    pub const VALUE: &str = "BX0127";
    /// More writers than a volume's `access` allows.
    pub const ACCESS: &str = "BX0128";
    /// A directory or file that cannot be read.
    pub const UNREADABLE: &str = "BX0130";
    /// A directory whose name cannot be a stack.
    pub const STACK: &str = "BX0131";
    /// A compose file that is not applied: another one stands for its directory.
    pub const COMPOSE: &str = "BX0140";
    /// A Kubernetes object that has no effect on one host.
    pub const KUBERNETES: &str = "BX0141";
    /// A key of another dialect that does not do here what it does there.
    pub const NOT_HONOURED: &str = "BX0142";
    /// Objects stay because their file is broken.
    pub const HELD_BROKEN: &str = "BX0150";
    /// Objects stay because their source cannot be read.
    pub const HELD_UNREADABLE: &str = "BX0151";
    /// Objects stay because the source is suddenly empty.
    pub const HELD_EMPTY: &str = "BX0152";
    /// Objects stay because the controller was started on another directory than theirs.
    pub const HELD_MOVED: &str = "BX0153";
}
