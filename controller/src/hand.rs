//! Containers made by hand: what can be asked about them, and the one function that does it: the controller for its socket,
//! the command line by itself where no controller runs. Nothing here plans; no plan names what is made here.

mod act;
mod create;
mod list;
mod names;
mod tend;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use runtime::LinuxRuntime;
use runtime::Result;
use runtime::runtime::{HostPort, Protocol, Resources, SecurityConfig, Ulimit};
use serde::{Deserialize, Serialize};

pub use act::{Waiter, after_end, attach_and_start, ended, is_any_live, launch_code, tidy, waiter};
pub use list::{ContainerView, command_text, how_long, status_text};
pub use tend::tend;

/// How long a stop waits where nothing is said, in milliseconds: Docker's.
pub const STOP_MS: u64 = 10_000;

/// Everything a container is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RunSpec {
    /// A reference or an id.
    pub image: String,
    /// Generated when left out.
    pub name: Option<String>,
    /// Replaces the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's; empty: the image's.
    pub args: Vec<String>,
    /// Added to the image's.
    pub env: BTreeMap<String, String>,
    /// Of the user; none begins with `boxship.`.
    pub labels: BTreeMap<String, String>,
    /// Replaces the image's.
    pub working_dir: Option<String>,
    /// Replaces the image's.
    pub user: Option<String>,
    /// Host name; the short id when left out.
    pub hostname: Option<String>,
    /// What is mounted.
    pub mounts: Vec<RunMount>,
    /// How it is connected.
    pub network: RunNetwork,
    /// Published ports.
    pub publish: Vec<RunPort>,
    /// Publish each port the image or `expose` names at a free port of the host.
    pub publish_all: bool,
    /// Further ports, as if the image named them.
    pub expose: Vec<(u16, Protocol)>,
    /// Limits.
    pub resources: Resources,
    /// Deviations from the safe defaults.
    pub security: SecurityConfig,
    /// Limits of the first process.
    pub ulimits: Vec<Ulimit>,
    /// Lines of /etc/hosts; `None` is this host.
    pub hosts: Vec<(String, Option<IpAddr>)>,
    /// Name servers.
    pub nameservers: Vec<IpAddr>,
    /// Replaces the image's.
    pub stop_signal: Option<String>,
    /// How long a stop waits.
    pub stop_ms: Option<u64>,
    /// Size of /dev/shm.
    pub shm_bytes: Option<u64>,
    /// A terminal.
    pub tty: bool,
    /// stdin is kept open.
    pub stdin: bool,
    /// Our reaper in front of the program.
    pub init: bool,
    /// Lines are dropped rather than the program held up by its log.
    pub lossy_log: bool,
    /// It goes when it has ended.
    pub auto_remove: bool,
    /// Whether it is started again.
    pub restart: Restart,
}

/// Whether a container is started again when it has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it failed, so often in a row; `None`: without end.
    OnFailure(Option<u32>),
    /// Unless somebody stopped it.
    UnlessStopped,
    /// The same; the difference Docker makes (at a start of its daemon) does not exist here.
    Always,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunMount {
    /// Absolute path inside.
    pub target: String,
    /// What.
    pub source: RunSource,
    /// Refuses writes.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunSource {
    /// A volume, made when it is not there.
    Volume(String),
    /// A volume of this container alone.
    Anonymous,
    /// A host path.
    Bind(PathBuf),
    /// Memory.
    Tmpfs(Option<u64>),
}

