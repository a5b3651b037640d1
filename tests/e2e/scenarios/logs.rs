//! No line a container writes is lost, whoever dies while it writes.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{alone, on_images};
use crate::lab::{Lab, kill};
use crate::wait::{holds_for, wait_for};
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] =
    &[alone(on_images("no_line_is_lost_when_the_supervisor_is_killed_again_and_again", 240, no_line_is_lost))];

/// Kills of the supervisor; the 300 with `BOXSHIP_E2E_LONG=1`.
const KILLS: usize = 40;
/// After a kill this much may be there twice: the pump writes the file before it takes bytes out of the pipe.
const REPEAT_BYTES_MAX: u64 = 64 << 10;

fn no_line_is_lost(lab: &mut Lab) -> Result {
    lab.write(
        "count.yaml",
        &format!(
            "apiVersion: boxship/v1\nkind: App\nname: count\nimage: {}\nentrypoint: [/bin/sh, -c]\n\
             args: [\"i=0; while :; do echo $i; i=$((i+1)); done\"]\nresources: {{cpu: 300m}}\n",
            lab.image("busybox:1")
        ),
    )?;
    lab.up()?;
    let object = lab.object("app/count")?;
    let container = object["replicas"][0]["container"].as_str().ok_or("no container")?.to_owned();
    let before = lab.pids("app/count")?;
    let reader = Reader::start(lab.data_root.join("containers").join(container).join("logs"));
    let kills = if std::env::var_os("BOXSHIP_E2E_LONG").is_some() { 300 } else { KILLS };
    for round in 0..kills {
        let supervisor = lab.daemon("supervisor")?;
        kill(supervisor)?;
        wait_for("another supervisor", Duration::from_secs(10), || {
            ensure!(lab.daemon("supervisor")? != supervisor, "kill {round}: none yet");
            Ok(())
        })?;
        holds_for(Duration::from_millis(u64::try_from(round % 5).unwrap_or(0) * 20), || Ok(()))?;
    }
    let seen_until_now = reader.lines();
    wait_for("lines go on", Duration::from_secs(10), || {
        ensure!(reader.lines() > seen_until_now + 100, "{} lines, then nothing", reader.lines());
        Ok(())
    })?;
    ensure!(lab.pids("app/count")? == before, "the container was touched");
    let read = reader.stop()?;
    println!(
        "measured: {} lines, {} kills, {} repeats, the longest {} bytes",
        read.lines, kills, read.repeats, read.longest
    );
    ensure!(read.missing.is_empty(), "missing: {:?}", read.missing);
    ensure!(read.repeats <= kills, "{} repeats in {kills} kills", read.repeats);
    ensure!(read.longest <= REPEAT_BYTES_MAX, "{} bytes were there twice", read.longest);
    Ok(())
}

/// What a reader of the log files saw.
#[derive(Default)]
struct Read {
    lines: usize,
    /// `from..to` that never came.
    missing: Vec<String>,
    repeats: usize,
    /// Bytes of the longest repeat, as the container wrote them.
    longest: u64,
    next: u64,
    furthest: u64,
    repeated: u64,
}

impl Read {
    fn line(&mut self, line: &str) {
        // CRI: time, stream, F or P, content
        let Some(number) = line.splitn(4, ' ').nth(3).and_then(|text| text.parse::<u64>().ok()) else {
            self.missing.push(format!("not a numbered line: {line:?}"));
            return;
        };
        self.lines += 1;
        if self.lines == 1 {
            // a file may have been rotated away before the reader came
            self.next = number;
        }
        if number < self.next {
            self.repeats += 1;
            self.repeated = 0;
        } else if number > self.next {
            self.missing.push(format!("{}..{number}", self.next));
        }
        if number < self.furthest {
            self.repeated += u64::try_from(number.to_string().len()).unwrap_or(0) + 1;
            self.longest = self.longest.max(self.repeated);
        }
        self.next = number + 1;
        self.furthest = self.furthest.max(self.next);
    }
}

/// Follows `current` through rotations, as a log shipper does.
struct Reader {
    stop: Arc<AtomicBool>,
    count: Arc<std::sync::atomic::AtomicUsize>,
    thread: std::thread::JoinHandle<Result<Read>>,
}

impl Reader {
    fn start(dir: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::default();
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || follow(&dir, &told, &counted));
        Self { stop, count, thread }
    }

    fn lines(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn stop(self) -> Result<Read> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the reader panicked")?
    }
}

fn follow(dir: &Path, stop: &AtomicBool, count: &std::sync::atomic::AtomicUsize) -> Result<Read> {
    let open = || File::open(dir.join("current")).map_err(|error| format!("{}: {error}", dir.display()));
    let mut read = Read::default();
    let mut file = BufReader::new(open()?);
    let mut line = Vec::new();
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        let got = file.read_until(b'\n', &mut line).map_err(|error| format!("read the log: {error}"))?;
        if line.ends_with(b"\n") {
            read.line(String::from_utf8_lossy(&line).trim_end());
            count.store(read.lines, Ordering::Relaxed);
            line.clear();
        } else if got == 0 {
            let inode = |file: &File| file.metadata().map(|data| data.ino()).unwrap_or(0);
            let rotated = open().is_ok_and(|current| inode(&current) != inode(file.get_ref()));
            if rotated {
                // what was written between the last read and the rotation comes first
                while file.read_until(b'\n', &mut line).is_ok_and(|got| got > 0) && line.ends_with(b"\n") {
                    read.line(String::from_utf8_lossy(&line).trim_end());
                    line.clear();
                }
                file = BufReader::new(open()?);
            } else if stopping {
                return Ok(read);
            } else {
                holds_for(Duration::from_millis(1), || Ok(()))?;
            }
        }
    }
}
