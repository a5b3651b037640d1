//! Images from an OCI layout on disk: a directory, or a tar of one (`oci-archive`). Needs no network.

use std::fs::File;
use std::io::{Read, Seek as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::manifest::{Descriptor, Document, MANIFEST_BYTES_MAX, OCI_INDEX, Platform, parse, select_platform};
use super::pull::{Fetched, Origin};
use super::unpack::{Source, digest_of};
use super::{Digest, ImageRef, Store};
use crate::error::{Doing, Error, Result};
use crate::layout::make_private_dir;
use crate::runtime::{ImageInfo, NoProgress};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

impl Store {
    /// Takes the image called `tag` in the layout (its only one when `None`) and locks `reference` to it.
    ///
    /// # Errors
    /// `NotFound` when the layout has no such tag, `Untrusted`, `Registry` `BX0305` or `BX0307`, `NoSpace`, `Io`.
    pub fn load(&self, layout: &Path, tag: Option<&str>, reference: &ImageRef) -> Result<ImageInfo> {
        if layout.is_dir() {
            return self.load_dir(layout, tag, reference);
        }
        let dir = self.tmp_path("load");
        make_private_dir(&dir)?;
        let loaded = self.extract(layout, &dir).and_then(|()| self.load_dir(&dir, tag, reference));
        super::store::stage::remove_tree(&dir);
        loaded
    }

    fn load_dir(&self, dir: &Path, tag: Option<&str>, reference: &ImageRef) -> Result<ImageInfo> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(dir, flags, Mode::empty()).doing(|| format!("open {}", dir.display()))?;
        let layout = OciLayout { root, shown: dir.display().to_string() };
        let chosen = layout.choose(tag, reference)?;
        self.install_from(&layout, &reference.at(chosen), reference, &NoProgress)
    }

    /// An archive is untrusted as a layer is: the same child takes it apart.
    fn extract(&self, archive: &Path, dir: &Path) -> Result<()> {
        let doing = || format!("read {}", archive.display());
        let mut file = File::open(archive).doing(doing)?;
        let size = file.metadata().doing(doing)?.len();
        let digest = digest_of(&mut file).doing(doing)?;
        file.rewind().doing(doing)?;
        let mut source = Source::new(Box::new(file), digest, size);
        self.unpack(dir, &mut source, None).map(|_| ())
    }
}

/// An OCI layout: `index.json` and `blobs/sha256/`.
struct OciLayout {
    root: OwnedFd,
    shown: String,
}

impl OciLayout {
    fn open(&self, path: &str) -> Result<File> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
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

    fn choose(&self, tag: Option<&str>, reference: &ImageRef) -> Result<Digest> {
        let Document::Index(list) = parse(&self.read("index.json")?, OCI_INDEX)? else {
            return Err(Error::Untrusted(format!("index.json of {} is no index", self.shown)));
        };
        let name = |d: &Descriptor| d.annotations.as_ref().and_then(|a| a.get(REF_NAME).cloned());
        let named: Vec<Descriptor> =
            list.iter().filter(|d| tag.is_none() || name(d).as_deref() == tag).cloned().collect();
        match &named[..] {
            [] => {
                let known: Vec<String> = list.iter().filter_map(name).collect();
                let name = format!("{} in {}, which has {}", tag.unwrap_or("any"), self.shown, known.join(", "));
                Err(Error::NotFound { what: "image", name })
            }
            [only] => Ok(only.digest.clone()),
            many => select_platform(many, &Platform::host(), reference).map(|d| d.digest.clone()),
        }
    }
}

impl Origin for OciLayout {
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
