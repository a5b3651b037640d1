//! Changing a credentials file: one entry is put in or taken out, everything else stays as it was written by whichever
//! tool. Replaced in one step, mode 0600 from its first byte on.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{AuthFile, FILE_BYTES_MAX, Login, helper, normal, read};
use crate::error::{Doing, Error, Result};

/// Keeps a login for `host`: in the helper the file names, else in the file. Says where.
pub(in crate::image::registry) fn save(file: &Path, host: &str, login: &Login) -> Result<String> {
    let table = read(file)?.unwrap_or_default();
    if let Some(name) = table.helper(host) {
        helper::store(name, host, login)?;
        return Ok(format!("docker-credential-{name}"));
    }
    let auth = STANDARD.encode(format!("{}:{}", login.user, login.password));
    edit(file, |auths| {
        auths.retain(|key, _| normal(key) != host);
        auths.insert(host.to_owned(), json!({ "auth": auth }));
    })?;
    Ok(file.display().to_string())
}

/// Forgets the login of `host`; whether there was one in the file.
pub(in crate::image::registry) fn remove(file: &Path, host: &str) -> Result<bool> {
    let Some(table) = read(file)? else { return Ok(false) };
    if let Some(name) = table.helper(host) {
        helper::erase(name, host)?;
    }
    if !has(&table, host) {
        return Ok(table.helper(host).is_some());
    }
    edit(file, |auths| auths.retain(|key, _| !is_of(key, host)))?;
    Ok(true)
}

fn has(table: &AuthFile, host: &str) -> bool {
    table.auths.keys().any(|key| is_of(key, host))
}

/// `docker login` files Docker Hub under its old name.
fn is_of(key: &str, host: &str) -> bool {
    normal(key) == host || (host == "docker.io" && normal(key) == "index.docker.io")
}

/// Reads, changes and replaces the file, alone among processes that use this function.
fn edit(file: &Path, change: impl FnOnce(&mut Map<String, Value>)) -> Result<()> {
    // a link people made to their real file stays a link
    let path = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    crate::layout::make_private_dir(dir)?;
    let guard = File::open(dir).doing(|| format!("open {}", dir.display()))?;
    guard.lock().doing(|| format!("lock {}", dir.display()))?;
    let mut whole = contents(&path)?;
    let auths = whole.entry("auths").or_insert_with(|| json!({}));
    let Value::Object(auths) = auths else {
        return Err(Error::Conflict(format!("`auths` in {} is no table; the file is left as it is", path.display())));
    };
    change(auths);
    let mut bytes = serde_json::to_vec_pretty(&whole).map_err(std::io::Error::from).doing(|| "encode credentials")?;
    bytes.push(b'\n');
    replace(&path, &bytes)?;
    guard.sync_all().doing(|| format!("sync {}", dir.display()))
}

fn contents(path: &Path) -> Result<Map<String, Value>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).doing(|| format!("read {}", path.display()))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(e) => return Err(Error::io(format!("open {}", path.display()), e)),
    };
    // its text is never quoted: it may hold secrets
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::Conflict(format!("{} is not valid JSON (line {}); it is left as it is", path.display(), e.line()))
    })
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staged: PathBuf = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let doing = || format!("write {}", staged.display());
    let _ = std::fs::remove_file(&staged);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&staged).doing(doing)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&staged, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&staged);
    }
    written.doing(|| format!("replace {}", path.display()))
}
