//! How containers are: one small task per running container asks its checks and says since when it is ready, and whether
//! it has to be restarted.
//!
//! Readiness is a gate: the App's healthcheck, else the image's, else "its ports accept" or, without ports, "it runs for a
//! second". A container that is not ready is asked in quick steps that grow to the interval, so that readiness is seen at
//! once; a default gate that passed is not asked again. A startup check holds back gate and liveness. Decides nothing: the
//! planner reads [`Probes::ready`] and [`Probes::unhealthy`].

mod alive;
mod ask;
mod gate;
mod grpc;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::id::ContainerId;
use runtime::{Runtime, clock};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;

use ask::Miss;
pub use gate::{Gate, targets};

use crate::memory::Memory;
use crate::model::{Healthcheck, ObjectKey, Probe};

/// First step between two tries while not ready.
const STEP_MS: u64 = 50;

/// The same for checks that start a program in the container.
const STEP_EXEC_MS: u64 = 250;

/// Longest step of the default gate, which has no interval of its own.
const PORTS_STEP_MS_MAX: u64 = 1_000;

/// Checks that run a program, at once.
const EXECS_MAX: usize = 16;

/// What to watch of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// For events.
    pub object: ObjectKey,
    /// `web-2`, for events.
    pub name: String,
    /// When it is ready; `None`: never (a Job's completes).
    pub gate: Option<Gate>,
    /// What has to pass once before anything else is asked.
    pub startup: Option<Healthcheck>,
    /// What has to go on passing.
    pub liveness: Option<Healthcheck>,
    /// Where its ports are; `None`: nowhere we can reach.
    pub address: Option<Ipv4Addr>,
    /// When its program started, boot time in milliseconds.
    pub started_boot_ms: u64,
}

/// The gates of all running containers.
pub struct Probes {
    runtime: Arc<dyn Runtime>,
    memory: Arc<Memory>,
    bell: Arc<Notify>,
    entries: Mutex<BTreeMap<ContainerId, Entry>>,
    execs: Semaphore,
    asked: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Entry {
    watched: Option<Watched>,
    ready_since: Option<u64>,
    /// Its startup check has passed, or it has none.
    started: bool,
    /// It failed its liveness or startup check for good.
    unhealthy: bool,
    /// It was asked at least once by this process.
    asked: bool,
    failure: Option<String>,
    task: Option<AbortHandle>,
}

impl Probes {
    /// Watches nothing yet. `bell` is rung when readiness changes.
    #[must_use]
    pub fn new(runtime: Arc<dyn Runtime>, memory: Arc<Memory>, bell: Arc<Notify>) -> Arc<Self> {
        let probes = Self {
            runtime,
            memory,
            bell,
            entries: Mutex::default(),
            execs: Semaphore::new(EXECS_MAX),
            asked: watch::channel(0).0,
        };
        probes.restore();
        Arc::new(probes)
    }

