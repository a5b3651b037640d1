//! One seed: a controller's life of passes, crashes and changes, and its end, at which all is as wanted.

use std::collections::BTreeMap;

use controller::model::{DesiredState, ObservedContainer};
use controller::plan::bug::Bug;
use controller::plan::{Action, Plan, Reason, Step, plan_with};
use runtime::runtime::ContainerState;

use crate::desire;
use crate::invariant;
use crate::memory::Memory;
use crate::rng::Rng;
use crate::world::{Container, Fail, World};

/// How often each action and each reason was planned, and how much was done.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) actions: BTreeMap<&'static str, u64>,
    pub(crate) reasons: BTreeMap<&'static str, u64>,
    pub(crate) passes: u64,
    pub(crate) settle_passes_max: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        for (name, count) in &other.actions {
            *self.actions.entry(name).or_default() += count;
        }
        for (name, count) in &other.reasons {
            *self.reasons.entry(name).or_default() += count;
        }
        self.passes += other.passes;
        self.settle_passes_max = self.settle_passes_max.max(other.settle_passes_max);
    }
}

/// An action that takes its time.
struct InFlight {
    action: Action,
    done_at: u64,
}

pub(crate) struct Sim {
    pub(crate) rng: Rng,
    pub(crate) world: World,
    pub(crate) memory: Memory,
    pub(crate) desired: DesiredState,
    pub(crate) wake_at: Option<u64>,
    in_flight: Vec<InFlight>,
    bug: Option<Bug>,
    /// The world changed since it was looked at: a refused call is nobody's mistake.
    pub(crate) drifted: bool,
    pub(crate) counts: Counts,
    trace: bool,
}

/// Runs one seed to its end.
pub(crate) fn run(seed: u64, bug: Option<Bug>, trace: bool) -> Result<Counts, String> {
    let mut rng = Rng::new(seed);
    let mut sim = Sim {
        world: World::new(&mut rng),
        memory: Memory::default(),
        desired: desire::random(&mut rng),
        rng,
        wake_at: None,
        in_flight: Vec::new(),
        bug,
        drifted: false,
        counts: Counts::default(),
        trace,
    };
    let at = |error: String| format!("seed {seed}: {error}");
    for _ in 0..=sim.rng.below(4) {
        for _ in 0..2 + sim.rng.below(7) {
            sim.pass().map_err(at)?;
            sim.disturb();
            sim.let_time_pass().map_err(at)?;
        }
        desire::change(&mut sim.desired, &mut sim.rng);
        sim.say(|sim| format!("changed to generation {}", sim.desired.generation));
    }
    crate::settle::settle(&mut sim).map_err(at)?;
    Ok(sim.counts)
}

