//! What can be asked about images, and the one function that does it: the controller for its socket, the command line by
//! itself where no controller runs. Both speak these values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use runtime::Runtime as _;
use runtime::image::{
    Change, Digest, HistoryStep, ImageRef, Notes, PruneRequest, Pruned, Pushed, RefError, SaveFormat, SaveImage,
    Scrubbed,
};
use runtime::linux::{LinuxRuntime, Removed};
use runtime::runtime::{ImageInfo, PullProgress, PullRequest};
use runtime::{Error, Result};
use serde::{Deserialize, Serialize};

use super::types::{ApiError, ImageView, LayerStatus};

/// Something to do with images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ImageRequest {
    /// Fetch one, asking the registry what its tag means now.
    Pull(String),
    /// Send the image `name` to the registry of `to` (its own name when `None`).
    Push {
        /// Which.
        name: String,
        /// As what.
        to: Option<String>,
    },
    /// Everything about one.
    Inspect(String),
    /// How one was made.
    History(String),
    /// One more name.
    Tag {
        /// Which.
        name: String,
        /// The new name.
        new: String,
    },
    /// Take names, and images without one, away.
    Remove {
        /// References or ids.
        names: Vec<String>,
        /// An id with all its names.
        force: bool,
    },
    /// Delete what nothing uses.
    Prune(PruneRequest),
    /// Check everything, heal what is bad.
    Scrub,
    /// Take images from an archive or a layout.
    Load {
        /// Absolute, seen by whoever does it.
        path: PathBuf,
        /// Only the one called so there.
        tag: Option<String>,
        /// What to call the only one.
        name: Option<String>,
    },
    /// Write the whole root file system of one into an empty directory.
    Unpack {
        /// Which.
        name: String,
        /// Absolute.
        to: PathBuf,
    },
    /// Tags of a repository at its registry.
    RemoteTags(String),
    /// Save a container's writable layer as an image.
    Commit {
        /// Which container.
        container: String,
        /// What to call the image.
        name: Option<String>,
        /// What else is said about it.
        notes: Notes,
        /// A running one stands still meanwhile.
        pause: bool,
    },
    /// Make an image of the tar of a root file system.
    Import {
        /// Absolute, seen by whoever does it.
        path: PathBuf,
        /// What to call the image.
        name: Option<String>,
        /// What else is said about it.
        notes: Notes,
    },
    /// What differs between two, or between one and what it was made on.
    Diff {
        /// Which.
        name: String,
        /// The later one.
        other: Option<String>,
    },
    /// What a container changed of its image.
    DiffContainer(String),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ImageAnswer {
    /// Of a pull.
    Held(Box<ImageInfo>),
    /// Of a push.
    Pushed(Pushed),
    /// Of an inspection.
    Inspected(serde_json::Value),
    /// Of a history, latest first.
    History(Vec<HistoryStep>),
    /// Of a tag.
    Tagged(ImageRef),
    /// Of a removal.
    Removed(Removed),
    /// Of a prune.
    Pruned(Pruned),
    /// Of a scrub.
    Scrubbed(Scrubbed),
    /// Of a load.
    Loaded(Vec<ImageInfo>),
    /// Of an unpacking: what was unpacked.
    Unpacked(Digest),
    /// Of a registry.
    Tags(Vec<String>),
    /// Of a commit or an import.
    Made(Box<ImageInfo>),
    /// Of a comparison.
    Changes(Vec<Change>),
}

/// One line while it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ImageLine {
    /// A layer moved on.
    Layer(LayerStatus),
    /// Done.
    Done(Box<ImageAnswer>),
    /// It failed.
    Failed(ApiError),
}

/// Images to be written as one archive: the body of `POST /v1/images/save`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveRequest {
    /// References or ids.
    pub names: Vec<String>,
    /// For whom.
    pub format: SaveFormat,
}

/// What must stay though no container has it.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// References that an Image holds, with their earlier digests, and who declares each.
    pub names: BTreeMap<ImageRef, String>,
    /// What objects run or an undo may go back to, each with its digest.
    pub needed: BTreeSet<ImageRef>,
}

