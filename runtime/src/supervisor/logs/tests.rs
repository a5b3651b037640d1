//! The log pump against a real FIFO and real files; rotation and format as properties.

use std::os::fd::OwnedFd;

use proptest::prelude::*;

use super::file::LogFile;
use super::format::{StreamName, TIME_BYTES, records, rfc3339_nano};
use super::*;
use crate::runtime::LogConfig;
use crate::supervisor::event_loop::{Poller, Source};

fn fifo_stream(dir: &Path) -> (Stream, OwnedFd) {
    let path = dir.join("stdout");
    let ours = make_fifo(&path).unwrap();
    let theirs = open_fifo(&path, OFlags::empty()).unwrap();
    let fd = Poller::new().unwrap().watch_edges(ours, Source::Exits).unwrap();
    (
        Stream { origin: Origin::Fifo(StreamName::Stdout), fd, ready: true, attached: std::cell::RefCell::default() },
        theirs,
    )
}

fn lines_of(text: &str) -> Vec<String> {
    text.lines().map(|line| line.splitn(4, ' ').skip(2).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn an_unfinished_line_waits_in_the_fifo_and_is_whole_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (stream, theirs) = fifo_stream(dir.path());
    let mut file = LogFile::new(dir.path().to_path_buf(), LogConfig::default());
    let mut pump = Pump::new().unwrap();
    rustix::io::write(&theirs, b"one\ntwo\nthr").unwrap();
    assert_eq!(pump.step(&stream, &mut file, false), Pumped::More);
    assert_eq!(pump.step(&stream, &mut file, false), Pumped::Idle);
    rustix::io::write(&theirs, b"ee\nfour").unwrap();
    while pump.step(&stream, &mut file, true) == Pumped::More {}
    let text = std::fs::read_to_string(dir.path().join("current")).unwrap();
    assert_eq!(lines_of(&text), ["F one", "F two", "F three", "F four"]);
}

#[test]
fn a_line_longer_than_a_block_comes_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let (stream, theirs) = fifo_stream(dir.path());
    let mut file = LogFile::new(dir.path().to_path_buf(), LogConfig::default());
    let mut pump = Pump::new().unwrap();
    let long = vec![b'x'; 3 * BLOCK_BYTES + 7];
    rustix::io::write(&theirs, &long).unwrap();
    rustix::io::write(&theirs, b"\nnext\n").unwrap();
    while pump.step(&stream, &mut file, false) == Pumped::More {}
    let text = std::fs::read_to_string(dir.path().join("current")).unwrap();
    let lines = lines_of(&text);
    assert_eq!(lines.last().unwrap(), "F next");
    let parts = &lines[..lines.len() - 1];
    assert!(parts[..parts.len() - 1].iter().all(|line| line.starts_with("P ")));
    assert_eq!(parts.iter().map(|line| line.len() - 2).sum::<usize>(), long.len());
}

/// Fills a FIFO with numbered lines, twice what it holds, pumping one block whenever it is full; the log's lines.
fn pump_a_flood(lossy: bool) -> (u64, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let (stream, theirs) = fifo_stream(dir.path());
    rustix::io::ioctl_fionbio(&theirs, true).unwrap();
    let config = LogConfig { lossy, ..LogConfig::default() };
    let mut file = LogFile::new(dir.path().to_path_buf(), config);
    let mut pump = Pump::new().unwrap();
    let written = 2 * FIFO_BYTES as u64 / 64;
    for number in 0..written {
        let line = format!("{number:063}\n");
        while rustix::io::write(&theirs, line.as_bytes()).is_err() {
            pump.step(&stream, &mut file, false);
        }
    }
    while pump.step(&stream, &mut file, false) == Pumped::More {}
    (written, lines_of(&std::fs::read_to_string(dir.path().join("current")).unwrap()))
}

#[test]
fn a_flood_is_kept_whole_or_dropped_in_whole_lines_that_are_counted() {
    let (written, lines) = pump_a_flood(false);
    assert_eq!(lines.len() as u64, written);
    let (written, lines) = pump_a_flood(true);
    let (notes, kept): (Vec<&String>, Vec<&String>) = lines.iter().partition(|line| line.starts_with("F boxship: "));
    let dropped: u64 = notes.iter().map(|note| note.split(' ').nth(2).unwrap().parse::<u64>().unwrap()).sum();
    assert!(dropped > 0);
    assert_eq!(dropped + kept.len() as u64, written, "each line is in the log or counted");
    assert!(kept.iter().all(|line| line.len() == 65), "no half line");
    assert!(kept.is_sorted(), "in their order");
}

