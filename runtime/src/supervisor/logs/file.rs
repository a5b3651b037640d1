//! The files of one container's log: `current`, then `1` … `n`, older ones higher. Never more bytes than
//! [`LogConfig`] allows, but for one record that alone is longer than a file.
//!
//! Writing never fails towards the container: what cannot be written (a full disk) is counted, and said in the log
//! when there is room again.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::format::{StreamName, records, rfc3339_nano};
use super::torn;
use crate::clock;
use crate::runtime::LogConfig;

/// Shortest sensible file: one block and its heads.
const FILE_BYTES_MIN: u64 = 4 << 10;

/// The open log of one container.
pub(crate) struct LogFile {
    dir: PathBuf,
    config: LogConfig,
    current: Option<(File, u64)>,
    /// Whether it was looked for a block that a killed writer left half written.
    resumed: bool,
    lost_bytes: u64,
    rotated_bytes: u64,
}

impl LogFile {
    /// Does not touch the disk until something is written.
    pub(crate) fn new(dir: PathBuf, config: LogConfig) -> Self {
        let (file_bytes_max, files_max) = (config.file_bytes_max.max(FILE_BYTES_MIN), config.files_max.max(1));
        let config = LogConfig { file_bytes_max, files_max, ..config };
        Self { dir, config, current: None, resumed: false, lost_bytes: 0, rotated_bytes: 0 }
    }

    /// Whether lines are dropped rather than a program held up.
    pub(crate) fn is_lossy(&self) -> bool {
        self.config.lossy
    }

    /// Bytes of files that were rotated since this was asked last.
    pub(crate) fn take_rotated(&mut self) -> u64 {
        std::mem::take(&mut self.rotated_bytes)
    }

    /// Says in the log that lines are missing here.
    pub(crate) fn note_dropped(&mut self, lines: u64) {
        self.note(&format!("boxship: {lines} lines were dropped: they came faster than they can be written\n"));
    }

    fn note(&mut self, text: &str) {
        let mut note = Vec::new();
        let time = rfc3339_nano(clock::unix_ns());
        records(&mut note, time.as_bytes(), StreamName::Stderr, text.as_bytes(), true);
        self.append_records(&note);
    }

    /// Appends one block of a stream as records of this moment; `lines` is room to write them in. The rest of a block that a
    /// killed writer left half written continues right where it ended: whoever follows the file reads no byte twice.
    pub(crate) fn append(&mut self, lines: &mut Vec<u8>, stream: StreamName, block: &[u8], at_end: bool) {
        lines.clear();
        if !std::mem::replace(&mut self.resumed, true)
            && let Some(torn) = torn::find(&self.dir, self.config.files_max)
        {
            records(lines, torn.time(), stream, block, at_end);
            if let Some(rest) = lines.strip_prefix(torn.bytes()) {
                self.current = torn::reopen(&self.dir);
                return self.append_records(rest);
            }
            lines.clear();
        }
        records(lines, rfc3339_nano(clock::unix_ns()).as_bytes(), stream, block, at_end);
        self.append_records(lines);
    }

    pub(super) fn append_records(&mut self, lines: &[u8]) {
        if self.lost_bytes > 0 {
            let mut note = Vec::new();
            let text = format!("boxship: {} bytes of this log were lost: they could not be written\n", self.lost_bytes);
            let time = rfc3339_nano(clock::unix_ns());
            records(&mut note, time.as_bytes(), StreamName::Stderr, text.as_bytes(), true);
            if self.try_append(&note).is_ok() {
                self.lost_bytes = 0;
            }
        }
        if let Err(unwritten) = self.try_append(lines) {
            self.lost_bytes += unwritten;
            self.current = None;
        }
    }

    /// Says how many bytes could not be written.
    fn try_append(&mut self, mut lines: &[u8]) -> Result<(), u64> {
        while !lines.is_empty() {
            let left = lines.len() as u64;
            let (mut file, size) = match self.current.take() {
                Some(open) => open,
                None => open_current(&self.dir).map_err(|_| left)?,
            };
            let room = usize::try_from(self.config.file_bytes_max.saturating_sub(size)).unwrap_or(usize::MAX);
            let fitting = whole_records(lines, room);
            let take = if fitting == 0 && size == 0 { first_record(lines) } else { fitting };
            if take == 0 {
                self.rotated_bytes += size;
                self.rotate();
                continue;
            }
            if file.write_all(&lines[..take]).is_err() {
                // half a record would glue itself to the next one
                let _ = file.set_len(size);
                return Err(left);
            }
            self.current = Some((file, size + take as u64));
            lines = &lines[take..];
        }
        Ok(())
    }

    /// Renames oldest first, so that a crash in the middle leaves a gap and overwrites nothing.
    fn rotate(&mut self) {
        self.current = None;
        let name = |n: u32| self.dir.join(if n == 0 { "current".to_owned() } else { n.to_string() });
        if self.config.files_max == 1 {
            let _ = std::fs::remove_file(name(0));
            return;
        }
        for n in (0..self.config.files_max - 1).rev() {
            let _ = std::fs::rename(name(n), name(n + 1));
        }
    }
}

/// Opens `current` for appending and cuts off half a record that only a killed writer leaves and that [`torn`] could not
/// continue; its block comes again.
fn open_current(dir: &Path) -> std::io::Result<(File, u64)> {
    let mut file = File::options().create(true).read(true).append(true).open(dir.join("current"))?;
    let size = file.metadata()?.len();
    if size == 0 {
        return Ok((file, 0));
    }
    let tail = size.min(2 * super::BLOCK_BYTES as u64);
    file.seek(SeekFrom::Start(size - tail))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let size = size - (bytes.len() - whole) as u64;
    file.set_len(size)?;
    Ok((file, size))
}

/// Bytes of the whole records that fit into `room`.
fn whole_records(lines: &[u8], room: usize) -> usize {
    if lines.len() <= room {
        return lines.len();
    }
    lines[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

fn first_record(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1)
}
