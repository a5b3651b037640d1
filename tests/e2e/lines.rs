//! Numbered lines: a container that counts as fast as it can, and a reader of its log files that misses no number and
//! notices each repeat.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Result;
use crate::lab::Lab;
use crate::wait::{holds_for, wait_for};

/// Directory beside the manifests by which a counter is told to start and to stop.
const GO: &str = "go";

/// A Job named `count` that waits for [`go`], then writes 0, 1, 2 and so on until it is told to stop. It leaves the number it
/// would have written next in a file and ends with `code`.
pub(crate) fn counter(lab: &Lab, code: u8) -> Result<String> {
    std::fs::create_dir_all(lab.manifests.join(GO)).map_err(|error| error.to_string())?;
    Ok(format!(
        "apiVersion: boxship/v1\nkind: Job\nname: count\nimage: {}\nbackoffLimit: 0\nentrypoint: [/bin/sh, -c]\n\
         args: [\"while [ ! -e /go/start ]; do sleep 0.01; done; i=0; while [ ! -e /go/stop ]; do echo $i; i=$((i+1)); \
         done; echo $i > /go/count; exit {code}\"]\n\
         mounts: [{{path: /go, bind: ./{GO}}}]\nresources: {{cpu: 300m}}\n",
        lab.image("busybox:1")
    ))
}

/// Lets the counter `start` or `stop`.
pub(crate) fn go(lab: &Lab, what: &str) -> Result {
    std::fs::write(lab.manifests.join(GO).join(what), "").map_err(|error| error.to_string())
}

/// How many lines the counter wrote, once it has stopped.
pub(crate) fn counted(lab: &Lab) -> Result<u64> {
    let text = std::fs::read_to_string(lab.manifests.join(GO).join("count")).map_err(|error| error.to_string())?;
    text.trim().parse().map_err(|error| format!("{text:?}: {error}"))
}

/// What a reader of the log files saw.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) lines: usize,
    /// `from..to` that never came.
    pub(crate) missing: Vec<String>,
    pub(crate) repeats: usize,
    /// Bytes of the longest repeat, as the container wrote them.
    pub(crate) longest: u64,
    /// The number that comes next.
    pub(crate) next: u64,
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
pub(crate) struct Reader {
    stop: Arc<AtomicBool>,
    count: Arc<std::sync::atomic::AtomicUsize>,
    thread: std::thread::JoinHandle<Result<Read>>,
}

impl Reader {
    /// Reads a container's `logs` from now on, which has to be before the container writes its first line: that one is number 0.
    pub(crate) fn start(dir: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::default();
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || follow(&dir, &told, &counted));
        Self { stop, count, thread }
    }

    pub(crate) fn lines(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Reads what is there to its end.
    pub(crate) fn stop(self) -> Result<Read> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the reader panicked")?
    }
}

fn follow(dir: &Path, stop: &AtomicBool, count: &std::sync::atomic::AtomicUsize) -> Result<Read> {
    let open = || File::open(dir.join("current")).map_err(|error| format!("{}: {error}", dir.display()));
    let mut read = Read::default();
    // there is no file before the first line
    let (first, _) = wait_for("the container's log", Duration::from_secs(10), open)?;
    let mut file = BufReader::new(first);
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
