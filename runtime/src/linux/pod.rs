//! Pods on disk and in the supervisor: whose members live where, in which order they end, and what a lost holder leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::LinuxRuntime;
use crate::clock;
use crate::error::{Error, Result, chain};
use crate::id::{ContainerId, NetworkName};
use crate::network;
use crate::runtime::{ContainerConfig, ContainerState, Runtime as _};

/// What the last members to be stopped get when the others took all of the grace.
const LAST_GRACE: Duration = Duration::from_secs(2);

impl LinuxRuntime {
    /// A member needs a holder. Whether it runs the supervisor knows.
    pub(super) fn check_holder(&self, config: &ContainerConfig) -> Result<()> {
        let Some(holder) = config.holder() else { return Ok(()) };
        match self.containers.get(holder)?.is_holder() {
            true => Ok(()),
            false => Err(Error::BadContainer(format!("container `{holder}` holds no namespaces for others"))),
        }
    }

    /// The containers with a link on a network and their ports there. A member has its holder's link.
    pub(super) fn ports_on(&self, name: &NetworkName) -> Result<(Vec<ContainerId>, Vec<network::Port>)> {
        let containers = self.containers.list()?;
        let attached = containers.iter().filter(|c| c.holder().is_none());
        let attached = attached.filter_map(|c| Some((c, c.network.interface_on(name)?)));
        let ports = attached.filter_map(|(c, n)| {
            let (_, address) = c.network.addresses().nth(n)?;
            let link = network::link_name(&self.layout, &c.id, n);
            Some((c.id.clone(), network::Port { name: link, mac: network::mac_of(address) }))
        });
        Ok(ports.unzip())
    }

    fn members(&self, holder: &ContainerId) -> Result<Vec<Arc<ContainerConfig>>> {
        Ok(self.containers.list()?.into_iter().filter(|config| config.holder() == Some(holder)).collect())
    }

    /// Stops the members of a pod, highest order first, those of one order together; all within one grace.
    pub(super) fn stop_members(&self, holder: &ContainerId, grace: Duration) -> Result<()> {
        let began_ms = clock::boot_ms();
        let mut groups: BTreeMap<u32, Vec<ContainerId>> = BTreeMap::new();
        for member in self.members(holder)? {
            groups.entry(member.stop_order()).or_default().push(member.id.clone());
        }
        let is_last_word = grace.is_zero();
        for (number, (_, members)) in groups.into_iter().rev().enumerate() {
            let passed = Duration::from_millis(clock::boot_ms().saturating_sub(began_ms));
            let left = grace.saturating_sub(passed);
            let left = if number == 0 || is_last_word { left } else { left.max(LAST_GRACE.min(grace)) };
            let stopped: Vec<Result<()>> = std::thread::scope(|scope| {
                let stop = |id| move || self.stop_member(id, left);
                let threads: Vec<_> = members.iter().map(|id| scope.spawn(stop(id))).collect();
                let broken = |_| Err(Error::Unsupported("the stop of a member panicked; this is a bug".into()));
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(broken)).collect()
            });
            stopped.into_iter().collect::<Result<()>>()?;
        }
        Ok(())
    }

    /// One that is only being created has no program to be asked: it goes.
    fn stop_member(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        match self.stop_container(id, grace) {
            Err(Error::NotFound { .. }) => Ok(()),
            Err(Error::Conflict(_)) => self.remove_container(id).or_else(|error| match error {
                Error::NotFound { .. } => Ok(()),
                other => Err(other),
            }),
            other => other,
        }
    }

    /// Removes the members of a holder that is to be removed, if none of them runs.
    pub(super) fn remove_members(&self, holder: &ContainerId) -> Result<()> {
        if !self.containers.get(holder).is_ok_and(|config| config.is_holder()) {
            return Ok(());
        }
        let members = self.members(holder)?;
        if members.is_empty() {
            return Ok(());
        }
        let known = self.supervisor.list()?;
        let is_running = |id: &ContainerId| known.iter().any(|s| s.id == *id && s.state == ContainerState::Running);
        if let Some(running) = members.iter().find(|member| is_running(&member.id)) {
            return Err(Error::Conflict(format!("container `{}` of pod `{holder}` is running", running.id)));
        }
        for member in members {
            match self.remove_container(&member.id) {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends members whose holder somebody took away behind our back: nothing else would name them again.
    pub(super) fn end_left_members(&self, configs: &[Arc<ContainerConfig>]) {
        let holders: BTreeSet<&ContainerId> = configs.iter().filter(|c| c.is_holder()).map(|c| &c.id).collect();
        for config in configs {
            if let Some(holder) = config.holder().filter(|holder| !holders.contains(holder))
                && self.containers.has_lost_config(holder)
            {
                self.end_orphan(&config.id);
            }
        }
    }

    /// A process whose directory or config is gone is nobody's: somebody deleted it behind our back.
    pub(super) fn end_orphan(&self, id: &ContainerId) {
        tracing::warn!(container = %id, "its directory or config is gone: ending it");
        let ended = match self.supervisor.stop(id, libc::SIGKILL, Duration::ZERO) {
            Ok(()) => self.supervisor.remove(id),
            Err(Error::Conflict(_)) => self.supervisor.remove(id),
            Err(other) => Err(other),
        };
        match ended {
            Ok(()) | Err(Error::NotFound { .. }) => {
                drop(self.switchboard.drop_dns(id));
                if let Err(error) = self.containers.remove(id) {
                    tracing::warn!(container = %id, error = %chain(&error), "its files stay");
                }
            }
            Err(error) => tracing::warn!(container = %id, error = %chain(&error), "orphan stays"),
        }
    }
}