/// How a container is connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunNetwork {
    /// With the others made by hand.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// One published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunPort {
    /// Of the host.
    pub address: IpAddr,
    /// Of the host; `None`: any that is free.
    pub port: Option<u16>,
    /// Inside.
    pub container_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// Something to do with containers. `name` is what `model::by_hand::find_container` understands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HandRequest {
    /// Write one down.
    Create(Box<RunSpec>),
    /// Run one that does not run.
    Start(String),
    /// Signal, grace, kill.
    Stop {
        /// Which.
        name: String,
        /// How long it has; its own time when left out.
        grace_ms: Option<u64>,
    },
    /// Stop and start.
    Restart {
        /// Which.
        name: String,
        /// How long the stop waits.
        grace_ms: Option<u64>,
    },
    /// One signal.
    Kill {
        /// Which.
        name: String,
        /// By name or number.
        signal: String,
    },
    /// Delete one with its writable layer and anonymous volumes.
    Remove {
        /// Which.
        name: String,
        /// Kill it first.
        force: bool,
    },
    /// Another name.
    Rename {
        /// Which.
        name: String,
        /// The new name.
        new: String,
    },
    /// Freeze, or let go on.
    Pause {
        /// Which.
        name: String,
        /// Freeze.
        frozen: bool,
    },
    /// How it ended, if it has.
    Ended(String),
    /// What containers there are.
    List {
        /// With the size of the writable layer.
        sizes: bool,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HandAnswer {
    /// Of a creation.
    Created {
        /// Whole.
        id: String,
        /// Given or generated.
        name: String,
        /// What will not be as asked for.
        warnings: Vec<String>,
    },
    /// It is as asked for.
    Done,
    /// How it ended, as a shell tells it; `None`: it runs.
    Ended(Option<u8>),
    /// All containers, latest first.
    Listed(Vec<ContainerView>),
}

/// Does it. Blocks as long as it takes.
///
/// # Errors
/// Those of the runtime; `Conflict` for what belongs to an object of a manifest, `Unsupported` for what makes no sense.
pub fn perform(linux: &LinuxRuntime, request: &HandRequest) -> Result<HandAnswer> {
    match request {
        HandRequest::Create(spec) => create::create(linux, spec),
        HandRequest::Start(name) => act::start(linux, name).map(|()| HandAnswer::Done),
        HandRequest::Stop { name, grace_ms } => act::stop(linux, name, *grace_ms).map(|()| HandAnswer::Done),
        HandRequest::Restart { name, grace_ms } => act::restart(linux, name, *grace_ms).map(|()| HandAnswer::Done),
        HandRequest::Kill { name, signal } => act::kill(linux, name, signal).map(|()| HandAnswer::Done),
        HandRequest::Remove { name, force } => act::remove(linux, name, *force).map(|()| HandAnswer::Done),
        HandRequest::Rename { name, new } => act::rename(linux, name, new).map(|()| HandAnswer::Done),
        HandRequest::Pause { name, frozen } => act::pause(linux, name, *frozen).map(|()| HandAnswer::Done),
        HandRequest::Ended(name) => act::ended(linux, name).map(HandAnswer::Ended),
        HandRequest::List { sizes } => list::list(linux, *sizes).map(HandAnswer::Listed),
    }
}

/// An end as a shell tells it: 128 and the signal, 137 for memory, 125 when nobody saw it.
#[must_use]
pub fn shell_code(exit: runtime::runtime::ExitStatus) -> u8 {
    use runtime::runtime::ExitStatus;
    match exit {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => 128_u8.saturating_add(signal),
        ExitStatus::OutOfMemory => 137,
        ExitStatus::Unknown => 125,
    }
}

impl Restart {
    /// `no`, `always`, `unless-stopped`, `on-failure`, `on-failure:3`.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        match text {
            "no" => Ok(Self::No),
            "always" => Ok(Self::Always),
            "unless-stopped" => Ok(Self::UnlessStopped),
            "on-failure" => Ok(Self::OnFailure(None)),
            other => {
                let times = other.strip_prefix("on-failure:").and_then(|times| times.parse().ok());
                let known = "no, always, unless-stopped, on-failure or on-failure:N";
                times.map(|times| Self::OnFailure(Some(times))).ok_or_else(|| format!("`{text}` is not {known}"))
            }
        }
    }

    /// What [`Self::parse`] reads; `None` for `no`.
    fn text(self) -> Option<String> {
        match self {
            Self::No => None,
            Self::OnFailure(None) => Some("on-failure".to_owned()),
            Self::OnFailure(Some(times)) => Some(format!("on-failure:{times}")),
            Self::UnlessStopped => Some("unless-stopped".to_owned()),
            Self::Always => Some("always".to_owned()),
        }
    }
}

impl RunPort {
    /// As it is published.
    fn host_port(&self, port: u16) -> HostPort {
        HostPort { address: self.address, port, protocol: self.protocol }
    }
}
