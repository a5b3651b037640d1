//! Carries out plans: walks the steps as a graph with bounded concurrency. One action is one call of the runtime or
//! one record; failures are remembered by [`Action::subject`]; what depends on a failed step is skipped. No policy.
//!
//! A plan never waits for another: a newer one supersedes the older, whose steps that have not begun are dropped, while
//! those that run go on as *flights*. A newer plan's step for a thing in flight joins the flight, waits for it, or is left
//! for the pass that follows when the flight lands. So a stop with a long grace or a slow pull holds up nobody else.

mod flight;
mod progress;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use runtime::error::chain;
use runtime::image::ImageRef;
use runtime::runtime::{ContainerConfig, EndpointTable, PullRequest};
use runtime::{Error, Runtime};
use tokio::sync::{Notify, Semaphore};

pub use progress::{Layer, Pulls};

use crate::memory::Memory;
use crate::plan::{Action, Plan, Reason, Step};
use flight::{Entry, Flights, Target};

/// Pulls at once: more share the same line and disk.
const PULLS_MAX: usize = 3;

/// Creates, starts and removals at once. Much of each is waiting (cgroup v1 answers writes after 7 to 14 ms), so more than
/// there are cores; not many more, since looks wait in the supervisor behind them.
const WORK_MAX: usize = 16;

/// Stops at once: they wait for the program, and cost nothing while they do.
const STOPS_MAX: usize = 256;

/// What became of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded, here or in the flight it joined.
    Done,
    /// It failed; the failure is recorded.
    Failed,
    /// A step it depends on did not succeed.
    Skipped,
    /// Another step of an older plan holds the thing; a later pass decides.
    Busy,
    /// A newer plan superseded this one before the step began.
    Superseded,
}

/// What became of a plan, step by step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of the plan's steps.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// Whether any step was carried out, so that another look is due.
    #[must_use]
    pub fn acted(&self) -> bool {
        self.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Done | Outcome::Failed))
    }
}

/// Carries out plans on one runtime.
pub struct Executor {
    runtime: Arc<dyn Runtime>,
    memory: Arc<Memory>,
    /// Rung when the world changed by what we did.
    bell: Arc<Notify>,
    flights: Arc<Flights>,
    pulls: Pulls,
    pull_lane: Semaphore,
    work_lane: Semaphore,
    stop_lane: Semaphore,
    current: Mutex<Arc<AtomicBool>>,
}

