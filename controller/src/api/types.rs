//! What travels over the socket. Contract: fields are added, never renamed; unknown ones are ignored by readers.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use runtime::id::ContainerId;
use runtime::image::{Digest, ImageRef};
use runtime::runtime::{ContainerState, ExitStatus, PullPhase};
use serde::{Deserialize, Serialize};

use crate::model::{ExitRecord, ObjectKey, Orders, Role, SourceRef};
use crate::plan::Plan;
use crate::plan::change::Change;

/// `apiVersion` of everything printed as JSON.
pub const API_VERSION: &str = "boxship/v1";

/// The whole host on one page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Grows with each change of this value; for long polling.
    pub version: u64,
    /// The accepted desired state.
    pub generation: u64,
    /// The generation whose plan has nothing left to do and nothing it waits for; equal to `generation` when converged.
    pub converged_generation: u64,
    /// Every object, declared or still being removed.
    pub objects: Vec<ObjectStatus>,
    /// Images on their way.
    pub pulls: Vec<PullStatus>,
    /// What people should know: held sources, broken files, state that is not persisted, obstacles of the host.
    pub notices: Vec<Notice>,
    /// Where manifests come from.
    pub sources: Vec<SourceStatus>,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStatus {
    /// Which.
    pub key: ObjectKey,
    /// Ready replicas (Apps), 1 when held (images, volumes).
    pub ready: u32,
    /// Wanted replicas.
    pub desired: u32,
    /// Where it is.
    pub phase: Phase,
    /// `Running rev 7`, `Backoff 20s: OOM, exit 137`, `waiting for image …`: one line.
    pub message: String,
    /// What keeps it from being as written, where that has a code of its own.
    #[serde(default)]
    pub problem: Option<Problem>,
    /// Containers that ended without being asked to, over all replicas.
    pub restarts: u32,
    /// The last of them, wall clock; 0: none.
    pub last_restart_unix_ms: u64,
    /// When its oldest container was created, wall clock; 0: none.
    pub since_unix_ms: u64,
    /// `127.0.0.1:8080->3000`.
    pub ports: Vec<String>,
    /// Apps: the current revision's number.
    pub revision: Option<u32>,
    /// Reference of its image.
    pub image: Option<ImageRef>,
    /// Where it is written; `None` once no manifest names it.
    pub source: Option<SourceRef>,
    /// Its containers.
    pub replicas: Vec<ReplicaStatus>,
}

/// Where an object is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing of it is there yet.
    Pending,
    /// On its way.
    Progressing,
    /// As wanted.
    Ready,
    /// A job that ended well.
    Completed,
    /// It does not get there by itself, or it is in back-off.
    Failed,
    /// Kept as it is until somebody confirms or a file reads again.
    Held,
    /// On its way out.
    Removing,
}

/// One container of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// `web-1`.
    pub name: String,
    /// The container.
    pub container: ContainerId,
    /// Its state.
    pub state: ContainerState,
    /// Its gate passes.
    pub ready: bool,
    /// Of which revision it is, as far as is remembered.
    #[serde(default)]
    pub revision: Option<u32>,
    /// Host pid of its first process.
    pub pid: Option<i32>,
    /// Its address.
    pub address: Option<Ipv4Addr>,
    /// Wall clock; 0: not started.
    pub started_unix_ms: u64,
    /// How it ended.
    pub exit: Option<ExitStatus>,
    /// Containers this slot had before.
    pub attempt: u32,
    /// What the last probe said, when it failed.
    pub probe: Option<String>,
    /// How far its containers are, in Kubernetes' words; `None`: it is one container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its containers, the newest of each name, in the order of starting; empty: it is one container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberStatus>,
}

/// One container of a replica that has several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its name in the replica.
    pub name: String,
    /// When it runs.
    pub role: Role,
    /// The container.
    pub container: ContainerId,
    /// Its state.
    pub state: ContainerState,
    /// Its gate passes.
    pub ready: bool,
    /// Host pid of its first process.
    pub pid: Option<i32>,
    /// Wall clock; 0: not started.
    pub started_unix_ms: u64,
    /// How it ended.
    pub exit: Option<ExitStatus>,
    /// Containers of this name the replica had before.
    pub attempt: u32,
    /// What the last probe said, when it failed.
    pub probe: Option<String>,
}

