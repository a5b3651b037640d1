//! The typed view of the store: what was observed, what happened, what was decided. One record per image, container,
//! network and volume, and the history the kernel cannot tell: exits, revisions, jobs, failures, events.
//!
//! Reads come from values in memory. Changes are collected and written by [`Memory::flush`], only where a record's
//! bytes differ. Boot-time values belong to one boot: opening in another one turns them into 0. Knows no policy.

mod load;
mod record;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime::clock;
use runtime::error::chain;
use runtime::id::{ContainerId, NetworkName, VolumeName};
use runtime::image::{Digest, ImageRef};
use runtime::runtime::{EndpointTable, IdRange};
use serde::Serialize;
use tokio::sync::watch;

pub use record::ContainerRecord;

use crate::api::types::Event;
use crate::model::{
    ExitRecord, Failure, JobRecord, ObjectKey, ObservedImage, ObservedNetwork, ObservedState, ObservedVolume,
    ReplicaKey, Revision, RevisionResult,
};
use crate::store::{Batch, StateStore};

/// Events kept; the oldest go first.
pub const EVENTS_MAX: usize = 1_000;

/// Failures kept; the oldest go first. One per action that keeps failing, so far above what a host runs.
const FAILURES_MAX: usize = 2_000;

/// A failure nobody tried again for this long is about something no longer wanted.
const FAILURE_MS_MAX: u64 = 60 * 60 * 1_000;

/// Replicas of a job's earlier runs whose ends are remembered.
const RUNS_REMEMBERED: u32 = 100;

/// The controller's memory. Cheap calls, one lock, never held while something blocks.
pub struct Memory {
    store: Arc<dyn StateStore>,
    inner: Mutex<Inner>,
    /// Serializes flushes, so that an older batch never follows a newer one.
    flushing: Mutex<()>,
    last_event: watch::Sender<u64>,
}

/// Everything remembered, typed.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) images: BTreeMap<ImageRef, ObservedImage>,
    /// What registries answered since the last look, also about images it did not show yet.
    pub(crate) answers: BTreeMap<ImageRef, Digest>,
    pub(crate) containers: BTreeMap<ContainerId, ContainerRecord>,
    pub(crate) networks: BTreeMap<NetworkName, ObservedNetwork>,
    pub(crate) volumes: BTreeMap<VolumeName, ObservedVolume>,
    pub(crate) exits: BTreeMap<ReplicaKey, Vec<ExitRecord>>,
    pub(crate) revisions: BTreeMap<ObjectKey, Vec<Revision>>,
    pub(crate) jobs: BTreeMap<ObjectKey, JobRecord>,
    pub(crate) id_ranges: BTreeMap<ObjectKey, IdRange>,
    pub(crate) failures: BTreeMap<String, Failure>,
    pub(crate) events: VecDeque<Event>,
    /// Generation and digest of the accepted desired state.
    accepted: (u64, String),
    /// Not persisted: a controller that starts does not know what the switchboard holds, and says it again.
    pub(crate) published: Option<EndpointTable>,
    /// Changed since the last flush.
    pending: Batch,
    /// Being committed right now.
    committing: Batch,
}

impl Memory {
    /// Reads everything from the store. Unreadable records are left out: each can be observed again.
    #[must_use]
    pub fn open(store: Arc<dyn StateStore>, boot_id: &str) -> Self {
        let inner = load::load(&*store, boot_id);
        let last_event = watch::channel(inner.events.back().map_or(0, |event| event.seq)).0;
        let memory = Self { store, inner: Mutex::new(inner), flushing: Mutex::new(()), last_event };
        memory.lock().put(&*memory.store, load::BOOT_KEY.to_owned(), &boot_id);
        memory
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what was changed since the last call durable; blocks. Whether it worked is [`Self::problem`]; nothing is
    /// lost in memory if not.
    pub fn flush(&self) -> bool {
        let _one_at_a_time = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = {
            let mut inner = self.lock();
            inner.committing = std::mem::take(&mut inner.pending);
            inner.committing.clone()
        };
        let persisted = self.store.commit(batch).is_ok();
        self.lock().committing = Batch::default();
        persisted
    }

    /// Why state is not persisted at the moment.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.store.problem()
    }

