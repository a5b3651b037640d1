//! sled in its cage: one open database, opened so that no damage on disk can stop the controller from starting.
//!
//! What the rules below answer (all reproduced with sled 0.34.7): a kill while opening leaves `snap.*.generating`,
//! which is then taken for the newest snapshot and fails every later open; `conf` is written without fsync; `flush()`
//! uses sync_file_range, which keeps neither the file's size nor the device's cache; `open` can panic or hang.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::durable::sync_dir;

/// Bytes of sled's page cache. Its default is 1 GiB; we read everything once.
const CACHE_BYTES: u64 = 1 << 20;

/// sled's own background flush, a second net behind the flush of each commit. Writes nothing while nothing changed.
const FLUSH_EVERY_MS: u64 = 1_000;

/// Longest open. Replaying a log of 100 MB takes about a second; longer is a hang.
const OPEN_TIME_MAX: Duration = Duration::from_secs(30);

/// Databases that could not be opened and were moved aside; older ones are deleted.
const BROKEN_KEPT: usize = 2;

/// What had to be done to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// There was none.
    Fresh,
    /// As it was left.
    Existing,
    /// Its snapshots were unusable and dropped; the log had everything.
    WithoutSnapshots {
        /// What the first try said.
        why: String,
    },
    /// It was unusable: moved aside, a fresh one filled from the checkpoint.
    Rebuilt {
        /// What the tries said.
        why: String,
        /// Where the old one is.
        moved_to: PathBuf,
    },
    /// None could be opened or made: memory only, tried again at later commits.
    NotPersisted {
        /// Why.
        why: String,
    },
}

/// An open database.
pub(super) struct Database {
    db: Option<sled::Db>,
    /// Our own descriptor of `db`, for the fdatasync that makes a flush safe against power loss.
    file: File,
    path: PathBuf,
}

impl Database {
    /// Opens or makes the database in `dir`, repairing what can be repaired.
    pub(super) fn open(dir: &Path, unix_ms: u64) -> Result<(Self, Opened), String> {
        let fresh = !dir.join("db").exists();
        let first = match Self::open_once(dir, fresh) {
            Ok(database) if fresh => return Ok((database, Opened::Fresh)),
            Ok(database) => return Ok((database, Opened::Existing)),
            Err(why) => why,
        };
        remove_matching(dir, |name| name.starts_with("snap."));
        let why = match Self::open_once(dir, fresh) {
            Ok(database) => return Ok((database, Opened::WithoutSnapshots { why: first })),
            Err(second) if first == second => first,
            Err(second) => format!("{first}; without snapshots: {second}"),
        };
        let moved_to = dir.with_extension(format!("broken-{unix_ms}"));
        std::fs::rename(dir, &moved_to).map_err(|e| format!("{why}; cannot move it aside: {e}"))?;
        delete_old_broken(dir);
        let database = Self::open_once(dir, true).map_err(|third| format!("{why}; a fresh one: {third}"))?;
        Ok((database, Opened::Rebuilt { why, moved_to }))
    }

    fn open_once(dir: &Path, fresh: bool) -> Result<Self, String> {
        std::fs::create_dir_all(dir).map_err(|e| format!("make directory {}: {e}", dir.display()))?;
        remove_matching(dir, |name| name.starts_with("snap.") && name.ends_with(".generating"));
        let db = open_sled(dir)?;
        let path = dir.join("db");
        let opened = File::open(&path).map_err(|e| format!("open {}: {e}", path.display()))?;
        if fresh {
            make_creation_durable(dir).map_err(|e| format!("sync {}: {e}", dir.display()))?;
        }
        Ok(Self { db: Some(db), file: opened, path })
    }

    /// Everything in it.
    pub(super) fn read_all(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
        self.caught("read", |db| {
            db.iter().map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
        })
    }

    /// Applies changes as one atomic batch and returns once they are on stable storage.
    pub(super) fn write(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), String> {
        self.caught("write", |db| {
            let mut batch = sled::Batch::default();
            for (key, value) in changes {
                match value {
                    Some(value) => batch.insert(key, value),
                    None => batch.remove(key),
                }
            }
            db.apply_batch(batch)?;
            db.flush().map(drop)
        })?;
        self.file.sync_data().map_err(|e| format!("fdatasync {}: {e}", self.path.display()))
    }

    /// Whether the files we write are still the ones under our path: nobody deleted or replaced them.
    pub(super) fn is_in_place(&self) -> bool {
        let ours = self.file.metadata().map(|m| (m.dev(), m.ino()));
        let there = std::fs::metadata(&self.path).map(|m| (m.dev(), m.ino()));
        matches!((ours, there), (Ok(ours), Ok(there)) if ours == there)
    }

    fn caught<T>(&self, doing: &str, work: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, String> {
        let Some(db) = &self.db else { return Err("closed".to_owned()) };
        match std::panic::catch_unwind(AssertUnwindSafe(|| work(db))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(format!("{doing} {}: {e}", self.path.display())),
            Err(panic) => Err(format!("{doing} {}: sled panicked: {}", self.path.display(), panic_text(&*panic))),
        }
    }
}

impl Drop for Database {
    /// sled flushes when dropped, which can panic or hang after an error: on a thread of its own, with a time limit.
    fn drop(&mut self) {
        let db = self.db.take();
        let (done, dropped) = mpsc::channel();
        let dropping = std::thread::Builder::new().name("state-close".to_owned()).spawn(move || {
            let _ = std::panic::catch_unwind(AssertUnwindSafe(|| drop(db)));
            let _ = done.send(());
        });
        if dropping.is_ok() {
            let _ = dropped.recv_timeout(OPEN_TIME_MAX);
        }
    }
}

/// Opens sled on its own thread, so that a panic or a hang inside stays there.
fn open_sled(dir: &Path) -> Result<sled::Db, String> {
    let (answer, answered) = mpsc::channel();
    let path = dir.to_owned();
    let open = move || {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            .use_compression(false)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        let result = match std::panic::catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => Ok(db),
            Ok(Err(e)) => Err(e.to_string()),
            Err(panic) => Err(format!("sled panicked: {}", panic_text(&*panic))),
        };
        let _ = answer.send(result);
    };
    std::thread::Builder::new()
        .name("state-open".to_owned())
        .spawn(open)
        .map_err(|e| format!("start a thread: {e}"))?;
    let result = answered.recv_timeout(OPEN_TIME_MAX).unwrap_or_else(|_| Err("no answer in time".to_owned()));
    result.map_err(|why| format!("open {}: {why}", dir.display()))
}

/// sled syncs neither `conf` nor the directories it makes.
fn make_creation_durable(dir: &Path) -> io::Result<()> {
    File::open(dir.join("conf"))?.sync_all()?;
    File::open(dir.join("db"))?.sync_all()?;
    if dir.join("blobs").exists() {
        sync_dir(&dir.join("blobs"))?;
    }
    sync_dir(dir)?;
    dir.parent().map_or(Ok(()), sync_dir)
}

fn remove_matching(dir: &Path, matches: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(&matches) {
            // What stays makes the open below fail, which is reported there.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn delete_old_broken(dir: &Path) {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name().and_then(|n| n.to_str())) else { return };
    let prefix = format!("{name}.broken-");
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut broken: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|n| n.starts_with(&prefix)))
        .map(|entry| entry.path())
        .collect();
    broken.sort();
    broken.truncate(broken.len().saturating_sub(BROKEN_KEPT));
    for path in broken {
        let _ = std::fs::remove_dir_all(path);
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
