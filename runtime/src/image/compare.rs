//! What differs between two images, or between an image and what it was made on.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;

use rustix::fs::{FileType, Mode, Stat};

use super::changes::{self, Change, ChangeKind, Places, Walk, push};
use super::merged::{Layers, Merged};
use super::pack::{DIR, Owners, is, join};
use super::unpack::DEPTH_MAX;
use super::{Digest, Store};
use crate::error::{Doing as _, Result};

const CHUNK_BYTES: usize = 64 << 10;

impl Store {
    /// What the top layer of an image changes of the layers below it.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn diff_parent(&self, digest: &Digest) -> Result<Vec<Change>> {
        let dirs = self.layer_dirs(digest)?;
        let _lease = self.lease(self.record(digest)?.diff_ids.clone());
        let Some((top, below)) = dirs.split_first() else { return Ok(Vec::new()) };
        let doing = || format!("compare {digest} with what it was made on");
        let top = rustix::fs::open(top, DIR, Mode::empty()).doing(doing)?;
        let below = Layers::open(below)?;
        let mut found = Vec::new();
        let walk = Walk { owners: Owners::default(), places: &Places::default() };
        walk.walk(top.as_fd(), &below.root(), &mut |met| changes::list(&met, &mut found)).doing(doing)?;
        changes::sort(&mut found);
        Ok(found)
    }

    /// What one has to change of image `a` to have image `b`: names, kinds, owners, modes, links, content. Times are left
    /// out, since two builds of the same never have the same.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn diff(&self, a: &Digest, b: &Digest) -> Result<Vec<Change>> {
        let (before, after) = (Layers::open(&self.layer_dirs(a)?)?, Layers::open(&self.layer_dirs(b)?)?);
        let layers = [a, b].map(|digest| self.record(digest).map(|record| record.diff_ids.clone()));
        let [of_a, of_b] = layers;
        let _lease = self.lease([of_a?, of_b?].concat());
        let mut found = Vec::new();
        directory(&before.root(), &after.root(), 0, &mut found).doing(|| format!("compare {a} with {b}"))?;
        changes::sort(&mut found);
        Ok(found)
    }
}

fn directory(before: &Merged<'_>, after: &Merged<'_>, depth: usize, found: &mut Vec<Change>) -> io::Result<()> {
    if depth > DEPTH_MAX || before.is_same(after)? {
        return Ok(());
    }
    let (mut old, new) = (before.entries()?, after.entries()?);
    for (name, stat) in &new {
        let path = join(after.path(), name.to_bytes());
        let Some(was) = old.remove(name) else {
            push(found, Change::new(ChangeKind::Added, &path))?;
            added(after, name, stat, depth, found)?;
            continue;
        };
        let at = found.len();
        if is(stat, FileType::Directory) && is(&was, FileType::Directory) {
            directory(&before.child(name)?, &after.child(name)?, depth + 1, found)?;
        } else if is(stat, FileType::Directory) {
            added(after, name, stat, depth, found)?;
        }
        if found.len() > at || differs(before, &was, after, stat, name)? {
            found.insert(at, Change::new(ChangeKind::Changed, &path));
        }
    }
    gone(before, old, found)
}

/// Everything in a directory that was not there.
fn added(after: &Merged<'_>, name: &CStr, stat: &Stat, depth: usize, found: &mut Vec<Change>) -> io::Result<()> {
    if !is(stat, FileType::Directory) || depth > DEPTH_MAX {
        return Ok(());
    }
    let inside = after.child(name)?;
    for (name, stat) in inside.entries()? {
        push(found, Change::new(ChangeKind::Added, &join(inside.path(), name.to_bytes())))?;
        added(&inside, &name, &stat, depth + 1, found)?;
    }
    Ok(())
}

fn gone(before: &Merged<'_>, left: BTreeMap<CString, Stat>, found: &mut Vec<Change>) -> io::Result<()> {
    left.keys()
        .try_for_each(|name| push(found, Change::new(ChangeKind::Deleted, &join(before.path(), name.to_bytes()))))
}

fn differs(before: &Merged<'_>, was: &Stat, after: &Merged<'_>, now: &Stat, name: &CStr) -> io::Result<bool> {
    let said = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
    if said(was) != said(now) {
        return Ok(true);
    }
    match FileType::from_raw_mode(now.st_mode) {
        FileType::RegularFile => {
            if (was.st_dev, was.st_ino) == (now.st_dev, now.st_ino) {
                return Ok(false);
            }
            if was.st_size != now.st_size {
                return Ok(true);
            }
            let (old, new) = (before.open_file(name)?, after.open_file(name)?);
            let same = Owners::default().attributes(old.as_fd())? == Owners::default().attributes(new.as_fd())?;
            Ok(!same || !same_content(old.into(), new.into())?)
        }
        FileType::Symlink => Ok(before.link(name)? != after.link(name)?),
        FileType::Directory
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Ok(false),
    }
}

fn same_content(mut a: File, mut b: File) -> io::Result<bool> {
    let (mut of_a, mut of_b) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    loop {
        let n = a.read(&mut of_a)?;
        if n == 0 {
            return Ok(b.read(&mut of_b)? == 0);
        }
        match b.read_exact(&mut of_b[..n]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        if of_a[..n] != of_b[..n] {
            return Ok(false);
        }
    }
}