/// Does it. Blocks as long as it takes.
///
/// # Errors
/// Those of the runtime; `Conflict` for a name that is declared, `Unsupported` for text that is no reference.
pub fn perform(
    linux: &LinuxRuntime,
    declared: &Declared,
    request: &ImageRequest,
    progress: &dyn PullProgress,
) -> Result<ImageAnswer> {
    let store = linux.images();
    Ok(match request {
        ImageRequest::Pull(name) => {
            let request = PullRequest { reference: parse(name)?, refresh: true, newer_only: false };
            ImageAnswer::Held(Box::new(linux.pull_image(&request, progress)?))
        }
        ImageRequest::Push { name, to } => {
            let found = store.find(name)?;
            let to = match (to, found.reference) {
                (Some(to), _) => parse(to)?,
                (None, Some(own)) => own,
                (None, None) => return Err(Error::Unsupported(format!("`{name}` is an id: say where to push it"))),
            };
            ImageAnswer::Pushed(store.push(&found.digest, &to, progress)?)
        }
        ImageRequest::Inspect(name) => ImageAnswer::Inspected(store.inspect(&store.find(name)?.digest)?),
        ImageRequest::History(name) => ImageAnswer::History(store.history(&store.find(name)?.digest)?),
        ImageRequest::Tag { name, new } => {
            let new = parse(new)?;
            store.tag(&store.find(name)?.digest, &new)?;
            ImageAnswer::Tagged(new)
        }
        ImageRequest::Remove { names, force } => {
            for name in names {
                undeclared(linux, declared, name)?;
            }
            ImageAnswer::Removed(linux.remove_images(names, *force)?)
        }
        ImageRequest::Prune(request) => {
            let held: BTreeSet<ImageRef> = declared.names.keys().chain(&declared.needed).cloned().collect();
            ImageAnswer::Pruned(linux.prune_images(request, &held)?)
        }
        ImageRequest::Scrub => ImageAnswer::Scrubbed(linux.scrub_images(progress)?),
        ImageRequest::Load { path, tag, name } => {
            let name = name.as_deref().map(parse).transpose()?;
            ImageAnswer::Loaded(store.load(path, tag.as_deref(), name.as_ref(), progress)?)
        }
        ImageRequest::Unpack { name, to } => {
            let digest = store.find(name)?.digest;
            store.unpack_image(&digest, to)?;
            ImageAnswer::Unpacked(digest)
        }
        ImageRequest::RemoteTags(repository) => ImageAnswer::Tags(store.remote_tags(&parse(repository)?)?),
        ImageRequest::Commit { container, name, notes, pause } => {
            let notes = named(notes, name.as_deref())?;
            let id = super::lookup::find(linux, container)?.id.clone();
            ImageAnswer::Made(Box::new(linux.commit_container(&id, &notes, *pause)?))
        }
        ImageRequest::Import { path, name, notes } => {
            ImageAnswer::Made(Box::new(store.import(path, &named(notes, name.as_deref())?)?))
        }
        ImageRequest::Diff { name, other: None } => ImageAnswer::Changes(store.diff_parent(&store.find(name)?.digest)?),
        ImageRequest::Diff { name, other: Some(other) } => {
            ImageAnswer::Changes(store.diff(&store.find(name)?.digest, &store.find(other)?.digest)?)
        }
        ImageRequest::DiffContainer(text) => {
            ImageAnswer::Changes(linux.diff_container(&super::lookup::find(linux, text)?.id)?)
        }
    })
}

/// The notes with the name; only a tag can be given.
fn named(notes: &Notes, name: Option<&str>) -> Result<Notes> {
    let reference = name.map(parse).transpose()?;
    if let Some(pinned) = reference.as_ref().filter(|name| name.digest().is_some()) {
        return Err(Error::Unsupported(format!("`{pinned}` has a digest: a name that is given has only a tag")));
    }
    Ok(Notes { reference, ..notes.clone() })
}

/// The images to save, under the names they were asked for by.
///
/// # Errors
/// `NotFound`, `Conflict`, `Io`.
pub fn to_save(linux: &LinuxRuntime, names: &[String]) -> Result<Vec<SaveImage>> {
    let one = |name: &String| {
        let found = linux.images().find(name)?;
        Ok(SaveImage { digest: found.digest, names: found.reference.into_iter().collect() })
    };
    names.iter().map(one).collect()
}

/// Every image with its users: objects as `declared` and `objects` know them, else containers by id.
///
/// # Errors
/// `Io`.
pub fn list(
    linux: &LinuxRuntime,
    objects: impl Fn(&ImageInfo) -> Vec<crate::model::ObjectKey>,
) -> Result<Vec<ImageView>> {
    let sizes = linux.images().sizes()?;
    let users = linux.image_users()?;
    let views = linux.list_images()?.into_iter().map(|image| ImageView {
        used_by: objects(&image),
        sizes: sizes.get(&image.digest).copied().unwrap_or_default(),
        containers: users.get(&image.digest).cloned().unwrap_or_default().into_iter().collect(),
        image,
    });
    Ok(views.collect())
}

fn undeclared(linux: &LinuxRuntime, declared: &Declared, name: &str) -> Result<()> {
    let found = linux.images().find(name)?;
    let names = match &found.reference {
        Some(reference) => vec![reference.clone()],
        None => linux.images().names_of(&found.digest)?,
    };
    match names.iter().find_map(|name| declared.names.get_key_value(name)) {
        Some((name, who)) => Err(Error::Conflict(format!("`{}` is held by {who}", name.familiar()))),
        None => Ok(()),
    }
}

fn parse(text: &str) -> Result<ImageRef> {
    text.parse().map_err(|e: RefError| Error::Unsupported(e.to_string()))
}
