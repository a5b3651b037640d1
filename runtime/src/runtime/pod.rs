//! Pods: containers that share namespaces. One of them, the *holder*, runs no program of a user: it has the pod's address
//! and keeps its namespaces alive, so that any other may end and be made again alone.
//!
//! A *member* joins the holder's user, network, IPC and UTS namespaces, and its process ids when asked to. It can only be
//! created while the holder runs. `stop_container` of a holder stops its members first, those with the highest
//! `stop_order` before the others, all within the one grace; `remove_container` of it removes its ended members with it
//! and is a `Conflict` while one runs. The volumes a holder names are those of its pod: nothing is mounted in it.

use serde::{Deserialize, Serialize};

use super::ContainerConfig;
use crate::id::ContainerId;

/// What a container is in a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodPart {
    /// It holds the namespaces. Its program is ours, whatever its configuration names.
    Holder,
    /// It lives in another one's namespaces.
    #[serde(rename_all = "camelCase")]
    Member {
        /// The holder.
        of: ContainerId,
        /// Process ids are the holder's too: members see each other's processes.
        share_pids: bool,
        /// Members with a higher number are stopped before those with a lower one.
        stop_order: u32,
    },
}

impl ContainerConfig {
    /// Whether it holds the namespaces of a pod.
    #[must_use]
    pub fn is_holder(&self) -> bool {
        self.pod == Some(PodPart::Holder)
    }

    /// The holder of the pod it is a member of.
    #[must_use]
    pub fn holder(&self) -> Option<&ContainerId> {
        match &self.pod {
            Some(PodPart::Member { of, .. }) => Some(of),
            Some(PodPart::Holder) | None => None,
        }
    }

    /// When it is stopped with its pod: higher numbers first.
    #[must_use]
    pub fn stop_order(&self) -> u32 {
        match &self.pod {
            Some(PodPart::Member { stop_order, .. }) => *stop_order,
            Some(PodPart::Holder) | None => 0,
        }
    }
}
