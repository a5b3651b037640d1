//! Where manifests come from: each source is loaded, accepted by the rules of `model::accept`, kept on disk, and merged
//! with the others into the one desired state.
//!
//! What was accepted is in `state/accepted.json`, replaced whole; the store holds its generation and digest. A host that
//! lost the file while containers run holds them until a source names them again or somebody confirms.

mod merge;
mod moved;
mod orders;
mod planned;
mod saved;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::api::types::{Applied, Notice, SourceRequest, SourceStatus};
use crate::manifest::{self, LoadOptions, Look};
use crate::memory::Memory;
use crate::model::{Confirmation, DesiredState, Diagnostic, FileKind, Hold, Loaded, ObjectKey, accept, codes};
use crate::reconcile::Planner;
use crate::secret::Keyring;
pub use orders::Refused;
use saved::{Entry, Role, Saved};

/// Problems of one source shown on every page; `check` shows all.
const NOTICES_MAX: usize = 20;

/// Why everything is held after the accepted state was lost.
const LOST: &str = "what was accepted before is not known any more";

/// All sources.
pub struct Sources {
    file: PathBuf,
    planner: Planner,
    memory: Arc<Memory>,
    keys: Arc<Keyring>,
    inner: Mutex<Inner>,
    desired: watch::Sender<Arc<DesiredState>>,
    changed: watch::Sender<u64>,
}

struct Inner {
    saved: Saved,
    /// Bytes of the file as last written, so that nothing is written twice.
    written: Vec<u8>,
    /// What each source said when it was last read.
    said: BTreeMap<PathBuf, Said>,
    /// Objects with containers that nothing accepted names, since the file was lost.
    lost: BTreeSet<ObjectKey>,
    unsaved: Option<String>,
    /// Plans somebody read.
    seals: planned::Seals,
}

/// What came of reading a source.
#[derive(Debug, Clone, Default)]
struct Said {
    fingerprint: String,
    notices: Vec<Notice>,
}

impl Sources {
    /// Reads what was accepted before. `owners` are the objects that have containers now.
    #[must_use]
    pub fn open(
        file: PathBuf,
        memory: Arc<Memory>,
        planner: Planner,
        owners: BTreeSet<ObjectKey>,
        keys: Arc<Keyring>,
    ) -> Self {
        let (saved, written) = saved::read(&file);
        Self::of((file, keys), memory, planner, owners, (saved, written))
    }

    /// As [`Self::open`], for somebody who only plans: not even a file that makes no sense is touched.
    #[must_use]
    pub fn look(
        file: PathBuf,
        memory: Arc<Memory>,
        planner: Planner,
        owners: BTreeSet<ObjectKey>,
        keys: Arc<Keyring>,
    ) -> Self {
        let saved = saved::peek(&file);
        Self::of((file, keys), memory, planner, owners, (saved, Vec::new()))
    }

