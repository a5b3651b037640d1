//! Power cuts: the writer's system calls are recorded, and the disk is rebuilt as it may look when the power goes at a
//! random point: what was synced is there; of what was not, anything may be missing, by pages, or be cut off.
//!
//! A model: names in directories are taken as ordered and durable, as on a journaling file system.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::model::{Content, Random, verify};
use crate::trace::{CALLS, Op, parse};
use crate::{Outcome, Result, WRITER};

/// Batches in each of two runs of the writer: the second begins with a snapshot and cleans the log.
const BATCHES: u64 = 150;
/// Disks rebuilt.
const CUTS: u64 = 150;
/// What a disk writes at once.
const PAGE: usize = 4096;
/// Space the store sets aside; its content means nothing.
const BALLAST: &str = "ballast";

pub(crate) fn replay(dir: &Path) -> Result<Outcome> {
    let seed = 7;
    let root = dir.join("recorded");
    let Some(ops) = record_both(dir, &root, seed)? else {
        return Ok(Outcome::Skipped("strace cannot trace here (.ci/run installs it)".to_owned()));
    };
    // a disk that forgets what was synced must be noticed, or this test tests nothing
    let without_syncs: Vec<Op> = ops.iter().filter(|op| !matches!(op, Op::Sync { .. })).cloned().collect();
    if cut_everywhere(dir, &root, seed, &without_syncs).is_ok() {
        return Err("a disk that loses synced data went unnoticed".to_owned());
    }
    let _ = std::fs::remove_dir_all(dir.join("image"));
    cut_everywhere(dir, &root, seed, &ops).map(Outcome::Passed)
}

/// Two runs of the writer over one directory.
fn record_both(dir: &Path, root: &Path, seed: u64) -> Result<Option<Vec<Op>>> {
    let mut ops = Vec::new();
    for run in 0..2 {
        match record(dir, root, seed, 1 + run * BATCHES)? {
            Some(text) => ops.extend(parse(&text)),
            None => return Ok(None),
        }
    }
    let said = ops.iter().filter(|op| matches!(op, Op::Acknowledged(_))).count();
    if said != usize::try_from(2 * BATCHES).unwrap_or(0) {
        return Err(format!("{said} acknowledgements in the trace instead of {}", 2 * BATCHES));
    }
    Ok(Some(ops))
}

/// Cuts the power at random points of what was recorded and opens the store each time.
fn cut_everywhere(dir: &Path, root: &Path, seed: u64, ops: &[Op]) -> Result<String> {
    let mut random = Random::new(seed);
    let mut points: Vec<usize> =
        (0..CUTS).map(|_| usize::try_from(random.next()).unwrap_or(usize::MAX) % ops.len()).collect();
    points.sort_unstable();
    let (mut disk, mut done, mut content) = (Disk::default(), 0, Content::default());
    let mut repaired = 0;
    for (cut, point) in points.iter().enumerate() {
        for op in &ops[done..*point] {
            if let Op::Acknowledged(n) = op {
                content.advance_to(seed, *n);
            }
            disk.apply(op, root);
        }
        done = *point;
        let image = dir.join("image");
        disk.rebuild(&image, &mut random).map_err(|error| format!("rebuild: {error}"))?;
        let mut found = content.clone();
        let opened = verify(&image, seed, &mut found, content.n + 1)
            .map_err(|why| format!("cut {cut} at call {point} of {}, {} acknowledged: {why}", ops.len(), content.n))?;
        repaired += u64::from(matches!(opened, controller::store::Opened::Rebuilt { .. }));
        std::fs::remove_dir_all(&image).map_err(|error| format!("remove the image: {error}"))?;
    }
    Ok(format!("{CUTS} cuts in {} calls, {repaired} rebuilt from the checkpoint", ops.len()))
}

/// Runs the writer under strace; `None` when it cannot trace.
fn record(dir: &Path, root: &Path, seed: u64, first: u64) -> Result<Option<String>> {
    let log = dir.join("trace");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-y", "-xx", "-s", "1000000", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(&log)
        .arg(std::env::current_exe().expect("own path"))
        .arg(WRITER)
        .arg(root)
        .args([seed, first, BATCHES].map(|n| n.to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => {
            std::fs::read_to_string(&log).map(Some).map_err(|error| format!("read the trace: {error}"))
        }
        Ok(_) | Err(_) => Ok(None),
    }
}

/// One file: what is safe, and what was written since.
#[derive(Default, Clone)]
struct File {
    safe: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl File {
    fn put(content: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Write(offset, bytes) => {
                content.resize(content.len().max(offset + bytes.len()), 0);
                content[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Change::Truncate(len) => content.resize(*len, 0),
        }
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            Self::put(&mut self.safe, &change);
        }
    }
}

/// The disk, with names relative to the recorded directory.
#[derive(Default)]
struct Disk {
    files: BTreeMap<PathBuf, File>,
    dirs: BTreeSet<PathBuf>,
}

impl Disk {
    fn apply(&mut self, op: &Op, root: &Path) {
        let name = |path: &String| Path::new(path).strip_prefix(root).ok().map(Path::to_path_buf);
        match op {
            Op::Open { path, truncate } => {
                if let Some(name) = name(path) {
                    let file = self.files.entry(name).or_default();
                    if *truncate {
                        file.pending.push(Change::Truncate(0));
                    }
                }
            }
            Op::Write { path, offset, bytes } => {
                if let Some(file) = name(path).and_then(|name| self.files.get_mut(&name)) {
                    file.pending.push(Change::Write(*offset, bytes.clone()));
                }
            }
            Op::Truncate { path, len } => {
                if let Some(file) = name(path).and_then(|name| self.files.get_mut(&name)) {
                    file.pending.push(Change::Truncate(*len));
                }
            }
            Op::Sync { path } => {
                if let Some(file) = name(path).and_then(|name| self.files.get_mut(&name)) {
                    file.sync();
                }
            }
            Op::MakeDir { path } => self.dirs.extend(name(path)),
            Op::Rename { from, to } => {
                if let (Some(from), Some(to)) = (name(from), name(to))
                    && let Some(file) = self.files.remove(&from)
                {
                    self.files.insert(to, file);
                }
            }
            Op::Remove { path } => {
                if let Some(name) = name(path) {
                    self.files.remove(&name);
                    self.dirs.remove(&name);
                }
            }
            Op::Acknowledged(_) => {}
        }
    }

    /// Writes the disk as a cut may leave it.
    fn rebuild(&self, image: &Path, random: &mut Random) -> std::io::Result<()> {
        std::fs::create_dir_all(image)?;
        for dir in &self.dirs {
            std::fs::create_dir_all(image.join(dir))?;
        }
        // of what was not synced: nothing, everything up to somewhere, or any of the pages
        let way = random.below(3);
        for (name, file) in self.files.iter().filter(|(name, _)| !name.ends_with(BALLAST)) {
            let mut content = file.safe.clone();
            let kept = match way {
                0 => 0,
                1 => usize::try_from(random.below(file.pending.len() as u64 + 1)).unwrap_or(0),
                _ => file.pending.len(),
            };
            for change in &file.pending[..kept] {
                match change {
                    Change::Write(offset, bytes) if way == 2 => {
                        for (index, page) in bytes.chunks(PAGE).enumerate().filter(|_| random.below(2) == 0) {
                            File::put(&mut content, &Change::Write(offset + index * PAGE, page.to_vec()));
                        }
                    }
                    Change::Truncate(_) if way == 2 && random.below(2) == 0 => {}
                    change => File::put(&mut content, change),
                }
            }
            std::fs::write(image.join(name), content)?;
        }
        Ok(())
    }
}
