//! What a registry's refusals mean, in words a person can act on. Codes `BX0301`-`BX0306`.

use super::credentials::Login;
use super::http::Answer;
use crate::error::Error;
use crate::image::{Digest, ImageRef};

/// Largest error body read, in bytes.
const BODY_BYTES_MAX: u64 = 64 << 10;
/// Tags named in "no such tag".
const NEAREST_MAX: usize = 5;

/// What was asked for, for messages.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) host: &'a str,
    pub(super) reference: &'a ImageRef,
    pub(super) is_manifest: bool,
    /// Sending, not fetching.
    pub(super) is_push: bool,
    /// Another repository of the registry that blobs may come from.
    pub(super) from: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub(super) fn pull(host: &'a str, reference: &'a ImageRef) -> Self {
        Self { host, reference, is_manifest: false, is_push: false, from: None }
    }

    /// What a token is to allow (distribution's token scopes).
    pub(super) fn scopes(&self) -> Vec<String> {
        let actions = if self.is_push { "pull,push" } else { "pull" };
        let own = format!("repository:{}:{actions}", self.reference.repository());
        std::iter::once(own).chain(self.from.map(|from| format!("repository:{from}:pull"))).collect()
    }

    /// The same as one name.
    pub(super) fn scope(&self) -> String {
        self.scopes().join(" ")
    }

    fn repository(&self) -> String {
        format!("{}/{}", self.host, self.reference.repository())
    }
}

/// The first error of a registry's answer (distribution-spec §Error codes).
#[derive(Debug, Default)]
pub(super) struct Failure {
    pub(super) code: String,
    message: String,
}

impl Failure {
    pub(super) fn read(answer: &mut Answer) -> Self {
        #[derive(serde::Deserialize)]
        struct Body {
            errors: Vec<One>,
        }
        #[derive(serde::Deserialize)]
        struct One {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let bytes = answer.bytes(BODY_BYTES_MAX).unwrap_or_default();
        let first = serde_json::from_slice::<Body>(&bytes).ok().and_then(|b| b.errors.into_iter().next());
        // text from outside: one line, of bounded length
        let tame = |text: String| text.chars().filter(|c| !c.is_control()).take(200).collect();
        first.map_or_else(Self::default, |one| Self { code: tame(one.code), message: tame(one.message) })
    }

    fn said(&self) -> String {
        match (self.code.as_str(), self.message.as_str()) {
            ("", "") => String::new(),
            (code, "") => format!(": {code}"),
            (_, message) => format!(": {message}"),
        }
    }

    pub(super) fn explain(&self, asked: &Asked<'_>, answer: &Answer, login: Option<&Login>) -> Error {
        let repository = asked.repository();
        match answer.status {
            401 => refused(asked, login),
            403 => {
                let who = login.map_or_else(|| "without a login".to_owned(), |l| format!("to user {}", l.user));
                message("BX0303", format!("`{repository}` is denied {who}{}", self.said()))
            }
            404 => no_repository(asked),
            429 => {
                let left = answer.one("ratelimit-remaining").map(|l| format!(", {l} left")).unwrap_or_default();
                let after = answer.one("retry-after").map(|s| format!(", again in {s} s")).unwrap_or_default();
                let who = login.map_or_else(|| "anonymous".to_owned(), |l| format!("user {}", l.user));
                let text = format!("{} limits the rate of {who}{left}{after}", asked.host);
                Error::Registry { code: "BX0306", message: text, retry: true }
            }
            status => {
                let text = format!("{} answered {status} for `{}`{}", asked.host, asked.reference, self.said());
                Error::Registry { code: "BX0301", message: text, retry: status >= 500 || status == 408 }
            }
        }
    }
}

/// An error that stays until somebody changes something.
pub(super) fn message(code: &'static str, message: impl Into<String>) -> Error {
    Error::Registry { code, message: message.into(), retry: false }
}

/// `BX0301` that may pass.
pub(super) fn unreachable(message: impl Into<String>) -> Error {
    Error::Registry { code: "BX0301", message: message.into(), retry: true }
}

/// 401: with credentials they are wrong, without them some are needed.
pub(super) fn refused(asked: &Asked<'_>, login: Option<&Login>) -> Error {
    let repository = asked.repository();
    match login {
        Some(Login { user, origin, .. }) => message(
            "BX0304",
            format!("{} refused the credentials of user {user} (from {origin}) for `{repository}`", asked.host),
        ),
        None => message(
            "BX0303",
            format!("`{repository}` does not exist or is private: {} wants a login and none is configured", asked.host),
        ),
    }
}

pub(super) fn no_repository(asked: &Asked<'_>) -> Error {
    message("BX0303", format!("no repository `{}`, or it is private", asked.repository()))
}

pub(super) fn no_digest(asked: &Asked<'_>) -> Error {
    message("BX0302", format!("no manifest `{}` in {}", asked.reference, asked.repository()))
}

pub(super) fn no_blob(asked: &Asked<'_>, digest: &Digest) -> Error {
    message("BX0303", format!("{} has lost the blob {digest} of `{}`", asked.host, asked.reference))
}

pub(super) fn no_tag(asked: &Asked<'_>, tag: &str, tags: &[String]) -> Error {
    let mut near: Vec<&String> = tags.iter().filter(|t| t.len() <= 128).collect();
    near.sort_by_key(|t| (distance(tag, t), (*t).clone()));
    near.truncate(NEAREST_MAX);
    let list = near.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let list = if list.is_empty() { String::new() } else { format!("; nearest: {list}") };
    message("BX0302", format!("no tag `{tag}` in {}{list}", asked.repository()))
}

/// Edits between two tags (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
