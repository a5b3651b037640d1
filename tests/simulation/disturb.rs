//! What happens to a host between two looks: deaths, hands of people, reboots, lost files, clocks that jump.

use controller::model::{HoldOrder, ObjectKey, Orders, Revision, RevisionResult, UndoOrder};
use runtime::image::Digest;
use runtime::runtime::{Alteration, ContainerState, ExitStatus};

use crate::run::Sim;

impl Sim {
    /// Perhaps something, perhaps nothing. A seed without faults has only what programs do by themselves, and edits.
    pub(crate) fn disturb(&mut self) {
        if self.world.fault_per_mille == 0 && self.rng.chance(800) {
            return;
        }
        self.drifted = true;
        match self.rng.below(40) {
            0..=4 => self.kill_one(),
            5 => self.remove_one(),
            6 => self.break_network(),
            7 | 8 => self.unready_one(),
            9 => {
                self.say(|_| "the database is lost".to_owned());
                self.memory.lose();
            }
            10 => self.reboot(),
            11 => {
                self.crash(None).expect("nothing is carried out in a crash between steps");
            }
            12 => self.jump_wall_clock(),
            13 => self.take_port(),
            14 => self.world.taken_ports.clear(),
            15 => {
                self.say(|_| "the switchboard's table is not known".to_owned());
                self.world.published = None;
            }
            16 => self.lose_image(),
            17 => self.world.registry_down = !self.world.registry_down,
            18 | 19 => self.world.follow_version = self.rng.small(4),
            21 => self.alter_one(),
            22 => self.hang_one(),
            23..=26 => self.order_one(),
            20 => self.world.advance(if self.rng.chance(300) { 25 * 3_600_000 } else { 400_000 }),
            _ => {}
        }
    }

    fn some_id(&mut self, test: impl Fn(ContainerState) -> bool) -> Option<runtime::id::ContainerId> {
        let found = self.world.containers.iter().filter(|(_, c)| test(c.seen.state));
        let ids: Vec<_> = found.map(|(id, _)| id.clone()).collect();
        if ids.is_empty() { None } else { Some(self.rng.pick(&ids).clone()) }
    }

    /// A container dies.
    pub(crate) fn kill_one(&mut self) {
        if self.rng.chance(400)
            && let Some(id) = self.world.kill_member(&mut self.rng)
        {
            self.say(|_| format!("{id} is killed"));
            self.drifted = true;
            return;
        }
        let Some(id) = self.some_id(|state| state == ContainerState::Running) else { return };
        self.say(|_| format!("{id} is killed"));
        self.drifted = true;
        let now = self.world.now;
        if let Some(container) = self.world.containers.get_mut(&id) {
            container.end(now, ExitStatus::Signal(9));
        }
    }

    /// Somebody removes a container behind our back.
    fn remove_one(&mut self) {
        let Some(id) = self.some_id(|_| true) else { return };
        self.say(|_| format!("{id} is removed by hand"));
        self.world.containers.remove(&id);
    }

    fn break_network(&mut self) {
        let names: Vec<_> = self.world.networks.keys().cloned().collect();
        if names.is_empty() {
            return;
        }
        let name = self.rng.pick(&names).clone();
        self.say(|_| format!("network {name} is broken by hand"));
        if self.rng.chance(700) {
            if let Some((_, intact)) = self.world.networks.get_mut(&name) {
                *intact = false;
            }
        } else {
            self.world.networks.remove(&name);
        }
    }

    /// Somebody changes a running container from outside: what its probe says goes on.
    fn alter_one(&mut self) {
        let Some(id) = self.some_id(|state| state == ContainerState::Running) else { return };
        let what = if self.rng.chance(500) { Alteration::Limits } else { Alteration::Network };
        self.say(|_| format!("{id}: {what:?} altered by hand"));
        if let Some(container) = self.world.containers.get_mut(&id)
            && (what == Alteration::Limits || container.seen.address.is_some())
        {
            container.seen.altered.insert(what);
        }
    }

    fn unready_one(&mut self) {
        let Some(id) = self.some_id(|state| state == ContainerState::Running) else { return };
        self.say(|_| format!("{id} is unready for 5 s"));
        let now = self.world.now;
        if let Some(container) = self.world.containers.get_mut(&id)
            && container.seen.pod.is_none()
            && container.seen.ready_since_boot_ms.take().is_some()
        {
            container.ready_at = Some(now + 5_000);
        }
    }

