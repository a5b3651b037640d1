//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod direct;
mod hand;
mod image;
mod look;
mod volume;

pub(crate) use direct::{HoldArgs, ReleaseArgs, RolloutArgs, RolloutStatusArgs, RolloutVerb, ScaleArgs};
pub(crate) use hand::{
    CreateArgs, KillArgs, MakeArgs, NamesArgs, PsArgs, Pull, RenameArgs, RestartArgs, RmArgs, RunArgs, StartArgs,
    StopArgs,
};
pub(crate) use image::{
    ArchiveFormat, ImageArgs, ImageVerb, ListArgs, LoadArgs, LoginArgs, LogoutArgs, PruneArgs, SaveArgs,
};
pub(crate) use look::{
    AttachArgs, CommitArgs, CopyArgs, DiffArgs, ImportArgs, InspectArgs, NoteArgs, StatsArgs, TopArgs,
};
pub(crate) use volume::{VolumeArgs, VolumeBackupArgs, VolumeRestoreArgs, VolumeVerb};

/// Makes this host run what its manifests say, and keeps it so
#[derive(Debug, Parser)]
#[command(name = "boxship", version, max_term_width = 100, propagate_version = true)]
#[command(after_help = "Start here:  boxship demo   ·   boxship up ./shop   ·   boxship get")]
pub struct Cli {
    /// Where state is and how to print.
    #[command(flatten)]
    pub place: Place,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Durable state: images, containers, volumes
    #[arg(long, global = true, env = "BOXSHIP_DATA_ROOT", default_value = "/var/lib/boxship", value_name = "DIR")]
    pub data_root: PathBuf,
    /// State of this boot: sockets and pids
    #[arg(long, global = true, env = "BOXSHIP_RUN_DIR", default_value = "/run/boxship", value_name = "DIR")]
    pub run_dir: PathBuf,
    /// The file that holds the boot id (tests "reboot" with another one)
    #[arg(long, global = true, hide = true, env = "BOXSHIP_BOOT_ID_PATH", value_name = "FILE")]
    pub boot_id_path: Option<PathBuf>,
    /// Registries that are asked by HTTP (loopback ones always are), HOST[:PORT], may be repeated
    #[arg(long, global = true, env = "BOXSHIP_INSECURE_REGISTRY", value_delimiter = ',', value_name = "HOST")]
    pub insecure_registry: Vec<String>,
    /// Further certificate authorities for registries, PEM, may be repeated
    #[arg(long, global = true, env = "BOXSHIP_REGISTRY_CA", value_delimiter = ',', value_name = "FILE")]
    pub registry_ca: Vec<PathBuf>,
    /// The key that secrets are encrypted with, made when it is first needed. Default: secret.key in the data root
    #[arg(long, global = true, env = "BOXSHIP_SECRET_KEY", value_name = "FILE")]
    pub secret_key: Option<PathBuf>,
    /// Drop the compressed layers of images once they are unpacked; `image save` and `image push` fetch them again
    #[arg(long, global = true, env = "BOXSHIP_DROP_BLOBS")]
    pub drop_blobs: bool,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show boxship at work on an image made from this very binary, and prove it
    Demo(DemoArgs),
    /// Run what a directory or file of manifests says, and wait until it does
    #[command(visible_alias = "apply")]
    Up(UpArgs),
    /// Remove what `up` started; named volumes are kept
    Down(DownArgs),
    /// Follow a directory of manifests, in the foreground
    Controller(ControllerArgs),
    /// Say what would change and why; changes nothing
    Plan(PlanArgs),
    /// Report every problem of every manifest; needs no controller and no root
    Check(CheckArgs),
    /// Write Compose files and Kubernetes objects as native manifests, and list what gets lost
    Convert(ConvertArgs),
    /// Lay out manifests in one way; comments, order and meaning stay
    Fmt(FmtArgs),
    /// Tell what a field of a manifest, or a code of a message, means
    Explain(ExplainArgs),
    /// List objects
    Get(GetArgs),
    /// Tell everything about one object
    Describe(ObjectArgs),
    /// Tell why an object is as it is
    Why(ObjectArgs),
    /// Make a container by hand and run it
    Run(Box<RunArgs>),
    /// Make a container by hand without running it
    Create(Box<CreateArgs>),
    /// Run containers that do not run, as they were left
    Start(StartArgs),
    /// Stop containers; they stay
    Stop(StopArgs),
    /// Stop containers and start them again
    Restart(RestartArgs),
    /// Send a signal to containers
    Kill(KillArgs),
    /// Remove containers with their writable layer
    Rm(RmArgs),
    /// List containers, replicas of objects among them
    Ps(PsArgs),
    /// Wait until containers have ended, and print how
    Wait(NamesArgs),
    /// Give a container another name
    Rename(RenameArgs),
    /// Freeze all processes of containers
    Pause(NamesArgs),
    /// Let paused containers go on
    Unpause(NamesArgs),
    /// Print output of containers
    Logs(LogsArgs),
    /// Run a program in a running container
    Exec(ExecArgs),
    /// Print what happened
    Events(EventsArgs),
    /// Watch, list, undo, retry and pause the roll-outs of an App
    Rollout(RolloutArgs),
    /// Run so many replicas of an App
    Scale(ScaleArgs),
    /// Leave an object as it is, whatever its manifest says
    Hold(HoldArgs),
    /// End a hold
    Release(ReleaseArgs),
    /// Delete an object that no followed manifest declares (volumes with their data)
    Delete(DeleteArgs),
    /// Remove what no manifest declares any more, after showing it (for images: boxship image prune)
    Prune(VolumePruneArgs),
    /// Back up and restore volumes
    Volume(VolumeArgs),
    /// Work with images
    Image(ImageArgs),
    /// Show a running container's output as it comes, and pass stdin on to it
    Attach(AttachArgs),
    /// Copy files between host and containers
    Cp(CopyArgs),
    /// Print everything about containers, or images, as JSON
    Inspect(InspectArgs),
    /// List the processes of a container
    Top(TopArgs),
    /// Show what containers use: processor, memory, network, disks
    Stats(StatsArgs),
    /// Save a container's writable layer as an image (boxship image commit)
    Commit(CommitArgs),
    /// List what a container changed of its image's files
    Diff(DiffArgs),
    /// Run containers from OCI bundles, as runc does (boxship oci --help)
    #[command(disable_help_flag = true)]
    Oci(OciArgs),
    /// Holds the other processes
    #[command(hide = true)]
    Keeper(KeeperArgs),
    /// Parent of the containers
    #[command(hide = true)]
    Supervisor,
    /// Names and published ports
    #[command(hide = true)]
    Switchboard,
    /// Unpacks a layer, sandboxed
    #[command(hide = true)]
    Unpack(UnpackArgs),
    /// Copies inside a container
    #[command(hide = true)]
    Copy(UnpackArgs),
    /// What the demo's containers run
    #[command(hide = true)]
    DemoGuest(GuestArgs),
}

