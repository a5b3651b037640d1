//! A look at the records of a data root that nobody has open, for commands that may not change anything there: the
//! database is copied and the copy is opened, since sled writes wherever it opens.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::database::Database;
use super::{Batch, StateStore as _, VolatileStore, checkpoint, record};

/// The records of the store in `dir`, in memory. What cannot be read is taken from the checkpoint; what is not there is
/// empty. The caller sees to it that nobody writes there meanwhile. Blocks.
///
/// # Errors
/// When the directory is there and may not be read, or no copy of it can be made.
pub fn snapshot(dir: &Path) -> io::Result<VolatileStore> {
    let store = VolatileStore::default();
    let sled = dir.join("sled");
    let model = match fs::read_dir(&sled) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => checkpoint::read(&dir.join("checkpoint.jsonl")),
        Err(error) => return Err(error),
        Ok(_) => {
            let copy = Copy::of(&sled)?;
            let pairs = Database::open(&copy.0, 0).and_then(|(database, _)| database.read_all());
            match pairs {
                Ok(pairs) if !pairs.is_empty() => record::decode(&pairs).0,
                Ok(_) | Err(_) => checkpoint::read(&dir.join("checkpoint.jsonl")),
            }
        }
    };
    let mut all = Batch::default();
    for (key, json) in model {
        all.put(key, json);
    }
    store.commit(all).map_err(io::Error::other)?;
    Ok(store)
}

/// A copy of a directory that goes when it is dropped.
struct Copy(PathBuf);

impl Copy {
    fn of(from: &Path) -> io::Result<Self> {
        let at = std::env::temp_dir().join(format!("boxship-look-{}", std::process::id()));
        let copy = Self(at.join("sled"));
        fs::DirBuilder::new().mode(0o700).create(&at)?;
        copy_tree(from, &copy.0)?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Some(at) = self.0.parent() {
            // At worst a directory of root's stays in /tmp.
            let _ = fs::remove_dir_all(at);
        }
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}