#[test]
fn half_a_record_of_a_killed_writer_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("current"), "t stdout F whole\nt stdout F ha").unwrap();
    let mut file = LogFile::new(dir.path().to_path_buf(), LogConfig::default());
    file.append_records(b"t stdout F half again\n");
    let text = std::fs::read_to_string(dir.path().join("current")).unwrap();
    assert_eq!(text, "t stdout F whole\nt stdout F half again\n");
}

#[test]
fn times_are_rfc_3339() {
    assert_eq!(rfc3339_nano(0), "1970-01-01T00:00:00.000000000Z");
    assert_eq!(rfc3339_nano(951_827_696_000_000_001), "2000-02-29T12:34:56.000000001Z");
    assert_eq!(rfc3339_nano(1_793_520_000_000_000_000), "2026-11-01T08:00:00.000000000Z");
}

proptest! {
    #[test]
    fn rotated_files_hold_the_newest_records_within_bounds(
        lens in prop::collection::vec(0_usize..3_000, 1..60), files_max in 1_u32..5,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig { file_bytes_max: 8 << 10, files_max, lossy: false };
        let mut file = LogFile::new(dir.path().to_path_buf(), config);
        let mut all = Vec::new();
        for (n, len) in lens.iter().enumerate() {
            let mut block = vec![b'a' + (n % 26) as u8; *len];
            block.push(b'\n');
            let mut lines = Vec::new();
            records(&mut lines, rfc3339_nano(n as u64).as_bytes(), StreamName::Stderr, &block, false);
            file.append_records(&lines);
            all.extend(lines);
        }
        let mut found = Vec::new();
        for n in (0..=files_max).rev() {
            let name = if n == 0 { "current".to_owned() } else { n.to_string() };
            if let Ok(bytes) = std::fs::read(dir.path().join(name)) {
                prop_assert!(bytes.len() as u64 <= config.file_bytes_max);
                found.extend(bytes);
            }
        }
        prop_assert!(found.len() as u64 <= config.file_bytes_max * u64::from(files_max));
        prop_assert!(all.ends_with(&found));
        prop_assert!(!found.is_empty());
    }

    #[test]
    fn a_block_cut_anywhere_goes_on_where_it_ended(
        before in "[a-z]{0,40}", lens in prop::collection::vec(0_usize..300, 1..80), cut in any::<prop::sample::Index>(),
        more in any::<bool>(), files_max in 4_u32..6,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig { file_bytes_max: 8 << 10, files_max, lossy: false };
        let block: Vec<u8> = lens.iter().flat_map(|len| std::iter::repeat_n(b'x', *len).chain([b'\n'])).collect();
        let all = |config: LogConfig| -> Vec<u8> {
            let name = |n: u32| if n == 0 { "current".to_owned() } else { n.to_string() };
            (0..config.files_max).rev().flat_map(|n| std::fs::read(dir.path().join(name(n))).unwrap_or_default()).collect()
        };
        let mut lines = Vec::new();
        LogFile::new(dir.path().to_path_buf(), config).append(&mut lines, StreamName::Stderr, before.as_bytes(), true);
        let first = all(config).len();
        // a kill cuts a write short: what is there of the block is a beginning of it
        let mut records_of_it = Vec::new();
        records(&mut records_of_it, rfc3339_nano(7).as_bytes(), StreamName::Stdout, &block, false);
        let written = cut.index(records_of_it.len());
        let mut file = LogFile::new(dir.path().to_path_buf(), config);
        file.append_records(&records_of_it[..written]);
        drop(file);
        let torn = all(config);
        prop_assert_eq!(torn.len(), first + written);
        // the next one finds the block again, perhaps with more behind it
        let again = if more { [&block[..], b"more\n"].concat() } else { block.clone() };
        LogFile::new(dir.path().to_path_buf(), config).append(&mut lines, StreamName::Stdout, &again, false);
        let last = records_of_it[..written].rsplit(|byte| *byte == b'\n').next().unwrap().len();
        if last >= TIME_BYTES {
            prop_assert!(all(config).starts_with(&torn), "nothing that was there has changed");
            let contents = |bytes: &[u8]| lines_of(std::str::from_utf8(&bytes[first..]).unwrap());
            let mut whole = Vec::new();
            records(&mut whole, rfc3339_nano(7).as_bytes(), StreamName::Stdout, &again, false);
            prop_assert_eq!(contents(&all(config)), lines_of(std::str::from_utf8(&whole).unwrap()));
        } else {
            prop_assert!(all(config).starts_with(&torn[..torn.len() - last]), "no whole record has changed");
        }
    }
}
