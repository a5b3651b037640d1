//! Logins from the files Docker, Podman and skopeo write (containers-auth.json(5)): the `auths` table, and the
//! credential helpers it names. Which registry is asked, and how, is not known here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result};

mod edit;
mod helper;

pub(super) use edit::{remove, save};

/// Largest file read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A user's login to one registry. `Debug` keeps the secret.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) user: String,
    password: String,
    /// Where it was found, for messages: a file or a helper.
    pub(super) origin: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}, from {})", self.user, self.origin)
    }
}

impl Login {
    /// A login that was typed in.
    pub(super) fn typed(user: &str, password: &str) -> Self {
        Self { user: user.to_owned(), password: password.to_owned(), origin: "the command line".to_owned() }
    }

    /// The value of an `Authorization` header.
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct AuthFile {
    auths: BTreeMap<String, Entry>,
    /// Helper by host.
    cred_helpers: BTreeMap<String, String>,
    /// Helper for every other host.
    creds_store: Option<String>,
}

impl AuthFile {
    /// The helper that keeps the logins of a host.
    fn helper(&self, host: &str) -> Option<&str> {
        let own = self.cred_helpers.iter().find(|(name, _)| normal(name) == host).map(|(_, helper)| helper);
        own.or(self.creds_store.as_ref()).map(String::as_str).filter(|name| !name.is_empty())
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

/// The usual places, in the order they win. `own` is the file `boxship image login` writes.
pub(crate) fn usual_files(own: &Path) -> Vec<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let is_root = rustix::process::geteuid().is_root();
    // services started at boot have no HOME
    let home = var("HOME").or_else(|| is_root.then(|| "/root".into()));
    let docker = var("DOCKER_CONFIG").or_else(|| home.as_ref().map(|h| h.join(".docker")));
    let runtime = var("XDG_RUNTIME_DIR").or_else(|| is_root.then(|| "/run/containers/0".into()));
    let runtime = runtime.map(|d| if d.ends_with("containers/0") { d } else { d.join("containers") });
    let config = var("XDG_CONFIG_HOME").or_else(|| home.map(|h| h.join(".config")));
    [
        var("REGISTRY_AUTH_FILE"),
        Some(own.to_owned()),
        runtime.map(|d| d.join("auth.json")),
        config.map(|d| d.join("containers/auth.json")),
        docker.map(|d| d.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The login for a repository: the most specific entry of the first file that has one.
///
/// # Errors
/// `Registry` `BX0304` when a file is there but cannot be understood: pulling without a login would say something
/// misleading.
pub(super) fn find(files: &[PathBuf], host: &str, repository: &str) -> Result<Option<Login>> {
    for file in files {
        let Some(table) = read(file)? else { continue };
        for key in keys(host, repository) {
            let entry = table.auths.iter().find(|(name, _)| normal(name) == key).map(|(_, entry)| entry);
            if let Some(login) = entry.and_then(|e| login(e, file)) {
                return Ok(Some(login));
            }
        }
        if let Some(helper) = table.helper(host)
            && let Some(login) = helper::get(helper, host)?
        {
            return Ok(Some(login));
        }
    }
    Ok(None)
}

fn read(file: &Path) -> Result<Option<AuthFile>> {
    let refuse = |why: String| Error::Registry {
        code: "BX0304",
        message: format!("the credentials in {} cannot be read: {why}", file.display()),
        retry: false,
    };
    match std::fs::metadata(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(refuse(e.to_string())),
        Ok(meta) if meta.len() > FILE_BYTES_MAX => return Err(refuse("it is too large".into())),
        Ok(_) => {}
    }
    let bytes = std::fs::read(file).map_err(|e| refuse(e.to_string()))?;
    // serde's messages quote what they found, which may be a secret: say only where
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|e| refuse(format!("line {} column {} is not valid", e.line(), e.column())))
}

/// From the whole repository down to the host.
fn keys(host: &str, repository: &str) -> Vec<String> {
    let whole = format!("{host}/{repository}");
    let cuts = whole.match_indices('/').map(|(at, _)| whole[..at].to_owned());
    let mut keys: Vec<String> = cuts.chain([whole.clone()]).collect();
    keys.reverse();
    if host == "docker.io" {
        keys.extend(["index.docker.io".to_owned(), "registry-1.docker.io".to_owned()]);
    }
    keys
}

/// `https://index.docker.io/v1/` as `docker login` writes it is `index.docker.io`.
fn normal(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

fn login(entry: &Entry, file: &Path) -> Option<Login> {
    let origin = file.display().to_string();
    if let (Some(user), Some(password)) = (&entry.username, &entry.password) {
        return Some(Login { user: user.clone(), password: password.clone(), origin });
    }
    let decoded = STANDARD.decode(entry.auth.as_deref()?.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Login { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned(), origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_entry_wins() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("auth.json");
        let auth = |user: &str| STANDARD.encode(format!("{user}:pw"));
        let text = format!(
            r#"{{"auths":{{"h.example":{{"auth":"{}"}},"h.example/shop":{{"auth":"{}"}},
            "https://index.docker.io/v1/":{{"auth":"{}"}},"empty.example":{{}}}}}}"#,
            auth("all"),
            auth("shop"),
            auth("hub")
        );
        std::fs::write(&file, text).unwrap();
        let files = [dir.path().join("absent"), file];
        let user = |host, repository| find(&files, host, repository).unwrap().map(|l| l.user);
        assert_eq!(user("h.example", "shop/web").as_deref(), Some("shop"));
        assert_eq!(user("h.example", "shopping/web").as_deref(), Some("all"));
        assert_eq!(user("docker.io", "library/nginx").as_deref(), Some("hub"));
        assert_eq!(user("empty.example", "a"), None);
        assert_eq!(user("other.example", "a"), None);
    }

    #[test]
    fn a_broken_file_is_an_error_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("auth.json");
        std::fs::write(&file, r#"{"auths": {"h.example": {"auth": "hunter2" "#).unwrap();
        let message = find(&[file], "h.example", "a").unwrap_err().to_string();
        assert!(message.contains("line 1") && !message.contains("hunter2"), "{message}");
    }
}
