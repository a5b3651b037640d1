//! Owner, mode, time and extended attributes of an entry: read from header and PAX records, set by descriptor.

use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Gid, Mode, Timespec, Uid, XattrFlags};
use tar::Entry;

use super::super::report::Refusal;
use super::Outcome;
use super::root::DEFAULT_ACL;
use crate::image::store::tree::Facts;

/// Most extended attributes of one entry.
const XATTRS_MAX: usize = 64;
/// Largest value, in bytes; the kernel's own bound.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// What an entry says about itself.
#[derive(Debug)]
pub(super) struct Attributes {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits with set-id and sticky.
    pub(super) mode: u32,
    pub(super) time: Timespec,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    /// Reads header and PAX records; PAX wins, but a size said twice must be said alike.
    pub(super) fn read(entry: &mut Entry<'_, impl Read>) -> Outcome<Self> {
        let bad = |e: std::io::Error| Refusal::Untrusted(format!("its header: {e}"));
        let header_size = entry.header().entry_size().map_err(bad)?;
        let id = |n: u64| u32::try_from(n).ok().filter(|n| *n != u32::MAX);
        let too_large = || Refusal::Untrusted("its owner is no 32 bit number".into());
        let header = entry.header();
        let old = header.as_old();
        let mut found = Self {
            uid: id(filled(&old.uid, header.uid()).map_err(bad)?).ok_or_else(too_large)?,
            gid: id(filled(&old.gid, header.gid()).map_err(bad)?).ok_or_else(too_large)?,
            mode: filled(&old.mode, header.mode()).map_err(bad)? & 0o7777,
            time: seconds(filled(&old.mtime, header.mtime()).map_err(bad)?),
            xattrs: Vec::new(),
        };
        let Some(records) = entry.pax_extensions().map_err(bad)? else { return Ok(found) };
        for record in records {
            let record = record.map_err(bad)?;
            let (key, value) = (record.key_bytes(), record.value_bytes());
            match key {
                b"size" => check_size(number(value)?, header_size)?,
                b"uid" => found.uid = id(number(value)?).ok_or_else(too_large)?,
                b"gid" => found.gid = id(number(value)?).ok_or_else(too_large)?,
                b"mtime" => found.time = pax_time(value),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(Refusal::Untrusted("it is a sparse file in PAX form, which layers do not hold".into()));
                }
                _ => found.xattr(key, value)?,
            }
        }
        Ok(found)
    }

    fn xattr(&mut self, key: &[u8], value: &[u8]) -> Outcome<()> {
        let Some(name) = key.strip_prefix(b"SCHILY.xattr.") else { return Ok(()) };
        if self.xattrs.len() >= XATTRS_MAX || value.len() > XATTR_BYTES_MAX {
            return Err(Refusal::Untrusted("it has too many or too large extended attributes".into()));
        }
        // overlay's own attributes and labels of another host's security module are not the image's to set
        let wanted = name == b"security.capability"
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
            || name.starts_with(b"system.posix_acl_");
        if wanted {
            self.xattrs.push((name.to_vec(), value.to_vec()));
        }
        Ok(())
    }

    /// As the file system will tell them.
    pub(super) fn facts(&self, kind: FileType, mode: u32) -> Facts {
        Facts { mode: kind.as_raw_mode() | mode, uid: self.uid, gid: self.gid, rdev: 0 }
    }

    /// The mode to make a new file with.
    pub(super) fn first_mode(&self, is_plain: bool) -> Mode {
        if self.is_mode_given(is_plain) { Mode::from_raw_mode(self.mode) } else { Mode::RUSR | Mode::WUSR }
    }

    fn is_mode_given(&self, is_plain: bool) -> bool {
        is_plain && self.mode & 0o7000 == 0
    }

    /// Whether what we make belongs to whom it should.
    pub(super) fn is_ours(&self, is_plain: bool) -> bool {
        is_plain && self.uid == 0 && self.gid == 0
    }

    /// Whether these are attributes of a directory that new objects in it inherit.
    pub(super) fn has_default_acl(&self) -> bool {
        self.xattrs.iter().any(|(name, _)| name == DEFAULT_ACL.as_bytes())
    }

    /// chown, then chmod (chown clears set-id bits), then attributes (chown clears capabilities). A new file in a plain
    /// parent has our ids and its [`Self::first_mode`]: what is right already is not set again.
    pub(super) fn apply(&self, fd: &OwnedFd, is_plain: bool) -> Outcome<()> {
        if !self.is_ours(is_plain) {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(|e| Refusal::io("set the owner", &e.into()))?;
        }
        if !self.is_mode_given(is_plain) {
            let mode = Mode::from_raw_mode(self.mode);
            rustix::fs::fchmod(fd, mode).map_err(|e| Refusal::io("set the mode", &e.into()))?;
        }
        for (name, value) in &self.xattrs {
            match rustix::fs::fsetxattr(fd, &**name, value, XattrFlags::empty()) {
                Ok(()) => {}
                // a file system without ACLs or user attributes still holds the file
                Err(rustix::io::Errno::OPNOTSUPP) if name != b"security.capability" => {}
                Err(e) => return Err(Refusal::io("set an extended attribute of", &e.into())),
            }
        }
        Ok(())
    }
}

/// A number field left blank is 0, as other readers take it.
fn filled<T: Default>(field: &[u8], parsed: std::io::Result<T>) -> std::io::Result<T> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) { Ok(T::default()) } else { parsed }
}

/// Two readers that believe different sizes see different archives (CVE-2025-62518).
fn check_size(pax: u64, header: u64) -> Outcome<()> {
    // a header that cannot hold the size says 0
    if header == pax || header == 0 {
        return Ok(());
    }
    Err(Refusal::Untrusted(format!("its size is said to be {header} and {pax}")))
}

fn number(value: &[u8]) -> Outcome<u64> {
    let text = std::str::from_utf8(value).ok().and_then(|t| t.trim().parse().ok());
    text.ok_or_else(|| Refusal::Untrusted("a PAX record is no number".into()))
}

fn seconds(secs: u64) -> Timespec {
    Timespec { tv_sec: i64::try_from(secs).unwrap_or(0), tv_nsec: 0 }
}

/// `SECONDS[.FRACTION]`, perhaps negative; what cannot be read is 1970.
pub(crate) fn pax_time(value: &[u8]) -> Timespec {
    let text = String::from_utf8_lossy(value);
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: i64 = digits.parse().unwrap_or(0);
    let secs: i64 = whole.parse().unwrap_or(0);
    // before 1970 the fraction counts away from zero
    if text.starts_with('-') && nanos > 0 {
        return Timespec { tv_sec: secs.saturating_sub(1), tv_nsec: 1_000_000_000 - nanos };
    }
    Timespec { tv_sec: secs, tv_nsec: nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_may_lie_before_1970() {
        let check = |text: &str, secs, nanos| {
            let time = pax_time(text.as_bytes());
            assert_eq!((time.tv_sec, time.tv_nsec), (secs, nanos), "{text}");
        };
        check("12.5", 12, 500_000_000);
        check("12", 12, 0);
        check("-1.25", -2, 750_000_000);
        check("nonsense", 0, 0);
    }

    #[test]
    fn a_size_said_twice_must_agree() {
        assert!(check_size(5, 5).is_ok());
        assert!(check_size(9 << 30, 0).is_ok());
        assert!(check_size(0, 5).is_err());
        assert!(check_size(6, 5).is_err());
    }
}
