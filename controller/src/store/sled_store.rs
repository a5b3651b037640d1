//! The persisted store: an in-memory copy for readers, and one writer thread that owns the database.
//!
//! The writer takes all commits that wait, writes them as one batch with one flush, and answers them all (group
//! commit). An error poisons the open database: it is opened anew and brought to the state of the in-memory copy, so
//! it also survives being deleted or replaced under our feet.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use runtime::clock;

use super::database::Database;
pub use super::database::Opened;
use super::{Batch, Model, StateStore, StoreError, apply, checkpoint, record, scan};

/// Format of keys and values; raised when older programs would misread them.
const FORMAT: u32 = 1;
const FORMAT_KEY: &str = "meta/format";

/// Between two tries to open a database that cannot be written.
const REOPEN_AFTER_MS: u64 = 5_000;

/// Between two checkpoints while things change.
const CHECKPOINT_EVERY_MS: u64 = 10 * 60 * 1_000;

/// Most commits written with one flush.
const GROUP_MAX: usize = 256;

/// Space set aside so that state can still be written, and objects deleted, on a full disk.
const BALLAST_BYTES: u64 = 8 << 20;

type Ack = Sender<Result<(), StoreError>>;

enum Command {
    Commit(Batch, Ack),
    Close(Sender<()>),
}

/// A store on disk.
pub struct SledStore {
    shared: Arc<Shared>,
    /// Held while a commit changes the copy and enters the queue, so that both have the same order.
    commands: Mutex<Sender<Command>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    opened: Opened,
}

struct Shared {
    model: RwLock<Model>,
    problem: Mutex<Option<String>>,
}

impl SledStore {
    /// Opens the store in `dir` (made when missing): `lock`, `sled/`, `checkpoint.jsonl`, `ballast`. Damage never fails this;
    /// see [`Self::opened`] for what was found.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Newer`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let lock = lock(dir)?;
        let (database, model, opened) = load(dir);
        if let Some(found) = model.get(FORMAT_KEY).and_then(|text| text.parse::<u32>().ok())
            && found > FORMAT
        {
            return Err(StoreError::Newer { found, known: FORMAT });
        }
        let problem = match &opened {
            Opened::NotPersisted { why } => Some(why.clone()),
            Opened::Fresh | Opened::Existing | Opened::WithoutSnapshots { .. } | Opened::Rebuilt { .. } => None,
        };
        let wide = wide_records(&model);
        let shared = Arc::new(Shared { model: RwLock::new(model), problem: Mutex::new(problem) });
        let (commands, inbox) = channel();
        let mut writer = Writer {
            dir: dir.to_owned(),
            wide,
            shared: Arc::clone(&shared),
            database,
            inbox,
            retry_at_boot_ms: 0,
            checkpoint_due_boot_ms: None,
            lock,
        };
        let thread = std::thread::Builder::new()
            .name("state-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|e| StoreError::NotPersisted(format!("start a thread: {e}")))?;
        let store = Self { shared, commands: Mutex::new(commands), writer: Mutex::new(Some(thread)), opened };
        let mut format = Batch::default();
        if store.get(FORMAT_KEY).is_none() || matches!(store.opened, Opened::Rebuilt { .. }) {
            format.put(FORMAT_KEY, FORMAT.to_string());
            // A failure is kept as the store's problem.
            let _ = store.commit(format);
        }
        Ok(store)
    }

    /// What was found and done when it was opened.
    #[must_use]
    pub fn opened(&self) -> &Opened {
        &self.opened
    }
}

impl StateStore for SledStore {
    fn get(&self, key: &str) -> Option<String> {
        self.shared.model.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn scan_prefix(&self, prefix: &str) -> Vec<(String, String)> {
        scan(&self.shared.model.read().unwrap_or_else(PoisonError::into_inner), prefix)
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        batch.check()?;
        if batch.is_empty() {
            return Ok(());
        }
        let (ack, acked) = channel();
        let gone = || StoreError::NotPersisted("the store is closed".to_owned());
        {
            let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            apply(&mut self.shared.model.write().unwrap_or_else(PoisonError::into_inner), &batch);
            commands.send(Command::Commit(batch, ack)).map_err(|_| gone())?;
        }
        acked.recv().map_err(|_| gone())?
    }

    fn problem(&self) -> Option<String> {
        self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn close(&self) {
        let (ack, acked) = channel();
        let sent = self.commands.lock().unwrap_or_else(PoisonError::into_inner).send(Command::Close(ack));
        if sent.is_ok() {
            let _ = acked.recv();
        }
        if let Some(thread) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.close();
    }
}

/// Takes the lock that makes us the only writer of this data root.
fn lock(dir: &Path) -> Result<Option<Flock<File>>, StoreError> {
    let path = dir.join("lock");
    let open = || -> std::io::Result<File> {
        std::fs::create_dir_all(dir)?;
        File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)
    };
    // A directory that cannot be made is reported by the open that follows; there is then nothing to guard.
    let Ok(file) = open() else { return Ok(None) };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut locked) => {
            let _ = locked.set_len(0).and_then(|()| locked.rewind());
            let _ = write!(locked, "{}", std::process::id());
            Ok(Some(locked))
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let holder = if pid.is_empty() { String::new() } else { format!(" by pid {pid}") };
            Err(StoreError::Locked { path, holder })
        }
        Err((_, errno)) => Err(StoreError::NotPersisted(format!("lock {}: {errno}", path.display()))),
    }
}

