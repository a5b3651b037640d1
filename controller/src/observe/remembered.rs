//! The world as a controller would find it if it were started now, for those who may neither start one nor change
//! anything: containers as remembered, less those whose process is gone; the rest as found on disk.

use std::collections::BTreeMap;

use runtime::clock;
use runtime::id::ContainerId;
use runtime::runtime::{ContainerState, ExitStatus, ImageInfo, NetworkInfo, VolumeInfo};

use super::{host, image_records, is_by_hand, networks, snapshot, volumes};
use crate::memory::{Memory, World};
use crate::model::{DesiredState, ExitRecord, ObservedState};

/// What was found on disk and in the kernel.
#[derive(Debug, Default)]
pub struct Found {
    /// Images of the store.
    pub images: Vec<ImageInfo>,
    /// Networks.
    pub networks: Vec<NetworkInfo>,
    /// Volumes.
    pub volumes: Vec<VolumeInfo>,
}

/// One state from memory and what was found. `memory` is changed as a look would change it: give one that nobody keeps.
#[must_use]
pub fn remembered(
    memory: &Memory,
    found: Found,
    lives: impl Fn(&ContainerId) -> bool,
    desired: &DesiredState,
) -> ObservedState {
    let now_boot_ms = clock::boot_ms();
    let (by_hand, listed) = found.networks.into_iter().partition(is_by_hand);
    let networks = networks(listed, &[]);
    let host = host::read(&networks, by_hand);
    let mut inner = memory.lock();
    let mut containers: BTreeMap<_, _> = inner.containers.clone();
    for (id, record) in &mut containers {
        let has_process = matches!(record.observed.state, ContainerState::Running | ContainerState::Created);
        if !has_process || lives(id) {
            continue;
        }
        if record.observed.state == ContainerState::Running && !record.exit_recorded {
            // As the next supervisor will tell it: nobody saw how or when.
            let exit = ExitRecord {
                attempt: record.observed.attempt,
                template_hash: record.observed.template_hash.clone(),
                exit: ExitStatus::Unknown,
                finished_boot_ms: 0,
                finished_unix_ms: 0,
                ready_for_ms: 0,
                asked: record.stop_asked,
                unhealthy: record.observed.unhealthy,
            };
            memory.record_exit(&mut inner, record.observed.replica.clone(), exit);
        }
        record.observed.state = ContainerState::Stopped;
        record.observed.exit = Some(ExitStatus::Unknown);
        record.observed.ready_since_boot_ms = None;
        record.exit_recorded = true;
        if let Some(pod) = &mut record.observed.pod {
            pod.members.clear();
        }
    }
    let users = containers.values().flat_map(|record| record.observed.images());
    let images = image_records(desired, &inner, &found.images, users, now_boot_ms);
    let volumes = volumes(found.volumes);
    memory.record_world(&mut inner, World { images, containers, networks, volumes });
    snapshot(&inner, now_boot_ms, host)
}