    /// Flushes, writes a checkpoint, and lets go of the files.
    pub fn close(&self) {
        self.flush();
        self.store.close();
    }

    /// Changes a record by key; `None` removes it. Nothing is written when the bytes are the same.
    fn set<T: Serialize>(&self, inner: &mut Inner, key: String, value: Option<&T>) {
        match value {
            Some(value) => inner.put(&*self.store, key, value),
            None => inner.pending.delete(key),
        }
    }

    /// Replaces the records of what is there now. Used by `observe` only.
    pub(crate) fn record_world(&self, inner: &mut Inner, world: World) {
        let World { images, containers, networks, volumes } = world;
        self.replace(inner, "image/", &images);
        self.replace(inner, "container/", &containers);
        self.replace(inner, "network/", &networks);
        self.replace(inner, "volume/", &volumes);
        inner.answers.retain(|reference, _| !images.contains_key(reference));
        (inner.images, inner.containers, inner.networks, inner.volumes) = (images, containers, networks, volumes);
    }

    fn replace<K: std::fmt::Display, V: Serialize>(&self, inner: &mut Inner, prefix: &str, records: &BTreeMap<K, V>) {
        let keys: std::collections::BTreeSet<String> = records.keys().map(|key| format!("{prefix}{key}")).collect();
        for (key, _) in self.store.scan_prefix(prefix) {
            if !keys.contains(&key) {
                inner.pending.delete(key);
            }
        }
        for (key, record) in records {
            inner.put(&*self.store, format!("{prefix}{key}"), record);
        }
    }

    /// Adds an exit to a replica's history.
    pub(crate) fn record_exit(&self, inner: &mut Inner, replica: ReplicaKey, exit: ExitRecord) {
        let mut exits = inner.exits.remove(&replica).unwrap_or_default();
        exits.push(exit);
        let surplus = exits.len().saturating_sub(ObservedState::EXITS_MAX);
        exits.drain(..surplus);
        self.set(inner, format!("exit/{}", String::from(replica.clone())), Some(&exits));
        inner.exits.insert(replica, exits);
    }

    /// Remembers that a stop is ours, before it is carried out: its exit is then not a failure.
    pub fn record_stop_asked(&self, id: &ContainerId) {
        let mut inner = self.lock();
        let Some(mut record) = inner.containers.remove(id) else { return };
        record.stop_asked = true;
        self.set(&mut inner, format!("container/{id}"), Some(&record));
        inner.containers.insert(id.clone(), record);
    }

    /// Forgets a container that was removed on purpose.
    pub fn forget_container(&self, id: &ContainerId) {
        let mut inner = self.lock();
        inner.containers.remove(id);
        self.set(&mut inner, format!("container/{id}"), None::<&()>);
    }

    /// Remembers an App's revision, replacing one of the same number.
    pub fn record_revision(&self, object: &ObjectKey, revision: Revision) {
        let mut inner = self.lock();
        let mut revisions = inner.revisions.remove(object).unwrap_or_default();
        ObservedState::put_revision(&mut revisions, revision);
        self.set(&mut inner, format!("revision/{object}"), Some(&revisions));
        inner.revisions.insert(object.clone(), revisions);
    }

    /// Makes an App's newest revision roll again, if it failed, and forgets what its replicas and these actions have to
    /// wait for.
    pub fn try_again(&self, object: &ObjectKey, subjects: &[String]) {
        let mut inner = self.lock();
        if let Some(mut revisions) = inner.revisions.remove(object) {
            if let Some(last) = revisions.last_mut()
                && matches!(last.result, RevisionResult::Failed { .. })
            {
                (last.result, last.progress_boot_ms, last.available_max) =
                    (RevisionResult::Rolling, clock::boot_ms(), 0);
            }
            self.set(&mut inner, format!("revision/{object}"), Some(&revisions));
            inner.revisions.insert(object.clone(), revisions);
        }
        let replicas: Vec<ReplicaKey> = inner.exits.keys().filter(|r| r.workload == *object).cloned().collect();
        for replica in replicas {
            let mut exits = inner.exits.remove(&replica).unwrap_or_default();
            // They stay in the history, and count as little as those of an earlier boot.
            exits.iter_mut().for_each(|exit| exit.finished_boot_ms = 0);
            self.set(&mut inner, format!("exit/{}", String::from(replica.clone())), Some(&exits));
            inner.exits.insert(replica, exits);
        }
        for subject in subjects {
            self.drop_failure(&mut inner, subject);
        }
    }

