//! Files into and out of a container's root, as a tar stream. The container's side is a short-lived program of ours that
//! enters the container's own mounts and users first: there it is the container's root and no more, ids are the
//! container's, and no link leads anywhere else. The host's side packs and unpacks by descriptor.
//!
//! Which container is meant, and where it is on disk, `linux` knows.

mod child;
mod host;
mod unpack;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::runtime::IdRange;
use crate::spec::launch::{LaunchMount, RootLayers};

pub use child::copy_child;
pub use host::{pack, unpack};

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A symbolic link, not followed.
    Link,
    /// A FIFO, a socket or a device.
    Other,
}

/// Whose the files are that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// Whose the archive says, with set-id bits and capabilities.
    AsSaid,
    /// The one who makes them, without what would be rights of somebody else.
    Maker,
}

/// What is to be done in a container's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Copy {
    /// Says what is there.
    Look {
        /// Inside.
        path: PathBuf,
        /// A link at its end is followed.
        follow: bool,
    },
    /// Packs it, called `name` in the archive; an empty name: only what is in the directory.
    Out {
        /// Inside.
        path: PathBuf,
        /// Its name in the archive.
        name: String,
        /// A link at its end is followed.
        follow: bool,
    },
    /// Unpacks an archive into this directory.
    In {
        /// Inside; must be there.
        directory: PathBuf,
        /// Whose the files are.
        owner: Owner,
    },
}

/// Where the root is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Root {
    /// As the process with this pid sees it.
    Of {
        /// On the host.
        pid: i32,
        /// Its cgroup: the number may be another process's by now.
        cgroup: String,
    },
    /// Put together for this, as for a start.
    Layers {
        /// Of the image, and the writable one.
        layers: RootLayers,
        /// The container's ids.
        ids: IdRange,
        /// Volumes and binds.
        mounts: Vec<LaunchMount>,
    },
}

/// What the program is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) root: Root,
    pub(crate) copy: Copy,
}

/// What it says on standard error when it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    Found(Kind),
    /// Nothing is at this path.
    Missing(String),
    Done(Copied),
    Failed(String),
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Entries left out: sockets and devices.
    pub left_out: u64,
}