/// One image on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullStatus {
    /// Which.
    pub reference: ImageRef,
    /// Its layers.
    pub layers: Vec<LayerStatus>,
}

/// One layer on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerStatus {
    /// Which.
    pub digest: Digest,
    /// What is happening.
    pub phase: PullPhase,
    /// Bytes so far.
    pub done_bytes: u64,
    /// Bytes in all; 0 while unknown.
    pub total_bytes: u64,
}

/// Something people should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Stable code.
    pub code: String,
    /// One line, what and why.
    pub message: String,
    /// One command that helps.
    pub help: Option<String>,
}

/// What is wrong with one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable code.
    pub code: String,
    /// One line, what and why.
    pub message: String,
    /// The field that asks for what cannot be had.
    pub place: Option<SourceRef>,
    /// One command that helps.
    pub help: Option<String>,
}

/// A manifest source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Directory or file.
    pub path: PathBuf,
    /// Followed as it changes.
    pub watch: bool,
    /// Objects it defines now.
    pub objects: u32,
    /// Why it is held; `None`: it is in force.
    pub held: Option<String>,
}

/// A source to put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRequest {
    /// Absolute path of a directory or file.
    pub path: PathBuf,
    /// Stack of files directly in it.
    pub default_stack: String,
    /// Follow it as it changes.
    pub watch: bool,
    /// Yes, remove everything although the source is empty.
    pub confirm_removal: bool,
}

/// What came of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The generation now in force.
    pub generation: u64,
    /// It differs from the one before.
    pub changed: bool,
    /// Problems of all files, rendered for a terminal without colour.
    pub diagnostics: Vec<String>,
    /// How many of them are errors; with any, the objects of those files kept their last good version.
    pub errors: u32,
    /// Files that are no manifests, relative.
    pub not_manifests: Vec<String>,
    /// Objects the source defines.
    pub objects: Vec<ObjectKey>,
    /// Held, and how to go on.
    pub notices: Vec<Notice>,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// The steps.
    pub plan: Plan,
    /// Objects that stay as they are.
    pub unchanged: Vec<ObjectKey>,
    /// As in [`Applied`].
    pub diagnostics: Vec<String>,
    /// As in [`Applied`].
    pub errors: u32,
    /// The plan object by object: cause, effect, what is noticed of it.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// The plan's seal, for `up --plan-hash`.
    #[serde(default)]
    pub hash: String,
    /// What each image to pull costs, where its registry says so.
    #[serde(default)]
    pub pulls: Vec<PullView>,
    /// Objects that people hold, with their reasons.
    #[serde(default)]
    pub held: Vec<(ObjectKey, String)>,
}

/// What a person asks of one object, over what its manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Order {
    /// Leave it as it is.
    Hold {
        /// For those who wonder later.
        why: String,
    },
    /// No longer.
    Release,
    /// So many replicas.
    Scale {
        /// How many.
        replicas: u32,
    },
    /// Take no roll-out further.
    Pause,
    /// No longer.
    Resume,
    /// Run an earlier revision.
    Undo {
        /// Which; `None`: the last one before that was ready.
        to: Option<u32>,
    },
    /// Try the newest revision again, and wait for nothing.
    Retry,
}

/// What came of an [`Order`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// One line.
    pub said: String,
}

/// An image that is to be pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullView {
    /// Which.
    pub reference: ImageRef,
    /// What it costs now; `None`: its registry did not say.
    pub cost: Option<runtime::image::PullCost>,
    /// Why not.
    pub unknown: Option<String>,
}

/// Everything about one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its status.
    pub status: ObjectStatus,
    /// Its last events, oldest first.
    pub events: Vec<Event>,
    /// How its containers ended, oldest first, with the replica's name.
    pub exits: Vec<(String, ExitRecord)>,
    /// `number, image, result` of each revision, oldest first.
    pub revisions: Vec<RevisionView>,
    /// What people asked of it.
    #[serde(default)]
    pub orders: Orders,
    /// What is waited for, one line each.
    pub waiting: Vec<String>,
    /// What people should know about the host and its sources, as in [`Status`].
    #[serde(default)]
    pub notices: Vec<Notice>,
    /// The last log lines of the container that matters most (failing first).
    pub log_tail: Vec<LogLine>,
}

