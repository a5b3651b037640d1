//! Large layers over several connections: where one connection brings less than a layer could be unpacked at, parts that
//! come later are fetched by others meanwhile, each into a file of its own. They are read in order, so unpacking goes on
//! straight from the stream, and a part that fails is only a part to be fetched by the one who reads.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use super::Origin;
use crate::error::{Doing, Result};
use crate::image::ImageRef;
use crate::image::manifest::Descriptor;
use crate::image::store::lock;

/// Bytes of one part: large enough that beginning a connection counts for little.
pub(super) const PART_BYTES: u64 = 4 << 20;
/// Connections for one layer. Registries count connections by client.
const LANES_MAX: u64 = 4;
/// Parts on the disk before they are read, at most: three layers stay within what is kept free, and a pull that is killed
/// has fetched no more than these in vain.
const PARTS_MAX: usize = 5;
/// How much of a layer has to be left for it to be worth it.
pub(super) const LEFT_BYTES_MIN: u64 = 4 * PART_BYTES;
/// Bytes over which the speed of the one connection is measured.
pub(super) const MEASURED_BYTES: u64 = 4 << 20;
/// Above this one connection is as fast as one layer is unpacked, in bytes a second of waiting for it.
pub(super) const FAST_BYTES_PER_S: u64 = 48 << 20;
const BUFFER_BYTES: usize = 128 << 10;
/// How long a reader sleeps at most before it looks whether anything goes on.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Starts work beside the reader; it ends before the pull of the layer does.
pub(in crate::image) trait Lanes<'a> {
    fn start(&self, work: Box<dyn FnOnce() + Send + 'a>);
}

impl<'a> Lanes<'a> for &'a Scope<'a, '_> {
    fn start(&self, work: Box<dyn FnOnce() + Send + 'a>) {
        self.spawn(work);
    }
}

/// One part on its way.
struct Part {
    from: u64,
    to: u64,
    path: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

/// Bytes that are in the file, and whether more may come.
#[derive(Default, Clone, Copy)]
struct State {
    here: u64,
    is_over: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Part {
    fn end(&self) {
        lock(&self.state).is_over = true;
        self.changed.notify_all();
    }

    /// Fetches it, as far as it comes.
    fn fetch(&self, origin: &dyn Origin, source: &ImageRef, blob: &Descriptor, stop: &AtomicBool) -> Result<()> {
        let Some(mut stream) = origin.part(source, blob, self.from, self.to)? else { return Ok(()) };
        let mut file = File::create(&self.path).doing(|| format!("create {}", self.path.display()))?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut left = self.to - self.from;
        while left > 0 && !stop.load(Ordering::Relaxed) {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let n = stream.read(&mut buffer[..room]).map_err(crate::image::unpack::unwrap_io)?;
            if n == 0 {
                break;
            }
            file.write_all(&buffer[..n]).doing(|| format!("write {}", self.path.display()))?;
            left -= n as u64;
            lock(&self.state).here += n as u64;
            self.changed.notify_all();
        }
        Ok(())
    }
}

/// The parts of one layer that are fetched ahead of its reader.
pub(super) struct Ahead<'a> {
    origin: &'a dyn Origin,
    source: &'a ImageRef,
    blob: &'a Descriptor,
    lanes: Box<dyn Lanes<'a> + 'a>,
    /// Where parts lie: beside the partial file.
    base: PathBuf,
    parts: VecDeque<(Arc<Part>, Option<File>)>,
    /// Where the next part begins.
    next: u64,
    running: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    /// A part that brought nothing: the server knows no ranges, or wants no more connections.
    failed: Arc<AtomicBool>,
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl<'a> Ahead<'a> {
    /// Begins behind `from`.
    pub(super) fn new(
        origin: &'a dyn Origin,
        source: &'a ImageRef,
        blob: &'a Descriptor,
        lanes: Box<dyn Lanes<'a> + 'a>,
        partial: &Path,
        from: u64,
    ) -> Self {
        Self {
            origin,
            source,
            blob,
            lanes,
            base: partial.to_owned(),
            parts: VecDeque::new(),
            next: from,
            running: Arc::default(),
            stop: Arc::default(),
            failed: Arc::default(),
        }
    }

    /// Keeps the connections busy.
    pub(super) fn go_on(&mut self) {
        while self.parts.len() < PARTS_MAX
            && self.next < self.blob.size
            && self.running.load(Ordering::Relaxed) < LANES_MAX
            && !self.failed.load(Ordering::Relaxed)
        {
            let (from, to) = (self.next, self.blob.size.min(self.next + PART_BYTES));
            let path = self.base.with_extension(format!("part-{}-{from}", std::process::id()));
            let part = Arc::new(Part { from, to, path, state: Mutex::default(), changed: Condvar::new() });
            self.next = to;
            self.parts.push_back((Arc::clone(&part), None));
            self.running.fetch_add(1, Ordering::Relaxed);
            let (origin, source, blob) = (self.origin, self.source, self.blob);
            let (running, stop, failed) = (Arc::clone(&self.running), Arc::clone(&self.stop), Arc::clone(&self.failed));
            self.lanes.start(Box::new(move || {
                if let Err(error) = part.fetch(origin, source, blob, &stop) {
                    tracing::debug!(blob = %blob.digest, from, %error, "a part of a layer did not come");
                }
                failed.fetch_or(lock(&part.state).here == 0, Ordering::Relaxed);
                part.end();
                running.fetch_sub(1, Ordering::Relaxed);
            }));
        }
    }

    /// Where the part that was fetched ahead begins, at or behind `at`: up to there the reader has to read by itself.
    pub(super) fn begins(&mut self, at: u64) -> Option<u64> {
        while self.parts.front().is_some_and(|(part, _)| part.to <= at) {
            self.parts.pop_front();
        }
        self.parts.front().map(|(part, _)| part.from.max(at))
    }

    /// Bytes at `at` out of the first part. `None`: no more of it comes, and the rest of it is the reader's own to fetch.
    pub(super) fn read(&mut self, at: u64, buffer: &mut [u8]) -> Result<Option<usize>> {
        let Some((part, file)) = self.parts.front_mut() else { return Ok(None) };
        let offset = at - part.from;
        let mut state = lock(&part.state);
        while state.here <= offset && !state.is_over {
            let waited = part.changed.wait_timeout(state, LOOK_EVERY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let here = state.here;
        drop(state);
        if here <= offset {
            self.parts.pop_front();
            return Ok(None);
        }
        let doing = || "read a part of a layer";
        let file = match file {
            Some(file) => file,
            None => {
                let mut opened = File::open(&part.path).doing(doing)?;
                opened.seek(SeekFrom::Start(offset)).doing(doing)?;
                file.insert(opened)
            }
        };
        let room = usize::try_from(here - offset).unwrap_or(usize::MAX).min(buffer.len());
        let n = file.read(&mut buffer[..room]).doing(doing)?;
        Ok(Some(n))
    }
}
