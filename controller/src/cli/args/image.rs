//! What can be typed after `boxship image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
    /// List images
    Ls,
    /// Remove images
    Rm {
        /// References or ids
        #[arg(required = true)]
        references: Vec<String>,
    },
    /// Try a login at a registry, and keep it when the registry takes it
    Login(LoginArgs),
    /// Forget the login to a registry
    Logout(LogoutArgs),
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
