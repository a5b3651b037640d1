//! The demo's surroundings: a directory of its own with data root, run directory and manifests, and what is waited for.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::clock::{boot_ms, unix_ms};
use rustix::process::Signal;

use super::load::ask;
use super::world::{self, Process};
use super::{images, manifests};
use crate::api::types::{Applied, SourceRequest};
use crate::cli::args::Sabotage;
use crate::cli::{Context, Failure, ensure_running, shut_down};

/// How long a check waits for what it wants to see; far above what it takes, as machines are shared.
const PATIENCE_MS: u64 = 30_000;
/// The same when the check is expected to fail.
const SABOTAGED_PATIENCE_MS: u64 = 4_000;
/// How often the kernel is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A demo under way.
pub(super) struct Stage {
    context: Context,
    dir: PathBuf,
    port: u16,
    mark: String,
    patience_ms: u64,
    sabotage: Option<Sabotage>,
    linger: std::cell::RefCell<Option<std::process::Child>>,
    /// How long a roll-out may make no progress; follows from how long the first start took here.
    deadline_secs: std::cell::Cell<u64>,
}

impl Stage {
    /// Makes the directory and chooses a free port.
    pub(super) fn set(context: &Context, sabotage: Option<Sabotage>) -> Result<Self, Failure> {
        let mark = format!("{}-{}", std::process::id(), unix_ms());
        let dir = std::env::temp_dir().join(format!("boxship-demo-{mark}"));
        let mut place = context.place.clone();
        place.data_root = dir.join("data");
        place.run_dir = dir.join("run");
        runtime::layout::make_private_dir(&dir.join("manifests")).map_err(|e| failed(&e))?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|e| failed(&e))?;
        let port = listener.local_addr().map_err(|e| failed(&e))?.port();
        Ok(Self {
            context: Context::at(place),
            dir,
            port,
            mark,
            patience_ms: if sabotage.is_some() { SABOTAGED_PATIENCE_MS } else { PATIENCE_MS },
            sabotage,
            linger: std::cell::RefCell::default(),
            deadline_secs: std::cell::Cell::new(60),
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What to type to reach the demo that was left running.
    pub(super) fn place_flags(&self) -> String {
        format!("--data-root {0}/data --run-dir {0}/run", self.dir.display())
    }

    pub(super) fn build_images(&self) -> Result<(), Failure> {
        images::build(&self.context.layout)
    }

    pub(super) fn write_web(&self, tag: &str, replicas: u32) -> Result<(), Failure> {
        self.write("web.yaml", &manifests::web(tag, replicas, self.port, &self.mark, self.deadline_secs.get()))
    }

    pub(super) fn write_job(&self) -> Result<(), Failure> {
        self.write("seed.yaml", &manifests::seed(&self.mark))
    }

    /// A machine that took this long to start all replicas gets three times as long for one step of a roll-out.
    pub(super) fn measured(&self, start: Duration) {
        self.deadline_secs.set((start.as_secs() * 3).max(2));
    }

    /// The way an editor saves: a new file, safely on disk, renamed over the old.
    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.dir.join("manifests").join(name);
        let new = self.dir.join("manifests").join(format!(".{name}.new"));
        let save = |file: &mut std::fs::File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let saved = std::fs::File::create(&new).and_then(|mut file| save(&mut file));
        saved.and_then(|()| std::fs::rename(&new, &path)).map_err(|e| failed(&e))
    }

    pub(super) fn remove_web(&self) -> Result<(), Failure> {
        std::fs::remove_file(self.dir.join("manifests/web.yaml")).map_err(|e| failed(&e))
    }

    /// Starts the processes and lets them follow the manifests.
    pub(super) async fn open(&self) -> Result<(), Failure> {
        ensure_running(&self.context).await?;
        let request = SourceRequest {
            path: self.dir.join("manifests"),
            default_stack: "demo".to_owned(),
            watch: true,
            confirm_removal: false,
        };
        let applied: Applied = self.context.client.post("/v1/sources", &request).await?;
        if applied.errors == 0 { Ok(()) } else { Err(Failure::Manifests(applied.diagnostics.join("\n"))) }
    }

    /// Waits until exactly `replicas` web processes of this version live, each in namespaces of its own, each answers
    /// on the published port under its own name, and the job's file is on disk.
    pub(super) fn converged(&self, version: &str, replicas: usize) -> Result<String, String> {
        self.wait(|| {
            let web = self.web();
            let wanted = format!("web {version}");
            let right = web.iter().filter(|p| p.guest() == wanted).count();
            if right != replicas || web.len() != replicas {
                let seen: Vec<String> = web.iter().map(Process::guest).collect();
                return Err(format!("wanted {replicas} processes `{wanted}`, /proc shows {seen:?}"));
            }
            apart(&web)?;
            self.answers(version, replicas)?;
            self.seeded()?;
            let pids: Vec<String> = web.iter().map(|p| p.pid.to_string()).collect();
            Ok(format!("pids {}", pids.join(" ")))
        })
    }

    /// Waits until the broken program was seen and is gone for good, while `version` serves.
    pub(super) fn tried_and_undone(&self, version: &str, replicas: usize) -> Result<String, String> {
        self.wait(|| {
            let broken = world::guests(&self.mark).iter().any(|p| p.guest() == "broken");
            if broken { Ok(()) } else { Err("the broken image was never started".to_owned()) }
        })?;
        // Undone when it stays away for longer than the longest back-off it could be in by now.
        let mut away_since = boot_ms();
        self.wait(|| {
            if world::guests(&self.mark).iter().any(|p| p.guest() == "broken") {
                away_since = boot_ms();
                return Err("the broken image is still being tried".to_owned());
            }
            if boot_ms() - away_since < 2_500 { Err("waiting whether it comes back".to_owned()) } else { Ok(()) }
        })?;
        self.converged(version, replicas)
    }

    /// Waits until no web process lives and the port refuses.
    pub(super) fn gone(&self) -> Result<(), String> {
        self.wait(|| {
            let left = self.web();
            if !left.is_empty() {
                return Err(format!("{} web processes still live", left.len()));
            }
            match ask(self.port, Duration::from_millis(500)) {
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
                other => Err(format!("the port still takes connections: {other:?}")),
            }
        })
    }

    /// The live guest with this host name.
    pub(super) fn guest(&self, hostname: &str) -> Result<Process, String> {
        let web = self.web();
        web.into_iter().find(|p| p.hostname == hostname).ok_or_else(|| format!("no process of {hostname} in /proc"))
    }

    /// Stops a daemon of ours with SIGSTOP until the value is dropped.
    pub(super) fn freeze(&self, verb: &str) -> Frozen {
        let pid = world::daemon(verb, &self.context.layout.run_dir);
        if let Some(pid) = pid {
            // A failure shows as a sabotaged check that passes.
            let _ = world::signal(pid, Signal::STOP);
        }
        Frozen(pid)
    }

    /// Takes everything down and looks for what is left in the kernel and on disk.
    pub(super) async fn strike(&self) -> Result<String, String> {
        if self.sabotage == Some(Sabotage::Leftovers) {
            self.leave_one_behind()?;
        }
        let ended = self.end().await;
        let looked = self.wait(|| self.nothing_left());
        if let Some(mut child) = self.linger.borrow_mut().take() {
            // The one that was left behind on purpose.
            let _ = child.kill().and_then(|()| child.wait());
        }
        let removed = std::fs::remove_dir_all(&self.dir);
        ended.map_err(|e| e.to_string())?;
        looked?;
        removed.map_err(|e| format!("remove {}: {e}", self.dir.display()))?;
        Ok("no process, mount, link, cgroup or file".to_owned())
    }

    async fn end(&self) -> Result<(), Failure> {
        if self.context.status().await.is_err() {
            return Ok(());
        }
        let applied: Applied = self.context.client.delete("/v1/sources").await?;
        let deadline = boot_ms() + PATIENCE_MS;
        loop {
            let status = self.context.status().await?;
            if status.converged_generation >= applied.generation || boot_ms() > deadline {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        shut_down(&self.context).await
    }

    fn nothing_left(&self) -> Result<(), String> {
        let guests = world::guests(&self.mark);
        if let Some(guest) = guests.first() {
            return Err(format!("process {} ({}) is left", guest.pid, guest.guest()));
        }
        let daemons = world::processes_of(&self.dir);
        if !daemons.is_empty() {
            return Err(format!("processes {daemons:?} are left"));
        }
        match world::leftovers(&self.context.layout).as_slice() {
            [] => Ok(()),
            left => Err(left.join("; ")),
        }
    }

    fn leave_one_behind(&self) -> Result<(), String> {
        let child = std::process::Command::new("/proc/self/exe")
            .args(["demo-guest", "linger"])
            .env(world::MARK, &self.mark)
            .spawn()
            .map_err(|e| e.to_string())?;
        *self.linger.borrow_mut() = Some(child);
        Ok(())
    }

    fn web(&self) -> Vec<Process> {
        let mut guests = world::guests(&self.mark);
        guests.retain(|p| p.guest().starts_with("web ") || p.guest() == "broken");
        guests
    }

    fn answers(&self, version: &str, replicas: usize) -> Result<(), String> {
        let mut hosts = BTreeSet::new();
        for _ in 0..replicas * 4 {
            let (answered, host) = ask(self.port, Duration::from_secs(2)).map_err(|e| format!("ask the port: {e}"))?;
            if answered != version {
                return Err(format!("{host} answered version {answered}"));
            }
            hosts.insert(host);
        }
        if hosts.len() == replicas { Ok(()) } else { Err(format!("only {hosts:?} answered")) }
    }

    fn seeded(&self) -> Result<(), String> {
        let volumes = self.context.layout.data_root.join("volumes");
        let entries = std::fs::read_dir(&volumes).map_err(|e| format!("read {}: {e}", volumes.display()))?;
        let found = entries
            .filter_map(Result::ok)
            .any(|e| std::fs::read_to_string(e.path().join("data/done")).is_ok_and(|text| text == "seeded\n"));
        if found { Ok(()) } else { Err("the job's file is not in its volume".to_owned()) }
    }

    fn wait<T>(&self, mut look: impl FnMut() -> Result<T, String>) -> Result<T, String> {
        let deadline = boot_ms() + self.patience_ms;
        loop {
            match look() {
                Ok(seen) => return Ok(seen),
                Err(why) if boot_ms() > deadline => return Err(why),
                Err(_) => std::thread::park_timeout(LOOK_EVERY),
            }
        }
    }
}

/// A daemon stopped by SIGSTOP; goes on when dropped.
pub(super) struct Frozen(Option<i32>);

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // It may have been killed meanwhile.
            let _ = world::signal(pid, Signal::CONT);
        }
    }
}

fn apart(processes: &[Process]) -> Result<(), String> {
    let own = std::fs::read_link("/proc/self/ns/pid").map(|l| l.to_string_lossy().into_owned()).unwrap_or_default();
    let own_user =
        std::fs::read_link("/proc/self/ns/user").map(|l| l.to_string_lossy().into_owned()).unwrap_or_default();
    let spaces: BTreeSet<&str> = processes.iter().map(|p| p.pid_ns.as_str()).collect();
    if spaces.len() != processes.len() || spaces.contains(own.as_str()) {
        return Err("containers share a pid namespace".to_owned());
    }
    if processes.iter().any(|p| p.user_ns == own_user) {
        return Err("a container is in the host's user namespace".to_owned());
    }
    Ok(())
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::new("BX0705", format!("set up the demo: {}", runtime::error::chain(error)), Some("boxship demo"))
}
