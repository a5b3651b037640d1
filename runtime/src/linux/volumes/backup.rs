//! A volume as one archive, and back: owners, modes, times, links, extended attributes and holes are as they were. Works on
//! the data root alone: neither a runtime nor a supervisor need run.

use std::io::{Read, Write};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};

use crate::archive::{Copied, Owner, pack, unpack};
use crate::error::{Doing, Error, Result};
use crate::id::{ContainerId, VolumeName};
use crate::layout::Layout;
use crate::linux::durable;
use crate::rootfs::volumes::USED;
use crate::runtime::{ContainerConfig, MountSource, VolumeConfig};
use crate::supervisor;

/// A container that mounts a volume and runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Which.
    pub id: ContainerId,
    /// It may write.
    pub writes: bool,
}

/// The containers that run and mount a volume, from what is written of them.
///
/// # Errors
/// `Io`.
pub fn users(layout: &Layout, name: &VolumeName) -> Result<Vec<User>> {
    let mut users = Vec::new();
    for id in durable::list_dirs(&layout.containers_dir())?.iter().filter_map(|name| name.parse::<ContainerId>().ok()) {
        let Ok(Some(config)) = durable::read_file::<ContainerConfig>(&layout.container_dir(&id).join("config.json"))
        else {
            continue;
        };
        let is_it = |source: &MountSource| matches!(source, MountSource::Volume { name: used } if used == name);
        let mut mounts = config.mounts.iter().filter(|mount| is_it(&mount.source)).peekable();
        if mounts.peek().is_some() && supervisor::lives(layout, &id) {
            users.push(User { id, writes: mounts.any(|mount| !mount.read_only) });
        }
    }
    Ok(users)
}

/// Writes everything in a volume as a tar archive. Whether somebody writes to it meanwhile is the caller's to know.
///
/// # Errors
/// `NotFound`; `Io`, also of `out`.
pub fn save(layout: &Layout, name: &VolumeName, out: &mut dyn Write) -> Result<Copied> {
    let data = layout.volume_dir(name).join("data");
    if !data.is_dir() {
        return Err(Error::NotFound { what: "volume", name: name.to_string() });
    }
    pack(&data, "", false, out)
}

/// Makes a volume of an archive. One that is there and not empty is replaced only when asked to; until the archive is
/// whole and on the disk, everything is as it was.
///
/// # Errors
/// `Conflict` when it holds data and `replace` is not set, or while a container that mounts it runs; `Io`.
pub fn restore(layout: &Layout, config: &VolumeConfig, replace: bool, input: &mut dyn Read) -> Result<Copied> {
    let name = &config.name;
    let dir = layout.volume_dir(name);
    let data = dir.join("data");
    refuse_in_use(layout, name)?;
    let doing = || format!("restore volume `{name}`");
    let is_empty = std::fs::read_dir(&data).map_or(true, |mut entries| entries.next().is_none());
    if !is_empty && !replace {
        return Err(Error::Conflict(format!("volume `{name}` holds data already, and it was not said to replace it")));
    }
    if !dir.join("volume.json").exists() {
        super::ensure(layout, config)?;
    }
    let fresh = dir.join("data.restored");
    clear(&fresh).doing(doing)?;
    std::fs::create_dir(&fresh).doing(doing)?;
    let filled = fill(&fresh, input).and_then(|copied| {
        // nobody may have begun to use it while it was read
        refuse_in_use(layout, name)?;
        if !data.exists() {
            std::fs::create_dir(&data).doing(doing)?;
        }
        rustix::fs::renameat_with(CWD, &fresh, CWD, &data, RenameFlags::EXCHANGE).doing(doing)?;
        std::fs::File::create(dir.join(USED)).and_then(|file| file.sync_all()).doing(doing)?;
        std::fs::File::open(&dir).and_then(|dir| dir.sync_all()).doing(doing)?;
        Ok(copied)
    });
    // what is left is either half of the new or all of the old
    let cleared = clear(&fresh).doing(doing);
    let copied = filled?;
    cleared.map(|()| copied)
}

fn fill(fresh: &Path, input: &mut dyn Read) -> Result<Copied> {
    let mut input = Ended { input, zeros: 0 };
    let copied = unpack(fresh, Owner::AsSaid, &mut input)?;
    let drained = std::io::copy(&mut input, &mut std::io::sink());
    drained.doing(|| "read the end of the archive")?;
    if input.zeros < END_MARK {
        let why = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it has no end: it is not whole");
        return Err(Error::io("read the archive", why));
    }
    let synced = std::fs::File::open(fresh).and_then(|dir| Ok(rustix::fs::syncfs(dir)?));
    synced.doing(|| format!("write {} to the disk", fresh.display()))?;
    Ok(copied)
}

/// Zeros at the end of an archive that is whole, in bytes.
const END_MARK: usize = 1024;

/// Counts the zeros that what was read so far ends with.
struct Ended<'r> {
    input: &'r mut dyn Read,
    zeros: usize,
}

impl Read for Ended<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        let trailing = buffer[..read].iter().rev().take_while(|byte| **byte == 0).count();
        self.zeros = if trailing == read { self.zeros.saturating_add(read) } else { trailing };
        Ok(read)
    }
}

fn refuse_in_use(layout: &Layout, name: &VolumeName) -> Result<()> {
    let users = users(layout, name)?;
    if users.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = users.iter().map(|user| user.id.as_str()).collect();
    Err(Error::Conflict(format!("volume `{name}` is used by {}, which runs", ids.join(", "))))
}

fn clear(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