impl Executor {
    /// An executor with nothing in flight. `bell` is rung when a step's end calls for another look.
    #[must_use]
    pub fn new(runtime: Arc<dyn Runtime>, memory: Arc<Memory>, bell: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            memory,
            bell,
            flights: Arc::default(),
            pulls: Pulls::default(),
            pull_lane: Semaphore::new(PULLS_MAX),
            work_lane: Semaphore::new(WORK_MAX),
            stop_lane: Semaphore::new(STOPS_MAX),
            current: Mutex::default(),
        })
    }

    /// Supersedes the current plan: what runs goes on, nothing more of it begins. To be called before the look a new plan
    /// is made from, else a step could begin unseen and take what the new plan gives to another.
    pub fn supersede(&self) {
        let current = std::mem::take(&mut *self.current.lock().unwrap_or_else(PoisonError::into_inner));
        self.flights.supersede(&current);
    }

    /// Begins a plan and supersedes the one before it. Returns at once; the bell rings when the plan is through and did
    /// anything. Call within a tokio runtime.
    pub fn execute(self: &Arc<Self>, plan: Plan) -> tokio::task::JoinHandle<Report> {
        self.supersede();
        let superseded: Arc<AtomicBool> = Arc::default();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&superseded);
        let executor = Arc::clone(self);
        tokio::spawn(async move {
            let report = walk::walk(&executor, plan.steps, &superseded).await;
            if report.acted() {
                executor.bell.notify_one();
            }
            report
        })
    }

    /// Subjects of what is being carried out at this moment, and the containers that are being created by it.
    #[must_use]
    pub fn in_flight(&self) -> (BTreeSet<String>, Vec<ContainerConfig>) {
        self.flights.list()
    }

    /// Whether anything is being carried out.
    #[must_use]
    pub fn busy(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Images on their way.
    #[must_use]
    pub fn pulls(&self) -> &Pulls {
        &self.pulls
    }

    /// One step: waits for its lane, enters the flight map, acts.
    async fn carry_out(self: Arc<Self>, step: Step, superseded: Arc<AtomicBool>) -> Outcome {
        let target = Target::of(&step.action);
        let ticket = loop {
            let lane = self.lane(&step.action);
            let Ok(permit) = lane.acquire().await else { return Outcome::Superseded };
            match self.flights.enter(&target, &step.action, &superseded) {
                Entry::Entered(ticket) => break (permit, ticket),
                Entry::Busy => return Outcome::Busy,
                Entry::Superseded => return Outcome::Superseded,
                Entry::Same(flight) => {
                    drop(permit);
                    return if flight.landed().await { Outcome::Done } else { Outcome::Failed };
                }
                Entry::After(flight) => {
                    drop(permit);
                    let landed = flight.landed().await;
                    if !landed && !matches!(step.action, Action::PublishEndpoints { .. }) {
                        return Outcome::Busy;
                    }
                }
            }
        };
        let (_permit, ticket) = ticket;
        let executor = Arc::clone(&self);
        let acted = tokio::task::spawn_blocking(move || {
            let done = executor.act(&step);
            ticket.land(done);
            done
        });
        // A panic below lands the flight as failed; the next look tells what is there.
        let done = acted.await.unwrap_or(false);
        if superseded.load(Ordering::SeqCst) {
            self.bell.notify_one();
        }
        if done { Outcome::Done } else { Outcome::Failed }
    }

    fn lane(&self, action: &Action) -> &Semaphore {
        match action {
            Action::PullImage { .. } => &self.pull_lane,
            Action::StopContainer { .. } => &self.stop_lane,
            Action::RemoveImage { .. }
            | Action::CreateNetwork { .. }
            | Action::RemoveNetwork { .. }
            | Action::CreateVolume { .. }
            | Action::RemoveVolume { .. }
            | Action::CreateContainer { .. }
            | Action::StartContainer { .. }
            | Action::RemoveContainer { .. }
            | Action::UpdateResources { .. }
            | Action::PublishEndpoints { .. }
            | Action::RecordRevision { .. }
            | Action::RecordJob { .. } => &self.work_lane,
        }
    }

    /// Does it, and remembers how it went. Blocks.
    fn act(&self, step: &Step) -> bool {
        let span = tracing::info_span!(
            "step",
            object = step.object.as_ref().map(tracing::field::display),
            subject = step.action.subject()
        );
        let _entered = span.enter();
        let result = self.call(step);
        let subject = step.action.subject();
        match result {
            Ok(said) => {
                self.memory.clear_failure(&subject);
                if let Some((reason, message)) = said {
                    self.memory.record_event(step.object.as_ref(), reason, message, false);
                }
                true
            }
            Err(error) => {
                let message = chain(&error);
                tracing::debug!(message, "a step failed");
                self.memory.record_event(step.object.as_ref(), "Failed", format!("{subject}: {message}"), true);
                self.memory.record_failure(&subject, &error);
                false
            }
        }
    }

    /// The one call an action is, and what to say about it.
    fn call(&self, step: &Step) -> runtime::Result<Option<(&'static str, String)>> {
        let runtime = &*self.runtime;
        match &step.action {
            Action::PullImage { reference, refresh } => self.pull(reference, *refresh).map(Some),
            Action::RemoveImage { reference } => {
                absent_is_done(runtime.remove_image(reference))?;
                Ok(Some(("Removed", format!("image {reference}"))))
            }
            Action::CreateNetwork { config } => runtime.ensure_network(config).map(|()| None),
            Action::RemoveNetwork { name } => absent_is_done(runtime.remove_network(name)).map(|()| None),
            Action::CreateVolume { config } => runtime.ensure_volume(config).map(|()| None),
            Action::RemoveVolume { name } => {
                absent_is_done(runtime.remove_volume(name))?;
                Ok(Some(("Removed", format!("anonymous volume {name}"))))
            }
            Action::CreateContainer { config } => runtime.create_container(config).map(|()| None),
            Action::StartContainer { id } => {
                runtime.start_container(id)?;
                self.bell.notify_one();
                Ok(Some(("Started", id.to_string())))
            }
            Action::StopContainer { id, grace_ms } => {
                // Durable before the act: a crash in between must not turn our stop into the program's failure. The end
                // of what is unhealthy is its failure.
                if step.reason != Reason::Unhealthy {
                    self.memory.record_stop_asked(id);
                    self.memory.flush();
                }
                absent_is_done(runtime.stop_container(id, std::time::Duration::from_millis(*grace_ms)))?;
                Ok(Some(("Stopped", id.to_string())))
            }
            Action::RemoveContainer { id } => {
                absent_is_done(runtime.remove_container(id))?;
                self.memory.forget_container(id);
                Ok(None)
            }
            Action::UpdateResources { id, resources } => {
                runtime.update_resources(id, resources)?;
                Ok(Some(("Resized", id.to_string())))
            }
            Action::PublishEndpoints { table } => self.publish(table).map(|()| None),
            Action::RecordRevision { app, revision } => {
                self.memory.record_revision(app, (**revision).clone());
                self.memory.flush();
                Ok(None)
            }
            Action::RecordJob { job, record } => {
                self.memory.record_job(job, record.clone());
                self.memory.flush();
                Ok(None)
            }
        }
    }

    /// Puts a table in force. A port that somebody else holds is remembered as a failure of its own and left out, so that
    /// one App's port holds up no other name or port.
    fn publish(&self, table: &EndpointTable) -> runtime::Result<()> {
        let mut table = table.clone();
        loop {
            match self.runtime.publish_endpoints(&table) {
                Ok(()) => break,
                Err(error @ Error::PortInUse { at, .. }) => {
                    let before = table.listeners.len();
                    table.listeners.retain(|listener| listener.at != at);
                    if table.listeners.len() == before {
                        self.memory.record_published(None);
                        return Err(error);
                    }
                    self.memory.record_event(None, "PortInUse", chain(&error), true);
                    self.memory.record_failure(&Action::listener_subject(at), &error);
                }
                Err(error) => {
                    self.memory.record_published(None);
                    return Err(error);
                }
            }
        }
        for listener in &table.listeners {
            self.memory.clear_failure(&Action::listener_subject(listener.at));
        }
        self.memory.record_published(Some(table));
        Ok(())
    }

    fn pull(&self, reference: &ImageRef, refresh: bool) -> runtime::Result<(&'static str, String)> {
        let request = PullRequest { reference: reference.clone(), refresh, newer_only: refresh };
        let progress = self.pulls.begin(reference);
        let image = self.runtime.pull_image(&request, &progress)?;
        self.memory.record_image_checked(reference, &image.digest);
        Ok(("Pulled", format!("{reference} is {}", image.digest)))
    }
}

/// A removal of something that is not there has done its work.
fn absent_is_done(result: runtime::Result<()>) -> runtime::Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// Steps by what they act on.
type ByTarget<T> = BTreeMap<Target, T>;
