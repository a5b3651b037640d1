//! A block of which a killed writer left only a part in the files.
//!
//! All records of a block have one time, and half a record at the end of `current` proves that its block was not consumed:
//! it comes again. The records of that time are thus the beginning of what the block will be, and the rest can follow.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::format::TIME_BYTES;

/// The beginning of a block, as it is in the files.
pub(super) struct Torn {
    /// Whole records of one time and half a record of the same.
    bytes: Vec<u8>,
}

impl Torn {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn time(&self) -> &[u8] {
        &self.bytes[..TIME_BYTES]
    }
}

/// Reads the files from the newest to the oldest, until records of another time come. `None` when the last record is whole,
/// or when not even its time is: bytes of one time may be followed by those of another without harm.
pub(super) fn find(dir: &Path, files_max: u32) -> Option<Torn> {
    let mut file = File::open(dir.join("current")).ok()?;
    let (mut last, mut newest) = ([0], Vec::new());
    file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).ok()?;
    if last == *b"\n" {
        return None;
    }
    file.rewind().and_then(|()| file.read_to_end(&mut newest)).ok()?;
    let half = newest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let time = newest.get(half..half + TIME_BYTES)?.to_vec();
    let (mut at, mut bytes) = (first_of(&time, &newest, half), newest);
    for older in 1..files_max {
        if at > 0 {
            break;
        }
        let Ok(mut file) = std::fs::read(dir.join(older.to_string())) else { break };
        at = first_of(&time, &file, file.len());
        file.append(&mut bytes);
        bytes = file;
    }
    bytes.drain(..at);
    Some(Torn { bytes })
}

/// Where the records with this time begin that end at `end`.
fn first_of(time: &[u8], bytes: &[u8], end: usize) -> usize {
    let mut first = end;
    while first > 0 {
        let record = bytes[..first - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if !bytes[record..first].starts_with(time) {
            break;
        }
        first = record;
    }
    first
}

/// Opens `current` to go on where it ends.
pub(super) fn reopen(dir: &Path) -> Option<(File, u64)> {
    let file = File::options().append(true).open(dir.join("current")).ok()?;
    let size = file.metadata().ok()?.len();
    Some((file, size))
}
