//! Arguments of the verbs for containers made by hand, called as people know them from Docker.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::format::parse_duration;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(override_usage = "boxship run [OPTIONS] IMAGE [COMMAND] [ARG…]")]
#[command(
    after_help = "Example:  boxship run --rm -it -v data:/data debian:12 bash   ·   boxship run -d -p 8080:80 nginx"
)]
pub struct RunArgs {
    /// Leave it running, and print its id
    #[arg(short, long)]
    pub detach: bool,
    /// What leaves a terminal with the container running: keys such as a or ctrl-p, with commas between
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: String,
    /// How it is made.
    #[command(flatten)]
    pub make: MakeArgs,
}

/// Arguments of `create`.
#[derive(Debug, Args)]
#[command(override_usage = "boxship create [OPTIONS] IMAGE [COMMAND] [ARG…]")]
#[command(
    after_help = "Example:  boxship create --name db -v db:/var/lib/postgresql postgres:16   ·   boxship start db"
)]
pub struct CreateArgs {
    /// How it is made.
    #[command(flatten)]
    pub make: MakeArgs,
}

/// How a container is made.
#[derive(Debug, Args)]
pub struct MakeArgs {
    /// Its name; one is generated when left out
    #[arg(long)]
    pub name: Option<String>,
    /// Remove it when it has ended
    #[arg(long)]
    pub rm: bool,
    /// Pass stdin on
    #[arg(short, long)]
    pub interactive: bool,
    /// A terminal
    #[arg(short, long)]
    pub tty: bool,
    /// A variable, NAME=VALUE, or NAME as it is here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// VOLUME:PATH, /HOST:PATH or PATH, with :ro to refuse writes
    #[arg(short, long, value_name = "SOURCE:PATH")]
    pub volume: Vec<String>,
    /// type=bind|volume|tmpfs,source=…,target=…[,readonly]
    #[arg(long, value_name = "SPEC")]
    pub mount: Vec<String>,
    /// Memory at a path, PATH[:size=64m]
    #[arg(long, value_name = "PATH")]
    pub tmpfs: Vec<String>,
    /// [ADDRESS:][HOST-PORT:]PORT[/udp]; 8000-8003:80-83 is four
    #[arg(short, long, value_name = "PORTS")]
    pub publish: Vec<String>,
    /// Publish what the image and --expose name, at free ports of the host
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// A port for --publish-all, PORT[/udp]
    #[arg(long, value_name = "PORT")]
    pub expose: Vec<String>,
    /// default, none or host
    #[arg(long, alias = "net", default_value = "default", value_name = "NETWORK")]
    pub network: String,
    /// Memory limit: 512m, 2g
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// CPUs: 0.5, 2
    #[arg(long, value_name = "N")]
    pub cpus: Option<String>,
    /// Most processes and threads
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<i64>,
    /// A limit of the first process: nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    pub shm_size: Option<String>,
    /// USER[:GROUP], by name or number
    #[arg(short, long)]
    pub user: Option<String>,
    /// Replaces the image's program
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Host name inside
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// NAME=VALUE
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub label: Vec<String>,
    /// Refuse writes to the root file system
    #[arg(long)]
    pub read_only: bool,
    /// A small first process that reaps zombies and passes signals on
    #[arg(long)]
    pub init: bool,
    /// mode=non-blocking drops lines of a program that is faster than its log, and counts them
    #[arg(long, value_name = "NAME=VALUE")]
    pub log_opt: Vec<String>,
    /// Give a capability
    #[arg(long, value_name = "CAP")]
    pub cap_add: Vec<String>,
    /// Take a capability, or ALL
    #[arg(long, value_name = "CAP")]
    pub cap_drop: Vec<String>,
    /// Let sudo and setuid programs work inside
    #[arg(long)]
    pub allow_privilege_escalation: bool,
    /// Refused, with what to use instead
    #[arg(long, hide = true)]
    pub privileged: bool,
    /// no, on-failure[:N], unless-stopped or always; acts while a controller runs
    #[arg(long, default_value = "no", value_name = "POLICY")]
    pub restart: String,
    /// When to ask the registry
    #[arg(long, value_enum, default_value_t = Pull::Missing)]
    pub pull: Pull,
    /// linux/amd64, if that is what this host is
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// What asks it to stop
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// How long a stop waits (10s)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub stop_timeout: Option<Duration>,
    /// A line of /etc/hosts, NAME:ADDRESS; host-gateway is this host
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// A name server
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<std::net::IpAddr>,
    /// Image, and what to run in it instead of its own program
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE")]
    pub image_and_command: Vec<String>,
}

