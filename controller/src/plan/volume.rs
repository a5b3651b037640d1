//! Volumes: declared ones are made and never removed by a plan; anonymous ones (an image's `VOLUME` that nothing is
//! mounted on) belong to one replica, stay over restarts and replacements, and go with their App; scratch ones go with the
//! pod or container they were made for.

use std::collections::BTreeMap;

use runtime::id::{ContainerId, VolumeName};
use runtime::runtime::{ImageConfig, VolumeConfig};

use super::bug::Bug;
use super::name::{anonymous_volume_name, scratch_volume_name, volume_name};
use super::pass::Pass;
use super::{Action, Reason, StepId};
use crate::model::{
    ContainerTemplate, DesiredState, Kind, MountWhat, ObjectKey, ReplicaKey, SourceRef, VolumeAccess, claim_key, labels,
};

/// Makes declared volumes present, mounted or not: a person may want to fill one first.
pub(super) fn plan_volumes(pass: &mut Pass<'_>) {
    for (key, volume) in &pass.desired.volumes {
        let config = named(key);
        if !pass.observed.volumes.contains_key(&config.name) {
            pass.push(Action::CreateVolume { config }, Some(key), Reason::Missing, Some(&volume.source), Vec::new());
        }
    }
}

/// Removes anonymous volumes whose App is gone (a Job's: whose run is gone), after its last container. While anything
/// is held, none: a held App's volumes are not told apart from a removed one's.
pub(super) fn remove_volumes(pass: &mut Pass<'_>) {
    let mut doomed = Vec::new();
    for (name, volume) in &pass.observed.volumes {
        let reckless = pass.has_bug(Bug::NamedVolumeRemoved) && !pass.desired.volumes.contains_key(&volume.owner);
        let Some(replica) = volume.anonymous_of.as_ref() else {
            if reckless {
                doomed.push((name, &volume.owner, Reason::Undeclared, Vec::new()));
            }
            continue;
        };
        if let Some(pod) = &volume.scratch_of {
            if let Some(after) = gone(pass, pod) {
                doomed.push((name, &replica.workload, Reason::Unused, after));
            }
            continue;
        }
        let reason = if pass.desired.workloads.contains_key(&replica.workload) {
            continue;
        } else if pass.desired.jobs.contains_key(&replica.workload) {
            let latest = super::job::latest_run(pass, &replica.workload);
            if replica.ordinal >= latest {
                continue;
            }
            Reason::Surplus
        } else if pass.desired.holds.is_empty() {
            Reason::Undeclared
        } else {
            continue;
        };
        let containers = pass.owned.get(&replica.workload).map_or(&[][..], Vec::as_slice);
        let mut users = containers.iter().filter(|(_, c)| c.volumes.iter().any(|mounted| mounted.name == *name));
        let after: Option<Vec<StepId>> = users.try_fold(Vec::new(), |mut after, (id, _)| {
            after.push(*pass.removed.get(*id)?);
            Some(after)
        });
        if let Some(after) = after {
            doomed.push((name, &replica.workload, reason, after));
        }
    }
    for (name, object, reason, after) in doomed {
        pass.push(Action::RemoveVolume { name: name.clone() }, Some(object), reason, None, after);
    }
}

/// Steps after which a container is no more; `None`: it stays, or is on its way.
fn gone(pass: &Pass<'_>, id: &ContainerId) -> Option<Vec<StepId>> {
    if pass.made.contains(id) || pass.is_being_made(id) {
        return None;
    }
    match pass.observed.containers.contains_key(id) {
        true => pass.removed.get(id).map(|step| vec![*step]),
        false => Some(Vec::new()),
    }
}

/// How a declared volume is made.
#[must_use]
pub fn named(key: &ObjectKey) -> VolumeConfig {
    let labels = [(labels::STACK, &key.stack), (labels::NAME, &key.name)];
    let mut labels: BTreeMap<_, _> = labels.into_iter().map(|(k, v)| (k.to_owned(), v.clone())).collect();
    labels.insert(labels::KIND.to_owned(), Kind::Volume.to_string());
    VolumeConfig { name: volume_name(key), labels }
}

