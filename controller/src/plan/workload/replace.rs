//! Bringing a template into slots: beside the old container where surge allows, in its place where not, and the last
//! good one where nothing would serve meanwhile.

use super::slot::{Slot, ends_of, is_claimed};
use super::{App, budget};
use crate::model::Restart;
use crate::plan::backoff::streak;
use crate::plan::bug::Bug;
use crate::plan::container::Make;
use crate::plan::pass::{Found, Obstacle, Pass};
use crate::plan::rollout::{Target, change_reason, is_paused, revision_of, way_back};
use crate::plan::{Reason, StepId, WaitingOn};
use runtime::runtime::{ContainerState, ExitStatus};

/// Whether a program that ended like this is not run again.
pub(in crate::plan) fn is_left_alone(restart: Restart, exit: ExitStatus, failures: impl FnOnce() -> u32) -> bool {
    match (restart, exit) {
        (Restart::Always, _) | (_, ExitStatus::Unknown) => false,
        (Restart::Never, _) | (Restart::OnFailure { .. }, ExitStatus::Code(0)) => true,
        (Restart::OnFailure { retries_max }, _) => retries_max.is_some_and(|max| failures() > max),
    }
}

impl<'a> App<'a> {
    /// While the target is not proven: slots with nothing that could serve get the last good template, as far as more of
    /// them are empty than may be missing.
    pub(super) fn fill(&mut self, pass: &mut Pass<'a>, target: &Target<'a>, is_proven: bool) {
        let Some(good) = target.good.as_ref().filter(|_| !is_proven && !self.is_gated) else { return };
        let hash = &good.revision.template_hash;
        let mut vacant: Vec<(bool, u32)> = Vec::new();
        for ordinal in 1..=self.wanted.replicas {
            let slot = self.slots.get(&ordinal);
            let live = slot.map_or(&[][..], |slot| slot.live.as_slice());
            if !live.iter().any(|(_, c)| c.template_hash == *hash || c.ready_since_boot_ms.is_some()) {
                let is_claimed = !live.is_empty() || slot.is_some_and(|slot| is_claimed(slot, target));
                vacant.push((is_claimed, ordinal));
            }
        }
        // A paused roll-out tries no further slot, so that none is left to it.
        let allowed = if is_paused(pass, self.key) { 0 } else { self.wanted.replicas - self.floor };
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
        let excess = vacant.len().saturating_sub(allowed);
        vacant.sort_unstable();
        for (_, ordinal) in vacant.into_iter().take(excess) {
            self.create(pass, ordinal, &way_back(good.clone()), &[]);
        }
    }

    /// Brings the target into slots that lack it.
    pub(super) fn replace(&mut self, pass: &mut Pass<'a>, target: &Target<'a>, is_proven: bool) {
        if self.is_gated {
            return;
        }
        let mut lacking: Vec<(bool, u32)> = Vec::new();
        let mut trying = 0_u32;
        for ordinal in 1..=self.wanted.replicas {
            let slot = self.slots.get(&ordinal);
            match slot.and_then(|slot| slot.with_hash(&target.hash)) {
                None if self.is_over(pass, ordinal, target) => {}
                Some(new) => trying += u32::from(!self.is_serving(pass, new)),
                None => {
                    let claimed = slot.is_some_and(|slot| is_claimed(slot, target));
                    trying += u32::from(claimed);
                    lacking.push((!claimed, ordinal));
                }
            }
        }
        let (surge, _) = budget(pass, self.key, self.wanted, Some(target));
        let tries = if is_proven { u32::MAX } else { (self.wanted.replicas - self.floor + surge).max(1) };
        lacking.sort_unstable();
        for (is_new_try, ordinal) in lacking {
            if is_new_try && trying >= tries {
                continue;
            }
            let live = self.slots.get(&ordinal).map(|slot| slot.live.clone()).unwrap_or_default();
            let Some(target) = self.target_of_slot(pass, ordinal, target, is_proven) else { continue };
            if self.is_over(pass, ordinal, &target) {
                continue;
            }
            let taken = self.create(pass, ordinal, &target, &live);
            trying += u32::from(is_new_try && taken);
        }
    }

