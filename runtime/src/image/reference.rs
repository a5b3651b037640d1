//! Image references: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]` (distribution-spec §Pulling manifests; Docker's defaults).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Digest;

/// A reference in canonical form: host, repository, and a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Text that is not a reference, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: {why}")]
pub struct RefError {
    /// As given.
    pub text: String,
    /// The first rule it breaks.
    pub why: String,
}

impl ImageRef {
    /// `docker.io` when the text named none.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `library/nginx`, `shop/web`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `latest` when the text named neither tag nor digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest it is pinned to.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// As people type it: Docker Hub and its `library/` are left out.
    #[must_use]
    pub fn familiar(&self) -> String {
        let tag = self.tag.as_ref().map(|t| format!(":{t}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|d| format!("@{d}")).unwrap_or_default();
        format!("{}{tag}{digest}", self.familiar_repository())
    }

    /// The same without tag and digest.
    #[must_use]
    pub fn familiar_repository(&self) -> String {
        match (self.host.as_str(), self.repository.strip_prefix("library/")) {
            ("docker.io", Some(name)) => name.to_owned(),
            ("docker.io", None) => self.repository.clone(),
            (host, _) => format!("{host}/{}", self.repository),
        }
    }

    /// The same repository at exactly this digest.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

impl FromStr for ImageRef {
    type Err = RefError;
    fn from_str(text: &str) -> Result<Self, RefError> {
        let refuse = |why: &str| RefError { text: text.to_owned(), why: why.to_owned() };
        if text.len() > 512 {
            return Err(refuse("it is longer than 512 bytes"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|e| refuse(&e.to_string()))?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let (host, path) = match name.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path.to_owned()),
            Some(_) => ("docker.io", name.to_owned()),
            None => ("docker.io", format!("library/{name}")),
        };
        if name.is_empty() {
            return Err(refuse("it names no repository"));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(refuse("repository names must be lower case"));
        }
        if !path.split('/').all(is_path_component) {
            return Err(refuse("a part of the repository is empty or has characters other than a-z 0-9 . _ -"));
        }
        if !is_host(host) {
            return Err(refuse("the registry is not a host name or address with an optional port"));
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(refuse("a tag is 1 to 128 of A-Z a-z 0-9 _ . - and does not start with . or -"));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { host: host.to_ascii_lowercase(), repository: path, tag, digest })
    }
}

/// `NAME[:PORT]`, `[IPv6][:PORT]`.
fn is_host(host: &str) -> bool {
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else { return false };
        let fits = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return fits && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let is_label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    name.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_path_component(part: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let inner = |b: u8| edge(b) || matches!(b, b'.' | b'_' | b'-');
    part.bytes().next().is_some_and(edge) && part.bytes().last().is_some_and(edge) && part.bytes().all(inner)
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128 && tag.bytes().next().is_some_and(word) && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

impl TryFrom<String> for ImageRef {
    type Error = RefError;
    fn try_from(text: String) -> Result<Self, RefError> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(reference: ImageRef) -> String {
        reference.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_refused_or_means_what_its_forms_mean(text in "(.{0,60}|[a-zA-Z0-9./:@_-]{0,60}|[a-c./]{1,9}(:[a-c0-9.]{1,5})?(@sha256:[0-9a-f]{64})?)") {
            if let Ok(read) = text.parse::<ImageRef>() {
                prop_assert_eq!(&read.to_string().parse::<ImageRef>(), &Ok(read.clone()));
                prop_assert_eq!(&read.familiar().parse::<ImageRef>(), &Ok(read.clone()));
                prop_assert!(!read.repository().split('/').any(|part| part.is_empty() || part.starts_with('.')));
            }
        }
    }

    fn check(text: &str, canonical: &str) {
        assert_eq!(text.parse::<ImageRef>().map(|r| r.to_string()), Ok(canonical.to_owned()));
    }

    #[test]
    fn defaults_are_dockers() {
        check("nginx", "docker.io/library/nginx:latest");
        check("shop/web:1.5", "docker.io/shop/web:1.5");
        check("localhost/web", "localhost/web:latest");
        check("127.0.0.1:5000/shop/web:1", "127.0.0.1:5000/shop/web:1");
        check("[::1]:5000/web:1", "[::1]:5000/web:1");
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        check(&format!("h.example/a@{digest}"), &format!("h.example/a@{digest}"));
        check(&format!("h.example/a:1@{digest}"), &format!("h.example/a:1@{digest}"));
    }

    #[test]
    fn nonsense_is_refused_with_the_rule() {
        for bad in ["", ":", "a//b", "Shop/web", "a:b:c/d", "a@sha256:12", "h.example/", "a:", "../x", "a/../b"] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }
}
