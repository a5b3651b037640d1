//! A blob as it arrives: first what an earlier try left in its partial file, then the origin, going on by itself after
//! a cut. Everything read is also written to the partial file.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::ImageRef;
use super::super::manifest::Descriptor;
use super::super::unpack::{unwrap_io, wrap_io};
use super::Origin;
use super::ahead::{self, Ahead, Lanes};
use crate::clock;
use crate::error::{Doing, Error, Result};
use crate::runtime::{PullPhase, PullProgress};

/// Tries that brought next to nothing until a cut is an error.
const TRIES_MAX: u32 = 4;
/// What a try has to bring to count as one that went on, in bytes.
const GAIN_BYTES: u64 = 4 << 10;
/// Pause before the second try; doubles with each.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes between two words to the listener.
const PROGRESS_BYTES: u64 = 256 << 10;

pub(in crate::image) struct Download<'a> {
    origin: &'a dyn Origin,
    source: &'a ImageRef,
    blob: &'a Descriptor,
    progress: &'a dyn PullProgress,
    partial: File,
    path: PathBuf,
    /// Bytes the partial file had at the start, read from there again.
    kept: u64,
    at: u64,
    said: u64,
    stream: Option<Box<dyn Read + 'a>>,
    tries: u32,
    /// Where this try began.
    began_at: u64,
    /// For further connections, until they are begun.
    lanes: Option<Box<dyn Lanes<'a> + 'a>>,
    ahead: Option<Ahead<'a>>,
    /// Bytes the connection brought lately, and how long they were waited for, in milliseconds.
    measured: (u64, u64),
}

impl<'a> Download<'a> {
    pub(in crate::image) fn new(
        origin: &'a dyn Origin,
        source: &'a ImageRef,
        blob: &'a Descriptor,
        path: &Path,
        progress: &'a dyn PullProgress,
    ) -> Result<Self> {
        let (partial, kept) = open_partial(path, blob.size)?;
        progress.layer(&blob.digest, PullPhase::Download, kept, blob.size);
        let path = path.to_owned();
        Ok(Self {
            origin,
            source,
            blob,
            progress,
            partial,
            path,
            kept,
            at: 0,
            said: 0,
            stream: None,
            tries: 0,
            began_at: 0,
            lanes: None,
            ahead: None,
            measured: (0, 0),
        })
    }

    /// Lets it use several connections, should one be slow.
    pub(in crate::image) fn with_lanes(mut self, lanes: Box<dyn Lanes<'a> + 'a>) -> Self {
        self.lanes = Some(lanes);
        self
    }

    /// Whether bytes of an earlier pull are used.
    pub(in crate::image) fn is_resumed(&self) -> bool {
        self.kept > 0
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let until = loop {
            let Some(ahead) = &mut self.ahead else { break self.blob.size };
            ahead.go_on();
            match ahead.begins(self.at) {
                Some(begins) if begins > self.at => break begins,
                None => break self.blob.size,
                Some(_) => {}
            }
            // what the connection of before sends on comes from others now
            self.stream = None;
            if let Some(n) = ahead.read(self.at, buffer)? {
                return Ok(n);
            }
        };
        self.read_own(buffer, until)
    }

    /// From the one connection, up to where others have begun.
    fn read_own(&mut self, buffer: &mut [u8], until: u64) -> Result<usize> {
        if self.stream.is_none() {
            self.began_at = self.at;
            self.stream = Some(self.origin.blob(self.source, self.blob, self.at)?);
        }
        let stream = self.stream.as_mut().expect("it was set above");
        let left = usize::try_from(until - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let began_ms = clock::boot_ms();
        match stream.read(&mut buffer[..left]) {
            Ok(0) => Err(cut(self.blob, self.at)),
            Ok(n) => {
                self.measure(n, clock::boot_ms() - began_ms);
                Ok(n)
            }
            Err(e) => Err(unwrap_io(e)),
        }
    }

    /// Begins further connections when this one is slow and much is left.
    fn measure(&mut self, bytes: usize, waited_ms: u64) {
        self.measured.0 += bytes as u64;
        self.measured.1 += waited_ms;
        let (brought, waited_ms) = self.measured;
        if brought < ahead::MEASURED_BYTES {
            return;
        }
        self.measured = (0, 0);
        let is_slow = brought.saturating_mul(1_000) < ahead::FAST_BYTES_PER_S.saturating_mul(waited_ms);
        if !is_slow || self.blob.size - self.at < ahead::LEFT_BYTES_MIN {
            return;
        }
        if let Some(lanes) = self.lanes.take() {
            let from = self.at + ahead::PART_BYTES;
            tracing::debug!(blob = %self.blob.digest, brought, waited_ms, "a slow connection: others help");
            self.ahead = Some(Ahead::new(self.origin, self.source, self.blob, lanes, &self.path, from));
        }
    }

    fn arrived(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.partial.write_all(bytes).map_err(|e| wrap_io(Error::io("write a blob", e)))?;
        self.at += bytes.len() as u64;
        if self.at - self.began_at >= GAIN_BYTES {
            self.tries = 0;
        }
        if self.at - self.said >= PROGRESS_BYTES || self.at == self.blob.size {
            self.said = self.at;
            self.progress.layer(&self.blob.digest, PullPhase::Download, self.at, self.blob.size);
        }
        Ok(())
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at < self.kept {
            let left = usize::try_from(self.kept - self.at).unwrap_or(usize::MAX).min(buffer.len());
            let n = self.partial.read(&mut buffer[..left])?;
            self.at += n as u64;
            if n > 0 {
                return Ok(n);
            }
            self.kept = self.at;
        }
        if self.at >= self.blob.size || buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.next(buffer) {
                Ok(n) => {
                    self.arrived(&buffer[..n])?;
                    return Ok(n);
                }
                Err(error) if may_pass(&error) && self.tries + 1 < TRIES_MAX => {
                    tracing::debug!(blob = %self.blob.digest, at = self.at, %error, "cut off; going on");
                    self.stream = None;
                    std::thread::sleep(PAUSE * 2_u32.pow(self.tries));
                    self.tries += 1;
                }
                Err(error) => return Err(wrap_io(error)),
            }
        }
    }
}

pub(super) fn may_pass(error: &Error) -> bool {
    match error {
        // a rate limit lasts longer than our patience
        Error::Registry { retry, code, .. } => *retry && *code != "BX0306",
        _ => false,
    }
}

fn cut(blob: &Descriptor, at: u64) -> Error {
    let message = format!("layer {}: the connection ended after {at} of {} bytes", blob.digest, blob.size);
    Error::Registry { code: "BX0301", message, retry: true }
}

/// Opens the partial file for this download alone. Another thread or process that fetches the same blob is waited for;
/// what it published meanwhile under the same inode is not written to.
fn open_partial(path: &Path, size: u64) -> Result<(File, u64)> {
    let doing = || format!("open {}", path.display());
    loop {
        let file = File::options().read(true).append(true).create(true).open(path).doing(doing)?;
        file.lock().doing(doing)?;
        let ours = file.metadata().doing(doing)?;
        if std::fs::metadata(path).is_ok_and(|there| there.ino() == ours.ino()) {
            if ours.len() > size {
                file.set_len(0).doing(doing)?;
            }
            let kept = if ours.len() > size { 0 } else { ours.len() };
            return Ok((file, kept));
        }
    }
}
