//! From a compressed layer to a directory: hashes and inflates here, extracts in a sandboxed child.
//!
//! `blob bytes → sha256 → gunzip or zstd → sha256 (diffID) → pipe → child`. The child (see `sandbox`, `extract`) has the
//! target as its root, no network and few capabilities; it answers with one bounded report. The two digests are
//! checked by the parent, so nothing the child says is trusted but the list of opaque directories, which is applied
//! by descriptor inside the target.

use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use sha2::{Digest as _, Sha256};

use super::{Digest, Store};
use crate::error::{Doing, Error, Result};

mod child;
mod extract;
mod report;
mod sandbox;

#[cfg(test)]
mod tests;

pub use child::unpack_child;
pub(crate) use extract::pax_time;
use report::Report;
pub(crate) use report::{is_full, no_space};

/// Deepest path in a layer, in components.
pub(crate) const DEPTH_MAX: usize = 128;
/// Most bytes one layer may unpack to.
pub(crate) const LAYER_BYTES_MAX: u64 = 64 << 30;
/// Most entries of one layer.
pub(crate) const ENTRIES_MAX: u64 = 2_000_000;
/// Above [`RATIO_FREE_BYTES`], a layer may unpack to at most this many times its compressed size.
const RATIO_MAX: u64 = 256;
/// Layers up to this size may have any ratio: a file of zeros is no bomb.
const RATIO_FREE_BYTES: u64 = 1 << 30;
/// Largest window a zstd frame may ask for, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const CHUNK_BYTES: usize = 128 << 10;
/// What may be under way to the child.
const PIPE_BYTES: usize = 1 << 20;

/// A blob on its way: hashed and counted as it is read.
pub(crate) struct Source<'a> {
    inner: Box<dyn Read + 'a>,
    digest: Digest,
    size: u64,
    hash: Sha256,
    read: u64,
    is_checked: bool,
}

impl<'a> Source<'a> {
    /// `digest` and `size` are what the manifest promises.
    pub(crate) fn new(inner: Box<dyn Read + 'a>, digest: Digest, size: u64) -> Self {
        Self { inner, digest, size, hash: Sha256::new(), read: 0, is_checked: false }
    }

    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Reads what is left and compares size and digest. Once it was right, it stays right.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if self.is_checked {
            return Ok(());
        }
        std::io::copy(self, &mut std::io::sink()).map_err(unwrap_io)?;
        let found = Digest::from_hash(&self.hash.clone().finalize().into());
        if found == self.digest && self.read == self.size {
            self.is_checked = true;
            return Ok(());
        }
        let message = format!("layer {} arrived as {found}: the bytes were changed or cut on their way", self.digest);
        Err(Error::Registry { code: "BX0307", message, retry: true })
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read += n as u64;
        if self.read > self.size {
            let message = format!("layer {} is longer than the {} bytes promised", self.digest, self.size);
            return Err(wrap_io(Error::Registry { code: "BX0307", message, retry: true }));
        }
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// What came out.
#[derive(Debug, Clone)]
pub(crate) struct Unpacked {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    pub(crate) devices_skipped: u64,
    pub(crate) id_max: u32,
    /// Fingerprint of the tree, unless something in the archive replaced something else in it.
    pub(crate) tree: Option<Digest>,
}

/// The digest of everything left in a reader.
pub(crate) fn digest_of(reader: &mut impl Read) -> std::io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(Digest::from_hash(&hash.finalize().into())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// What a tar is packed with, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// The digest of what a file unpacks to, and how it is packed.
///
/// # Errors
/// `Untrusted` when it does not inflate or grows too much; `Io`.
pub(crate) fn unpacked_digest(file: &mut impl Read, digest: &Digest, size: u64) -> Result<(Digest, Packing)> {
    let mut head = [0; 4];
    let got = fill(file, &mut head).doing(|| "read an archive")?;
    let start = std::io::Cursor::new(head[..got].to_vec());
    let limit = unpacked_limit(size);
    let mut tar = inflate(&head[..got], start.chain(file)).doing(|| "read an archive")?.take(limit + 1);
    let found = digest_of(&mut tar).map_err(|error| inflate_error(error, digest))?;
    if tar.limit() == 0 {
        return Err(Error::Untrusted(format!("layer {digest} unpacks to more than {limit} bytes")));
    }
    Ok((found, packing(&head[..got])))
}

/// Carries one of our errors through an `io::Error`.
pub(crate) fn wrap_io(error: Error) -> std::io::Error {
    std::io::Error::other(error)
}

/// Takes it out again.
pub(crate) fn unwrap_io(error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(io) => Error::io("read a layer", io),
    }
}

impl Store {
    /// Unpacks `source` into the empty directory `target`. Without a diffID only the blob's own digest is checked.
    ///
    /// # Errors
    /// `Registry` `BX0307` when the blob is not what it should be, `Untrusted` for a bad archive, `NoSpace`, `Io`,
    /// `Unsupported` when the sandbox cannot be made. The target is then to be thrown away.
    pub(super) fn unpack(&self, target: &Path, source: &mut Source<'_>, diff_id: Option<&Digest>) -> Result<Unpacked> {
        let mut child = Running(self.spawn_unpacker(target)?);
        let fed = self.feed(&mut child, source, diff_id);
        let report = child.report(target);
        match (fed, report) {
            // a child that stopped early says best what is wrong; but wrong bytes explain everything after them
            (Err(Fed::Pipe), Ok(_)) => {
                Err(Error::Untrusted(format!("layer {}: unpacking stopped early", source.digest)))
            }
            (Err(Fed::Ours(error)), _) => Err(error),
            (_, Err(error)) => {
                source.finish()?;
                Err(naming(error, &source.digest))
            }
            (Ok(()), Ok(report)) => {
                report.apply_opaque(target)?;
                Ok(report.unpacked())
            }
        }
    }