/// One revision for display.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionView {
    /// From 1.
    pub number: u32,
    /// Image reference.
    pub image: ImageRef,
    /// `ready`, `rolling`, `failed: why`, `superseded`.
    pub result: String,
    /// Wall clock.
    pub created_unix_ms: u64,
    /// Fields that differ from the revision before.
    #[serde(default)]
    pub changed: Vec<String>,
    /// Its roll-out is paused.
    #[serde(default)]
    pub paused: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Order; grows by one.
    pub seq: u64,
    /// Wall clock.
    pub unix_ms: u64,
    /// About which object.
    pub object: Option<ObjectKey>,
    /// One CamelCase word: `Pulled Created Started Ready Exited BackOff Stopped Removed Accepted Held Failed …`.
    pub reason: String,
    /// One line.
    pub message: String,
    /// Something is wrong.
    pub warning: bool,
}

/// One line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// `web-1`.
    pub replica: String,
    /// RFC 3339 with nanoseconds, UTC.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Without its newline; bytes that are not UTF-8 are replaced.
    pub line: String,
}

/// A program to run in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// `stack` of the object; empty: `target` is a container as `model::by_hand::find_container` understands it.
    pub stack: String,
    /// `web` (its first running replica) or `web-2`.
    pub target: String,
    /// Which of its containers; `None`: the main one.
    #[serde(default)]
    pub container: Option<String>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// A terminal of this size (rows, columns).
    pub tty: Option<(u16, u16)>,
    /// The client sends stdin.
    pub stdin: bool,
    /// User.
    pub user: Option<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// `NAME=value`.
    pub env: Vec<(String, String)>,
}

/// A container to attach to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// As `model::by_hand::find_container` understands it.
    pub name: String,
    /// It is started, once nothing it writes can be missed.
    pub start: bool,
    /// The client sends stdin, and ends it.
    pub stdin: bool,
    /// The size of the client's terminal (rows, columns).
    pub tty: Option<(u16, u16)>,
}

/// The frames of an exec after the upgrade: one kind byte, a big-endian u32 length (≤ 64 KiB), the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExecFrame {
    /// Client → server; empty: end of input.
    Stdin = 0,
    /// Server → client.
    Stdout = 1,
    /// Server → client.
    Stderr = 2,
    /// Client → server: rows and columns, two big-endian u16.
    Resize = 3,
    /// Server → client, last: JSON of `ExitStatus`, or of [`ApiError`].
    Exit = 4,
}

/// Longest payload of one [`ExecFrame`], in bytes.
pub const EXEC_FRAME_BYTES_MAX: usize = 64 << 10;

impl ExecFrame {
    /// From its kind byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Stdin, Self::Stdout, Self::Stderr, Self::Resize, Self::Exit].into_iter().find(|k| *k as u8 == byte)
    }
}

/// An image for display.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageView {
    /// What it is.
    pub image: runtime::runtime::ImageInfo,
    /// Objects whose containers or declarations need it.
    pub used_by: Vec<ObjectKey>,
    /// Its share of the disk.
    #[serde(default)]
    pub sizes: runtime::image::ImageSizes,
    /// Containers made from it, by id.
    #[serde(default)]
    pub containers: Vec<String>,
}

/// An error over the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Stable code `BXnnnn`.
    pub code: String,
    /// What and why, the whole chain.
    pub message: String,
    /// One command that helps.
    pub help: Option<String>,
}

impl From<&runtime::Error> for ApiError {
    fn from(error: &runtime::Error) -> Self {
        let code = error.code().unwrap_or(if error.is_not_found() { "BX0903" } else { "BX0900" });
        let help = match error {
            runtime::Error::Registry { code: "BX0303" | "BX0304", .. } => Some("boxship image login REGISTRY"),
            runtime::Error::NotFound { what: "image", .. } => Some("boxship image ls"),
            runtime::Error::NoSpace { .. } => Some("boxship image prune --all --dry-run"),
            _ => None,
        };
        Self { code: code.to_owned(), message: runtime::error::chain(error), help: help.map(str::to_owned) }
    }
}
