//! What is: one snapshot of kernel, disk and memory, with the time it was taken as a field.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use runtime::id::{ContainerId, NetworkName, VolumeName};
use runtime::image::{Digest, ImageRef};
use runtime::runtime::{
    Alteration, ContainerConfig, ContainerState, EndpointTable, ExitStatus, IdRange, ImageConfig, MountSource,
    NetworkConfig, Resources,
};
use serde::{Deserialize, Serialize};

use super::{ContainerTemplate, Kind, ObjectKey, ObservedPod, ReplicaKey, TemplateHash, labels};

/// One look at the world.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedState {
    /// CLOCK_BOOTTIME in milliseconds when the look began.
    pub now_boot_ms: u64,
    /// Wall clock in milliseconds since 1970; for schedules and display only.
    pub now_unix_ms: u64,
    /// Images present, by the reference they are locked under.
    pub images: BTreeMap<ImageRef, ObservedImage>,
    /// Containers with our labels. Others are not in here and so cannot be touched.
    pub containers: BTreeMap<ContainerId, ObservedContainer>,
    /// Networks of this data root.
    pub networks: BTreeMap<NetworkName, ObservedNetwork>,
    /// Subnets the host routes elsewhere (not over our bridges): address and prefix length.
    pub host_routes: Vec<(Ipv4Addr, u8)>,
    /// Volumes of this data root.
    pub volumes: BTreeMap<VolumeName, ObservedVolume>,
    /// The table now in force at the switchboard (after `PortInUse`: without that listener); `None` when not known.
    pub published: Option<EndpointTable>,
    /// How earlier containers of a replica ended, oldest first, at most [`Self::EXITS_MAX`] each. Memory of objects
    /// that are neither desired nor have a container is dropped by whoever observes, here and in the two below.
    pub exits: BTreeMap<ReplicaKey, Vec<ExitRecord>>,
    /// Revisions of each App, oldest first, at most [`Self::REVISIONS_MAX`] each.
    pub revisions: BTreeMap<ObjectKey, Vec<Revision>>,
    /// How jobs went.
    pub jobs: BTreeMap<ObjectKey, JobRecord>,
    /// Id ranges handed out, by App or Job.
    pub id_ranges: BTreeMap<ObjectKey, IdRange>,
    /// Host id ranges taken by others (/etc/subuid, systemd): first and count.
    pub foreign_id_ranges: Vec<(u32, u32)>,
    /// Actions that failed and were not yet done since, by `Action::subject`.
    pub failures: BTreeMap<String, Failure>,
    /// Subjects of actions of an earlier plan that are still being carried out (a slow pull, a stop within its grace).
    /// They are not planned again. A `CreateContainer` among them must already show in `containers` as `Creating`
    /// ([`ObservedContainer::from_config`]), so that its address and slot are not given to another.
    pub in_flight: BTreeSet<String>,
}

impl ObservedState {
    /// Bound of [`Self::exits`] per replica.
    pub const EXITS_MAX: usize = 20;
    /// Bound of [`Self::revisions`] per App.
    pub const REVISIONS_MAX: usize = 10;

    /// Adds a revision to those of its App, in the place of one of the same number. The oldest go when there are more than
    /// [`Self::REVISIONS_MAX`], but never the last good one: an undo needs it.
    pub fn put_revision(revisions: &mut Vec<Revision>, revision: Revision) {
        revisions.retain(|known| known.number != revision.number);
        revisions.push(revision);
        revisions.sort_by_key(|known| known.number);
        while revisions.len() > Self::REVISIONS_MAX {
            let good = revisions.iter().rposition(|known| known.result == RevisionResult::Ready);
            revisions.remove(usize::from(good == Some(0)));
        }
    }
}

/// An image that is present and verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedImage {
    /// What its reference is locked to.
    pub digest: Digest,
    /// Earlier digests of the same reference that are still present, newest first.
    pub previous: Vec<PreviousImage>,
    /// What it asks of containers.
    pub config: ImageConfig,
    /// When the registry was last asked, boot time; 0: in an earlier boot.
    pub checked_boot_ms: u64,
    /// What a registry answered when this controller asked last. A digest that is not this one got its name by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Digest>,
    /// Since when nothing names or uses it, boot time; `None` while something does. Whoever observes stamps it with
    /// the help of [`needed_images`](super::needed_images); after a reboot the time starts anew.
    pub unused_since_boot_ms: Option<u64>,
}

/// What a reference was locked to before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousImage {
    /// The digest; removed as `reference@digest`.
    pub digest: Digest,
    /// What it asks of containers.
    pub config: ImageConfig,
    /// As [`ObservedImage::unused_since_boot_ms`].
    pub unused_since_boot_ms: Option<u64>,
}

