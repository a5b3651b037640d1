//! Content files on the host: versions of a directory, the current one behind a link.
//!
//! A mounted file is pinned for ever; a link inside a mounted directory can be swapped while the container runs.
//! Layout: `files/..1/<name>`, `files/..data -> ..1`. What the container follows is `/dev/.files/..data/<name>`.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use crate::error::{Doing as _, Error, Result};

/// The link to the current version.
pub const CURRENT: &str = "..data";

/// One file: its name below the version directory (one directory at most), its bytes, its permission bits.
pub type ContentFile<'a> = (&'a str, &'a [u8], u32);

/// Writes a new version with these files and makes it the current one, in one step for every reader. Older versions
/// are removed. Works while containers run.
///
/// # Errors
/// `Io`.
pub fn publish(dir: &Path, files: &[ContentFile<'_>]) -> Result<()> {
    let doing = || format!("write the content files in {}", dir.display());
    make_dir(dir).doing(doing)?;
    let old = fs::read_link(dir.join(CURRENT)).ok();
    let number = old.as_ref().and_then(|name| name.to_str()?.strip_prefix("..")?.parse::<u64>().ok()).unwrap_or(0) + 1;
    let version = format!("..{number}");
    let fresh = dir.join(&version);
    remove(&fresh).doing(doing)?;
    make_dir(&fresh).doing(doing)?;
    for (name, content, mode) in files {
        let path = fresh.join(name);
        if let Some(parent) = path.parent().filter(|parent| *parent != fresh) {
            make_dir(parent).doing(doing)?;
        }
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path).doing(doing)?;
        io::Write::write_all(&mut file, content).doing(doing)?;
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
fn make_dir(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
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
        publish(&files, &[("0/app.toml", b"one", 0o640), ("1/x", b"", 0o600)]).unwrap();
        let current = files.join(CURRENT);
        assert_eq!(fs::read(current.join("0/app.toml")).unwrap(), b"one");
        let open = fs::File::open(current.join("0/app.toml")).unwrap();
        assert_eq!(open.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        publish(&files, &[("0/app.toml", b"two", 0o640)]).unwrap();
        assert_eq!(fs::read(current.join("0/app.toml")).unwrap(), b"two");
        assert_eq!(io::read_to_string(open).unwrap(), "one");
        assert_eq!(fs::read_dir(&files).unwrap().count(), 2);
    }
}
