//! From a container's FIFOs (or terminal) to its log files: tee, write, then consume.
//!
//! A block is copied with `tee(2)`, written to the file and only then taken out of the FIFO. Killed in between, the
//! next supervisor writes the block again: at most 64 KiB repeat and nothing is lost. A terminal has no such
//! copy; there a block is lost at most. Formatting and rotation are in `format` and `file`; a write that a kill cut short is
//! continued by `torn`.

pub(crate) mod budget;
pub(crate) mod file;
pub(crate) mod format;
mod torn;

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::error::{Doing, Result};
use crate::supervisor::attach::{self, Attached};
use crate::supervisor::event_loop::Watched;
use file::LogFile;
use format::StreamName;

/// Most bytes in one block; also the size of a pipe by default (16 pages).
pub(crate) const BLOCK_BYTES: usize = 64 << 10;
/// Depth of a FIFO: the largest a process without CAP_SYS_RESOURCE may ask for (`/proc/sys/fs/pipe-max-size`).
const FIFO_BYTES: usize = 1 << 20;

/// Where output comes from.
pub(crate) enum Origin {
    /// A FIFO: copied, then consumed.
    Fifo(StreamName),
    /// The master of a terminal: read.
    Terminal,
}

/// One stream of output.
pub(crate) struct Stream {
    pub(crate) origin: Origin,
    pub(crate) fd: Watched<OwnedFd>,
    /// It may have more to read than its last edge told.
    pub(crate) ready: bool,
    /// Who sees it as it comes.
    pub(crate) attached: RefCell<Vec<Attached>>,
}

/// What pumping a block did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// There may be more.
    More,
    /// Nothing more for now.
    Idle,
}

/// Buffers shared by all streams.
pub(crate) struct Pump {
    copy_read: OwnedFd,
    copy_write: OwnedFd,
    block: Vec<u8>,
    lines: Vec<u8>,
}