    /// The child has nothing to say on standard error. There it keeps the store's lock instead: should this process be
    /// killed, the next one waits until nobody writes here any more.
    fn spawn_unpacker(&self, target: &Path) -> Result<Child> {
        let program = &self.options.unpack_program;
        let lock = self.lock.try_clone().doing(|| "duplicate the store's lock")?;
        let child = Command::new(program)
            .arg("unpack")
            .current_dir(target)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(lock)
            .spawn()
            .doing(|| format!("start {} unpack", program.display()))?;
        if let Some(pipe) = &child.stdin {
            // fewer changes between the two; the default does as well, only slower
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
        }
        Ok(child)
    }

    fn feed(
        &self,
        child: &mut Running,
        source: &mut Source<'_>,
        diff_id: Option<&Digest>,
    ) -> std::result::Result<(), Fed> {
        let mut pipe = child.0.stdin.take().ok_or(Fed::Pipe)?;
        let ours = Fed::Ours;
        let limit = unpacked_limit(source.size);
        let mut head = [0; 4];
        let got = fill(source, &mut head).map_err(|e| ours(unwrap_io(e)))?;
        let digest = source.digest.clone();
        let found = {
            let start = std::io::Cursor::new(head[..got].to_vec());
            let mut tar = inflate(&head[..got], start.chain(&mut *source)).map_err(|e| ours(unwrap_io(e)))?;
            self.copy(&mut tar, &mut pipe, limit, &digest)
        };
        drop(pipe);
        let found = match found {
            Ok(found) => found,
            Err(Fed::Ours(Error::Untrusted(why))) => {
                // an archive that does not inflate is most likely one that was changed: say that first
                source.finish().map_err(ours)?;
                return Err(ours(Error::Untrusted(why)));
            }
            Err(other) => return Err(other),
        };
        source.finish().map_err(ours)?;
        let Some(diff_id) = diff_id.filter(|wanted| **wanted != found) else { return Ok(()) };
        Err(ours(Error::Untrusted(format!(
            "layer {digest} unpacks to {found}, but the image's config promises {diff_id}"
        ))))
    }

    fn copy(
        &self,
        tar: &mut dyn Read,
        pipe: &mut impl Write,
        limit: u64,
        digest: &Digest,
    ) -> std::result::Result<Digest, Fed> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut total = 0_u64;
        loop {
            let n = match tar.read(&mut buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Fed::Ours(inflate_error(e, digest))),
            };
            if n == 0 {
                return Ok(Digest::from_hash(&hash.finalize().into()));
            }
            total += n as u64;
            if total > limit {
                let message = format!("layer {digest} unpacks to more than {limit} bytes");
                return Err(Fed::Ours(Error::Untrusted(message)));
            }
            hash.update(&buffer[..n]);
            pipe.write_all(&buffer[..n]).map_err(|_| Fed::Pipe)?;
            self.written.add(n as u64);
        }
    }
}

fn naming(error: Error, digest: &Digest) -> Error {
    match error {
        Error::Untrusted(why) => Error::Untrusted(format!("layer {digest}: {why}")),
        other => other,
    }
}

/// Why feeding ended early.
enum Fed {
    /// The child closed its end.
    Pipe,
    Ours(Error),
}

/// The child, killed and reaped when it goes out of scope.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn report(&mut self, target: &Path) -> Result<Report> {
        drop(self.0.stdin.take());
        let mut bytes = Vec::new();
        if let Some(stdout) = self.0.stdout.take() {
            let read = stdout.take(report::REPORT_BYTES_MAX).read_to_end(&mut bytes);
            read.doing(|| "read the unpacker's report")?;
        }
        let status = self.0.wait().doing(|| "wait for the unpacker")?;
        Report::parse(&bytes, target)
            .unwrap_or_else(|| Err(Error::Untrusted(format!("the unpacker died without a report ({status})"))))
    }
}

fn unpacked_limit(compressed: u64) -> u64 {
    compressed.saturating_mul(RATIO_MAX).clamp(RATIO_FREE_BYTES, LAYER_BYTES_MAX)
}

fn fill(source: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match source.read(&mut buffer[got..])? {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}

/// Chooses by the first bytes, as media types of old images lie; the diffID tells in the end.
fn inflate<'a>(head: &[u8], source: impl Read + 'a) -> std::io::Result<Box<dyn Read + 'a>> {
    Ok(match packing(head) {
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(CHUNK_BYTES, source))),
        Packing::Zstd => {
            let mut zstd = zstd::stream::read::Decoder::new(source)?;
            zstd.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(zstd)
        }
        Packing::Plain => Box::new(source),
    })
}

fn packing(head: &[u8]) -> Packing {
    match head {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Packing::Zstd,
        _ => Packing::Plain,
    }
}

fn inflate_error(error: std::io::Error, digest: &Digest) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(io) => Error::Untrusted(format!("layer {digest} does not inflate: {io}")),
    }
}