    /// Containers that were ready when an earlier controller last looked stay so until their gate says otherwise.
    fn restore(&self) {
        let mut entries = self.lock();
        for (id, record) in &self.memory.lock().containers {
            if let Some(since) = record.observed.ready_since_boot_ms {
                let entry = Entry { ready_since: Some(since), started: true, asked: true, ..Entry::default() };
                entries.insert(id.clone(), entry);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches exactly these containers from now on. Call within a tokio runtime.
    pub fn sync(self: &Arc<Self>, wanted: BTreeMap<ContainerId, Watched>) {
        let mut entries = self.lock();
        entries.retain(|id, entry| {
            let keep = wanted.contains_key(id);
            if let (false, Some(task)) = (keep, &entry.task) {
                task.abort();
            }
            keep
        });
        for (id, watched) in wanted {
            let entry = entries.entry(id.clone()).or_default();
            if entry.watched.as_ref() == Some(&watched) {
                continue;
            }
            if let Some(task) = entry.task.take() {
                task.abort();
            }
            entry.watched = Some(watched.clone());
            entry.unhealthy = false;
            entry.asked |= watched.gate.is_none();
            let (ready, started) = (entry.ready_since.is_some(), entry.started);
            entry.task = Some(tokio::spawn(Arc::clone(self).watch(id, watched, ready, started)).abort_handle());
        }
    }

    /// Since when each ready container's gate passes, boot time in milliseconds.
    #[must_use]
    pub fn ready(&self) -> BTreeMap<ContainerId, u64> {
        self.lock().iter().filter_map(|(id, entry)| Some((id.clone(), entry.ready_since?))).collect()
    }

    /// Containers that failed their liveness or startup check for good.
    #[must_use]
    pub fn unhealthy(&self) -> BTreeSet<ContainerId> {
        self.lock().iter().filter(|(_, entry)| entry.unhealthy).map(|(id, _)| id.clone()).collect()
    }

    /// What the last try said, where it failed.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<ContainerId, String> {
        self.lock().iter().filter_map(|(id, entry)| Some((id.clone(), entry.failure.clone()?))).collect()
    }

    /// Waits until every watched container was asked once, at most `limit`: a controller that starts without memory must
    /// not take ready containers for unready ones.
    pub async fn settle(&self, limit: Duration) {
        let mut asked = self.asked.subscribe();
        let all = async { while self.lock().values().any(|entry| !entry.asked) && asked.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(limit, all).await;
    }

    async fn watch(self: Arc<Self>, id: ContainerId, watched: Watched, ready: bool, started: bool) {
        if let Some(check) = watched.startup.as_ref().filter(|_| !started)
            && !self.watch_startup(&id, &watched, check).await
        {
            return;
        }
        self.with_entry(&id, |entry| entry.started = true);
        tokio::join!(self.watch_gate(&id, &watched, ready), self.watch_liveness(&id, &watched));
    }

    async fn watch_gate(&self, id: &ContainerId, watched: &Watched, ready: bool) {
        match &watched.gate {
            None => {}
            Some(Gate::Running { for_ms }) => {
                let left = (watched.started_boot_ms + for_ms).saturating_sub(clock::boot_ms());
                tokio::time::sleep(Duration::from_millis(left)).await;
                self.passed(id, watched);
            }
            Some(Gate::Ports(ports)) => self.watch_ports(id, watched, ports).await,
            Some(Gate::Check(check)) => self.watch_check(id, watched, check, ready).await,
        }
    }

    async fn watch_ports(&self, id: &ContainerId, watched: &Watched, ports: &std::collections::BTreeSet<u16>) {
        let mut step = STEP_MS;
        loop {
            let mut result = Ok(());
            for port in ports {
                result = result.and(ask::tcp(watched.address, *port, Duration::from_secs(1)).await);
            }
            match result {
                Ok(()) => return self.passed(id, watched),
                Err(why) => self.failed(id, why),
            }
            tokio::time::sleep(Duration::from_millis(step)).await;
            step = (step + step / 2).min(PORTS_STEP_MS_MAX);
        }
    }

    async fn watch_check(&self, id: &ContainerId, watched: &Watched, check: &Healthcheck, mut ready: bool) {
        let first_step = if matches!(check.probe, Probe::Exec(_)) { STEP_EXEC_MS } else { STEP_MS };
        let mut step = first_step.min(check.interval_ms);
        let (mut failures, mut successes) = (0, 0);
        loop {
            match self.ask(id, watched, check).await.map_err(Miss::text) {
                Ok(()) => {
                    successes += 1;
                    (failures, step) = (0, first_step);
                    if ready || successes >= check.successes {
                        ready = true;
                        self.passed(id, watched);
                    }
                }
                Err(why) => {
                    successes = 0;
                    failures += 1;
                    self.failed(id, why);
                    if ready && failures >= check.retries.max(1) {
                        ready = false;
                        self.lost(id, watched);
                    }
                }
            }
            let wait = if ready { check.interval_ms } else { step };
            tokio::time::sleep(Duration::from_millis(wait.max(1))).await;
            step = (step + step / 2).min(check.interval_ms);
        }
    }

    async fn ask(&self, id: &ContainerId, watched: &Watched, check: &Healthcheck) -> Result<(), Miss> {
        let timeout = Duration::from_millis(check.timeout_ms.max(1));
        match &check.probe {
            Probe::Tcp { port } => ask::tcp(watched.address, *port, timeout).await.map_err(Miss::Failed),
            Probe::Http { port, path, with } => {
                ask::http(watched.address, *port, path, with, timeout).await.map_err(Miss::Failed)
            }
            Probe::Grpc { port, service } => {
                grpc::check(watched.address, *port, service, timeout).await.map_err(Miss::Failed)
            }
            Probe::Exec(args) => {
                let Ok(_permit) = self.execs.acquire().await else {
                    return Err(Miss::Unasked("shutting down".to_owned()));
                };
                ask::exec(Arc::clone(&self.runtime), id.clone(), args.clone(), timeout).await
            }
            Probe::Off => Ok(()),
        }
    }

    fn with_entry(&self, id: &ContainerId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().get_mut(id) {
            change(entry);
        }
    }

    fn update(&self, id: &ContainerId, change: impl FnOnce(&mut Entry) -> bool) -> bool {
        let changed = {
            let mut entries = self.lock();
            let Some(entry) = entries.get_mut(id) else { return false };
            entry.asked = true;
            change(entry)
        };
        self.asked.send_modify(|version| *version += 1);
        if changed {
            self.bell.notify_one();
        }
        changed
    }

    fn passed(&self, id: &ContainerId, watched: &Watched) {
        let turned = self.update(id, |entry| {
            entry.failure = None;
            let turned = entry.ready_since.is_none();
            entry.ready_since.get_or_insert_with(clock::boot_ms);
            turned
        });
        if turned {
            self.memory.record_event(Some(&watched.object), "Ready", format!("{} is ready", watched.name), false);
        }
    }

    fn failed(&self, id: &ContainerId, why: String) {
        self.update(id, |entry| {
            entry.failure = Some(why);
            false
        });
    }

    fn lost(&self, id: &ContainerId, watched: &Watched) {
        let mut why = None;
        self.update(id, |entry| {
            entry.ready_since = None;
            why.clone_from(&entry.failure);
            true
        });
        let message = format!("{} is not ready any more: {}", watched.name, why.unwrap_or_default());
        self.memory.record_event(Some(&watched.object), "Unready", message, true);
    }
}