    /// Remembers how a job went.
    pub fn record_job(&self, object: &ObjectKey, record: JobRecord) {
        let mut inner = self.lock();
        self.set(&mut inner, format!("job/{object}"), Some(&record));
        // A job that runs each minute would fill the disk with how it ended.
        let oldest = record.run.saturating_sub(RUNS_REMEMBERED);
        let old = |replica: &&ReplicaKey| replica.workload == *object && replica.ordinal < oldest;
        let old: Vec<ReplicaKey> = inner.exits.keys().filter(old).cloned().collect();
        for replica in old {
            inner.exits.remove(&replica);
            self.set(&mut inner, format!("exit/{}", String::from(replica)), None::<&()>);
        }
        inner.jobs.insert(object.clone(), record);
    }

    /// Remembers an id range handed out.
    pub(crate) fn record_id_range(&self, inner: &mut Inner, object: &ObjectKey, range: IdRange) {
        if inner.id_ranges.insert(object.clone(), range) != Some(range) {
            self.set(inner, format!("ids/{object}"), Some(&range));
        }
    }

    /// Forgets the histories of objects that are neither wanted nor there.
    pub(crate) fn forget_objects(&self, inner: &mut Inner, keep: impl Fn(&ObjectKey) -> bool) {
        let gone: Vec<ObjectKey> = inner
            .revisions
            .keys()
            .chain(inner.jobs.keys())
            .chain(inner.id_ranges.keys())
            .filter(|key| !keep(key))
            .cloned()
            .collect();
        for object in gone {
            inner.revisions.remove(&object);
            inner.jobs.remove(&object);
            inner.id_ranges.remove(&object);
            for prefix in ["revision", "job", "ids"] {
                self.set(inner, format!("{prefix}/{object}"), None::<&()>);
            }
        }
        let gone: Vec<ReplicaKey> = inner.exits.keys().filter(|replica| !keep(&replica.workload)).cloned().collect();
        for replica in gone {
            inner.exits.remove(&replica);
            self.set(inner, format!("exit/{}", String::from(replica)), None::<&()>);
        }
    }

    /// Counts a failed action.
    pub fn record_failure(&self, subject: &str, error: &runtime::Error) {
        let mut inner = self.lock();
        let attempts = inner.failures.get(subject).map_or(0, |known| known.attempts) + 1;
        let code = error.code().map(str::to_owned);
        let failure = Failure { attempts, last_boot_ms: clock::boot_ms(), message: chain(error), code };
        self.set(&mut inner, failure_key(subject), Some(&failure));
        inner.failures.insert(subject.to_owned(), failure);
        while inner.failures.len() > FAILURES_MAX {
            let oldest = inner.failures.iter().min_by_key(|(_, f)| f.last_boot_ms).map(|(subject, _)| subject.clone());
            let Some(oldest) = oldest else { break };
            self.drop_failure(&mut inner, &oldest);
        }
    }

    /// Forgets a failure: the action succeeded.
    pub fn clear_failure(&self, subject: &str) {
        self.drop_failure(&mut self.lock(), subject);
    }

    /// Forgets failures that nobody tried again for an hour.
    pub(crate) fn drop_old_failures(&self, inner: &mut Inner, now_boot_ms: u64) {
        let old = inner.failures.iter().filter(|(_, f)| now_boot_ms.saturating_sub(f.last_boot_ms) > FAILURE_MS_MAX);
        for subject in old.map(|(subject, _)| subject.clone()).collect::<Vec<_>>() {
            self.drop_failure(inner, &subject);
        }
    }

    fn drop_failure(&self, inner: &mut Inner, subject: &str) {
        if inner.failures.remove(subject).is_some() {
            self.set(inner, failure_key(subject), None::<&()>);
        }
    }