    /// The target; while the roll-out is paused, what the slot had before. `None`: nothing, or what [`Self::fill`] gave it.
    fn target_of_slot(
        &self,
        pass: &Pass<'a>,
        ordinal: u32,
        target: &Target<'a>,
        is_proven: bool,
    ) -> Option<Target<'a>> {
        if !is_paused(pass, self.key) {
            return Some(target.clone());
        }
        let Some(slot) = self.slots.get(&ordinal).filter(|slot| !(slot.live.is_empty() && slot.ended.is_empty()))
        else {
            // What is leaving is known by how it ends.
            let mut found = pass.owned.get(self.key).into_iter().flatten();
            let is_vacant = !found.any(|(id, c)| c.replica.ordinal == ordinal && pass.leaving.contains(id));
            return (is_vacant && (is_proven || target.good.is_none())).then(|| target.clone());
        };
        if is_claimed(slot, target) && slot.live.is_empty() {
            return Some(target.clone());
        }
        let before = slot.newest_ended().filter(|_| slot.live.is_empty());
        before.and_then(|(_, container)| revision_of(pass, self.key, &container.template_hash))
    }

    /// Makes a container in a slot, beside the old ones in it where surge allows, else in their place. Says whether it
    /// was planned.
    fn create(&mut self, pass: &mut Pass<'a>, ordinal: u32, target: &Target<'a>, old: &[Found<'a>]) -> bool {
        let Some(gone) = self.leaving_twin(pass, ordinal, target) else { return false };
        if old.is_empty() && !self.is_turn_of(pass, ordinal) {
            return false;
        }
        let Some(make) = self.make_of(pass, ordinal, target) else { return false };
        let newest_ended = self.slots.get(&ordinal).and_then(Slot::newest_ended);
        let before = old.first().copied().or(newest_ended);
        let reason = match before {
            Some((_, c)) if c.template_hash == target.hash => Reason::Exited,
            Some((_, c)) => change_reason(pass, self.key, &c.template_hash, target),
            None => target.undo.map_or(Reason::Missing, |to| Reason::Undo { to }),
        };
        if old.is_empty() || self.has_room() {
            // In an empty slot, or start-first.
            return match pass.make_obstacle(&make, &[]) {
                Some(obstacle @ Obstacle::Wait(WaitingOn::Exclusive { .. })) if !old.is_empty() => {
                    self.create_in_place(pass, &make, old, reason, Some(obstacle))
                }
                Some(obstacle) => {
                    pass.blocked(self.key, obstacle);
                    false
                }
                None => {
                    let Some(mut after) = self.take_room() else { return false };
                    after.extend(gone);
                    pass.make(&make, reason, after).is_some()
                }
            };
        }
        self.create_in_place(pass, &make, old, reason, None)
    }

    /// Whether a slot with nothing in it may be filled: in order, those below it serve first.
    fn is_turn_of(&self, pass: &mut Pass<'a>, ordinal: u32) -> bool {
        if !self.wanted.strategy.ordered || pass.has_bug(Bug::OrderIgnored) {
            return true;
        }
        for below in 1..ordinal {
            let slot = self.slots.get(&below);
            let live = slot.map_or(&[][..], |slot| slot.live.as_slice());
            let is_ready = live.iter().any(|(_, container)| container.ready_since_boot_ms.is_some());
            // What ended well and stays so has had its turn.
            let is_over = live.is_empty()
                && self.wanted.restart != Restart::Always
                && slot.and_then(Slot::newest_ended).is_some();
            if is_ready || is_over {
                continue;
            }
            if let Some((id, _)) = live.first() {
                pass.wait(self.key, WaitingOn::Ready { id: (*id).clone() });
            }
            return false;
        }
        true
    }

    /// Steps that end a container of the same slot and template that is leaving; `None`: it leaves by an earlier plan and
    /// has to be waited for, since there is never more than one. So is what is unhealthy: how it ends decides what follows.
    fn leaving_twin(&self, pass: &Pass<'a>, ordinal: u32, target: &Target<'a>) -> Option<Vec<StepId>> {
        let found = pass.owned.get(self.key).into_iter().flatten();
        let twins = found.filter(|(id, c)| {
            c.replica.ordinal == ordinal
                && c.template_hash == target.hash
                && c.state != ContainerState::Stopped
                && pass.leaving.contains(id)
        });
        twins.map(|(id, c)| pass.stopped.get(*id).copied().filter(|_| !c.unhealthy)).collect()
    }

    /// Stop-first: the old ones go, if the floor allows and nothing else is in the way of the new one.
    fn create_in_place(
        &mut self,
        pass: &mut Pass<'a>,
        make: &Make<'a>,
        old: &[Found<'a>],
        reason: Reason,
        first_obstacle: Option<Obstacle>,
    ) -> bool {
        if let Some(obstacle) = pass.make_obstacle(make, old) {
            pass.blocked(self.key, obstacle);
            return false;
        }
        let room = self.room + i64::try_from(old.len()).unwrap_or(i64::MAX);
        if room < 1 || !self.may_stop_all(pass, old) {
            if let Some(obstacle) = first_obstacle {
                pass.blocked(self.key, obstacle);
            }
            return false;
        }
        let mut stops = Vec::new();
        for &found in old {
            let Some(step) = self.stop(pass, found, reason.clone()) else { return false };
            stops.push(step);
        }
        let Some(mut after) = self.take_room() else { return false };
        after.extend(stops);
        pass.make(make, reason, after).is_some()
    }

    /// Whether the program of a slot has ended and is to be left so. An end nobody saw was the host's, not the program's.
    pub(super) fn is_over(&self, pass: &Pass<'a>, ordinal: u32, target: &Target<'a>) -> bool {
        let Some(slot) = self.slots.get(&ordinal).filter(|_| self.wanted.restart != Restart::Always) else {
            return false;
        };
        let ends = ends_of(pass, self.key, ordinal, slot, &target.hash);
        let Some(last) = ends.last().filter(|end| slot.live.is_empty() && !end.asked) else { return false };
        is_left_alone(self.wanted.restart, last.counts_as(), || streak(&ends, pass.now()).failures)
    }

    /// The next container of a slot, unless it must wait for its back-off.
    fn make_of(&self, pass: &mut Pass<'a>, ordinal: u32, target: &Target<'a>) -> Option<Make<'a>> {
        let empty = Slot::default();
        let slot = self.slots.get(&ordinal).unwrap_or(&empty);
        let ends = ends_of(pass, self.key, ordinal, slot, &target.hash);
        let streak = streak(&ends, pass.now());
        if streak.until_boot_ms > pass.now() && !pass.has_bug(Bug::BackOffIgnored) {
            let message = ends.last().map_or_else(String::new, |end| match end.unhealthy {
                true => "stopped as unhealthy".to_owned(),
                false => end.exit.to_string(),
            });
            let (until_boot_ms, failures) = (streak.until_boot_ms, streak.failures);
            pass.wait(self.key, WaitingOn::BackOff { until_boot_ms, failures, message });
            return None;
        }
        if pass.has_bug(Bug::ExitedNeverReplaced) && !slot.ended.is_empty() {
            return None;
        }
        let all: Vec<Found<'a>> = pass.owned.get(self.key).map_or_else(Vec::new, |found| {
            found.iter().copied().filter(|(_, c)| c.replica.ordinal == ordinal).collect()
        });
        Some(Make {
            object: self.key,
            ordinal,
            index: None,
            attempt: pass.next_attempt(self.key, ordinal, &all),
            template: target.template,
            hash: target.hash.clone(),
            image: target.image,
            image_config: target.image_config,
            resources: &self.wanted.template.resources,
            source: &self.wanted.source,
        })
    }
}
