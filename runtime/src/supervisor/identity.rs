//! Who a process is: (boot id, pid, start time), and how its end is written down when nobody but the keeper saw it.
//!
//! A bare pid is never kept: the kernel gives it to somebody else.

use std::io::{Read as _, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::runtime::ExitStatus;
use crate::sys::daemon::RawExit;

/// A process that cannot be mistaken for another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) boot_id: String,
    pub(crate) pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
    pub(crate) start_time: u64,
}

impl Identity {
    /// Its parent; `None` when it is gone. Works for zombies.
    pub(crate) fn parent(&self) -> Option<i32> {
        let stat = stat(self.pid)?;
        (field(&stat, 22)? == self.start_time.to_string()).then(|| field(&stat, 4)?.parse().ok())?
    }
}

/// Start time of a process in clock ticks since boot; `None` when there is no such process. Works for zombies.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    field(&stat(pid)?, 22)?.parse().ok()
}

/// Pid and start time of the calling process, as the /proc it sees counts them.
pub(crate) fn own() -> Option<(i32, u64)> {
    let stat = read_stat("/proc/self/stat")?;
    Some((stat.split(' ').next()?.parse().ok()?, field(&stat, 22)?.parse().ok()?))
}

fn stat(pid: i32) -> Option<String> {
    read_stat(&format!("/proc/{pid}/stat"))
}

/// In one read: the line is made anew for each.
fn read_stat(path: &str) -> Option<String> {
    let mut line = String::with_capacity(1024);
    std::fs::File::open(path).ok()?.read_to_string(&mut line).ok()?;
    Some(line)
}

/// A field of `/proc/<pid>/stat` by its number in proc(5), from 3 on.
fn field(stat: &str, number: usize) -> Option<&str> {
    // the second field is the program's name in parentheses and may hold anything, `) ` too
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_ascii_whitespace().nth(number - 3)
}

/// An end the keeper saw: `RUN/exits/<pid>-<start time>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitFile {
    pub(crate) exit: ExitStatus,
    pub(crate) finished_boot_ms: u64,
    pub(crate) finished_unix_ms: u64,
}

impl ExitFile {
    pub(crate) fn new(exit: RawExit, finished_boot_ms: u64, finished_unix_ms: u64) -> Self {
        Self { exit: exit_status(exit.code, exit.signal), finished_boot_ms, finished_unix_ms }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of numbers serializes")
    }
}

/// Writes down how an orphan ended, before it is reaped: its start time is still in /proc.
pub(crate) fn record_exit(dir: &Path, exit: RawExit) {
    let Some(start_time) = start_time(exit.pid) else { return };
    let record = ExitFile::new(exit, clock::boot_ms(), clock::unix_ms());
    let path = dir.join(exit_file_name(exit.pid, start_time));
    let temporary = path.with_extension("tmp");
    let written = std::fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(&record.to_bytes()))
        .and_then(|()| std::fs::rename(&temporary, &path));
    if let Err(error) = written {
        // the supervisor will report this end as unknown
        tracing::error!(pid = exit.pid, %error, "end of an orphan is lost");
    }
}

pub(crate) fn exit_file_name(pid: i32, start_time: u64) -> String {
    format!("{pid}-{start_time}")
}

/// The status of a process that ended with a code or by a signal.
pub(crate) fn exit_status(code: Option<i32>, signal: Option<i32>) -> ExitStatus {
    let byte = |value: i32| u8::try_from(value & 0xff).unwrap_or(0);
    match (code, signal) {
        (Some(code), _) => ExitStatus::Code(byte(code)),
        (None, Some(signal)) => ExitStatus::Signal(byte(signal)),
        (None, None) => ExitStatus::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_start_time_is_stable_and_a_missing_process_has_none() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(start_time(pid), start_time(pid));
        assert!(start_time(pid).is_some());
        assert_eq!(own(), Some((pid, start_time(pid).unwrap())));
        assert_eq!(start_time(i32::MAX), None);
        let mut me = Identity { boot_id: String::new(), pid, start_time: start_time(pid).unwrap() };
        assert_eq!(me.parent(), Some(nix::unistd::getppid().as_raw()));
        me.start_time += 1;
        assert_eq!(me.parent(), None, "another process with this pid");
    }
}
