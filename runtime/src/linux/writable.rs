//! What a container wrote: its writable layer listed, and saved as an image. Reads the layer where overlay keeps it, so a
//! container need not run for it, and need not stop.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::PoisonError;

use oci_spec::runtime::Spec;

use super::LinuxRuntime;
use super::durable::read_file;
use crate::cgroup::{Cgroup, Hierarchies};
use crate::error::Result;
use crate::id::ContainerId;
use crate::image::{Change, Notes, Places, Writable};
use crate::rootfs::mounts::FILES_DIR;
use crate::runtime::{ContainerConfig, ImageInfo};
use crate::spec::launch::Launch;

impl LinuxRuntime {
    /// What a container changed of its image's files.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn diff_container(&self, id: &ContainerId) -> Result<Vec<Change>> {
        let config = self.containers.get(id)?;
        let upper = self.layout.container_dir(id).join("upper");
        self.images.changes(&self.writable(&config, &upper)?)
    }

    /// Saves a container's writable layer, on top of its image, as an image. With `pause` a running container stands still
    /// as long as its files are read.
    ///
    /// # Errors
    /// `NotFound`; those of the image store.
    pub fn commit_container(&self, id: &ContainerId, notes: &Notes, pause: bool) -> Result<ImageInfo> {
        let config = self.containers.get(id)?;
        let upper = self.layout.container_dir(id).join("upper");
        let of = self.writable(&config, &upper)?;
        let _using = self.images_in_use.read().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{}/{id}", self.cgroup_parent);
        let _still = if pause { Frozen::of(&name)? } else { None };
        self.images.commit(&of, notes)
    }

    fn writable<'a>(&self, config: &'a ContainerConfig, upper: &'a Path) -> Result<Writable<'a>> {
        Ok(Writable {
            image: &config.image,
            upper,
            ids: config.ids,
            places: places(&self.layout.container_dir(&config.id))?,
            entrypoint: config.entrypoint.as_deref(),
            args: config.args.as_deref(),
            user: config.user.as_deref(),
            working_dir: config.working_dir.as_deref(),
            stop_signal: config.stop_signal.as_deref(),
        })
    }
}

/// Where the start of a container mounts something, from what it was started from.
fn places(dir: &Path) -> Result<Places> {
    let spec: Option<Spec> = read_file(&dir.join("spec.json"))?;
    let launch: Option<Launch> = read_file(&dir.join("launch.json"))?;
    let mut all: BTreeSet<String> = BTreeSet::from(["/dev".to_owned()]);
    for mount in spec.as_ref().and_then(|spec| spec.mounts().as_deref()).unwrap_or_default() {
        all.insert(mount.destination().to_string_lossy().into_owned());
    }
    if let Some(launch) = &launch {
        all.extend(launch.mounts.iter().map(|mount| mount.target.clone()));
        let etc = launch.etc.iter().flat_map(|_| ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]);
        all.extend(etc.map(str::to_owned));
    }
    let relative = |path: String| path.trim_matches('/').as_bytes().to_vec();
    Ok(Places { mounts: all.into_iter().map(relative).collect(), links_to: FILES_DIR.as_bytes().to_vec() })
}

/// A container that stands still as long as this lives.
struct Frozen<'a>(Cgroup<'a>);

impl<'a> Frozen<'a> {
    /// `None` when nothing of it runs, or it stands still already.
    fn of(name: &'a str) -> Result<Option<Self>> {
        let cgroup = Cgroup::new(Hierarchies::of_host()?, name);
        if cgroup.is_frozen() || !cgroup.is_populated()? {
            return Ok(None);
        }
        cgroup.freeze(true)?;
        Ok(Some(Self(cgroup)))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.freeze(false) {
            tracing::error!(error = %crate::error::chain(&error), "a container stays frozen");
        }
    }
}
