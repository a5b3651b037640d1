//! What is being carried out right now, by what it acts on: at most one step per thing, whatever plan it is from.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime::runtime::ContainerConfig;
use tokio::sync::watch;

use super::ByTarget;
use crate::plan::Action;

/// The thing an action acts on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Image(String),
    Network(String),
    Volume(String),
    Container(String),
    Endpoints,
    Record(String),
}

impl Target {
    pub(super) fn of(action: &Action) -> Self {
        match action {
            Action::PullImage { reference, .. } | Action::RemoveImage { reference } => {
                Self::Image(reference.to_string())
            }
            Action::CreateNetwork { config } => Self::Network(config.name.to_string()),
            Action::RemoveNetwork { name } => Self::Network(name.to_string()),
            Action::CreateVolume { config } => Self::Volume(config.name.to_string()),
            Action::RemoveVolume { name } => Self::Volume(name.to_string()),
            Action::CreateContainer { config } => Self::Container(config.id.to_string()),
            Action::StartContainer { id }
            | Action::StopContainer { id, .. }
            | Action::RemoveContainer { id }
            | Action::UpdateResources { id, .. } => Self::Container(id.to_string()),
            Action::PublishEndpoints { .. } => Self::Endpoints,
            Action::RecordRevision { .. } | Action::RecordJob { .. } => Self::Record(action.subject()),
        }
    }
}

/// A step in flight, for those who wait for it.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    action: Arc<Action>,
    landed: watch::Receiver<Option<bool>>,
}

impl Flight {
    /// Waits for its end: whether it succeeded. A flight that vanished without a word failed.
    pub(super) async fn landed(mut self) -> bool {
        match self.landed.wait_for(Option::is_some).await {
            Ok(result) => *result == Some(true),
            Err(_) => false,
        }
    }
}

/// How a step may go on.
pub(super) enum Entry {
    /// It flies: act, then land the ticket.
    Entered(Ticket),
    /// The very same is in flight: take its result.
    Same(Flight),
    /// What is in flight has to succeed first; then try again.
    After(Flight),
    /// Something else holds the thing.
    Busy,
    /// A newer plan decides.
    Superseded,
}

/// All flights.
#[derive(Debug, Default)]
pub(super) struct Flights {
    map: Mutex<ByTarget<Flight>>,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, ByTarget<Flight>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(super) fn list(&self) -> (BTreeSet<String>, Vec<ContainerConfig>) {
        let map = self.lock();
        let creating = map.values().filter_map(|flight| {
            let Action::CreateContainer { config } = &*flight.action else { return None };
            Some((**config).clone())
        });
        (map.values().map(|flight| flight.action.subject()).collect(), creating.collect())
    }

    /// Marks a plan as superseded. After this no step of it enters, so that what [`Self::list`] says stays complete.
    pub(super) fn supersede(&self, plan: &AtomicBool) {
        let _no_step_enters = self.lock();
        plan.store(true, Ordering::SeqCst);
    }

    /// Takes the thing for this action, or says why not.
    pub(super) fn enter(self: &Arc<Self>, target: &Target, action: &Action, superseded: &AtomicBool) -> Entry {
        let mut map = self.lock();
        if superseded.load(Ordering::SeqCst) {
            return Entry::Superseded;
        }
        if let Some(flight) = map.get(target) {
            return meet(flight, action);
        }
        let (land, landed) = watch::channel(None);
        map.insert(target.clone(), Flight { action: Arc::new(action.clone()), landed });
        Entry::Entered(Ticket { flights: Arc::clone(self), target: target.clone(), land })
    }
}

/// What a new step does about the one in flight for the same thing.
fn meet(flight: &Flight, new: &Action) -> Entry {
    let old = &*flight.action;
    // The newest table wins, so an older one in flight is waited for and never joined.
    let newer_table = matches!(new, Action::PublishEndpoints { .. }) && old != new;
    if old.subject() == new.subject() && !newer_table {
        return Entry::Same(flight.clone());
    }
    let follows = matches!(
        (old, new),
        (Action::CreateContainer { .. }, Action::StartContainer { .. })
            | (Action::StopContainer { .. }, Action::RemoveContainer { .. })
    );
    if newer_table || follows { Entry::After(flight.clone()) } else { Entry::Busy }
}

/// The right to act on a thing. Dropped without landing (a panic), the flight counts as failed.
pub(super) struct Ticket {
    flights: Arc<Flights>,
    target: Target,
    land: watch::Sender<Option<bool>>,
}

impl Ticket {
    pub(super) fn land(self, done: bool) {
        self.flights.lock().remove(&self.target);
        self.land.send_replace(Some(done));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.land.borrow().is_none() {
            self.flights.lock().remove(&self.target);
            self.land.send_replace(Some(false));
        }
    }
}
