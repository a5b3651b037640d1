//! The model every dialect lowers to: what should be (`desired`), what is (`observed`), and names for both.
//!
//! Values here are validated. Nothing here reads a clock, a file or a socket, or knows a dialect. `object` is what one
//! manifest object says by itself, `resolve` makes the desired state of all of them, `accept` decides what a host takes
//! of it and what it keeps.

pub mod accept;
pub mod by_hand;
pub mod cron;
mod desired;
mod diagnostic;
mod key;
mod needed;
pub mod object;
mod observed;
mod orders;
pub mod pod;
mod resolve;
pub mod tuning;

pub use accept::{Accepted, Confirmation, Notice, accept};
pub use desired::{
    Completion, ConcurrencyPolicy, ContainerTemplate, DEFAULT_NETWORK, DependsOn, DesiredImage, DesiredJob,
    DesiredNetwork, DesiredState, DesiredVolume, EnvValue, Healthcheck, Hold, HttpWith, ImageSource, Mount, MountWhat,
    NetworkRange, NetworkUse, OnChange, OnFailure, Probe, PublishedPort, PullPolicy, Restart, RunPolicy, Schedule,
    SecretUse, ServiceUse, Template, UpdateStrategy, VolumeAccess, Workload,
};
pub use diagnostic::{Diagnostic, Note, Severity, Span, codes};
pub use key::{KeyError, Kind, ObjectKey, ReplicaKey, SourceRef, TemplateHash, claim_key, labels};
pub use needed::needed_images;
pub use object::{FileKind, Loaded, Object, ObjectSpec};
pub use observed::{
    ExitRecord, Failure, JobOutcome, JobRecord, MountedVolume, ObservedContainer, ObservedImage, ObservedNetwork,
    ObservedState, ObservedVolume, PreviousImage, Revision, RevisionResult,
};
pub use orders::{HoldOrder, Orders, UndoOrder};
pub use pod::{Member, ObservedMember, ObservedPod, Pod, Role};
pub use resolve::{Resolution, resolve, resolve_with};
pub use tuning::Tuning;