    fn of(
        (file, keys): (PathBuf, Arc<Keyring>),
        memory: Arc<Memory>,
        planner: Planner,
        owners: BTreeSet<ObjectKey>,
        (saved, written): (Option<Saved>, Vec<u8>),
    ) -> Self {
        let lost = if saved.is_some() { BTreeSet::new() } else { owners };
        let mut saved = saved.unwrap_or_default();
        saved.generation = saved.generation.max(memory.accepted_generation());
        let inner =
            Inner { saved, written, said: BTreeMap::new(), lost, unsaved: None, seals: planned::Seals::default() };
        let desired = watch::channel(Arc::new(merged(&inner))).0;
        Self { file, planner, memory, keys, inner: Mutex::new(inner), desired, changed: watch::channel(0).0 }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The desired state, as it changes.
    #[must_use]
    pub fn desired(&self) -> watch::Receiver<Arc<DesiredState>> {
        self.desired.subscribe()
    }

    /// Changes whenever [`Self::list`], [`Self::notices`] or [`Self::followed`] do.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reads a source and puts it in force.
    ///
    /// # Errors
    /// Only when the work broke: problems of manifests are in the answer.
    pub async fn apply(self: &Arc<Self>, request: SourceRequest) -> Result<Applied, String> {
        let sources = Arc::clone(self);
        tokio::task::spawn_blocking(move || sources.apply_now(request)).await.map_err(|e| format!("it broke: {e}"))
    }

    /// [`Self::apply`] on this thread.
    pub fn apply_now(&self, request: SourceRequest) -> Applied {
        let request = self.lock().saved.as_known(request);
        let loaded = self.load(&request);
        self.take(request, &loaded)
    }

    /// Puts the directory in force that the controller was started with, and goes on following it. Blocks.
    pub fn follow_now(&self, path: &Path) -> Applied {
        let request = self.lock().saved.make_controllers(path);
        let mut applied = self.apply_now(request);
        applied.notices.extend(self.lock().saved.left_notices());
        applied
    }

    /// Reads a source; secrets are sealed in what is returned. Blocks.
    #[must_use]
    pub fn load(&self, request: &SourceRequest) -> Loaded {
        let root_stack = Some(request.default_stack.clone()).filter(|stack| !stack.is_empty());
        let seal: Arc<dyn manifest::Seal> = Arc::<Keyring>::clone(&self.keys);
        let options = LoadOptions { root_stack, seal: Some(seal), ..LoadOptions::from_environment() };
        manifest::load(&request.path, &options)
    }

    /// Puts in force what was read of a source. Blocks while it is written.
    pub fn take(&self, request: SourceRequest, loaded: &Loaded) -> Applied {
        self.take_locked(&mut self.lock(), request, loaded)
    }

    fn take_locked(&self, inner: &mut Inner, request: SourceRequest, loaded: &Loaded) -> Applied {
        let confirmed = request.confirm_removal;
        let confirmation = if confirmed { Confirmation::Removal } else { Confirmation::None };
        let known = inner.saved.entries.get(&request.path);
        let role = known.map(|entry| entry.role).filter(|role| *role == Role::Controllers).unwrap_or_default();
        let previous = known.map(|entry| entry.accepted.clone()).unwrap_or_default();
        let (accepted, problems) = accept(&previous, loaded, confirmation);
        let path = request.path.clone();
        // What is agreed to once is not agreed to for every later read.
        let request = SourceRequest { confirm_removal: false, ..request };
        if confirmed {
            inner.lost.clear();
        }
        inner.saved.entries.insert(path.clone(), Entry { request, accepted, role });
        inner.saved.read_again(&path);
        let held: Vec<Notice> = problems.iter().filter(|p| is_hold(p)).map(notice).collect();
        let said = Said {
            fingerprint: loaded.fingerprint.clone(),
            notices: problems.iter().filter(|p| p.is_error() || is_hold(p)).take(NOTICES_MAX).map(notice).collect(),
        };
        inner.said.insert(path.clone(), said);
        let changed = self.put_in_force(inner, &format!("{}", path.display()));
        let look = Look::plain(loaded);
        let rest = problems.iter().filter(|problem| !is_hold(problem));
        let entry = &inner.saved.entries[&path];
        Applied {
            generation: inner.saved.generation,
            changed,
            diagnostics: rest.map(|problem| manifest::render(problem, &loaded.sources, &look)).collect(),
            errors: u32::try_from(problems.iter().filter(|p| p.is_error()).count()).unwrap_or(u32::MAX),
            not_manifests: not_manifests(loaded),
            objects: entry.accepted.objects.iter().map(|object| object.key.clone()).collect(),
            notices: held,
        }
    }

    /// Takes what the watcher read of a followed source, unless it was read before. Problems are logged: nobody waits for
    /// the answer.
    pub fn refresh(&self, request: SourceRequest, loaded: &Loaded) {
        let inner = self.lock();
        let known = inner.said.get(&request.path).is_some_and(|said| said.fingerprint == loaded.fingerprint);
        // It may have been taken back, or left, while it was read.
        let is_followed = inner.saved.entries.get(&request.path).is_some_and(|entry| entry.request == request);
        drop(inner);
        if is_followed && !known {
            for problem in self.take(request, loaded).diagnostics {
                tracing::warn!("{problem}");
            }
        }
    }

    /// Takes back a source, or all; what nothing else names is then removed.
    ///
    /// # Errors
    /// A source that is not there, that the controller was started on, or of which something is held by hand.
    pub async fn remove(self: &Arc<Self>, path: Option<PathBuf>) -> Result<Applied, Refused> {
        let sources = Arc::clone(self);
        let refused = |code, message: String| Refused { code, message, help: Some("boxship get".to_owned()) };
        let work = move || {
            let mut inner = sources.lock();
            Self::refuse_removal(&inner, path.as_deref())?;
            match &path {
                Some(path) => {
                    inner.said.remove(path);
                    let known = inner.saved.entries.remove(path).is_some();
                    known
                        .then_some(())
                        .ok_or_else(|| refused("BX0903", format!("{} is not in force", path.display())))?;
                }
                None => {
                    inner.saved.entries.clear();
                    inner.said.clear();
                    inner.lost.clear();
                }
            }
            let what = path.map_or_else(|| "all sources".to_owned(), |path| path.display().to_string());
            let changed = sources.put_in_force(&mut inner, &format!("{what} taken back"));
            Ok(sources.applied(&inner, changed))
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|e| refused("BX0900", format!("it broke: {e}")))?
    }

    /// Removes one object of a source that is not followed. `None`: nothing declares it.
    ///
    /// # Errors
    /// A followed source declares it: it would come back.
    pub async fn remove_object(self: &Arc<Self>, key: &ObjectKey) -> Result<Option<Applied>, String> {
        let (sources, key) = (Arc::clone(self), key.clone());
        let work = move || {
            let mut inner = sources.lock();
            let declares = |entry: &Entry| entry.accepted.objects.iter().any(|object| object.key == key);
            let Some((path, entry)) = inner.saved.entries.iter().find(|(_, entry)| declares(entry)) else {
                return Ok(None);
            };
            let (path, mut entry) = (path.clone(), entry.clone());
            if inner.saved.orders.get(&key).is_some_and(|by_hand| by_hand.hold.is_some()) {
                return Err(format!("{key} is held by hand: release it first"));
            }
            let span = entry.accepted.objects.iter().find(|o| o.key == key).map(|o| o.span.start().to_string());
            if entry.request.watch {
                let place = span.unwrap_or_default();
                return Err(format!(
                    "{key} is declared in {place} of {}, which is followed: remove it there",
                    path.display()
                ));
            }
            entry.accepted = accept(&entry.accepted, &without(&entry, &key), Confirmation::Removal).0;
            if entry.accepted.objects.is_empty() {
                inner.saved.entries.remove(&path);
                inner.said.remove(&path);
            } else {
                inner.saved.entries.insert(path, entry);
            }
            let changed = sources.put_in_force(&mut inner, &format!("{key} deleted"));
            Ok(Some(sources.applied(&inner, changed)))
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| format!("it broke: {e}"))?
    }

    /// An answer for what needed no change.
    #[must_use]
    pub fn nothing_changed(&self) -> Applied {
        self.applied(&self.lock(), false)
    }

    fn applied(&self, inner: &Inner, changed: bool) -> Applied {
        Applied {
            generation: inner.saved.generation,
            changed,
            diagnostics: Vec::new(),
            errors: 0,
            not_manifests: Vec::new(),
            objects: Vec::new(),
            notices: self.unsaved_notice(inner).into_iter().collect(),
        }
    }

    /// Merges, saves, tells. Whether anything changed that can have an effect.
    fn put_in_force(&self, inner: &mut Inner, why: &str) -> bool {
        inner.saved.forget_what_moved();
        inner.saved.forget_orders();
        let (mut desired, _) = merge::merge(&inner.saved, None);
        if merge::keys(&desired).is_superset(&inner.lost.iter().collect()) {
            inner.lost.clear();
        }
        desired = merged(inner);
        let changed = !crate::model::accept::same_content(&desired, &self.desired.borrow());
        if changed {
            inner.saved.generation += 1;
            desired.generation = inner.saved.generation;
            let objects = merge::keys(&desired).len();
            let message = format!("generation {}: {why}, {objects} objects in all", desired.generation);
            self.memory.record_event(None, "Accepted", message, false);
        }
        self.save(inner);
        // Holds and places are told too: they change what the planner may remove, and what it says.
        self.desired.send_if_modified(|current| {
            let differs = **current != desired;
            *current = Arc::new(desired);
            differs
        });
        self.changed.send_modify(|version| *version += 1);
        changed
    }

    /// Writes the accepted state again if somebody deleted it, or if it could not be written before.
    pub fn heal(&self) {
        let mut inner = self.lock();
        if inner.unsaved.is_some() || (!inner.written.is_empty() && !self.file.exists()) {
            inner.written.clear();
            self.save(&mut inner);
            self.changed.send_modify(|version| *version += 1);
        }
    }

    fn save(&self, inner: &mut Inner) {
        match saved::write(&self.file, &inner.saved, &inner.written) {
            Ok(None) => {}
            Ok(Some((bytes, digest))) => {
                inner.written = bytes;
                inner.unsaved = None;
                self.memory.record_accepted(inner.saved.generation, digest);
            }
            Err(error) => inner.unsaved = Some(format!("write {}: {error}", self.file.display())),
        }
        self.memory.flush();
    }

    /// Sources that are to be followed as they change.
    #[must_use]
    pub fn followed(&self) -> Vec<SourceRequest> {
        let inner = self.lock();
        let requests = inner.saved.entries.values().map(|entry| &entry.request);
        requests.filter(|request| request.watch).cloned().collect()
    }

    /// All sources, for display.
    #[must_use]
    pub fn list(&self) -> Vec<SourceStatus> {
        let inner = self.lock();
        let status = |(path, entry): (&PathBuf, &Entry)| SourceStatus {
            path: path.clone(),
            watch: entry.request.watch,
            objects: u32::try_from(entry.accepted.objects.len()).unwrap_or(u32::MAX),
            held: match entry.role {
                Role::Left => Some("the controller was started on another directory".to_owned()),
                Role::Asked | Role::Controllers => entry.accepted.desired.holds.first().map(|h| h.reason.clone()),
            },
        };
        inner.saved.entries.iter().map(status).collect()
    }

    /// What people should know about the sources.
    #[must_use]
    pub fn notices(&self) -> Vec<Notice> {
        let inner = self.lock();
        let mut notices: Vec<Notice> = inner.said.values().flat_map(|said| said.notices.clone()).collect();
        notices.extend(merge::merge(&inner.saved, None).1);
        notices.extend(inner.saved.left_notices());
        notices.extend(self.unsaved_notice(&inner));
        if !inner.lost.is_empty() {
            let names: Vec<String> = inner.lost.iter().take(5).map(ToString::to_string).collect();
            notices.push(Notice {
                code: codes::HELD_UNREADABLE.to_owned(),
                message: format!(
                    "{LOST}: {} objects with containers stay as they are ({})",
                    inner.lost.len(),
                    names.join(", ")
                ),
                help: Some("boxship up DIR   or, to remove them: boxship down".to_owned()),
            });
        }
        notices
    }

    fn unsaved_notice(&self, inner: &Inner) -> Option<Notice> {
        inner.unsaved.as_ref().map(|why| Notice {
            code: "BX0706".to_owned(),
            message: format!("StateNotPersisted: {why}; a restart would fall back to what was accepted before"),
            help: Some("df -h".to_owned()),
        })
    }
}

fn merged(inner: &Inner) -> DesiredState {
    merge::merge(&inner.saved, hold_of(&inner.lost)).0
}

fn hold_of(lost: &BTreeSet<ObjectKey>) -> Option<Hold> {
    (!lost.is_empty()).then(|| Hold { root: None, file: None, reason: LOST.to_owned() })
}

fn is_hold(problem: &Diagnostic) -> bool {
    [codes::HELD_BROKEN, codes::HELD_UNREADABLE, codes::HELD_EMPTY].contains(&problem.code.as_str())
}

fn notice(problem: &Diagnostic) -> Notice {
    let place = problem.span.as_ref().filter(|_| !is_hold(problem)).map(|span| format!("{}: ", span.start()));
    let message = format!("{}{}", place.unwrap_or_default(), problem.what);
    Notice { code: problem.code.clone(), message, help: problem.help.clone() }
}

fn not_manifests(loaded: &Loaded) -> Vec<String> {
    let others = loaded.files.iter().filter(|(_, kind)| matches!(kind, FileKind::NotAManifest | FileKind::Empty));
    others.map(|(file, _)| file.clone()).collect()
}

/// What a load of the source would give without one object.
fn without(entry: &Entry, key: &ObjectKey) -> Loaded {
    let objects: Vec<_> = entry.accepted.objects.iter().filter(|object| object.key != *key).cloned().collect();
    let files = objects.iter().map(|object| (object.span.file.clone(), FileKind::Native)).collect();
    Loaded { root: entry.request.path.display().to_string(), objects, files, ..Loaded::default() }
}
