//! Who holds a data root: one controller, or one command that works without a controller. An exclusive lock on
//! `DATA_ROOT/lock`, which ends with its process however that ends; the file says who it is, for messages.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};

use crate::error::{Doing, Error, Result};
use crate::layout::{Layout, make_private_dir};

/// A data root held alone, until dropped.
#[derive(Debug)]
pub struct Alone {
    _lock: File,
}

impl Alone {
    /// Takes the data root, or says who has it (`controller, pid 12`). `who` is what others are told.
    ///
    /// # Errors
    /// `Io`.
    pub fn try_take(layout: &Layout, who: &str) -> Result<std::result::Result<Self, String>> {
        let mut file = open(layout)?;
        match file.try_lock() {
            Ok(()) => sign(&mut file, who).map(|()| Ok(Self { _lock: file })),
            Err(TryLockError::WouldBlock) => Ok(Err(holder(&mut file))),
            Err(TryLockError::Error(e)) => Err(Error::io("lock the data root", e)),
        }
    }

    /// Keeps others from taking the data root, for a look: nothing is made or written. `Ok(None)` where nobody ever took it.
    ///
    /// # Errors
    /// `Io`, also when it may not be read.
    pub fn look(layout: &Layout) -> Result<std::result::Result<Option<Self>, String>> {
        let path = layout.data_root.join("lock");
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Ok(None)),
            other => other.doing(|| format!("open {}", path.display()))?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Ok(Some(Self { _lock: file }))),
            Err(TryLockError::WouldBlock) => Ok(Err(holder(&mut file))),
            Err(TryLockError::Error(e)) => Err(Error::io("lock the data root", e)),
        }
    }

    /// Takes the data root as soon as it is free.
    ///
    /// # Errors
    /// `Io`.
    pub fn wait(layout: &Layout, who: &str) -> Result<Self> {
        match Self::try_take(layout, who)? {
            Ok(alone) => return Ok(alone),
            Err(holder) => tracing::info!(holder, "the data root is in use; waiting for it"),
        }
        let mut file = open(layout)?;
        file.lock().doing(|| "lock the data root")?;
        sign(&mut file, who).map(|()| Self { _lock: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut holder = String::new();
    // a name being written is half a name at worst
    let _ = file.take(256).read_to_string(&mut holder);
    holder.chars().filter(|c| !c.is_control()).collect()
}

fn open(layout: &Layout) -> Result<File> {
    make_private_dir(&layout.data_root)?;
    let path = layout.data_root.join("lock");
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    file.doing(|| format!("open {}", path.display()))
}

fn sign(file: &mut File, who: &str) -> Result<()> {
    let text = format!("{who}, pid {}", std::process::id());
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
    written.doing(|| "write down who holds the data root")
}
