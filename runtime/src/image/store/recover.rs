//! At open: what a crash left behind goes, and after a boot that did not end cleanly each layer published in it is
//! compared with its fingerprint. A bad one is set aside and unpacked again from its blob; nothing else is touched.

use std::fs::{File, TryLockError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::stage::LayerNote;
use super::{Index, Store, lock, write_durably};
use crate::error::{Doing, Error, Result, chain};
use crate::image::unpack::Source;

/// `boot.json`: the boot in which the store was last open, and whether it was closed for a shutdown.
#[derive(Serialize, Deserialize)]
struct BootMark {
    boot: String,
    clean: bool,
}

/// How often the lock is asked for, with [`LOCK_PAUSE`] between, before somebody else counts as living in the store.
/// Unpackers of a process that was killed hold it until they see that their input has ended.
const LOCK_TRIES: u32 = 400;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Runs alone; a process that finds another one in the store leaves this to it.
pub(super) fn recover(store: &Store, guard: &File) -> Result<()> {
    if !is_alone(guard)? {
        return guard.lock_shared().doing(|| "lock the image store");
    }
    store.clear_tmp()?;
    let layout = store.root.join("oci-layout");
    if !layout.exists() {
        write_durably(&layout, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    }
    heal_index(store)?;
    let mark = read_mark(store);
    match &mark {
        Some(mark) if mark.boot == store.boot_id => *lock(&store.clean) = mark.clean,
        Some(mark) if !mark.clean => verify_boot(store, &mark.boot)?,
        Some(_) | None => {}
    }
    if mark.is_none_or(|m| m.boot != store.boot_id) {
        write_mark(store, false)?;
    }
    guard.lock_shared().doing(|| "lock the image store")
}

fn is_alone(guard: &File) -> Result<bool> {
    for _ in 0..LOCK_TRIES {
        match guard.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(e)) => return Err(Error::io("lock the image store", e)),
        }
    }
    Ok(false)
}

/// A damaged index is set aside: images come back by asking for them again, and their layers are still here.
fn heal_index(store: &Store) -> Result<()> {
    let path = store.root.join("index.json");
    match Index::read(&path) {
        Ok(_) if path.exists() => Ok(()),
        Ok(_) => Index::default().write(&path),
        Err(Error::Untrusted(why)) => {
            let aside = store.root.join("index.json.damaged");
            tracing::warn!(%why, aside = %aside.display(), "the image index is set aside and started anew");
            std::fs::rename(&path, &aside).doing(|| format!("rename {}", path.display()))?;
            Index::default().write(&path)
        }
        Err(other) => Err(other),
    }
}

fn read_mark(store: &Store) -> Option<BootMark> {
    serde_json::from_slice(&std::fs::read(store.root.join("boot.json")).ok()?).ok()
}

fn write_mark(store: &Store, clean: bool) -> Result<()> {
    let mark = BootMark { boot: store.boot_id.clone(), clean };
    let bytes = serde_json::to_vec(&mark).map_err(std::io::Error::from).doing(|| "encode boot.json")?;
    write_durably(&store.root.join("boot.json"), &bytes)?;
    *lock(&store.clean) = clean;
    Ok(())
}

fn verify_boot(store: &Store, boot: &str) -> Result<()> {
    let dir = store.root.join("layers");
    for entry in std::fs::read_dir(&dir).doing(|| format!("read {}", dir.display()))? {
        let path = entry.doing(|| format!("read {}", dir.display()))?.path();
        let bad = match LayerNote::read(&path) {
            Some(note) if note.boot != boot => continue,
            Some(note) if store.matches(&path, &note, &|_| ()) => continue,
            bad => bad,
        };
        tracing::warn!(layer = %path.display(), "a layer is damaged; it is set aside and unpacked again");
        std::fs::rename(&path, store.tmp_path("bad")).doing(|| format!("rename {}", path.display()))?;
        if let Some(note) = bad {
            repair(store, &note);
        }
    }
    store.clear_tmp()
}

/// A layer that cannot be repaired from here is absent; the image then counts as not present and is pulled again.
fn repair(store: &Store, note: &LayerNote) {
    let again = || -> Result<()> {
        let path = store.blob_path(&note.blob);
        let file = File::open(&path).doing(|| format!("open {}", path.display()))?;
        let size = file.metadata().doing(|| format!("stat {}", path.display()))?.len();
        let mut source = Source::new(Box::new(file), note.blob.clone(), size);
        let staged = store.stage_layer(&mut source, &note.diff_id, None)?;
        store.publish_repaired(&staged)
    };
    if let Err(error) = again() {
        tracing::warn!(layer = %note.diff_id, error = %chain(&error), "not repaired from its blob; it must be pulled");
        if matches!(error, Error::Untrusted(_) | Error::Registry { .. }) {
            let _ = std::fs::remove_file(store.blob_path(&note.blob));
        }
    }
}

impl Store {
    /// Says that the host is about to go down in order: everything is on the disk, the next boot need not check.
    ///
    /// # Errors
    /// `Io`.
    pub fn mark_clean(&self) -> Result<()> {
        self.sync_all()?;
        write_mark(self, true)
    }

    /// Takes [`Store::mark_clean`] back before something is published.
    pub(super) fn mark_dirty(&self) -> Result<()> {
        let clean = *lock(&self.clean);
        if clean { write_mark(self, false) } else { Ok(()) }
    }
}
