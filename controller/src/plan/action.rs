//! What a plan is made of. One action is one call of the runtime or one record in the store; a reason says why.

use runtime::id::{ContainerId, NetworkName, VolumeName};
use runtime::image::{Digest, ImageRef};
use runtime::runtime::HostPort;
use runtime::runtime::{ContainerConfig, EndpointTable, NetworkConfig, Resources, VolumeConfig};
use serde::{Deserialize, Serialize};

use crate::model::{JobRecord, ObjectKey, Revision, SourceRef};

/// What to do now, what is waited for, and when to look again without being asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Steps; a step's prerequisites come before it in the list.
    pub steps: Vec<Step>,
    /// What cannot be done yet, and why.
    pub waiting: Vec<Waiting>,
    /// Boot time in milliseconds of the next look that time alone makes necessary.
    pub wake_at_boot_ms: Option<u64>,
}

/// Position of a step in [`Plan::steps`].
pub type StepId = usize;

/// One action, its cause, and what must have succeeded before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// For which object; `None` for what all share (the endpoint table, a network's removal, an unused image).
    pub object: Option<ObjectKey>,
    /// Why.
    pub reason: Reason,
    /// Where the manifest asks for it; `None` when nothing asks for the object any more.
    pub source: Option<SourceRef>,
    /// Steps that must have succeeded; if one fails this one is skipped.
    pub after: Vec<StepId>,
}

/// One call of the runtime, or one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Make an image present.
    PullImage {
        /// Which.
        reference: ImageRef,
        /// Ask the registry even when it is present (`follow:`).
        refresh: bool,
    },
    /// Forget an image nobody needs.
    RemoveImage {
        /// Which.
        reference: ImageRef,
    },
    /// Make a network present (also: repair one that is not intact).
    CreateNetwork {
        /// How.
        config: NetworkConfig,
    },
    /// Remove one nobody is attached to.
    RemoveNetwork {
        /// Which.
        name: NetworkName,
    },
    /// Make a volume present.
    CreateVolume {
        /// How.
        config: VolumeConfig,
    },
    /// Delete an anonymous volume with its App.
    RemoveVolume {
        /// Which.
        name: VolumeName,
    },
    /// Lay out a container.
    CreateContainer {
        /// How.
        config: Box<ContainerConfig>,
    },
    /// Run its program.
    StartContainer {
        /// Which.
        id: ContainerId,
    },
    /// End its program.
    StopContainer {
        /// Which.
        id: ContainerId,
        /// Milliseconds until it is killed.
        grace_ms: u64,
    },
    /// Delete it.
    RemoveContainer {
        /// Which.
        id: ContainerId,
    },
    /// Change its limits.
    UpdateResources {
        /// Which.
        id: ContainerId,
        /// To what.
        resources: Resources,
    },
    /// Put a table of names and ports in force.
    PublishEndpoints {
        /// The whole of it.
        table: EndpointTable,
    },
    /// Remember a revision of an App, or how it went.
    RecordRevision {
        /// Of which App.
        app: ObjectKey,
        /// The record, replacing one of the same number.
        revision: Box<Revision>,
    },
    /// Remember how a job went.
    RecordJob {
        /// Of which Job.
        job: ObjectKey,
        /// The record, replacing the last one.
        record: JobRecord,
    },
}

impl Action {
    /// What it acts on, for the failure memory: the same text for a retry of the same thing.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::PullImage { reference, .. } => format!("pull {reference}"),
            Self::RemoveImage { reference } => format!("remove image {reference}"),
            Self::CreateNetwork { config } => format!("network {}", config.name),
            Self::RemoveNetwork { name } => format!("remove network {name}"),
            Self::CreateVolume { config } => format!("volume {}", config.name),
            Self::RemoveVolume { name } => format!("remove volume {name}"),
            Self::CreateContainer { config } => format!("create {}", config.id),
            Self::StartContainer { id } => format!("start {id}"),
            Self::StopContainer { id, .. } => format!("stop {id}"),
            Self::RemoveContainer { id } => format!("remove {id}"),
            Self::UpdateResources { id, .. } => format!("limits {id}"),
            Self::PublishEndpoints { .. } => "endpoints".to_owned(),
            Self::RecordRevision { app, revision } => format!("revision {} of {app}", revision.number),
            Self::RecordJob { job, .. } => format!("record of {job}"),
        }
    }

    /// The subject under which a taken host port is remembered (`Error::PortInUse`), instead of under that of the whole
    /// table: the next plan leaves just this listener out until its back-off is over, so one App's port delays no other.
    /// Whoever executes forgets it when a table that names the port was published.
    #[must_use]
    pub fn listener_subject(at: HostPort) -> String {
        format!("listen {at}")
    }

    /// The variant's name, for people and counters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PullImage { .. } => "PullImage",
            Self::RemoveImage { .. } => "RemoveImage",
            Self::CreateNetwork { .. } => "CreateNetwork",
            Self::RemoveNetwork { .. } => "RemoveNetwork",
            Self::CreateVolume { .. } => "CreateVolume",
            Self::RemoveVolume { .. } => "RemoveVolume",
            Self::CreateContainer { .. } => "CreateContainer",
            Self::StartContainer { .. } => "StartContainer",
            Self::StopContainer { .. } => "StopContainer",
            Self::RemoveContainer { .. } => "RemoveContainer",
            Self::UpdateResources { .. } => "UpdateResources",
            Self::PublishEndpoints { .. } => "PublishEndpoints",
            Self::RecordRevision { .. } => "RecordRevision",
            Self::RecordJob { .. } => "RecordJob",
        }
    }

    /// Every [`Self::name`], so that a test can prove each occurs.
    pub const NAMES: [&'static str; 14] = [
        "PullImage",
        "RemoveImage",
        "CreateNetwork",
        "RemoveNetwork",
        "CreateVolume",
        "RemoveVolume",
        "CreateContainer",
        "StartContainer",
        "StopContainer",
        "RemoveContainer",
        "UpdateResources",
        "PublishEndpoints",
        "RecordRevision",
        "RecordJob",
    ];
}

