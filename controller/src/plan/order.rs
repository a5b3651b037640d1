//! Puts steps in an order in which each comes behind what it waits for, and otherwise in the order they were thought of.
//! Knows nothing of what the steps do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Step, StepId};

/// Sorts and renumbers. A step whose prerequisites form a cycle, or do not exist, is left out with all that wait for
/// it: such a plan is a planner's mistake, and doing less is the harmless side of it.
#[must_use]
pub(super) fn order(steps: Vec<Step>) -> Vec<Step> {
    let count = steps.len();
    let mut open: Vec<usize> = steps.iter().map(|step| step.after.len()).collect();
    let mut waiting: Vec<Vec<StepId>> = vec![Vec::new(); count];
    for (id, step) in steps.iter().enumerate() {
        for &before in &step.after {
            if let Some(list) = waiting.get_mut(before) {
                list.push(id);
            }
        }
    }
    let mut ready: BinaryHeap<Reverse<StepId>> = (0..count).filter(|&id| open[id] == 0).map(Reverse).collect();
    let mut position = vec![usize::MAX; count];
    let mut sorted = Vec::with_capacity(count);
    let mut steps: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    while let Some(Reverse(id)) = ready.pop() {
        position[id] = sorted.len();
        let mut step = steps[id].take().expect("a step becomes ready once: when its last prerequisite was placed");
        for before in &mut step.after {
            *before = position[*before];
        }
        step.after.sort_unstable();
        step.after.dedup();
        sorted.push(step);
        for &next in &waiting[id] {
            open[next] -= 1;
            if open[next] == 0 {
                ready.push(Reverse(next));
            }
        }
    }
    sorted
}