    /// Remembers what the registry answered about a reference just now.
    pub fn record_image_checked(&self, reference: &ImageRef, digest: &Digest) {
        let mut inner = self.lock();
        inner.answers.insert(reference.clone(), digest.clone());
        if let Some(mut image) = inner.images.remove(reference) {
            image.checked_boot_ms = clock::boot_ms();
            image.answered = Some(digest.clone());
            self.set(&mut inner, format!("image/{reference}"), Some(&image));
            inner.images.insert(reference.clone(), image);
        }
    }

    /// Remembers which table of names and ports is in force; `None`: not known.
    pub fn record_published(&self, table: Option<EndpointTable>) {
        self.lock().published = table;
    }

    /// Adds an event and tells those who follow.
    pub fn record_event(&self, object: Option<&ObjectKey>, reason: &str, message: String, warning: bool) {
        let mut inner = self.lock();
        self.add_event(&mut inner, object, reason, message, warning);
    }

    pub(crate) fn add_event(
        &self,
        inner: &mut Inner,
        object: Option<&ObjectKey>,
        reason: &str,
        message: String,
        warning: bool,
    ) {
        let seq = inner.events.back().map_or(0, |event| event.seq) + 1;
        let (object, reason) = (object.cloned(), reason.to_owned());
        let event = Event { seq, unix_ms: clock::unix_ms(), object, reason, message, warning };
        self.set(inner, event_key(seq), Some(&event));
        inner.events.push_back(event);
        while inner.events.len() > EVENTS_MAX {
            if let Some(oldest) = inner.events.pop_front() {
                self.set(inner, event_key(oldest.seq), None::<&()>);
            }
        }
        self.last_event.send_replace(seq);
    }

    /// Events after a sequence number, oldest first.
    #[must_use]
    pub fn events_after(&self, seq: u64) -> Vec<Event> {
        self.lock().events.iter().filter(|event| event.seq > seq).cloned().collect()
    }

    /// Changes with each event: the sequence number of the newest.
    #[must_use]
    pub fn event_watch(&self) -> watch::Receiver<u64> {
        self.last_event.subscribe()
    }

    /// Remembers which desired state is in force: its generation, and the digest of the file that holds it.
    pub fn record_accepted(&self, generation: u64, digest: String) {
        let mut inner = self.lock();
        inner.accepted = (generation, digest);
        let accepted = inner.accepted.clone();
        self.set(&mut inner, load::ACCEPTED_KEY.to_owned(), Some(&accepted));
    }

    /// The highest generation ever accepted here, as far as memory goes.
    #[must_use]
    pub fn accepted_generation(&self) -> u64 {
        self.lock().accepted.0
    }

    /// Objects that have containers, as remembered.
    #[must_use]
    pub fn owners(&self) -> std::collections::BTreeSet<ObjectKey> {
        self.lock().containers.values().map(|record| record.observed.replica.workload.clone()).collect()
    }

    /// How the containers of a replica ended, oldest first.
    #[must_use]
    pub fn exits(&self, replica: &ReplicaKey) -> Vec<ExitRecord> {
        self.lock().exits.get(replica).cloned().unwrap_or_default()
    }
}

/// What `observe` found, typed, to replace the records of the last look.
pub(crate) struct World {
    pub(crate) images: BTreeMap<ImageRef, ObservedImage>,
    pub(crate) containers: BTreeMap<ContainerId, ContainerRecord>,
    pub(crate) networks: BTreeMap<NetworkName, ObservedNetwork>,
    pub(crate) volumes: BTreeMap<VolumeName, ObservedVolume>,
}

impl Inner {
    /// Puts a record into the next batch unless the store holds, or is about to hold, these very bytes.
    fn put<T: Serialize + ?Sized>(&mut self, store: &dyn StateStore, key: String, value: &T) {
        let json = serde_json::to_string(value).expect("records have text keys and no failing serializer");
        let same = match self.committing.change(&key) {
            Some(change) => change == Some(json.as_str()),
            None => store.get(&key).as_deref() == Some(json.as_str()),
        };
        if same {
            self.pending.forget(&key);
        } else {
            self.pending.put(key, json);
        }
    }
}

fn failure_key(subject: &str) -> String {
    format!("failure/{subject}")
}

fn event_key(seq: u64) -> String {
    format!("event/{seq:020}")
}
