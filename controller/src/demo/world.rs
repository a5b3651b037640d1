//! What the demo's checks look at: /proc, links, cgroups and mounts. Never boxship's own status.

use std::path::Path;

use runtime::layout::Layout;
use rustix::process::{Pid, Signal, kill_process};

/// The environment variable that marks this demo's guests; its value is the demo's own id.
pub(super) const MARK: &str = "BOXSHIP_DEMO_ID";

/// A process of the demo, by pid and start time, so that a reused pid is not mistaken for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    start_time: String,
    /// Its arguments.
    pub(super) args: Vec<String>,
    /// Its pid namespace, as the kernel names it.
    pub(super) pid_ns: String,
    /// Its user namespace.
    pub(super) user_ns: String,
    /// Its host name.
    pub(super) hostname: String,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let dir = format!("/proc/{pid}");
        let text = |file: &str| std::fs::read(format!("{dir}/{file}")).ok();
        let link =
            |ns: &str| std::fs::read_link(format!("{dir}/ns/{ns}")).ok().map(|l| l.to_string_lossy().into_owned());
        let args = strings(&text("cmdline")?);
        Some(Self {
            pid,
            start_time: start_time(pid)?,
            args,
            pid_ns: link("pid")?,
            user_ns: link("user")?,
            hostname: variable(&text("environ")?, "HOSTNAME").unwrap_or_default(),
        })
    }

    /// What it runs: `web 1`, `broken`.
    pub(super) fn guest(&self) -> String {
        self.args.iter().skip_while(|a| *a != "demo-guest").skip(1).cloned().collect::<Vec<_>>().join(" ")
    }

    /// Whether this very process still runs (a zombie does not).
    pub(super) fn is_alive(&self) -> bool {
        start_time(self.pid).is_some_and(|start| start == self.start_time)
    }

    pub(super) fn kill(&self) -> Result<(), String> {
        signal(self.pid, Signal::KILL)
    }
}

/// Every live process whose environment carries the mark.
pub(super) fn guests(mark: &str) -> Vec<Process> {
    pids()
        .filter(|pid| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            variable(&environ, MARK).is_some_and(|value| value == mark)
        })
        .filter_map(Process::read)
        .filter(|p| p.args.iter().any(|a| a == "demo-guest"))
        .collect()
}

/// The pid of the daemon of this run directory: `controller`, `switchboard`, …
pub(super) fn daemon(verb: &str, run_dir: &Path) -> Option<i32> {
    let run_dir = run_dir.to_string_lossy();
    pids().find(|pid| {
        let args = strings(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default());
        args.iter().any(|a| a == verb) && args.iter().any(|a| *a == run_dir)
    })
}

/// Every process that has the directory in its arguments, this one not counted.
pub(super) fn processes_of(dir: &Path) -> Vec<i32> {
    let dir = dir.to_string_lossy().into_owned();
    let me = std::process::id().cast_signed();
    pids()
        .filter(|pid| *pid != me)
        .filter(|pid| {
            let args = strings(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default());
            args.iter().any(|a| a.starts_with(&dir))
        })
        .collect()
}

/// Sends a signal.
pub(super) fn signal(pid: i32, signal: Signal) -> Result<(), String> {
    let pid = Pid::from_raw(pid).ok_or_else(|| "pid 0".to_owned())?;
    kill_process(pid, signal).map_err(|e| format!("signal pid {}: {e}", pid.as_raw_nonzero()))
}

/// Kernel objects that outlive processes and bear this data root's name: links, mounts and cgroups.
pub(super) fn leftovers(layout: &Layout) -> Vec<String> {
    let links = names("/sys/class/net").filter(|name| runtime::network::is_ours(layout, name));
    let mut left: Vec<String> = links.map(|name| format!("link {name}")).collect();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let data_root = layout.data_root.to_string_lossy();
    left.extend(mounts.lines().filter(|mount| mount.contains(&*data_root)).map(|mount| format!("mount {mount}")));
    cgroups(Path::new("/sys/fs/cgroup"), &runtime::linux::cgroup_parent(layout), 3, &mut left);
    left
}

fn cgroups(dir: &Path, name: &str, depth: u32, left: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.filter_map(Result::ok).filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        if entry.file_name() == name {
            left.push(format!("cgroup {}", entry.path().display()));
        } else if depth > 0 {
            cgroups(&entry.path(), name, depth - 1, left);
        }
    }
}

fn names(dir: &str) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(Result::ok).map(|e| e.file_name().to_string_lossy().into_owned())
}

fn pids() -> impl Iterator<Item = i32> {
    names("/proc").filter_map(|name| name.parse().ok())
}

fn strings(bytes: &[u8]) -> Vec<String> {
    let parts = bytes.split(|b| *b == 0).filter(|part| !part.is_empty());
    parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

fn variable(environ: &[u8], name: &str) -> Option<String> {
    strings(environ).iter().find_map(|v| v.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

/// Field 22 of /proc/PID/stat (proc(5)); `None` for a process that is gone or a zombie.
fn start_time(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    if fields.first() == Some(&"Z") {
        return None;
    }
    fields.get(19).map(|f| (*f).to_owned())
}
