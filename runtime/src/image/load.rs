//! Images from disk: an OCI layout (`oci:DIR`), or an archive as `docker save`, `podman save`, skopeo and ourselves write
//! them. Needs no network. An archive is untrusted as a layer is.

use std::fs::File;
use std::io::{Read, Seek as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::manifest::{Descriptor, Document, MANIFEST_BYTES_MAX, OCI_INDEX, Platform, parse, select_platform};
use super::pull::{Fetched, Origin};
use super::save::{FULL_NAME, REF_NAME};
use super::unpack::{self, Source};
use super::{Digest, ImageRef, Store};
use crate::error::{Doing, Error, Result};
use crate::layout::make_private_dir;
use crate::runtime::{ImageInfo, PullProgress};

mod docker;

/// Most images taken from one archive.
const IMAGES_MAX: usize = 1_000;

impl Store {
    /// Takes images from a layout or an archive: the one called `tag` there, or all. `name` is what to call the only
    /// one; without it each keeps the name it has there.
    ///
    /// # Errors
    /// `NotFound` when there is no such tag, `Conflict` when a name is missing or several images would get one,
    /// `Untrusted`, `Registry` `BX0305` or `BX0307`, `NoSpace`, `Io`. Images before the one that failed are here then.
    pub fn load(
        &self,
        path: &Path,
        tag: Option<&str>,
        name: Option<&ImageRef>,
        progress: &dyn PullProgress,
    ) -> Result<Vec<ImageInfo>> {
        if path.is_dir() {
            return self.load_dir(path, path, tag, name, progress);
        }
        let dir = self.tmp_path("load");
        make_private_dir(&dir)?;
        let loaded = self.extract(path, &dir).and_then(|()| self.load_dir(&dir, path, tag, name, progress));
        super::store::stage::remove_tree(&dir);
        loaded.map_err(|error| self.full_disk(error))
    }

    fn load_dir(
        &self,
        dir: &Path,
        shown: &Path,
        tag: Option<&str>,
        name: Option<&ImageRef>,
        progress: &dyn PullProgress,
    ) -> Result<Vec<ImageInfo>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(dir, flags, Mode::empty()).doing(|| format!("open {}", dir.display()))?;
        let files = Files { root, shown: shown.display().to_string() };
        let (origin, offers): (Box<dyn Origin>, _) = if dir.join("index.json").exists() {
            let offers = files.offers(tag)?;
            (Box::new(files), offers)
        } else if dir.join("manifest.json").exists() {
            let archive = docker::DockerArchive::open(files)?;
            let offers = archive.offers(tag)?;
            (Box::new(archive), offers)
        } else {
            let what = "it has neither index.json nor manifest.json";
            return Err(Error::Untrusted(format!("{} is no image: {what}", files.shown)));
        };
        let named = name_all(offers, name, tag, &shown.display().to_string())?;
        named.into_iter().map(|(digest, name)| self.install_from(&*origin, &name.at(digest), &name, progress)).collect()
    }

    /// The same child takes an archive apart that takes layers apart.
    fn extract(&self, archive: &Path, dir: &Path) -> Result<()> {
        let doing = || format!("read {}", archive.display());
        let mut file = File::open(archive).doing(doing)?;
        let size = file.metadata().doing(doing)?.len();
        let digest = unpack::digest_of(&mut file).doing(doing)?;
        file.rewind().doing(doing)?;
        let mut source = Source::new(Box::new(file), digest, size);
        self.unpack(dir, &mut source, None).map(|_| ())
    }
}

/// An image on offer: its manifest, and the name it has there.
struct Offer {
    digest: Digest,
    name: Option<ImageRef>,
    platform: Option<Descriptor>,
}