impl Pump {
    pub(crate) fn new() -> Result<Self> {
        let (copy_read, copy_write) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).doing(|| "make a pipe")?;
        Ok(Self { copy_read, copy_write, block: vec![0; BLOCK_BYTES], lines: Vec::new() })
    }

    /// Moves one block. With `at_end` a last line without a newline is written too.
    pub(crate) fn step(&mut self, stream: &Stream, file: &mut LogFile, at_end: bool) -> Pumped {
        match stream.origin {
            Origin::Fifo(name) => self.step_fifo(stream, name, file, at_end),
            Origin::Terminal => self.step_terminal(stream, file, at_end),
        }
    }

    fn step_fifo(&mut self, stream: &Stream, name: StreamName, file: &mut LogFile, at_end: bool) -> Pumped {
        let fifo: &OwnedFd = &stream.fd;
        let mut attached = stream.attached.borrow_mut();
        let copied = match rustix::pipe::tee(fifo, &self.copy_write, BLOCK_BYTES, SpliceFlags::NONBLOCK) {
            Ok(0) | Err(_) => return Pumped::Idle,
            Ok(copied) => copied,
        };
        if !read_exactly(&self.copy_read, &mut self.block[..copied]) {
            return Pumped::Idle;
        }
        // what somebody attached has no room for stays in the FIFO
        let copied = attach::show(&mut attached, &self.block[..copied], at_end);
        let block = &self.block[..copied];
        let whole_lines = block.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        // an unfinished line stays in the FIFO until it is finished, fills a block or the container is gone
        let more_waits = || rustix::io::ioctl_fionread(fifo).is_ok_and(|waiting| waiting > copied as u64);
        let cut = at_end || (whole_lines == 0 && (copied >= BLOCK_BYTES / 2 || more_waits()));
        let take = if cut { copied } else { whole_lines };
        if take == 0 {
            return Pumped::Idle;
        }
        file.append(&mut self.lines, name, &block[..take], at_end);
        attach::taken(&mut attached, take);
        if !read_exactly(fifo, &mut self.block[..take]) {
            return Pumped::Idle;
        }
        if file.is_lossy() && !at_end {
            let dropped = self.drop_surplus(fifo, &mut attached);
            if dropped > 0 {
                file.note_dropped(dropped);
            }
        }
        Pumped::More
    }

    /// Takes whole lines out of a FIFO that is more than half full, until it is nearly empty: whoever fills it must not wait
    /// for us. How many.
    fn drop_surplus(&mut self, fifo: &OwnedFd, attached: &mut [Attached]) -> u64 {
        let waiting = || rustix::io::ioctl_fionread(fifo).unwrap_or(0);
        let depth = rustix::pipe::fcntl_getpipe_size(fifo).map_or(0, |bytes| bytes as u64);
        let mut dropped = 0;
        if waiting() <= depth / 2 {
            return dropped;
        }
        // Bounded, since it may be filled as fast as this empties it.
        for _ in 0..2 * FIFO_BYTES / BLOCK_BYTES {
            if waiting() <= depth / 8 {
                break;
            }
            let Ok(copied @ 1..) = rustix::pipe::tee(fifo, &self.copy_write, BLOCK_BYTES, SpliceFlags::NONBLOCK) else {
                break;
            };
            if !read_exactly(&self.copy_read, &mut self.block[..copied]) {
                break;
            }
            let block = &self.block[..copied];
            // What follows begins with a whole line; a line that is longer than a block goes in parts.
            let take = block.iter().rposition(|byte| *byte == b'\n').map_or(copied, |at| at + 1);
            dropped += block[..take].iter().filter(|byte| **byte == b'\n').count().max(1) as u64;
            attach::taken(attached, take);
            if !read_exactly(fifo, &mut self.block[..take]) {
                break;
            }
        }
        dropped
    }

    fn step_terminal(&mut self, stream: &Stream, file: &mut LogFile, at_end: bool) -> Pumped {
        let mut attached = stream.attached.borrow_mut();
        if attach::is_waiting(&mut attached) && !at_end {
            return Pumped::Idle;
        }
        let terminal: &OwnedFd = &stream.fd;
        match rustix::io::read(terminal, &mut self.block[..]) {
            // EIO: nobody has the other side open at present
            Ok(0) | Err(_) => Pumped::Idle,
            Ok(len) => {
                attach::hand_on(&mut attached, &self.block[..len]);
                file.append(&mut self.lines, StreamName::Stdout, &self.block[..len], false);
                Pumped::More
            }
        }
    }
}

/// Reads what is known to be there.
fn read_exactly(fd: impl AsFd, buffer: &mut [u8]) -> bool {
    let mut at = 0;
    while at < buffer.len() {
        match rustix::io::read(&fd, &mut buffer[at..]) {
            Ok(0) => return false,
            Ok(len) => at += len,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Makes a FIFO of mode 0622, so that a process of any user may reopen `/dev/stdout`, 1 MiB deep where allowed, and
/// opens our end.
///
/// # Errors
/// `Io`.
pub(crate) fn make_fifo(path: &Path) -> Result<OwnedFd> {
    let doing = || format!("make FIFO {}", path.display());
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o622), 0).doing(doing)?;
    rustix::fs::chmod(path, Mode::from_raw_mode(0o622)).doing(doing)?;
    let ours = open_fifo(path, OFlags::NONBLOCK)?;
    // shallower is slower, not wrong
    let _ = rustix::pipe::fcntl_setpipe_size(&ours, FIFO_BYTES);
    Ok(ours)
}

/// Opens a FIFO for reading and writing: such an opening never waits, and never sees the end or a broken pipe when
/// the other side goes away.
///
/// # Errors
/// `Io`.
pub(crate) fn open_fifo(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | flags, Mode::empty())
        .doing(|| format!("open FIFO {}", path.display()))
}

#[cfg(test)]
mod tests;