/// Arguments of `oci`, which has a parser of its own.
#[derive(Debug, Args)]
pub struct OciArgs {
    /// Its verb and options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "VERB")]
    pub args: Vec<std::ffi::OsString>,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave it running
    #[arg(long)]
    pub keep: bool,
    /// Breaks what the named check looks at, to see the check fail
    #[arg(long, hide = true, value_enum)]
    pub sabotage: Option<Sabotage>,
}

/// The demo's checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// Nothing converges.
    Converge,
    /// A killed replica stays dead.
    Kill,
    /// The roll-out does not happen.
    Roll,
    /// The broken image takes the good one down.
    Broken,
    /// The removed manifest's containers stay.
    Remove,
    /// Something is left behind.
    Leftovers,
}

/// Arguments of `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Directory or file
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Give up waiting after this long (90s, 2m); what was started goes on
    #[arg(long, value_name = "DURATION", value_parser = super::format::parse_duration)]
    pub timeout: Option<std::time::Duration>,
    /// Return once the manifests are accepted
    #[arg(short, long)]
    pub detach: bool,
    /// Follow the files as they change
    #[arg(long)]
    pub watch: bool,
    /// Refuse what has a warning, such as a key that is not honoured
    #[arg(long)]
    pub strict: bool,
    /// Yes, remove everything although no manifest is left
    #[arg(long)]
    pub confirm_removal: bool,
    /// Only if what follows is exactly the plan `boxship plan` printed with this hash
    #[arg(long, value_name = "HASH")]
    pub plan_hash: Option<String>,
    /// How to show progress
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    pub progress: Progress,
}

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Bars on a terminal, lines elsewhere.
    Auto,
    /// Bars.
    Tty,
    /// One line for each change of state.
    Plain,
    /// One JSON object for each change of state, on stderr.
    Json,
    /// Only the result.
    Quiet,
}

/// Arguments of `down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// Directory or file given to `up`; everything when left out
    pub path: Option<PathBuf>,
    /// Give up waiting after this long
    #[arg(long, value_name = "DURATION", value_parser = super::format::parse_duration)]
    pub timeout: Option<std::time::Duration>,
}