/// What each image is to be called here.
fn name_all(
    offers: Vec<Offer>,
    name: Option<&ImageRef>,
    tag: Option<&str>,
    shown: &str,
) -> Result<Vec<(Digest, ImageRef)>> {
    let Some(name) = name else {
        let nameless = |digest: &Digest| {
            let id = digest.short();
            Error::Conflict(format!("the image {id} in {shown} has no name; say with --tag what to call it"))
        };
        return offers.into_iter().map(|o| o.name.ok_or_else(|| nameless(&o.digest)).map(|n| (o.digest, n))).collect();
    };
    let mut digests: Vec<&Digest> = offers.iter().map(|o| &o.digest).collect();
    digests.sort();
    digests.dedup();
    match &digests[..] {
        [only] => Ok(vec![((*only).clone(), name.clone())]),
        _ => {
            // several under one tag, or without one, may be one image for several platforms
            let list: Vec<Descriptor> = offers.iter().filter_map(|o| o.platform.clone()).collect();
            if list.len() == offers.len() && (tag.is_some() || offers.iter().all(|o| o.name.is_none())) {
                return Ok(vec![(select_platform(&list, &Platform::host(), name)?.digest.clone(), name.clone())]);
            }
            let count = digests.len();
            Err(Error::Conflict(format!("{shown} has {count} images, and only one can be called `{name}`")))
        }
    }
}

/// A directory that holds images; nothing outside of it is ever opened.
struct Files {
    root: OwnedFd,
    shown: String,
}

impl Files {
    fn open(&self, path: &str) -> Result<File> {
        // `docker save` once wrote links between its own files
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve);
        let file = File::from(fd.doing(|| format!("open {path} of {}", self.shown))?);
        let is_file = file.metadata().is_ok_and(|m| m.is_file());
        is_file.then_some(file).ok_or_else(|| Error::Untrusted(format!("{path} of {} is no file", self.shown)))
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.open(path)?.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.doing(|| format!("read {path} of {}", self.shown))?;
        Ok(bytes)
    }

    /// The images of an OCI layout.
    fn offers(&self, tag: Option<&str>) -> Result<Vec<Offer>> {
        let Document::Index(list) = parse(&self.read("index.json")?, OCI_INDEX)? else {
            return Err(Error::Untrusted(format!("index.json of {} is no index", self.shown)));
        };
        let note = |d: &Descriptor, key: &str| d.annotations.as_ref().and_then(|a| a.get(key).cloned());
        let is_wanted = |d: &&Descriptor| tag.is_none() || note(d, REF_NAME).as_deref() == tag;
        let offers: Vec<Offer> = list
            .iter()
            .filter(is_wanted)
            .take(IMAGES_MAX)
            .map(|d| {
                let full = note(d, FULL_NAME).and_then(|text| text.parse::<ImageRef>().ok());
                // a bare tag (`1.5`) is the name of no repository
                let named = note(d, REF_NAME).filter(|text| text.contains(['/', ':']));
                let name = full.or_else(|| named.and_then(|text| text.parse().ok()));
                Offer { digest: d.digest.clone(), name, platform: Some(d.clone()) }
            })
            .collect();
        if offers.is_empty() {
            let known: Vec<String> = list.iter().filter_map(|d| note(d, REF_NAME)).collect();
            return Err(no_such(tag, &self.shown, &known));
        }
        Ok(offers)
    }
}

fn no_such(tag: Option<&str>, shown: &str, known: &[String]) -> Error {
    let name = format!("{} in {shown}, which has {}", tag.unwrap_or("any"), known.join(", "));
    Error::NotFound { what: "image", name }
}

impl Origin for Files {
    fn manifest(&self, reference: &ImageRef) -> Result<Fetched> {
        let digest = reference.digest().ok_or_else(|| super::store::not_found(reference))?;
        let bytes = self.read(&format!("blobs/sha256/{}", digest.hex()))?;
        Ok(Fetched { bytes, media_type: String::new() })
    }

    fn blob(&self, _: &ImageRef, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + '_>> {
        let mut file = self.open(&format!("blobs/sha256/{}", blob.digest.hex()))?;
        file.seek(std::io::SeekFrom::Start(from)).doing(|| format!("read {} of {}", blob.digest, self.shown))?;
        Ok(Box::new(file))
    }
}
