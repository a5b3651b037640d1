//! What can be typed to look into containers, and to make images of what is there.

use clap::Args;

/// Arguments of `commit`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:  boxship commit --change 'CMD [\"nginx\"]' -m 'with my page' web-1 shop/web:edited\n\n\
    The image runs what the container was told to run. Variables set when it was started are not saved, as they may be \
    secrets: add what is wanted with --change 'ENV NAME=value'. What is in volumes is not part of a container."
)]
pub struct CommitArgs {
    /// The container: an id or its beginning, `web-2`, `shop/web-2`
    pub container: String,
    /// What to call the image; without a name it has only its id
    pub name: Option<String>,
    /// What is said about it.
    #[command(flatten)]
    pub notes: NoteArgs,
    /// Who made it
    #[arg(short, long, value_name = "NAME")]
    pub author: Option<String>,
    /// Read its files while it runs on; without this it stands still meanwhile
    #[arg(long)]
    pub no_pause: bool,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:  debootstrap --variant=minbase bookworm root && tar -C root -c . | boxship image import - debian:mine"
)]
pub struct ImportArgs {
    /// A tar of a whole root file system, plain or packed with gzip or zstd; - for stdin
    pub source: String,
    /// What to call the image; without a name it has only its id
    pub name: Option<String>,
    /// What is said about it.
    #[command(flatten)]
    pub notes: NoteArgs,
}

/// What is said about an image that is made.
#[derive(Debug, Args)]
pub struct NoteArgs {
    /// A remark in its history
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub message: String,
    /// Change a setting as a line of a Dockerfile would: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or
    /// WORKDIR; may be repeated
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    pub changes: Vec<String>,
}

/// Arguments of `image diff`.
#[derive(Debug, Args)]
#[command(after_help = "Example:  boxship image diff shop/web:1.5 shop/web:1.6")]
pub struct ImageDiffArgs {
    /// Reference or id
    pub image: String,
    /// Reference or id; without it, IMAGE is compared with what its last layer was put on
    pub other: Option<String>,
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
#[command(after_help = "Example:  boxship attach brave_euler   ·   ctrl-p ctrl-q leaves it running\n\n\
    Only a container that was started with -i has a stdin. The exit code is its program's; 0 when it was left.")]
pub struct AttachArgs {
    /// The container: its name, an id or its beginning, `web-2`, `shop/web-2`
    pub container: String,
    /// Do not pass stdin on
    #[arg(long)]
    pub no_stdin: bool,
    /// What leaves it running: keys such as a or ctrl-p, with commas between
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: String,
}

/// Arguments of `cp`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:  boxship cp ./site.conf web-1:/etc/nginx/   ·   boxship cp web-1:/var/log - | tar t\n\n\
    The rules are those of docker cp: what is copied to a directory that is there goes into it; DIR/. is only what is in \
    it. A container need not run. Without --archive, files belong to root inside, and to who copies on the host."
)]
pub struct CopyArgs {
    /// A file or directory of the host, CONTAINER:PATH, or - for a tar on stdin
    pub from: String,
    /// CONTAINER:PATH, a place on the host, or - for a tar on stdout
    pub to: String,
    /// Keep owners, set-id bits and capabilities
    #[arg(short, long)]
    pub archive: bool,
    /// Follow a link that FROM ends in
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Do not say what was left out
    #[arg(short, long)]
    pub quiet: bool,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:  boxship inspect web-1\n\
    \x20          boxship inspect --format '{{.State.Status}} {{.NetworkSettings.IPAddress}}' web-1 web-2\n\
    \x20          boxship inspect -f '{{json .Config.Env}}' web-1\n\n\
    Of Go's templates it knows {{.A.B}}, {{json .A}}, {{len .A}} and {{index .A \"key\"}}.")]
pub struct InspectArgs {
    /// Containers (an id or its beginning, `web-2`, `shop/web-2`) or images
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Print this of each, on a line of its own, instead of everything as JSON
    #[arg(short, long, value_name = "TEMPLATE")]
    pub format: Option<String>,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(after_help = "Example:  boxship top web-1")]
pub struct TopArgs {
    /// The container: an id or its beginning, `web-2`, `shop/web-2`
    pub container: String,
}

/// Arguments of `stats`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:  boxship stats   ·   boxship stats --no-stream web-1 -o json")]
pub struct StatsArgs {
    /// Containers; all that run when left out
    pub containers: Vec<String>,
    /// Print once
    #[arg(long)]
    pub no_stream: bool,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = "Example:  boxship diff web-1\n\nA: was added, C: is different, D: was deleted.")]
pub struct DiffArgs {
    /// The container: an id or its beginning, `web-2`, `shop/web-2`
    pub container: String,
}
