//! What can be typed after `boxship oci`: runc's verbs and options, by runc's names.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Containers from OCI bundles: an OCI runtime for engines and by hand.
#[derive(Debug, Parser)]
#[command(name = "boxship oci", version, about, max_term_width = 100)]
pub(super) struct Oci {
    /// Where the state of containers is
    #[arg(long, global = true, default_value = "/run/boxship-oci", value_name = "DIR")]
    pub(super) root: PathBuf,
    /// Where errors and warnings are written; stderr when left out
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    /// How they are written there
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
    /// Tell more
    #[arg(long, global = true)]
    pub(super) debug: bool,
    /// Not supported: cgroups are directories here
    #[arg(long, global = true)]
    pub(super) systemd_cgroup: bool,
    /// Taken for runc's sake: it takes root
    #[arg(id = "rootless-mode", long = "rootless", value_name = "BOOL")]
    pub(super) rootless_mode: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// How messages are written to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// A line of `key=value`.
    Text,
    /// A JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create a container whose program waits for `start`
    Create(Create),
    /// Run the program of a created container
    Start(Id),
    /// Print the state of a container as JSON
    State(Id),
    /// Send a signal to the first process of a container
    Kill(Kill),
    /// Remove a stopped container
    Delete(Delete),
    /// Create, start, wait and remove
    Run(Run),
    /// Run a further program in a container
    Exec(Exec),
    /// List the processes of a container
    Ps(Ps),
    /// List containers
    List(List),
    /// Freeze every process of a container
    Pause(Id),
    /// Let them go on
    Resume(Id),
    /// Change limits
    Update(Update),
    /// Print what a container uses
    Events(Events),
    /// Print what this runtime can
    Features,
    /// Write a config.json to begin with
    Spec(Spec),
}

#[derive(Debug, Args)]
pub(super) struct Id {
    /// Its id
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Its id
    pub(super) id: String,
    #[command(flatten)]
    pub(super) bundle: Bundle,
}

#[derive(Debug, Args)]
pub(super) struct Bundle {
    /// Directory of config.json
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(super) bundle: PathBuf,
    /// Where the host pid of its first process is written
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// A unix socket that is given its terminal
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// How many descriptors from 3 on it inherits
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) preserve_fds: u32,
    /// Taken for runc's sake: a root that cannot be exchanged is covered by itself
    #[arg(long)]
    pub(super) no_pivot: bool,
    /// Taken for runc's sake: the container never gets our session keyring's rights
    #[arg(long)]
    pub(super) no_new_keyring: bool,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Its id
    pub(super) id: String,
    #[command(flatten)]
    pub(super) bundle: Bundle,
    /// Return as soon as it runs
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Do not remove it
    #[arg(long)]
    pub(super) keep: bool,
    /// Taken for runc's sake
    #[arg(long)]
    pub(super) no_subreaper: bool,
}

#[derive(Debug, Args)]
pub(super) struct Kill {
    /// Its id
    pub(super) id: String,
    /// The signal, by name or number
    #[arg(default_value = "SIGTERM")]
    pub(super) signal: String,
    /// To every process of it
    #[arg(short, long)]
    pub(super) all: bool,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Its id
    pub(super) id: String,
    /// Kill it first where it runs; none at all is no error
    #[arg(short, long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// Its id
    pub(super) id: String,
    /// The program and its arguments; without --process
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(super) args: Vec<String>,
    /// The program as the `process` of a config.json
    #[arg(short, long, value_name = "FILE")]
    pub(super) process: Option<PathBuf>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<PathBuf>,
    /// A variable, NAME=VALUE; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(super) env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Its user, UID[:GID]
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(super) user: Option<String>,
    /// A further group; may be repeated
    #[arg(short = 'g', long, value_name = "GID")]
    pub(super) additional_gids: Vec<u32>,
    /// Return as soon as it runs
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Where its host pid is written
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// A unix socket that is given its terminal
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// How many descriptors from 3 on it inherits
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) preserve_fds: u32,
    /// A further capability; may be repeated
    #[arg(short, long, value_name = "CAP")]
    pub(super) cap: Vec<String>,
    /// It can gain no privileges
    #[arg(long)]
    pub(super) no_new_privs: bool,
    /// Also in a paused container
    #[arg(long)]
    pub(super) ignore_paused: bool,
    /// A cgroup below the container's
    #[arg(long, value_name = "PATH")]
    pub(super) cgroup: Option<String>,
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct Ps {
    /// Its id
    pub(super) id: String,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,
    /// Arguments of ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS OPTIONS")]
    pub(super) args: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,
    /// Only ids
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    /// Its id
    pub(super) id: String,
    /// Limits as the `resources` of a config.json; `-` reads stdin
    #[arg(short, long, value_name = "FILE")]
    pub(super) resources: Option<PathBuf>,
    /// Memory in bytes; -1 lifts the limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(super) memory: Option<i64>,
    /// Memory that is left to it when others want it
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(super) memory_reservation: Option<i64>,
    /// Memory and swap together
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(super) memory_swap: Option<i64>,
    /// Share of the CPU under contention
    #[arg(long, value_name = "SHARES")]
    pub(super) cpu_share: Option<u64>,
    /// CPU time in each period, microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub(super) cpu_quota: Option<i64>,
    /// The period, microseconds
    #[arg(long, value_name = "US")]
    pub(super) cpu_period: Option<u64>,
    /// CPUs it may use, `0-2,7`
    #[arg(long, value_name = "LIST")]
    pub(super) cpuset_cpus: Option<String>,
    /// Memory nodes it may use
    #[arg(long, value_name = "LIST")]
    pub(super) cpuset_mems: Option<String>,
    /// Most processes; 0 lifts the limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) pids_limit: Option<i64>,
    /// Share of disk time under contention, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub(super) blkio_weight: Option<u16>,
    /// CPU time it may save up and use at once, microseconds
    #[arg(long, value_name = "US")]
    pub(super) cpu_burst: Option<u64>,
    /// Only CPU time nobody else wants: 1, or 0
    #[arg(long, value_name = "0|1")]
    pub(super) cpu_idle: Option<i64>,
    /// Period of real-time CPU time, microseconds
    #[arg(long, value_name = "US")]
    pub(super) cpu_rt_period: Option<u64>,
    /// Real-time CPU time in each period, microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub(super) cpu_rt_runtime: Option<i64>,
    /// Taken for runc's sake: kernels have no such limit any more
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(super) kernel_memory: Option<i64>,
    /// Memory of TCP buffers, cgroup v1
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(super) kernel_memory_tcp: Option<i64>,
}

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Its id
    pub(super) id: String,
    /// Print once and end
    #[arg(long)]
    pub(super) stats: bool,
    /// Seconds between two lines (5s)
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = crate::cli::format::parse_duration)]
    pub(super) interval: std::time::Duration,
}

#[derive(Debug, Args)]
pub(super) struct Spec {
    /// Directory it is written to
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(super) bundle: PathBuf,
    /// For a user who is not root
    #[arg(id = "rootless-template", long = "rootless")]
    pub(super) rootless: bool,
}
