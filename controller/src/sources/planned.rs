//! Plans somebody reads before anything happens, and the promise that exactly such a plan is carried out, or nothing.
//!
//! The seals of the newest plans are remembered, so that a refusal can say what moved. What follows from a plan's steps
//! (the later rounds of a roll-out) is planned anew each time, as always.

use std::collections::{BTreeSet, VecDeque};

use super::saved::{Entry, Role, Saved};
use super::{Sources, hold_of, merge};
use crate::api::types::{Applied, PlanView, SourceRequest};
use crate::manifest::{self, Look};
use crate::model::{Confirmation, DesiredState, Loaded, ObjectKey, ObservedState, accept};
use crate::plan::change::changes;
use crate::plan::{Plan, Seal, seal};

/// Seals remembered; the oldest go first.
const SEALS_MAX: usize = 64;

/// Lines of what moved that a refusal tells.
const MOVED_MAX: usize = 8;

/// The newest plans that were shown.
#[derive(Debug, Default)]
pub(super) struct Seals(VecDeque<Seal>);

impl Seals {
    fn remember(&mut self, seal: Seal) {
        self.0.retain(|known| known.hash != seal.hash);
        self.0.push_back(seal);
        self.0.drain(..self.0.len().saturating_sub(SEALS_MAX));
    }

    /// Why the plan of now is not the one asked for.
    fn refusal(&self, asked: &str, now: &Seal) -> String {
        let Some(shown) = self.0.iter().find(|seal| seal.hash == asked) else {
            return format!("no plan {asked} was shown since this controller started; the plan is {} now", now.hash);
        };
        let moved = shown.moved(now);
        let more = moved.len().saturating_sub(MOVED_MAX);
        let more = if more > 0 { format!("\n    and {more} more") } else { String::new() };
        let moved: Vec<&str> = moved.iter().take(MOVED_MAX).map(String::as_str).collect();
        format!("what plan {asked} saw has moved; nothing was changed:\n    {}{more}", moved.join("\n    "))
    }
}

/// A plan and what it was made of.
struct Planned {
    desired: DesiredState,
    plan: Plan,
    diagnostics: Vec<String>,
    errors: u32,
}

impl Sources {
    /// What would be done if a source were put in force, or (none) for what is accepted. Changes nothing; blocks.
    #[must_use]
    pub fn plan(&self, request: Option<SourceRequest>, observed: &ObservedState) -> PlanView {
        let (saved, lost) = {
            let inner = self.lock();
            (inner.saved.clone(), inner.lost.clone())
        };
        let asked = request.map(|request| {
            let request = saved.as_known(request);
            let loaded = self.load(&request);
            (request, loaded)
        });
        let planned = self.planned(saved, &lost, asked.as_ref().map(|(request, loaded)| (request, loaded)), observed);
        let Planned { desired, plan, diagnostics, errors } = planned;
        let touched: BTreeSet<&ObjectKey> = plan.steps.iter().filter_map(|step| step.object.as_ref()).collect();
        let changes = changes(&self.desired.borrow(), &desired, observed, &plan);
        let changed: BTreeSet<&ObjectKey> = changes.iter().map(|change| &change.object).collect();
        let same = |key: &&ObjectKey| !touched.contains(*key) && !changed.contains(*key);
        let unchanged = merge::keys(&desired).into_iter().filter(same).cloned().collect();
        let seal = seal(&desired, &plan);
        let hash = seal.hash.clone();
        self.lock().seals.remember(seal);
        let held = desired.orders.iter().filter_map(|(key, by_hand)| Some((key.clone(), by_hand.hold.clone()?.why)));
        let held = held.collect();
        PlanView { unchanged, diagnostics, errors, changes, hash, held, pulls: Vec::new(), plan }
    }

    /// Puts a source in force if what follows is the plan with this hash. Blocks.
    ///
    /// # Errors
    /// What moved since the plan was made; nothing was changed.
    pub fn apply_sealed(
        &self,
        request: SourceRequest,
        hash: &str,
        observed: &ObservedState,
    ) -> Result<Applied, String> {
        let request = self.lock().saved.as_known(request);
        let loaded = self.load(&request);
        // One lock over both: no other source comes in between.
        let mut inner = self.lock();
        let planned = self.planned(inner.saved.clone(), &inner.lost, Some((&request, &loaded)), observed);
        let now = seal(&planned.desired, &planned.plan);
        if now.hash != hash {
            let refusal = inner.seals.refusal(hash, &now);
            inner.seals.remember(now);
            return Err(refusal);
        }
        Ok(self.take_locked(&mut inner, request, &loaded))
    }

    fn planned(
        &self,
        mut saved: Saved,
        lost: &BTreeSet<ObjectKey>,
        asked: Option<(&SourceRequest, &Loaded)>,
        observed: &ObservedState,
    ) -> Planned {
        let (mut diagnostics, mut errors) = (Vec::new(), 0);
        if let Some((request, loaded)) = asked {
            let previous = saved.entries.get(&request.path).map(|e| e.accepted.clone()).unwrap_or_default();
            let confirmed = request.confirm_removal;
            let confirmation = if confirmed { Confirmation::Removal } else { Confirmation::None };
            let (accepted, problems) = accept(&previous, loaded, confirmation);
            let look = Look::plain(loaded);
            diagnostics = problems.iter().map(|p| manifest::render(p, &loaded.sources, &look)).collect();
            errors = u32::try_from(problems.iter().filter(|p| p.is_error()).count()).unwrap_or(u32::MAX);
            let entry = Entry { request: request.clone(), accepted, role: Role::Asked };
            saved.entries.insert(request.path.clone(), entry);
            saved.forget_what_moved();
            saved.read_again(&request.path);
        }
        let desired = merge::merge(&saved, hold_of(lost)).0;
        let plan = (self.planner)(&desired, observed);
        Planned { desired, plan, diagnostics, errors }
    }
}
