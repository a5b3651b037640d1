//! Pods of the fake: what a member needs, and what happens to members with their holder.

use super::world::World;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::runtime::{ContainerConfig, ContainerState, ExitStatus, PodPart};

impl World {
    /// A member needs a holder that runs.
    pub(super) fn check_holder(&self, config: &ContainerConfig) -> Result<()> {
        let Some(holder) = config.holder() else { return Ok(()) };
        let missing = || Error::NotFound { what: "container", name: holder.to_string() };
        let found = self.containers.get(holder).ok_or_else(missing)?;
        match (found.config.is_holder(), found.state) {
            (false, _) => Err(Error::BadContainer(format!("container `{holder}` holds no namespaces for others"))),
            (true, ContainerState::Running) => Ok(()),
            (true, _) => Err(Error::Conflict(format!("the pod `{holder}` does not run"))),
        }
    }

    /// Members of a holder in the order in which they are stopped.
    pub(super) fn members_to_stop(&self, holder: &ContainerId) -> Vec<ContainerId> {
        let members = self.containers.values().filter(|info| info.config.holder() == Some(holder));
        let mut members: Vec<_> = members.map(|info| (info.config.stop_order(), info.config.id.clone())).collect();
        members.sort_by(|a, b| b.cmp(a));
        members.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn remove_members(&mut self, holder: &ContainerId) -> Result<()> {
        let members = self.members_to_stop(holder);
        for id in &members {
            if self.container(id)?.state == ContainerState::Running {
                return Err(Error::Conflict(format!("container `{id}` of pod `{holder}` is running")));
            }
        }
        members.iter().for_each(|id| drop(self.containers.remove(id)));
        Ok(())
    }

    /// With the first process of a namespace of process ids die all that are in it.
    pub(super) fn end_with_pids_of(&mut self, id: &ContainerId) {
        let shares = |config: &ContainerConfig| matches!(&config.pod, Some(PodPart::Member { of, share_pids: true, .. }) if of == id);
        let members = self.containers.values().filter(|info| shares(&info.config));
        let members: Vec<_> = members.map(|info| info.config.id.clone()).collect();
        members.iter().for_each(|member| self.end(member, ExitStatus::Signal(9)));
    }
}