/// A container of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedContainer {
    /// Whose slot it fills.
    pub replica: ReplicaKey,
    /// What it was made from.
    pub template_hash: TemplateHash,
    /// How many containers this slot had before.
    pub attempt: u32,
    /// The manifest file it came from, relative to `source_root`.
    pub source_file: String,
    /// The root of the source it came from; `None`: made by a version that did not write it down.
    #[serde(default)]
    pub source_root: Option<String>,
    /// What it depended on when it was made.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub depends_on: BTreeSet<ObjectKey>,
    /// Its image.
    pub image: Digest,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Since when its readiness gate has been passing without a break, boot time.
    pub ready_since_boot_ms: Option<u64>,
    /// It failed its liveness or startup check for good: its program has to end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unhealthy: bool,
    /// When its program was started, boot time; 0: never in this boot.
    pub started_boot_ms: u64,
    /// When it ended, boot time; 0: not in this boot.
    pub finished_boot_ms: u64,
    /// How it ended.
    pub exit: Option<ExitStatus>,
    /// The first of its networks and its address there.
    pub address: Option<(NetworkName, Ipv4Addr)>,
    /// Its addresses on further networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_addresses: Vec<(NetworkName, Ipv4Addr)>,
    /// Volumes it mounts.
    pub volumes: Vec<MountedVolume>,
    /// Its limits.
    pub resources: Resources,
    /// Its ids.
    pub ids: IdRange,
    /// What somebody changed of it from outside.
    #[serde(default)]
    pub altered: BTreeSet<Alteration>,
    /// Its members, when it holds a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ObservedPod>,
}

/// One volume in one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedVolume {
    /// Which.
    pub name: VolumeName,
    /// It cannot be written through this mount.
    pub read_only: bool,
}

impl ObservedContainer {
    /// The networks it is on with its addresses there, in the order of its interfaces.
    pub fn addresses(&self) -> impl Iterator<Item = (&NetworkName, Ipv4Addr)> {
        self.address.iter().chain(&self.more_addresses).map(|(network, address)| (network, *address))
    }

    /// What a container's configuration alone says: a container in [`ContainerState::Creating`], never started.
    /// `None` when it is a member of a pod, or our labels are missing or make no sense: it is not ours and stays out of [`ObservedState`].
    #[must_use]
    pub fn from_config(config: &ContainerConfig) -> Option<Self> {
        if config.holder().is_some() {
            return None;
        }
        let label = |name: &str| config.labels.get(name);
        let volumes = config.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name } => Some(MountedVolume { name: name.clone(), read_only: mount.read_only }),
            MountSource::Bind { .. }
            | MountSource::File { .. }
            | MountSource::Secret { .. }
            | MountSource::Tmpfs { .. } => None,
        });
        let mut addresses = config.network.addresses().map(|(network, address)| (network.clone(), address));
        Some(Self {
            replica: replica_from_labels(&config.labels)?,
            template_hash: TemplateHash(label(labels::TEMPLATE)?.clone()),
            attempt: label(labels::ATTEMPT)?.parse().ok()?,
            source_file: label(labels::SOURCE)?.clone(),
            source_root: label(labels::ROOT).cloned(),
            depends_on: label(labels::DEPENDS_ON)
                .into_iter()
                .flat_map(|keys| keys.split(' '))
                .flat_map(str::parse)
                .collect(),
            image: config.image.clone(),
            state: ContainerState::Creating,
            ready_since_boot_ms: None,
            unhealthy: false,
            started_boot_ms: 0,
            finished_boot_ms: 0,
            exit: None,
            address: addresses.next(),
            more_addresses: addresses.collect(),
            volumes: volumes.collect(),
            resources: config.resources.clone(),
            ids: config.ids,
            altered: BTreeSet::new(),
            pod: label(labels::MEMBERS).map(|text| ObservedPod::from_label(text).unwrap_or_default()),
        })
    }
}

/// The replica named by the labels of a container or an anonymous volume.
fn replica_from_labels(from: &BTreeMap<String, String>) -> Option<ReplicaKey> {
    Some(ReplicaKey { workload: object_from_labels(from)?, ordinal: from.get(labels::ORDINAL)?.parse().ok()? })
}

/// The object named by labels.
fn object_from_labels(from: &BTreeMap<String, String>) -> Option<ObjectKey> {
    let kind = from.get(labels::KIND)?;
    let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind)?;
    Some(ObjectKey { stack: from.get(labels::STACK)?.clone(), kind, name: from.get(labels::NAME)?.clone() })
}