/// Opens the database and reads it; an unusable one is replaced by the checkpoint's content.
fn load(dir: &Path) -> (Option<Database>, Model, Opened) {
    let from_checkpoint = || checkpoint::read(&dir.join("checkpoint.jsonl"));
    let not_persisted = |why| (None, from_checkpoint(), Opened::NotPersisted { why });
    let (database, opened) = match Database::open(&dir.join("sled"), clock::unix_ms()) {
        Ok(ok) => ok,
        Err(why) => return not_persisted(why),
    };
    make_ballast(dir);
    match &opened {
        Opened::Existing | Opened::WithoutSnapshots { .. } => {
            let pairs = match database.read_all() {
                Ok(pairs) => pairs,
                Err(why) => return not_persisted(why),
            };
            let (model, unreadable) = record::decode(&pairs);
            if unreadable > 0 {
                tracing::warn!(unreadable, "records of the state database were unreadable and are rebuilt");
            }
            // Every database we made holds its format: one without is another's, or opened "well" with nothing in it.
            if model.contains_key(FORMAT_KEY) {
                return (Some(database), model, opened);
            }
            let model = from_checkpoint();
            match bring_to(&database, &model) {
                Ok(()) => (Some(database), model, opened),
                Err(why) => (None, model, Opened::NotPersisted { why }),
            }
        }
        Opened::Fresh | Opened::Rebuilt { .. } | Opened::NotPersisted { .. } => {
            let model = from_checkpoint();
            match bring_to(&database, &model) {
                Ok(()) => (Some(database), model, opened),
                Err(why) => (None, model, Opened::NotPersisted { why }),
            }
        }
    }
}

/// Makes the database's content equal to the model's, in one batch with what differs.
fn bring_to(database: &Database, model: &Model) -> Result<(), String> {
    let there = database.read_all()?;
    let wanted: BTreeMap<_, _> = model.iter().flat_map(|(key, json)| record::encode(key, json)).collect();
    let gone = there.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.clone(), None));
    let new = wanted.iter().filter(|(key, value)| there.get(*key) != Some(value));
    let changes: Vec<_> = gone.chain(new.map(|(key, value)| (key.clone(), Some(value.clone())))).collect();
    if changes.is_empty() { Ok(()) } else { database.write(changes) }
}

fn make_ballast(dir: &Path) {
    let path = dir.join("ballast");
    if path.exists() {
        return;
    }
    let made = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path).and_then(|file| {
        let len = i64::try_from(BALLAST_BYTES).unwrap_or(i64::MAX);
        nix::fcntl::posix_fallocate(&file, 0, len).map_err(std::io::Error::from)
    });
    if made.is_err() {
        let _ = std::fs::remove_file(&path);
    }
}

struct Writer {
    dir: PathBuf,
    shared: Arc<Shared>,
    database: Option<Database>,
    /// How many parts the records of more than one have in the database.
    wide: BTreeMap<String, u16>,
    inbox: Receiver<Command>,
    retry_at_boot_ms: u64,
    /// Set while something changed since the last checkpoint.
    checkpoint_due_boot_ms: Option<u64>,
    /// Makes us the only writer.
    lock: Option<Flock<File>>,
}

impl Writer {
    fn run(&mut self) {
        loop {
            let Some(command) = self.next() else { return };
            let mut group = Vec::new();
            let mut close = None;
            let mut next = Some(command);
            while let Some(command) = next.take() {
                match command {
                    Command::Commit(batch, ack) => group.push((batch, ack)),
                    Command::Close(ack) => close = Some(ack),
                }
                if close.is_none() && group.len() < GROUP_MAX {
                    next = self.inbox.try_recv().ok();
                }
            }
            self.commit(group);
            if let Some(ack) = close {
                self.checkpoint();
                self.database = None;
                let _ = ack.send(());
                return;
            }
        }
    }