/// Arguments of `controller`.
#[derive(Debug, Clone, Args)]
pub struct ControllerArgs {
    /// Directory to follow
    #[arg(long, env = "BOXSHIP_MANIFESTS", value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    /// Look at each layer of the image store again within this time, slowly; damage is healed. 0s: never
    #[arg(long, env = "BOXSHIP_SCRUB_EVERY", value_name = "DURATION", default_value = "30d",
        value_parser = crate::cli::format::parse_duration)]
    pub scrub_every: std::time::Duration,
    /// Started by the keeper: the other processes are there already
    #[arg(long, hide = true)]
    pub kept: bool,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Directory or file; what is in force when left out
    pub path: Option<PathBuf>,
    /// Exit 2 when something would change
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// As `up --confirm-removal` would do it
    #[arg(long)]
    pub confirm_removal: bool,
    /// Every step in its order, not only what changes
    #[arg(long)]
    pub steps: bool,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Directories or files
    #[arg(default_value = ".")]
    pub paths: Vec<PathBuf>,
    /// Take every warning as an error
    #[arg(long)]
    pub strict: bool,
}

/// Arguments of `convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// Directory or file
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Write STACK/boxship.yaml below this directory instead of to stdout; nothing is overwritten
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
}

/// Arguments of `fmt`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  boxship fmt\n  boxship fmt --check deploy/\n  boxship fmt - < web.yaml")]
pub struct FmtArgs {
    /// Directories or files; `-` reads stdin and writes stdout
    #[arg(default_value = ".")]
    pub paths: Vec<PathBuf>,
    /// Write nothing; list the files that would change, and end with 1 if there are any
    #[arg(long)]
    pub check: bool,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// `app.healthcheck`, `services.restart`, `Deployment.spec.strategy`, `BX0142`; a list when left out
    #[arg(default_value = "")]
    pub what: String,
}

/// Arguments of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// `app`, `app/web`, `web`, `shop/web`; all when left out
    pub what: Option<String>,
    /// Only this stack
    #[arg(short = 'n', long)]
    pub stack: Option<String>,
    /// Print again whenever something changes
    #[arg(short, long)]
    pub watch: bool,
    /// Also a line for each replica
    #[arg(short, long)]
    pub replicas: bool,
}

/// One object.
#[derive(Debug, Args)]
pub struct ObjectArgs {
    /// `app/web`, `web`, `shop/web`, `web-2`
    pub what: String,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// `app/web`, `web`, `shop/web`, `web-2`; every App and Job when left out
    pub what: Option<String>,
    /// Only this container of replicas that have several
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// Go on as lines come
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines of each container
    #[arg(long, value_name = "N")]
    pub tail: Option<u32>,
    /// With the time of each line
    #[arg(short, long)]
    pub timestamps: bool,
}

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// `web` (its first running replica), `shop/web`, `web-2`
    pub what: String,
    /// Which container of a replica that has several. Default: the main one
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// Pass stdin on
    #[arg(short, long)]
    pub interactive: bool,
    /// A terminal
    #[arg(short, long)]
    pub tty: bool,
    /// `user[:group]`
    #[arg(short, long)]
    pub user: Option<String>,
    /// Working directory
    #[arg(short, long)]
    pub workdir: Option<String>,
    /// `NAME=value`
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only this object
    pub what: Option<String>,
    /// Go on as things happen
    #[arg(short, long)]
    pub watch: bool,
}

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// `volume/uploads`, `app/web`
    pub what: String,
}

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub struct VolumePruneArgs {
    /// Volumes, with their data
    #[arg(long, required = true)]
    pub volumes: bool,
    /// Only of this stack
    #[arg(long, value_name = "STACK")]
    pub stack: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Only show what would go
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `keeper`.
#[derive(Debug, Clone, Args)]
pub struct KeeperArgs {
    /// Manifests the controller follows
    #[arg(long)]
    pub manifests: Option<PathBuf>,
    /// Only these of the three
    #[arg(long)]
    pub with: Option<String>,
}

/// Arguments of `unpack`; see `runtime::image`.
#[derive(Debug, Clone, Args)]
pub struct UnpackArgs {
    /// Passed on
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

/// Arguments of the demo's program in containers.
#[derive(Debug, Clone, Args)]
pub struct GuestArgs {
    /// `web VERSION PORT`, `job TEXT`, `broken`
    #[arg(trailing_var_arg = true)]
    pub args: Vec<String>,
}
