//! The model every dialect lowers to: what should be (`desired`), what is (`observed`), and names for both.
//!
//! Values here are validated. Nothing here reads a clock, a file or a socket, or knows a dialect.

mod desired;
mod key;
mod observed;

pub use desired::{
    Completion, ConcurrencyPolicy, ContainerTemplate, DependsOn, DesiredImage, DesiredJob, DesiredState, DesiredVolume,
    EnvValue, Healthcheck, Hold, ImageSource, Mount, MountWhat, OnChange, OnFailure, Probe, PublishedPort, Schedule,
    UpdateStrategy, VolumeAccess, Workload,
};
pub use key::{KeyError, Kind, ObjectKey, ReplicaKey, SourceRef, TemplateHash, labels};
pub use observed::{
    ExitRecord, Failure, JobOutcome, JobRecord, MountedVolume, ObservedContainer, ObservedImage, ObservedNetwork,
    ObservedState, ObservedVolume, PreviousImage, Revision, RevisionResult,
};