/// How a replica's own declared volume is made.
pub(super) fn claimed(replica: &ReplicaKey, claim: &str) -> VolumeConfig {
    named(&claim_key(&replica.workload, claim, replica.ordinal))
}

/// How a replica's volume for one path of its image is made.
pub(super) fn anonymous(replica: &ReplicaKey, path: &str) -> VolumeConfig {
    let labels = super::container::replica_labels(replica);
    VolumeConfig { name: anonymous_volume_name(replica, path), labels }
}

/// How a volume that goes with one pod (or container) is made.
pub(super) fn scratch(replica: &ReplicaKey, pod: &ContainerId, name: &str) -> VolumeConfig {
    let mut labels = super::container::replica_labels(replica);
    labels.insert(crate::model::labels::SCRATCH_OF.to_owned(), pod.to_string());
    VolumeConfig { name: scratch_volume_name(pod, name), labels }
}

/// Whether the template itself mounts a volume without a name there.
pub(super) fn is_anonymous(template: &ContainerTemplate, path: &str) -> bool {
    template.mounts.iter().any(|mount| mount.what == MountWhat::Anonymous && trimmed(&mount.path) == path)
}

/// The image's `VOLUME` paths that the template mounts nothing on, and the template's own volumes without a name.
pub(super) fn anonymous_paths<'i>(
    template: &'i ContainerTemplate,
    image: &'i ImageConfig,
) -> impl Iterator<Item = &'i str> {
    let (anonymous, mounted): (Vec<_>, Vec<_>) =
        template.mounts.iter().partition(|mount| mount.what == MountWhat::Anonymous);
    let of_image = image.volumes.iter().map(|path| trimmed(path)).filter(|p| p.starts_with('/'));
    let mut paths: Vec<&str> = anonymous.into_iter().map(|mount| trimmed(&mount.path)).chain(of_image).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().filter(move |path| !mounted.iter().any(|mount| trimmed(&mount.path) == *path))
}

fn trimmed(path: &str) -> &str {
    path.trim_end_matches('/')
}

/// Volumes a container of this template writes to that have one writer at a time.
pub(super) fn exclusive_volumes(
    desired: &DesiredState,
    template: &ContainerTemplate,
    image: &ImageConfig,
    replica: &ReplicaKey,
) -> Vec<VolumeName> {
    let single = |key: &ObjectKey| desired.volumes.get(key).is_none_or(|v| v.access == VolumeAccess::Single);
    let mounts = template.all().flat_map(|template| &template.mounts).filter(|mount| !mount.read_only);
    let declared = mounts.filter_map(|mount| match &mount.what {
        MountWhat::Volume(key) if single(key) => Some(volume_name(key)),
        MountWhat::Claim(name) => Some(claimed(replica, name).name),
        MountWhat::Volume(_)
        | MountWhat::Bind(_)
        | MountWhat::File { .. }
        | MountWhat::Secret { .. }
        | MountWhat::Tmpfs { .. }
        | MountWhat::Anonymous
        | MountWhat::Scratch(_) => None,
    });
    let anonymous = anonymous_paths(template, image).map(|path| anonymous_volume_name(replica, path));
    let asked = template.all().skip(1).flat_map(|member| &member.mounts);
    let asked = asked.filter(|mount| mount.what == MountWhat::Anonymous);
    let asked = asked.map(|mount| anonymous_volume_name(replica, trimmed(&mount.path)));
    declared.chain(anonymous).chain(asked).collect()
}

impl Pass<'_> {
    /// Makes a volume present for a container, if it is not.
    pub(super) fn volume_step(
        &mut self,
        config: VolumeConfig,
        object: &ObjectKey,
        source: &SourceRef,
    ) -> Option<StepId> {
        if self.observed.volumes.contains_key(&config.name) {
            return None;
        }
        self.push(Action::CreateVolume { config }, Some(object), Reason::Missing, Some(source), Vec::new())
    }
}