impl Sim {
    pub(crate) fn say(&self, text: impl FnOnce(&Self) -> String) {
        if self.trace {
            println!("{:>9} {}", self.world.now, text(self));
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Looks, plans, checks and carries out. Returns the plan.
    pub(crate) fn pass(&mut self) -> Result<Plan, String> {
        let subjects: Vec<String> = self.in_flight.iter().map(|flying| flying.action.subject()).collect();
        let observed = self.memory.observe(&mut self.world, &self.desired, &subjects);
        let plan = plan_with(&self.desired, &observed, self.bug);
        self.counts.passes += 1;
        if self.rng.chance(50) && plan_with(&self.desired, &observed, self.bug) != plan {
            return Err("the same input gave another plan".to_owned());
        }
        plan.check(&observed).map_err(|wrong| format!("Plan::check: {}", wrong.join("; ")))?;
        invariant::floor(&self.desired, &observed, &plan)?;
        invariant::turns(&self.desired, &observed, &plan)?;
        for step in &plan.steps {
            *self.counts.actions.entry(step.action.name()).or_default() += 1;
            *self.counts.reasons.entry(step.reason.name()).or_default() += 1;
        }
        self.wake_at = plan.wake_at_boot_ms;
        self.say(|_| {
            format!("pass: {} steps, wake at {:?}, waiting {:?}", plan.steps.len(), plan.wake_at_boot_ms, plan.waiting)
        });
        self.drifted = false;
        self.execute(&plan)?;
        Ok(plan)
    }

    /// Carries out a plan in a random order that its edges allow, until it ends or the controller dies.
    fn execute(&mut self, plan: &Plan) -> Result<(), String> {
        let crash_at = self.is_faulty().then(|| self.rng.below(60)).filter(|_| self.rng.chance(150));
        let mut done: Vec<Option<bool>> = vec![None; plan.steps.len()];
        let mut count = 0;
        loop {
            let open: Vec<usize> = (0..plan.steps.len())
                .filter(|&id| done[id].is_none() && plan.steps[id].after.iter().all(|&prior| done[prior] == Some(true)))
                .collect();
            if open.is_empty() {
                return Ok(());
            }
            let id = *self.rng.pick(&open);
            let step = &plan.steps[id];
            let action = &step.action;
            count += 1;
            if crash_at == Some(count) {
                return self.crash(Some(step));
            }
            self.say(|_| format!("  {} [{}]", action.subject(), plan.steps[id].reason.name()));
            done[id] = Some(match self.takes_ms(action) {
                0 => self.act(step, true)?,
                ms => {
                    self.begin(step, ms)?;
                    false
                }
            });
            if self.is_faulty() && self.rng.chance(10) {
                self.kill_one();
            }
        }
    }

    fn is_faulty(&self) -> bool {
        self.world.fault_per_mille > 0
    }

    fn takes_ms(&mut self, action: &Action) -> u64 {
        let per_mille = match action {
            Action::PullImage { .. } => 300,
            Action::StopContainer { .. } => 200,
            Action::CreateContainer { .. } => 100,
            Action::RemoveImage { .. }
            | Action::CreateNetwork { .. }
            | Action::RemoveNetwork { .. }
            | Action::CreateVolume { .. }
            | Action::RemoveVolume { .. }
            | Action::StartContainer { .. }
            | Action::RemoveContainer { .. }
            | Action::UpdateResources { .. }
            | Action::PublishEndpoints { .. }
            | Action::RecordRevision { .. }
            | Action::RecordJob { .. } => 0,
        };
        if self.rng.chance(per_mille) { 200 + self.rng.below(8_000) } else { 0 }
    }

    /// One call, at once. Says whether it succeeded.
    fn act(&mut self, step: &Step, is_recorded: bool) -> Result<bool, String> {
        let action = &step.action;
        invariant::step(action, &self.desired, &self.world, &self.memory)?;
        self.ask(step);
        let result = self.world.act(action, &self.desired, &mut self.rng);
        self.note(action, &result)?;
        if is_recorded {
            self.memory.record(action, &result, self.world.now);
        }
        Ok(result.is_ok())
    }

    /// As the executor: a stop is asked for, unless it is what a failed check leads to.
    fn ask(&mut self, step: &Step) {
        if let Action::StopContainer { id, .. } = &step.action
            && step.reason != Reason::Unhealthy
        {
            self.memory.asked.insert(id.clone());
        }
    }

    /// A refusal is the planner's mistake, unless the world changed after it looked.
    fn note(&self, action: &Action, result: &Result<(), Fail>) -> Result<(), String> {
        match result {
            Ok(()) => Ok(()),
            Err(Fail::Refused(why)) if !self.drifted => Err(format!("{} was refused: {why}", action.subject())),
            Err(fail) => {
                self.say(|_| format!("    failed: {fail:?}"));
                Ok(())
            }
        }
    }

    /// A call that takes its time begins.
    fn begin(&mut self, step: &Step, ms: u64) -> Result<(), String> {
        let action = &step.action;
        self.ask(step);
        invariant::step(action, &self.desired, &self.world, &self.memory)?;
        match action {
            Action::CreateContainer { config } if config.holder().is_some() => {
                let legal = self.world.check_create_member(config).map_err(Fail::Refused);
                self.note(action, &legal)?;
                if legal.is_err() {
                    return Ok(());
                }
                self.world.add_member(config, ContainerState::Creating);
            }
            Action::CreateContainer { config } => {
                let legal = self.world.check_create(config, &self.desired).map_err(Fail::Refused);
                self.note(action, &legal)?;
                if legal.is_err() {
                    return Ok(());
                }
                let seen = ObservedContainer::from_config(config).expect("check_create looked at the labels");
                let config = (**config).clone();
                let id = config.id.clone();
                let container = Container {
                    config,
                    seen,
                    ready_at: None,
                    ends_at: None,
                    ready_for_ms: 0,
                    timings: BTreeMap::new(),
                };
                self.world.containers.insert(id, container);
            }
            Action::StopContainer { .. }
            | Action::PullImage { .. }
            | Action::RemoveImage { .. }
            | Action::CreateNetwork { .. }
            | Action::RemoveNetwork { .. }
            | Action::CreateVolume { .. }
            | Action::RemoveVolume { .. }
            | Action::StartContainer { .. }
            | Action::RemoveContainer { .. }
            | Action::UpdateResources { .. }
            | Action::PublishEndpoints { .. }
            | Action::RecordRevision { .. }
            | Action::RecordJob { .. } => {}
        }
        self.say(|_| format!("    takes {ms} ms"));
        self.in_flight.push(InFlight { action: action.clone(), done_at: self.world.now + ms });
        Ok(())
    }

    /// Ends what is due.
    fn end_in_flight(&mut self) -> Result<(), String> {
        let now = self.world.now;
        let (due, rest) = std::mem::take(&mut self.in_flight).into_iter().partition(|flying| flying.done_at <= now);
        self.in_flight = rest;
        let due: Vec<InFlight> = due;
        for flying in due {
            self.say(|_| format!("  done: {}", flying.action.subject()));
            let result = match &flying.action {
                Action::CreateContainer { config } => self.end_create(&config.id),
                other => self.world.act(other, &self.desired, &mut self.rng),
            };
            if let Err(Fail::Refused(why)) = &result
                && why.contains("connections lead to it")
            {
                return Err(format!("{} was refused: {why}", flying.action.subject()));
            }
            self.memory.record(&flying.action, &result, now);
        }
        Ok(())
    }

    fn end_create(&mut self, id: &runtime::id::ContainerId) -> Result<(), Fail> {
        let fails = self.rng.chance(self.world.fault_per_mille);
        if let Some(holder) = self.world.pod_of(id) {
            let member = holder.seen.pod.as_mut().and_then(|pod| pod.members.get_mut(id));
            return match member {
                Some(member) if member.state == ContainerState::Creating && !fails => {
                    member.state = ContainerState::Created;
                    Ok(())
                }
                Some(_) | None => Err(Fail::Fault),
            };
        }
        match self.world.containers.get_mut(id) {
            Some(container) if container.seen.state == ContainerState::Creating && !fails => {
                container.seen.state = ContainerState::Created;
                Ok(())
            }
            Some(_) | None => Err(Fail::Fault),
        }
    }

    /// The controller dies, perhaps in the middle of a call that then was or was not carried out; nothing of it is
    /// remembered. Another starts with the next pass.
    pub(crate) fn crash(&mut self, during: Option<&Step>) -> Result<(), String> {
        self.say(|_| format!("  the controller dies during {:?}", during.map(|step| step.action.subject())));
        if let Some(step) = during
            && self.rng.chance(500)
        {
            self.act(step, false)?;
        }
        for flying in std::mem::take(&mut self.in_flight) {
            if matches!(flying.action, Action::StopContainer { .. }) && self.rng.chance(500) {
                // Half of the stops go on without us: the supervisor has them.
                let _ = self.world.act(&flying.action, &self.desired, &mut self.rng);
            }
        }
        Ok(())
    }

    /// Time goes on: to what comes next, or a little.
    pub(crate) fn let_time_pass(&mut self) -> Result<(), String> {
        let flying = self.in_flight.iter().map(|flying| flying.done_at).min();
        let next = [self.wake_at, self.world.next_event(), flying].into_iter().flatten().min();
        let ms = match next {
            Some(at) if self.rng.chance(700) => at.saturating_sub(self.world.now).min(400_000),
            Some(_) | None => self.rng.below(3_000),
        };
        self.world.advance(ms);
        self.end_in_flight()
    }

    /// Time goes on to exactly the next thing that happens, at most this far. `false`: nothing happens by then.
    pub(crate) fn skip_to_next(&mut self, ms_max: u64) -> Result<bool, String> {
        let flying = self.in_flight.iter().map(|flying| flying.done_at).min();
        let next = [self.wake_at, self.world.next_event(), flying].into_iter().flatten().min();
        let Some(at) = next.filter(|at| *at <= self.world.now + ms_max) else { return Ok(false) };
        self.world.advance(at.saturating_sub(self.world.now));
        self.end_in_flight()?;
        Ok(true)
    }

    /// Lets what is being done come to its end; nothing new is planned meanwhile.
    pub(crate) fn land(&mut self) -> Result<(), String> {
        while let Some(at) = self.in_flight.iter().map(|flying| flying.done_at).min() {
            self.world.advance(at.saturating_sub(self.world.now));
            self.end_in_flight()?;
        }
        Ok(())
    }
}