/// Why a step is taken. Data for people, never read by `execute`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// The manifest asks for something that is not there.
    Missing,
    /// The template's hash differs: `fields` names what changed.
    TemplateChanged {
        /// `image: a -> b`, `env.LOG_LEVEL`, …
        fields: Vec<String>,
    },
    /// More than `replicas`.
    Surplus,
    /// No manifest names the object any more.
    Undeclared,
    /// Its program ended.
    Exited,
    /// It failed its liveness or startup check: its program is ended, which counts as if it had ended by itself.
    Unhealthy,
    /// A crash left it half made.
    HalfMade,
    /// The slot has a newer container: this one is a duplicate, or kept for its logs no longer.
    Replaced,
    /// The revision failed; this leads back to the last good one.
    Undo {
        /// Back to.
        to: u32,
    },
    /// A limit differs; changed in place.
    LimitsChanged,
    /// The kernel object is not as recorded.
    Drifted,
    /// The manifest has another setting, which is changed in place.
    NetworkChanged,
    /// Ready replicas, names or ports differ from the table in force.
    EndpointsChanged,
    /// It must take no new connection before it is stopped.
    Draining,
    /// The registry is due to be asked.
    FollowDue,
    /// A revision or a run begins, and its images are always asked for.
    AlwaysAsked,
    /// Nothing has used it for the grace time.
    Unused,
    /// A new template was accepted.
    NewRevision,
    /// More replicas of the revision are available than ever before, or its clock starts anew after a reboot.
    Progressed,
    /// The revision's outcome is known.
    RevisionDecided,
    /// A person took the revision back, wants it tried again, paused or resumed it.
    AskedByHand,
    /// The schedule says now.
    Scheduled,
    /// A run of a job failed and may be tried again.
    Retry,
    /// The job's outcome is known.
    JobDecided,
}

impl Reason {
    /// The variant's name, for people and counters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Missing => "Missing",
            Self::TemplateChanged { .. } => "TemplateChanged",
            Self::Surplus => "Surplus",
            Self::Undeclared => "Undeclared",
            Self::Exited => "Exited",
            Self::Unhealthy => "Unhealthy",
            Self::HalfMade => "HalfMade",
            Self::Replaced => "Replaced",
            Self::Undo { .. } => "Undo",
            Self::LimitsChanged => "LimitsChanged",
            Self::Drifted => "Drifted",
            Self::NetworkChanged => "NetworkChanged",
            Self::EndpointsChanged => "EndpointsChanged",
            Self::Draining => "Draining",
            Self::FollowDue => "FollowDue",
            Self::AlwaysAsked => "AlwaysAsked",
            Self::Unused => "Unused",
            Self::NewRevision => "NewRevision",
            Self::Progressed => "Progressed",
            Self::RevisionDecided => "RevisionDecided",
            Self::AskedByHand => "AskedByHand",
            Self::Scheduled => "Scheduled",
            Self::Retry => "Retry",
            Self::JobDecided => "JobDecided",
        }
    }

    /// Every [`Self::name`], so that a test can prove each occurs.
    pub const NAMES: [&'static str; 23] = [
        "Missing",
        "TemplateChanged",
        "Surplus",
        "Undeclared",
        "Exited",
        "Unhealthy",
        "HalfMade",
        "Replaced",
        "Undo",
        "LimitsChanged",
        "Drifted",
        "EndpointsChanged",
        "Draining",
        "FollowDue",
        "AlwaysAsked",
        "Unused",
        "NewRevision",
        "Progressed",
        "RevisionDecided",
        "AskedByHand",
        "Scheduled",
        "Retry",
        "JobDecided",
    ];
}

/// Something that cannot be done yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Which object; `None` for what all share, as in [`Step::object`].
    pub object: Option<ObjectKey>,
    /// What for.
    pub on: WaitingOn,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WaitingOn {
    /// An image that is being pulled or cannot be had.
    Image {
        /// Which.
        reference: ImageRef,
    },
    /// An image that is not here and may not be fetched.
    AbsentImage {
        /// Which.
        reference: ImageRef,
    },
    /// A dependency.
    Dependency {
        /// Which.
        on: ObjectKey,
    },
    /// A container to become ready.
    Ready {
        /// Which.
        id: ContainerId,
    },
    /// The back-off after failures.
    BackOff {
        /// Boot time in milliseconds when it is tried again.
        until_boot_ms: u64,
        /// Failures in a row.
        failures: u32,
        /// The last message.
        message: String,
    },
    /// An exclusive user to be gone.
    Exclusive {
        /// Which container.
        id: ContainerId,
    },
    /// A container that depends on it to have ended.
    Dependant {
        /// Which.
        id: ContainerId,
    },
    /// Somebody to confirm a removal, or a file to be readable again.
    Held {
        /// Why.
        reason: String,
    },
    /// The digest image of a revision no longer present.
    LostImage {
        /// Which.
        digest: Digest,
    },
    /// A free address, subnet or id range.
    Exhausted {
        /// What there is no more of.
        what: String,
    },
}
