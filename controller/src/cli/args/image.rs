//! What can be typed after `boxship image`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::look::{CommitArgs, ImageDiffArgs, ImportArgs};

/// Arguments of `image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// What to do with images.
    #[command(subcommand)]
    pub verb: ImageVerb,
}

/// Verbs of `image`.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Fetch an image
    Pull {
        /// `registry.example/shop/web:1.5`
        reference: String,
    },
    /// Send an image to a registry
    Push {
        /// Reference or id
        image: String,
        /// Where to, when not where its name says
        to: Option<String>,
    },
    /// List images
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Print everything about images, as JSON
    Inspect {
        /// References or ids
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Print how an image was made, latest step first
    History {
        /// Reference or id
        image: String,
        /// Whole commands and ids
        #[arg(long)]
        no_trunc: bool,
    },
    /// Give an image one more name
    Tag {
        /// Reference or id
        image: String,
        /// The new name
        new: String,
    },
    /// Remove images; one that a container was made from stays
    Rm {
        /// References or ids
        #[arg(required = true)]
        images: Vec<String>,
        /// An id with all its names
        #[arg(short, long)]
        force: bool,
    },
    /// Write images as one archive, to a file or to stdout
    Save(SaveArgs),
    /// Take images from an archive or a layout on disk
    Load(LoadArgs),
    /// Save a container's writable layer as an image
    Commit(CommitArgs),
    /// Make an image of the tar of a root file system
    Import(ImportArgs),
    /// List what differs between two images, or between one and what it was made on
    Diff(ImageDiffArgs),
    /// Write the whole root file system of an image into an empty directory
    Unpack {
        /// Reference or id
        image: String,
        /// The directory
        dest: PathBuf,
    },
    /// Delete images nothing uses
    Prune(PruneArgs),
    /// Check every image on this host; what is damaged is fetched again
    Scrub,
    /// Try a login at a registry, and keep it when the registry takes it
    Login(LoginArgs),
    /// Forget the login to a registry
    Logout(LogoutArgs),
}

/// Arguments of `image ls`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only this repository
    pub repository: Option<String>,
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Whole ids
    #[arg(long)]
    pub no_trunc: bool,
    /// Manifest digests as well
    #[arg(long)]
    pub digests: bool,
    /// Only images without a tag
    #[arg(long)]
    pub dangling: bool,
    /// The repository's tags at its registry
    #[arg(long, requires = "repository")]
    pub remote: bool,
}

/// Arguments of `image save`.
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// References or ids
    #[arg(required = true)]
    pub images: Vec<String>,
    /// The file; stdout when left out
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Who is to read it
    #[arg(long, value_enum, default_value_t = ArchiveFormat::Docker)]
    pub format: ArchiveFormat,
}

/// Kinds of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ArchiveFormat {
    /// Docker, Podman, and what reads OCI archives
    Docker,
    /// Only what reads OCI archives
    Oci,
}

/// Arguments of `image load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// An archive, a directory with an OCI layout, oci:DIR[:TAG], or - for stdin
    #[arg(default_value = "-")]
    pub source: String,
    /// What to call the image, when there is one
    #[arg(short, long, value_name = "NAME")]
    pub tag: Option<String>,
}

/// Arguments of `image prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Also images that have a tag
    #[arg(short, long)]
    pub all: bool,
    /// Only what no container was made from for this long (30d, 12h)
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::format::parse_duration)]
    pub unused_for: Option<std::time::Duration>,
    /// The longest unused ones, until all images have at most this many bytes (20Gi, 500Mi)
    #[arg(long, value_name = "SIZE", value_parser = crate::cli::format::parse_bytes)]
    pub budget: Option<u64>,
    /// Only say what would go
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `image login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The registry's host
    #[arg(default_value = "docker.io")]
    pub registry: String,
    /// Asked for when left out
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// Read the password from stdin; without it, it is asked for on the terminal
    #[arg(long)]
    pub password_stdin: bool,
    /// Keep it in this file instead of the data root's auth.json
    #[arg(long, env = "REGISTRY_AUTH_FILE", value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}

/// Arguments of `image logout`.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// The registry's host
    #[arg(default_value = "docker.io")]
    pub registry: String,
    /// The file to take it from instead of the data root's auth.json
    #[arg(long, env = "REGISTRY_AUTH_FILE", value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}
