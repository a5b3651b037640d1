//! What the child tells the parent: one bounded JSON value on its standard output.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{Mode, OFlags, ResolveFlags, XattrFlags};
use serde::{Deserialize, Serialize};

use super::Unpacked;
use crate::error::{Doing, Error, Result};
use crate::image::Digest;

/// Largest report read, in bytes.
pub(super) const REPORT_BYTES_MAX: u64 = 16 << 20;
/// Most opaque directories of one layer.
pub(super) const OPAQUE_MAX: usize = 50_000;

/// A finished extraction.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) bytes: u64,
    pub(super) entries: u64,
    pub(super) devices_skipped: u64,
    pub(super) id_max: u32,
    /// Fingerprint of the tree; see `store::tree`. A child led astray by an archive could lie, and could as well have
    /// written other files: what counts is that the archive's own digest, which the parent checks, is the one wanted.
    pub(super) tree: Option<Digest>,
    /// Directories (base64 of their paths from the root) that hide what is below them.
    pub(super) opaque: Vec<String>,
}

/// Why an extraction ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Refusal {
    /// The archive breaks its format or our bounds.
    Untrusted(String),
    /// The disk is full.
    NoSpace,
    /// The sandbox cannot be made here.
    Unsupported(String),
    /// A system call failed.
    Io { doing: String, errno: i32 },
}

impl Refusal {
    pub(super) fn io(doing: impl Into<String>, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            _ if is_full(error) => Self::NoSpace,
            Some(errno) => Self::Io { doing: doing.into(), errno },
            None => Self::Untrusted(format!("{}: {error}", doing.into())),
        }
    }
}

impl Report {
    /// `None` when the bytes are no report.
    pub(super) fn parse(bytes: &[u8], target: &Path) -> Option<Result<Self>> {
        let answer: std::result::Result<Self, Refusal> = serde_json::from_slice(bytes).ok()?;
        Some(answer.map_err(|refusal| match refusal {
            Refusal::Untrusted(why) => Error::Untrusted(why),
            Refusal::NoSpace => no_space(target),
            Refusal::Unsupported(why) => Error::Unsupported(why),
            Refusal::Io { doing, errno } => Error::io(doing, std::io::Error::from_raw_os_error(errno)),
        }))
    }

    pub(super) fn unpacked(&self) -> Unpacked {
        Unpacked {
            bytes: self.bytes,
            entries: self.entries,
            devices_skipped: self.devices_skipped,
            id_max: self.id_max,
            tree: self.tree.clone(),
        }
    }

    /// Marks the opaque directories: the child has no right to set `trusted.*` attributes.
    pub(super) fn apply_opaque(&self, target: &Path) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let doing = || format!("mark opaque directories in {}", target.display());
        let root = rustix::fs::open(target, flags, Mode::empty()).doing(doing)?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for path in self.opaque.iter().take(OPAQUE_MAX) {
            let path = STANDARD.decode(path).map_err(|e| Error::Untrusted(format!("the unpacker's report: {e}")))?;
            let path: &[u8] = if path.is_empty() { b"." } else { &path };
            let dir = rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve).doing(doing)?;
            rustix::fs::fsetxattr(&dir, "trusted.overlay.opaque", b"y", XattrFlags::empty()).doing(doing)?;
        }
        Ok(())
    }
}

/// Whether a write failed for want of space or quota.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// `NoSpace` for the file system of `path`; how much is missing nobody knows by now.
pub(crate) fn no_space(path: &Path) -> Error {
    let free = rustix::fs::statvfs(path).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
    let needed_bytes = free.saturating_add(1);
    Error::NoSpace { path: path.display().to_string(), needed_bytes, free_bytes: free, reclaimable_bytes: 0 }
}
