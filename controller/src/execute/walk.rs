//! The walk over a plan's graph: a step begins when all it comes after have succeeded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::task::JoinSet;

use super::{Executor, Outcome, Report};
use crate::plan::{Step, StepId};

/// Carries out all steps; ends when each has an outcome.
pub(super) async fn walk(executor: &Arc<Executor>, steps: Vec<Step>, superseded: &Arc<AtomicBool>) -> Report {
    let mut graph = Graph::new(&steps);
    let mut steps: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    let mut running = JoinSet::new();
    let mut ids = BTreeMap::new();
    let mut begin = graph.free();
    loop {
        for id in begin.drain(..) {
            let Some(step) = steps[id].take() else { continue };
            let task = running.spawn(Arc::clone(executor).carry_out(step, Arc::clone(superseded)));
            ids.insert(task.id(), id);
        }
        let Some(ended) = running.join_next_with_id().await else { break };
        let (task, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), Outcome::Failed),
        };
        if let Some(id) = ids.remove(&task) {
            begin = graph.end(id, outcome);
        }
    }
    Report { outcomes: graph.outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Skipped)).collect() }
}

/// What waits for what.
struct Graph {
    /// How many steps each still waits for.
    waits: Vec<usize>,
    dependants: Vec<Vec<StepId>>,
    outcomes: Vec<Option<Outcome>>,
}

impl Graph {
    fn new(steps: &[Step]) -> Self {
        let mut dependants = vec![Vec::new(); steps.len()];
        for (id, step) in steps.iter().enumerate() {
            for before in &step.after {
                dependants[*before].push(id);
            }
        }
        let waits = steps.iter().map(|step| step.after.len()).collect();
        Self { waits, dependants, outcomes: vec![None; steps.len()] }
    }

    fn free(&self) -> Vec<StepId> {
        (0..self.waits.len()).filter(|id| self.waits[*id] == 0).collect()
    }

    /// Notes an outcome; returns the steps that may begin now, and marks those that never will.
    fn end(&mut self, id: StepId, outcome: Outcome) -> Vec<StepId> {
        self.outcomes[id] = Some(outcome);
        if outcome != Outcome::Done {
            self.skip_dependants(id);
            return Vec::new();
        }
        let mut free = Vec::new();
        for next in self.dependants[id].clone() {
            self.waits[next] -= 1;
            if self.waits[next] == 0 && self.outcomes[next].is_none() {
                free.push(next);
            }
        }
        free
    }

    fn skip_dependants(&mut self, id: StepId) {
        let mut skip = self.dependants[id].clone();
        while let Some(next) = skip.pop() {
            if self.outcomes[next].replace(Outcome::Skipped).is_none() {
                skip.extend(self.dependants[next].iter().copied());
            }
        }
    }
}