/// A network of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedNetwork {
    /// What it was made with.
    pub config: NetworkConfig,
    /// Bridge, address and rules are in place.
    pub intact: bool,
}

/// A volume of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedVolume {
    /// The `Volume` object, or the App whose image's VOLUME it serves.
    pub owner: ObjectKey,
    /// The replica, for anonymous volumes: these are removed with their App, named ones never.
    pub anonymous_of: Option<ReplicaKey>,
    /// The pod (or container) it goes with, for volumes that live no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch_of: Option<ContainerId>,
}

impl ObservedVolume {
    /// From the labels kept beside a volume; `None` when they are not ours.
    #[must_use]
    pub fn from_labels(found: &BTreeMap<String, String>) -> Option<Self> {
        let scratch_of = found.get(labels::SCRATCH_OF).and_then(|id| id.parse().ok());
        Some(Self { owner: object_from_labels(found)?, anonymous_of: replica_from_labels(found), scratch_of })
    }
}

/// How one container of a replica ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Which of the slot's containers.
    pub attempt: u32,
    /// What it was made from.
    pub template_hash: TemplateHash,
    /// How.
    pub exit: ExitStatus,
    /// When, boot time; 0: in an earlier boot.
    pub finished_boot_ms: u64,
    /// When, wall clock.
    pub finished_unix_ms: u64,
    /// For how long it had been ready before it ended.
    pub ready_for_ms: u64,
    /// We stopped it on purpose: not a failure.
    pub asked: bool,
    /// It had failed its liveness or startup check.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unhealthy: bool,
}

impl ExitRecord {
    /// How it counts for what follows: a program that ends with 0 because it was stopped as unhealthy did not succeed.
    #[must_use]
    pub fn counts_as(&self) -> ExitStatus {
        const SIGTERM: u8 = 15;
        if self.unhealthy && self.exit == ExitStatus::Code(0) { ExitStatus::Signal(SIGTERM) } else { self.exit }
    }
}

/// One accepted version of an App's template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// From 1.
    pub number: u32,
    /// Its hash.
    pub template_hash: TemplateHash,
    /// Its content, for an undo.
    pub template: ContainerTemplate,
    /// The image it was resolved to.
    pub image: Digest,
    /// How it went.
    pub result: RevisionResult,
    /// Most replicas that were available at once since it was accepted: more is progress, and proof that it can run.
    pub available_max: u32,
    /// When the roll-out began or last made progress, boot time; 0: in an earlier boot.
    pub progress_boot_ms: u64,
    /// When it was accepted, wall clock.
    pub created_unix_ms: u64,
    /// Its roll-out is paused: no deadline runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// How a revision went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RevisionResult {
    /// Under way.
    Rolling,
    /// Every replica became available.
    Ready,
    /// It did not become available in time.
    Failed {
        /// What was seen.
        why: String,
    },
    /// Replaced by another before it was complete.
    Superseded,
    /// Taken back by hand.
    Undone {
        /// The revision that runs instead.
        to: u32,
    },
}

/// How a job went. Runs are numbered from 1; the number is the ordinal of the run's first replica (`sweep-17`; a run of
/// several completions has as many), and each try is one more attempt of that replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The last run that was started or decided; 0: none yet.
    pub run: u32,
    /// Its template.
    pub template_hash: TemplateHash,
    /// How it stands.
    pub outcome: JobOutcome,
    /// How its last try ended; `None`: none ended yet.
    pub last_exit: Option<ExitStatus>,
    /// Its failed tries.
    pub failures: u32,
    /// Scheduled times up to this one, wall clock, were started or skipped; 0: no schedule seen yet.
    pub considered_unix_ms: u64,
    /// How many completions the run has, fixed when it began; 0 in records of versions that knew only one.
    #[serde(default)]
    pub completions: u32,
    /// When the run was started, in the boot time of then; 0: not recorded.
    #[serde(default)]
    pub started_boot_ms: u64,
    /// When its outcome was known, in the boot time of then; 0: it is not, or was in an earlier version.
    #[serde(default)]
    pub finished_boot_ms: u64,
}

/// How a run of a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobOutcome {
    /// To be started, running, or to be tried again.
    Active,
    /// Exit code 0.
    Succeeded,
    /// More failed tries than `backoff_limit`.
    Failed,
    /// It took longer than it may.
    DeadlineExceeded,
}

/// An action that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In a row.
    pub attempts: u32,
    /// The last one, boot time.
    pub last_boot_ms: u64,
    /// What was said.
    pub message: String,
    /// Its stable code, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}