/// When the registry is asked for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// Each time.
    Always,
    /// When it is not here.
    Missing,
    /// Never.
    Never,
}

/// Arguments of `start`.
#[derive(Debug, Args)]
#[command(after_help = "Example:  boxship start brave_euler   ·   boxship start -ai brave_euler")]
pub struct StartArgs {
    /// Stay in front of it, as run does
    #[arg(short, long)]
    pub attach: bool,
    /// Pass stdin on (with --attach)
    #[arg(short, long, requires = "attach")]
    pub interactive: bool,
    /// What leaves a terminal with the container running (with --attach)
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: String,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Arguments of `stop` and `restart`.
#[derive(Debug, Args)]
#[command(after_help = "Example:  boxship stop brave_euler   ·   boxship stop --image nginx")]
pub struct StopArgs {
    /// Names or ids
    #[arg(required_unless_present = "image", value_name = "CONTAINER")]
    pub containers: Vec<String>,
    /// Every running one that was made by hand from this image
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// How long it has before it is killed (10s)
    #[arg(short, long, value_name = "DURATION", value_parser = parse_duration)]
    pub time: Option<Duration>,
}

/// Arguments of `restart`.
#[derive(Debug, Args)]
#[command(after_help = "Example:  boxship restart brave_euler")]
pub struct RestartArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
    /// How long it has before it is killed (10s)
    #[arg(short, long, value_name = "DURATION", value_parser = parse_duration)]
    pub time: Option<Duration>,
}

/// Arguments of `kill`.
#[derive(Debug, Args)]
#[command(after_help = "Example:  boxship kill --signal HUP brave_euler")]
pub struct KillArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
    /// By name or number
    #[arg(short, long, default_value = "KILL")]
    pub signal: String,
}

/// Arguments of `rm`.
#[derive(Debug, Args)]
#[command(after_help = "Example:  boxship rm brave_euler   ·   boxship rm -f $(boxship ps -aq)")]
pub struct RmArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
    /// Kill it first where it runs
    #[arg(short, long)]
    pub force: bool,
    /// Its anonymous volumes go with it, asked for or not
    #[arg(short, long, hide = true)]
    pub volumes: bool,
}

/// Arguments of `pause`, `unpause` and `wait`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:  boxship pause brave_euler   ·   boxship unpause brave_euler   ·   boxship wait brave_euler"
)]
pub struct NamesArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Arguments of `rename`.
#[derive(Debug, Args)]
#[command(after_help = "Example:  boxship rename brave_euler web")]
pub struct RenameArgs {
    /// Name or id
    pub container: String,
    /// The new name
    pub new: String,
}

/// Arguments of `ps`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:  boxship ps -a --filter status=exited   ·   boxship rm $(boxship ps -aq --filter status=exited)"
)]
pub struct PsArgs {
    /// Also those that do not run
    #[arg(short, long)]
    pub all: bool,
    /// Only the last one made, whatever its state
    #[arg(short, long)]
    pub latest: bool,
    /// Only the last N made, whatever their state
    #[arg(short = 'n', long, value_name = "N")]
    pub last: Option<usize>,
    /// With the size of the writable layer
    #[arg(short, long)]
    pub size: bool,
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Ids and commands whole
    #[arg(long)]
    pub no_trunc: bool,
    /// name=…, id=…, status=…, image=…, label=NAME[=VALUE], exited=CODE; several of one kind: any of them
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// json, or a template: '{{.Names}} {{.Status}}', 'table {{.ID}}\t{{.Image}}'; fields as in Docker
    #[arg(long, value_name = "FORMAT", conflicts_with = "quiet")]
    pub format: Option<String>,
}
