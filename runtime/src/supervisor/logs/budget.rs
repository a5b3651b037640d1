//! The bound on all logs of a data root together: when they grow past it, the oldest rotated files go, whoever wrote them.
//!
//! What is held is estimated between two looks at the disk: containers are removed by others, with their logs.

use std::cmp::Reverse;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Names the bound: bytes, with an optional `KiB`, `MiB` or `GiB`.
const SETTING: &str = "BOXSHIP_LOG_BYTES_MAX";
/// Without a setting, this part of the file system that holds the data root.
const PART_OF_DISK: u64 = 10;

/// The bound and what is held.
pub(crate) struct Budget {
    containers: PathBuf,
    bytes_max: u64,
    held: u64,
}

/// One log file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LogPiece {
    path: PathBuf,
    bytes: u64,
    /// Last written, seconds and nanoseconds.
    time: (i64, i64),
    /// 0 is the one that is written to; higher is older.
    number: u32,
}

impl Budget {
    /// With the bound of the environment.
    pub(crate) fn of_host(containers: &Path) -> Self {
        let set = std::env::var(SETTING).ok();
        let parsed = set.as_deref().map(|text| (text, bytes(text)));
        if let Some((text, None)) = parsed {
            tracing::warn!("{SETTING}={text} is no number of bytes such as 4GiB: a tenth of the disk it is");
        }
        let bytes_max = parsed.and_then(|(_, bytes)| bytes).unwrap_or_else(|| part_of_disk(containers));
        Self::new(containers, bytes_max)
    }

    fn new(containers: &Path, bytes_max: u64) -> Self {
        let mut budget = Self { containers: containers.to_owned(), bytes_max, held: 0 };
        budget.shrink();
        budget
    }

    /// Takes note of bytes that files were rotated with, and makes room when the bound is passed.
    pub(crate) fn rotated(&mut self, bytes: u64) {
        self.held = self.held.saturating_add(bytes);
        if self.held > self.bytes_max {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        let pieces = pieces(&self.containers);
        self.held = pieces.iter().map(|piece| piece.bytes).sum();
        for piece in surplus(pieces, self.bytes_max) {
            // one that is gone by itself is as good
            let _ = std::fs::remove_file(&piece.path);
            self.held -= piece.bytes;
        }
        // Files that are written to stay, however many there are: looked at again after a tenth more.
        if self.held > self.bytes_max {
            self.held = self.bytes_max - self.bytes_max / 10;
        }
    }
}

/// What has to go: the oldest rotated files, until nine tenths of the bound are left, or only what is written to.
fn surplus(mut pieces: Vec<LogPiece>, bytes_max: u64) -> Vec<LogPiece> {
    let mut held: u64 = pieces.iter().map(|piece| piece.bytes).sum();
    if held <= bytes_max {
        return Vec::new();
    }
    let enough = bytes_max - bytes_max / 10;
    pieces.retain(|piece| piece.number > 0);
    pieces.sort_by_key(|piece| (piece.time, Reverse(piece.number)));
    pieces.retain(|piece| {
        let goes = held > enough;
        held -= if goes { piece.bytes } else { 0 };
        goes
    });
    pieces
}

/// All log files below `containers`; what cannot be read counts as nothing.
fn pieces(containers: &Path) -> Vec<LogPiece> {
    let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let piece = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let number = if name == "current" { 0 } else { name.to_str()?.parse().ok()? };
        let found = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some(LogPiece { path: entry.path(), bytes: found.len(), time: (found.mtime(), found.mtime_nsec()), number })
    };
    entries(containers).flat_map(|container| entries(&container.path().join("logs")).filter_map(piece)).collect()
}

fn part_of_disk(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |disk| disk.f_blocks.saturating_mul(disk.f_frsize) / PART_OF_DISK)
}

fn bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(container: usize, number: u32, bytes: u64, second: i64) -> LogPiece {
        let path = format!("{container}/logs/{number}").into();
        LogPiece { path, bytes, time: (second, 0), number }
    }

    proptest! {
        #[test]
        fn only_the_oldest_rotated_files_go_and_no_more_than_needed(
            all in prop::collection::vec((0_u32..4, 1_u64..50, 0_i64..20), 0..30),
            bytes_max in 1_u64..400,
        ) {
            let all: Vec<LogPiece> =
                all.iter().enumerate().map(|(at, (number, bytes, second))| piece(at, *number, *bytes, *second)).collect();
            let total: u64 = all.iter().map(|piece| piece.bytes).sum();
            let gone = surplus(all.clone(), bytes_max);
            let kept: Vec<&LogPiece> = all.iter().filter(|piece| !gone.contains(piece)).collect();
            let left: u64 = kept.iter().map(|piece| piece.bytes).sum();
            prop_assert!(gone.iter().all(|piece| piece.number > 0), "what is written to stays");
            prop_assert!(total > bytes_max || gone.is_empty());
            prop_assert!(left <= bytes_max || kept.iter().all(|piece| piece.number == 0));
            let youngest_gone = gone.iter().map(|piece| piece.time).max();
            let oldest_kept = kept.iter().filter(|piece| piece.number > 0).map(|piece| piece.time).min();
            prop_assert!(youngest_gone.zip(oldest_kept).is_none_or(|(gone, kept)| gone <= kept));
            if let Some(last) = gone.iter().map(|piece| piece.bytes).max() {
                prop_assert!(left + last > bytes_max - bytes_max / 10, "one more than needed went");
            }
        }
    }

    #[test]
    fn files_go_from_the_disk_when_the_bound_is_passed() {
        let dir = tempfile::tempdir().unwrap();
        let write = |container: &str, name: &str, second: i64| {
            let logs = dir.path().join(container).join("logs");
            std::fs::create_dir_all(&logs).unwrap();
            let file = std::fs::File::create(logs.join(name)).unwrap();
            file.set_len(1000).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second.cast_unsigned());
            file.set_modified(time).unwrap();
        };
        write("a", "current", 50);
        write("a", "1", 20);
        write("a", "2", 10);
        write("b", "current", 5);
        write("b", "1", 4);
        let mut budget = Budget::new(dir.path(), 5000);
        let there = || -> Vec<String> {
            let mut names: Vec<String> = pieces(dir.path())
                .iter()
                .map(|piece| piece.path.strip_prefix(dir.path()).unwrap().display().to_string())
                .collect();
            names.sort();
            names
        };
        assert_eq!(there().len(), 5, "at the bound");
        write("b", "2", 30);
        budget.rotated(1000);
        assert_eq!(there(), ["a/logs/1", "a/logs/current", "b/logs/2", "b/logs/current"]);
    }

    #[test]
    fn numbers_of_bytes() {
        assert_eq!([bytes("17"), bytes("4GiB"), bytes("3KiB")], [Some(17), Some(4 << 30), Some(3072)]);
        assert_eq!([bytes(""), bytes("4G"), bytes("-1"), bytes("99999999999GiB")], [None; 4]);
    }
}
