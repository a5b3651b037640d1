//! Arguments of `volume`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `volume`.
#[derive(Debug, Args)]
pub struct VolumeArgs {
    /// What to do
    #[command(subcommand)]
    pub verb: VolumeVerb,
}

/// The verbs of `volume`.
#[derive(Debug, Subcommand)]
pub enum VolumeVerb {
    /// Write a volume's data as a tar archive
    Backup(VolumeBackupArgs),
    /// Make a volume of such an archive
    Restore(VolumeRestoreArgs),
}

/// Arguments of `volume backup`.
#[derive(Debug, Args)]
pub struct VolumeBackupArgs {
    /// The volume: NAME or STACK/NAME
    #[arg(value_name = "VOLUME")]
    pub name: String,
    /// Where to; - is standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Also while containers that run may write to it: the archive may then hold what was never there at one time
    #[arg(long)]
    pub live: bool,
}

/// Arguments of `volume restore`.
#[derive(Debug, Args)]
pub struct VolumeRestoreArgs {
    /// The volume: NAME, or STACK/NAME, which need not be there yet
    #[arg(value_name = "VOLUME")]
    pub name: String,
    /// Where from; - is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Also in the place of data that is there
    #[arg(long)]
    pub replace: bool,
}
