//! Content files on the host: versions of a directory, the current one behind a link.
//!
//! A mounted file is pinned for ever; a link inside a mounted directory can be swapped while the container runs.
//! Layout: `files/..1/<name>`, `files/..data -> ..1`. What the container follows is `/dev/.files/..data/<name>`.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use crate::error::{Doing as _, Error, Result};
use crate::runtime::IdRange;

/// The link to the current version.
pub const CURRENT: &str = "..data";

/// One file.
#[derive(Debug, Clone, Copy)]
pub struct ContentFile<'a> {
    /// Its name below the version directory (one directory at most).
    pub name: &'a str,
    /// Its bytes.
    pub content: &'a [u8],
    /// Its permission bits.
    pub mode: u32,
    /// User and group inside the container; looked at where the ids of the host are stored.
    pub owner: [u32; 2],
}

/// Writes a new version with these files and makes it the current one, in one step for every reader. Older versions
/// are removed. Works while containers run. With `ids` everything belongs to the host's ids that stand for the owners inside,
/// else to whoever writes.
///
/// # Errors
/// `Io`.
pub fn publish(dir: &Path, files: &[ContentFile<'_>], ids: Option<IdRange>) -> Result<()> {
    let doing = || format!("write the content files in {}", dir.display());
    make_dir(dir, ids).doing(doing)?;
    let old = fs::read_link(dir.join(CURRENT)).ok();
    let number = old.as_ref().and_then(|name| name.to_str()?.strip_prefix("..")?.parse::<u64>().ok()).unwrap_or(0) + 1;
    let version = format!("..{number}");
    let fresh = dir.join(&version);
    remove(&fresh).doing(doing)?;
    make_dir(&fresh, ids).doing(doing)?;
    for ContentFile { name, content, mode, owner } in files {
        let path = fresh.join(name);
        if let Some(parent) = path.parent().filter(|parent| *parent != fresh) {
            make_dir(parent, ids).doing(doing)?;
        }
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path).doing(doing)?;
        io::Write::write_all(&mut file, content).doing(doing)?;
        give(&path, *owner, ids).doing(doing)?;
        file.set_permissions(fs::Permissions::from_mode(mode & 0o777)).doing(doing)?;
    }
    let link = dir.join("..next");
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(doing(), error)),
        _ => {}
    }
    std::os::unix::fs::symlink(&version, &link).doing(doing)?;
    fs::rename(&link, dir.join(CURRENT)).doing(doing)?;
    match old {
        Some(old) => remove(&dir.join(old)).doing(doing),
        None => Ok(()),
    }
}

/// Readable for everybody inside, whatever the umask; the host's directories above are shut.
fn make_dir(path: &Path, ids: Option<IdRange>) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    give(path, [0, 0], ids)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn give(path: &Path, [user, group]: [u32; 2], ids: Option<IdRange>) -> io::Result<()> {
    let Some(ids) = ids else { return Ok(()) };
    let inside = |id: u32| {
        let beyond = || io::Error::new(io::ErrorKind::InvalidInput, format!("id {id} is beyond the container's range"));
        (id < ids.len).then(|| ids.host_start + id).ok_or_else(beyond)
    };
    std::os::unix::fs::lchown(path, Some(inside(user)?), Some(inside(group)?))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_version_replaces_the_old_one_behind_the_link() {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("files");
        let file = |name, content, mode| ContentFile { name, content, mode, owner: [0, 0] };
        publish(&files, &[file("0/app.toml", b"one", 0o640), file("1/x", b"", 0o600)], None).unwrap();
        let current = files.join(CURRENT);
        assert_eq!(fs::read(current.join("0/app.toml")).unwrap(), b"one");
        let open = fs::File::open(current.join("0/app.toml")).unwrap();
        assert_eq!(open.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        publish(&files, &[file("0/app.toml", b"two", 0o640)], None).unwrap();
        assert_eq!(fs::read(current.join("0/app.toml")).unwrap(), b"two");
        assert_eq!(io::read_to_string(open).unwrap(), "one");
        assert_eq!(fs::read_dir(&files).unwrap().count(), 2);
    }
}
