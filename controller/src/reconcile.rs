//! The loop: trigger → look → plan → execute → look again, until a plan is empty. The heart of the tour.
//!
//! Everything that may matter rings one bell: an accepted change, an exit, a probe that turned, a step that ended. A ring
//! says "look", never what to do: what to do follows from what is seen, so a ring lost, doubled or late changes nothing.
//! On an idle host there is one look every 30 s, which writes nothing.

mod failed;
mod view;

use std::sync::Arc;
use std::time::Duration;

use runtime::error::chain;
use runtime::{Runtime, clock};
use tokio::sync::{Notify, watch};

use view::Pass;
pub use view::{Planner, View};

use crate::execute::Executor;
use crate::memory::Memory;
use crate::model::DesiredState;
use crate::observe::{Looking, Seen, observe};
use crate::plan::Plan;
use crate::probe::{Probes, targets};

/// Between two looks nobody asked for: what events missed is found after this long.
pub(crate) const RESYNC: Duration = Duration::from_secs(30);

/// After a look that failed (the supervisor is being restarted): the time it needs to come back.
const RETRY: Duration = Duration::from_millis(200);

/// A planner that asks for a look at once gets it, but never in a tight loop.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(10);

/// How long new triggers wait for a plan's quick steps, so that bursts of work are not planned anew at each ring.
const QUICK_STEPS: Duration = Duration::from_millis(250);

/// The same for large plans: a look costs each of their steps a pause.
const QUICK_STEPS_MAX: Duration = Duration::from_secs(1);

/// What each step of a plan adds to that time.
const QUICK_STEP: Duration = Duration::from_millis(5);

/// Looks in a row that each led to action, before the loop slows down: only a step that changes nothing gets there.
const BUSY_LOOKS_MAX: u32 = 500;

/// At a start without memory, how long to wait for the first answers of probes.
const FIRST_ANSWERS: Duration = Duration::from_millis(1_500);

/// Everything a pass needs.
pub struct Reconciler {
    /// The world.
    pub runtime: Arc<dyn Runtime>,
    /// The memory.
    pub memory: Arc<Memory>,
    /// The hands.
    pub executor: Arc<Executor>,
    /// The eyes.
    pub probes: Arc<Probes>,
    /// Rung by whatever may matter.
    pub bell: Arc<Notify>,
    /// What should be.
    pub desired: watch::Receiver<Arc<DesiredState>>,
    /// `plan::plan`.
    pub planner: Planner,
    /// Where each pass is shown.
    pub views: watch::Sender<Arc<View>>,
}

impl Reconciler {
    /// Goes on until `stop` turns true or its sender is gone. Steps that run then are left to end by themselves.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.first_look().await;
        let mut busy_looks = 0;
        loop {
            let Pass { acted, next, took } = self.pass().await;
            busy_looks = if acted { busy_looks + 1 } else { 0 };
            // Looks take at most half of the time, however many rings there are.
            let rest = if busy_looks > BUSY_LOOKS_MAX { Duration::from_secs(1) } else { took.min(QUICK_STEPS) };
            let rung = async {
                tokio::time::sleep(rest).await;
                tokio::select! {
                    () = self.bell.notified() => {}
                    changed = self.desired.changed() => if changed.is_err() { std::future::pending().await },
                    () = tokio::time::sleep(next.clamp(LOOK_AGAIN_MIN, RESYNC)) => {}
                }
            };
            tokio::select! {
                () = rung => {}
                _ = stop.wait_for(|stop| *stop) => return self.executor.supersede(),
            }
        }
    }

    /// Without memory nothing is known to be ready: gates are asked before the first plan could act on that.
    async fn first_look(&mut self) {
        if let Ok((seen, _)) = self.look(|_, _| Plan::default()).await {
            self.probes.sync(targets(&self.desired.borrow(), &seen.state));
            self.probes.settle(FIRST_ANSWERS).await;
        }
    }

    /// One look and what follows from it.
    async fn pass(&mut self) -> Pass {
        let began = clock::boot_ms();
        self.executor.supersede();
        let desired = self.desired.borrow_and_update().clone();
        let (seen, plan) = match self.look(self.planner).await {
            Ok(result) => result,
            Err(why) => {
                tracing::warn!(why, "the host could not be observed; nothing is changed");
                self.views.send_modify(|view| Arc::make_mut(view).blind = Some(why));
                return Pass { acted: false, next: RETRY, took: RETRY };
            }
        };
        self.probes.sync(targets(&desired, &seen.state));
        let acts = !plan.steps.is_empty();
        let next = plan.wake_at_boot_ms.map_or(RESYNC, |at| Duration::from_millis(at.saturating_sub(clock::boot_ms())));
        let settled = !acts && plan.waiting.is_empty() && seen.state.in_flight.is_empty();
        let took = Duration::from_millis(clock::boot_ms().saturating_sub(began));
        tracing::debug!(steps = plan.steps.len(), waiting = plan.waiting.len(), settled, ?took, "planned");
        let view = View { desired, seen: Arc::new(seen), plan: Arc::new(plan.clone()), settled, blind: None };
        self.views.send_replace(Arc::new(view));
        if failed::any(&plan) {
            self.tell_failures(&plan).await;
        }
        if acts {
            let patience = QUICK_STEPS + QUICK_STEP * u32::try_from(plan.steps.len()).unwrap_or(u32::MAX).min(1_000);
            let mut running = self.executor.execute(plan);
            // Slow steps go on without us: the next look shows them as in flight.
            let _ = tokio::time::timeout(patience.min(QUICK_STEPS_MAX), &mut running).await;
        }
        Pass { acted: acts, next, took }
    }

    /// Says why revisions failed while their containers are still there to be asked.
    async fn tell_failures(&self, plan: &Plan) {
        let (runtime, memory) = (Arc::clone(&self.runtime), Arc::clone(&self.memory));
        let (view, probes, plan) = (self.views.borrow().clone(), self.probes.failures(), plan.clone());
        let told = tokio::task::spawn_blocking(move || {
            let (runtime, memory, state) = (&*runtime, &*memory, &view.seen.state);
            failed::tell(&plan, failed::Failing { desired: &view.desired, state, runtime, memory, probes: &probes });
        });
        if let Err(panic) = told.await {
            tracing::error!(%panic, "a failed revision could not be told");
        }
    }

    /// Reads the world and plans, on a thread that may block.
    async fn look(&self, planner: Planner) -> Result<(Seen, Plan), String> {
        let (runtime, memory) = (Arc::clone(&self.runtime), Arc::clone(&self.memory));
        let (in_flight, creating) = self.executor.in_flight();
        let (desired, ready) = (self.desired.borrow().clone(), self.probes.ready());
        let unhealthy = self.probes.unhealthy();
        let looked = tokio::task::spawn_blocking(move || {
            let (runtime, memory, desired) = (&*runtime, &*memory, &*desired);
            let looking = Looking {
                runtime,
                memory,
                ready: &ready,
                unhealthy: &unhealthy,
                in_flight: &in_flight,
                creating: &creating,
                desired,
            };
            let seen = observe(looking).map_err(|e| chain(&e))?;
            let plan = planner(desired, &seen.state);
            Ok((seen, plan))
        });
        looked.await.unwrap_or_else(|panic| Err(format!("a look ended in a panic: {panic}")))
    }
}