    /// A program hangs: its liveness check fails from now on, whatever its readiness check says.
    fn hang_one(&mut self) {
        let Some(id) = self.some_id(|state| state == ContainerState::Running) else { return };
        self.say(|_| format!("{id} hangs"));
        if let Some(container) = self.world.containers.get_mut(&id) {
            container.seen.unhealthy = true;
        }
    }

    /// Somebody says by hand what is to be done with an App: hold, release, scale, pause, resume, undo, retry.
    fn order_one(&mut self) {
        let keys: Vec<ObjectKey> = self.desired.workloads.keys().cloned().collect();
        if keys.is_empty() {
            return;
        }
        let key = self.rng.pick(&keys).clone();
        let is_exclusive = self.desired.workloads[&key].exclusive;
        let replicas = if is_exclusive { self.rng.small(2) } else { self.rng.small(5) };
        let undo = self.an_undo(&key);
        let by_hand = self.desired.orders.entry(key.clone()).or_default();
        match self.rng.below(10) {
            0 | 1 => {
                let why = "by hand".to_owned();
                by_hand.hold = Some(HoldOrder { why, since_unix_ms: 0, app: None, job: None });
            }
            2 | 3 => *by_hand = Orders::default(),
            4 => {
                by_hand.replicas = Some(replicas);
                if let Some(app) = self.desired.workloads.get_mut(&key) {
                    app.replicas = replicas;
                }
            }
            5 | 6 => by_hand.paused = true,
            7 => by_hand.paused = false,
            8 => by_hand.undo = None,
            _ => by_hand.undo = undo,
        }
        self.desired.orders.retain(|_, by_hand| *by_hand != Orders::default());
        self.say(|sim| format!("by hand, {key}: {:?}", sim.desired.orders.get(&key)));
    }

    /// From the newest revision back to one that was ready.
    pub(crate) fn an_undo(&self, key: &ObjectKey) -> Option<UndoOrder> {
        let revisions = self.memory.revisions.get(key)?;
        let (last, before) = revisions.split_last()?;
        let good =
            |known: &&Revision| known.result == RevisionResult::Ready && known.template_hash != last.template_hash;
        let to = before.iter().rev().find(good)?.template_hash.clone();
        Some(UndoOrder { revision: last.number, of: last.template_hash.clone(), to })
    }

    fn reboot(&mut self) {
        self.say(|_| "the host reboots".to_owned());
        self.crash(None).expect("nothing is carried out in a crash between steps");
        self.world.reboot(&mut self.rng);
        self.memory.reboot();
        self.wake_at = None;
    }

    fn jump_wall_clock(&mut self) {
        const YEAR_MS: u64 = 365 * 86_400_000;
        let by = *self.rng.pick(&[1_000, 600_000, 7_200_000, YEAR_MS, 10 * YEAR_MS]);
        let unix = self.world.unix;
        self.world.unix = if self.rng.chance(500) { unix + by } else { unix.saturating_sub(by) };
        self.say(|sim| format!("the wall clock says {}", sim.world.unix));
    }

    fn take_port(&mut self) {
        let ports: Vec<u16> =
            self.desired.workloads.values().flat_map(|app| &app.ports).map(|port| port.at.port).collect();
        if !ports.is_empty() {
            let port = *self.rng.pick(&ports);
            // Only a port nobody listens on yet can be taken.
            let in_force = self.world.published.iter().flat_map(|table| &table.listeners);
            if !in_force.clone().any(|listener| listener.at.port == port) {
                self.world.taken_ports.insert(port);
            }
        }
    }

    fn lose_image(&mut self) {
        let references: Vec<_> = self.world.images.keys().cloned().collect();
        if references.is_empty() {
            return;
        }
        let reference = self.rng.pick(&references).clone();
        let used = |digest: &Digest| self.world.uses_image(digest);
        let image = &self.world.images[&reference];
        if !used(&image.digest) && !image.previous.iter().any(used) {
            self.say(|_| format!("image {reference} is removed by hand"));
            self.world.images.remove(&reference);
        }
    }
}