    /// The next command; writes the checkpoint while waiting when it is due. Sleeps for ever when nothing changed.
    fn next(&mut self) -> Option<Command> {
        loop {
            let Some(due) = self.checkpoint_due_boot_ms else { return self.inbox.recv().ok() };
            match self.inbox.recv_timeout(Duration::from_millis(due.saturating_sub(clock::boot_ms()))) {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Timeout) => self.checkpoint(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn commit(&mut self, group: Vec<(Batch, Ack)>) {
        if group.is_empty() {
            return;
        }
        let result = self.persist(group.iter().map(|(batch, _)| batch));
        let problem = result.as_ref().err().cloned();
        let result = result.map_err(StoreError::NotPersisted);
        {
            let mut known = self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner);
            match (&*known, &problem) {
                (None, Some(why)) => tracing::error!(why, "state is not persisted; planning goes on"),
                (Some(_), None) => tracing::info!("state is persisted again"),
                (None, None) | (Some(_), Some(_)) => {}
            }
            *known = problem;
        }
        for (_, ack) in group {
            let _ = ack.send(result.clone());
        }
        self.checkpoint_due_boot_ms.get_or_insert_with(|| clock::boot_ms() + CHECKPOINT_EVERY_MS);
    }

    /// Writes the batches, or brings a newly opened database to the whole model (which holds them already).
    fn persist<'a>(&mut self, batches: impl Iterator<Item = &'a Batch>) -> Result<(), String> {
        if let Some(database) = &self.database
            && database.is_in_place()
        {
            let mut all = Batch::default();
            batches.for_each(|batch| all.changes.extend(batch.changes.clone()));
            match database.write(encode(&all, &mut self.wide)) {
                Ok(()) => return Ok(()),
                Err(why) => {
                    tracing::warn!(why, "a write to the state database failed; opening it anew");
                    let _ = std::fs::remove_file(self.dir.join("ballast"));
                }
            }
        } else if clock::boot_ms() < self.retry_at_boot_ms {
            return Err(self.known_problem());
        }
        self.database = None;
        let reopened = self.reopen();
        self.retry_at_boot_ms = if reopened.is_err() { clock::boot_ms() + REOPEN_AFTER_MS } else { 0 };
        reopened
    }

    fn reopen(&mut self) -> Result<(), String> {
        if !self.dir.join("lock").exists() {
            // Somebody deleted the directory: the lock we hold guards nothing any more.
            self.lock = lock(&self.dir).map_err(|e| e.to_string())?;
        }
        let (database, _) = Database::open(&self.dir.join("sled"), clock::unix_ms())?;
        let model = self.shared.model.read().unwrap_or_else(PoisonError::into_inner).clone();
        bring_to(&database, &model)?;
        self.wide = wide_records(&model);
        self.database = Some(database);
        make_ballast(&self.dir);
        Ok(())
    }

    fn known_problem(&self) -> String {
        let known = self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.unwrap_or_else(|| "the state database is not open".to_owned())
    }

    fn checkpoint(&mut self) {
        if self.checkpoint_due_boot_ms.take().is_none() {
            return;
        }
        let model = self.shared.model.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Err(error) = checkpoint::write(&self.dir.join("checkpoint.jsonl"), &model) {
            tracing::warn!(%error, "the checkpoint of the state database could not be written");
        }
    }
}

/// The database's changes for a batch. `wide` holds how many parts the records of more than one have.
fn encode(batch: &Batch, wide: &mut BTreeMap<String, u16>) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut changes = Vec::new();
    for (key, change) in &batch.changes {
        let new = change.as_deref().map_or(0, record::parts);
        let old = wide.remove(key).unwrap_or(1);
        if new > 1 {
            wide.insert(key.clone(), new);
        }
        if let Some(json) = change {
            changes.extend(record::encode(key, json).into_iter().map(|(k, v)| (k, Some(v))));
        }
        changes.extend(record::part_keys(key, new, old).map(|k| (k, None)));
    }
    changes
}

fn wide_records(model: &Model) -> BTreeMap<String, u16> {
    let parts = model.iter().map(|(key, json)| (key.clone(), record::parts(json)));
    parts.filter(|(_, parts)| *parts > 1).collect()
}
