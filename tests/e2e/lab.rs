//! One scenario's own host: directories, the binary with its options, its registry, and questions about what runs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::audit::{self, Audit};
use crate::registry::Registry;
use crate::wait::wait_for;
use crate::{Result, Scenario, ensure};

/// A scenario's world.
pub(crate) struct Lab {
    /// Everything of the scenario on disk.
    pub(crate) dir: PathBuf,
    /// The manifest root; its name is the default stack.
    pub(crate) manifests: PathBuf,
    pub(crate) data_root: PathBuf,
    pub(crate) run_dir: PathBuf,
    /// What is run.
    pub(crate) binary: PathBuf,
    boot_id: PathBuf,
    registry: Option<Registry>,
    before: Audit,
    /// The part of cgroup names that is this data root's own, once one of its containers was seen.
    cgroup: RefCell<String>,
    /// This process is in a pid namespace made for the scenario: `kill -1` reaches nobody else.
    own_pids: bool,
    /// How often a controller looks at each layer again.
    pub(crate) scrub_every: &'static str,
}

/// How many there are of each kind of thing.
pub(crate) type Counts = BTreeMap<&'static str, usize>;

/// Where a scenario keeps its files.
pub(crate) fn dir_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e").join(name)
}

/// Removes a scenario's files.
pub(crate) fn remove(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
}

impl Lab {
    /// `outer_pids` is the pid namespace of the process that started this one.
    pub(crate) fn new(scenario: &Scenario, outer_pids: &str) -> Result<Self> {
        let (name, root, images) = (scenario.name, scenario.root, scenario.images);
        let dir = dir_of(name);
        let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
        if root {
            run("ip", &["link", "set", "lo", "up"])?;
            // overlayfs takes no overlayfs as its upper layer: a container's root file system is often one
            let kind = nix::sys::statfs::statfs(&dir).map_err(|error| error.to_string())?.filesystem_type();
            if kind == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC {
                run("mount", &["-t", "tmpfs", "-o", "mode=0755", "tmpfs", &dir.to_string_lossy()])?;
            }
            // a run directory is on a tmpfs, and socket paths are short
            run("mount", &["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"])?;
        }
        let lab = Self {
            manifests: dir.join("shop"),
            data_root: dir.join("data"),
            run_dir: if root { PathBuf::from("/run/boxship") } else { dir.join("run") },
            binary: PathBuf::from(env!("CARGO_BIN_EXE_boxship")),
            boot_id: dir.join("boot_id"),
            registry: if images { Some(Registry::start(&dir)?) } else { None },
            before: Audit::take(""),
            cgroup: RefCell::default(),
            scrub_every: "30d",
            own_pids: root && outer_pids != pid_namespace() && pid_namespace() != INITIAL_PID_NAMESPACE,
            dir,
        };
        std::fs::create_dir_all(&lab.manifests).map_err(|error| failed("make the manifest directory", error))?;
        lab.reboot_id(1)?;
        Ok(lab)
    }

    /// The registry of a scenario that asked for images.
    pub(crate) fn registry(&mut self) -> &mut Registry {
        self.registry.as_mut().expect("the scenario's `images` is set")
    }

    /// Full reference of a cached image.
    pub(crate) fn image(&self, name_and_tag: &str) -> String {
        self.registry.as_ref().expect("the scenario's `images` is set").image(name_and_tag)
    }

    /// Writes a manifest (or any file) below the manifest root, as an editor does: a new file, then a rename.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result {
        let path = self.manifests.join(path);
        let dir = path.parent().unwrap_or(&self.manifests);
        let partial = dir.join(".writing");
        std::fs::create_dir_all(dir)
            .and_then(|()| std::fs::write(&partial, text))
            .and_then(|()| std::fs::rename(&partial, &path))
            .map_err(|error| format!("write {}: {error}", path.display()))
    }

    /// Runs the binary to its end.
    pub(crate) fn boxship(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    /// Runs the binary and expects success; returns stdout.
    pub(crate) fn ok(&self, args: &[&str]) -> Result<String> {
        let output = self.boxship(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "`boxship {}`: {}\n{out}{err}", args.join(" "), output.status);
        Ok(out.into_owned())
    }

    /// The binary with the scenario's places.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).stdin(Stdio::null()).env("NO_COLOR", "1").current_dir(&self.dir);
        command.env("BOXSHIP_DATA_ROOT", &self.data_root).env("BOXSHIP_RUN_DIR", &self.run_dir);
        command.env("BOXSHIP_BOOT_ID_PATH", &self.boot_id).env("BOXSHIP_SCRUB_EVERY", self.scrub_every);
        command
    }

    /// `boxship up` of the manifest root.
    pub(crate) fn up(&self) -> Result<String> {
        self.ok(&["up", &self.manifests.to_string_lossy(), "--timeout", "60s"])
    }

    /// Starts `boxship controller --manifests` and waits until it answers.
    pub(crate) fn start_controller(&self) -> Result {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("controller.log"));
        let log = log.map_err(|error| format!("controller.log: {error}"))?;
        let mut command = self.command(&["controller", "--manifests", &self.manifests.to_string_lossy()]);
        command.stderr(log.try_clone().expect("descriptor")).stdout(log);
        command.spawn().map_err(|error| format!("start the controller: {error}"))?;
        wait_for("the controller answers", Duration::from_secs(20), || self.status())?;
        Ok(())
    }

    /// What `get -o json` says.
    pub(crate) fn status(&self) -> Result<Value> {
        let text = self.ok(&["get", "-o", "json"])?;
        serde_json::from_str(&text).map_err(|error| format!("get -o json: {error}: {text}"))
    }

    /// One object of the status, by `app/web`.
    pub(crate) fn object(&self, key: &str) -> Result<Value> {
        let status = self.status()?;
        let objects = status["objects"].as_array().ok_or("no objects")?;
        let suffix = format!("/{key}");
        let found = objects.iter().find(|object| object["key"].as_str().is_some_and(|key| key.ends_with(&suffix)));
        found.cloned().ok_or_else(|| format!("no object {key} in {status}"))
    }

    /// Waits until an object has this many ready replicas, and no other containers.
    pub(crate) fn ready(&self, key: &str, count: usize, limit: Duration) -> Result<Duration> {
        let ((), took) = wait_for(&format!("{key} {count}/{count} ready"), limit, || {
            let object = self.object(key)?;
            // an ended container may stay for its logs
            let live = replicas(&object).filter(|replica| replica["state"] != "stopped").count();
            let good = replicas(&object).filter(|replica| replica["ready"] == true).count();
            ensure!(good == count && live == count && object["phase"] == "ready", "{object}");
            Ok(())
        })?;
        Ok(took)
    }

    /// Host pids of an object's live containers, by container; every one of them alive. A status that was overtaken by an exit
    /// is asked for again.
    pub(crate) fn pids(&self, key: &str) -> Result<Vec<(String, i32)>> {
        let (pids, _) = wait_for("live processes as the status says", Duration::from_secs(3), || self.pids_now(key))?;
        Ok(pids)
    }

    fn pids_now(&self, key: &str) -> Result<Vec<(String, i32)>> {
        let object = self.object(key)?;
        let mut pids: Vec<(String, i32)> = replicas(&object)
            .filter_map(|replica| {
                let pid = i32::try_from(replica["pid"].as_i64()?).ok()?;
                Some((replica["container"].as_str()?.to_owned(), pid))
            })
            .collect();
        pids.sort();
        for (name, pid) in &pids {
            ensure!(Path::new(&format!("/proc/{pid}/stat")).exists(), "{name}: pid {pid} is not there");
            self.learn_cgroup(*pid);
        }
        Ok(pids)
    }

    /// Waits for the one container of an object: its id and its pid.
    pub(crate) fn started(&self, key: &str) -> Result<(String, i32)> {
        let (found, _) = wait_for(&format!("{key} runs"), Duration::from_secs(40), || {
            let mut pids = self.pids_now(key)?;
            ensure!(pids.len() == 1, "{} processes", pids.len());
            Ok(pids.remove(0))
        })?;
        Ok(found)
    }

    /// Waits until a Job is called failed with this exit code.
    pub(crate) fn failed_with(&self, key: &str, code: u8) -> Result {
        wait_for(&format!("the end of {key} is known"), Duration::from_secs(20), || {
            let object = self.object(key)?;
            ensure!(object["phase"] == "failed", "{object}");
            let described = self.ok(&["describe", key, "-o", "json"])?;
            let told: String = described.chars().filter(|c| !c.is_whitespace()).collect();
            ensure!(told.contains(&format!("\"code\":{code}")), "the true exit code {code} is not told: {described}");
            Ok(())
        })?;
        Ok(())
    }

    /// Where a container's log files are.
    pub(crate) fn logs_of(&self, container: &str) -> PathBuf {
        self.data_root.join("containers").join(container).join("logs")
    }

    /// The pid of `keeper`, `supervisor`, `switchboard` or `controller`. `boxship controller` itself is the keeper; the one it
    /// starts has `--kept`.
    pub(crate) fn daemon(&self, role: &str) -> Result<i32> {
        let found = audit::processes().into_iter().find(|(_, command)| {
            let words: Vec<&str> = command.split(' ').collect();
            let kept = words.contains(&"--kept");
            let fits = match role {
                "controller" => kept && words.contains(&"controller"),
                "keeper" => !kept && (words.contains(&"keeper") || words.contains(&"controller")),
                other => words.contains(&other),
            };
            words[0].ends_with("boxship") && fits
        });
        found.map(|(pid, _)| pid).ok_or_else(|| format!("no process `{role}`"))
    }

    /// Waits until nothing of boxship is left but the disk, then compares with how it was in the beginning.
    pub(crate) fn nothing_is_left(&self) -> Result {
        wait_for("everything is gone", Duration::from_secs(10), || self.audit().nothing_more_than(&self.before))?;
        Ok(())
    }

    /// What there is now; cgroups are those of this data root's containers.
    pub(crate) fn audit(&self) -> Audit {
        Audit::take(&self.cgroup.borrow())
    }

    /// How many of everything there are now, inside the four processes and on disk too.
    pub(crate) fn measure(&self) -> Result<Counts> {
        let mut counts = self.audit().counts();
        for role in ["keeper", "supervisor", "switchboard", "controller"] {
            counts.insert(role, audit::descriptors(self.daemon(role)?));
        }
        let status = self.status()?;
        let listed = status["objects"].as_array().into_iter().flatten().flat_map(replicas).count();
        let entries = |dir: PathBuf| std::fs::read_dir(dir).map_or(0, Iterator::count);
        counts.insert(
            "container directories too many",
            entries(self.data_root.join("containers")).saturating_sub(listed),
        );
        counts.insert(
            "container run directories too many",
            entries(self.run_dir.join("containers")).saturating_sub(listed),
        );
        counts.insert("records of exits", entries(self.run_dir.join("exits")));
        Ok(counts)
    }

    /// Remembers the component of a container's cgroup path that is this data root's.
    fn learn_cgroup(&self, pid: i32) {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let ours = text.lines().flat_map(|line| line.split('/')).find(|part| part.starts_with("boxship-"));
        if let Some(ours) = ours {
            ours.clone_into(&mut self.cgroup.borrow_mut());
        }
    }

    /// Ends every process but this one and the namespace's first, as a power cut would; the run directory is emptied and the boot
    /// id changes.
    pub(crate) fn reboot(&mut self, number: u32) -> Result {
        ensure!(self.own_pids, "a reboot outside a pid namespace of its own would end the whole machine");
        kill(-1)?;
        let alone = || {
            let others = audit::processes().len();
            ensure!(others <= 2, "{others} processes are left");
            Ok(())
        };
        wait_for("all processes are gone", Duration::from_secs(10), alone)?;
        std::fs::remove_dir_all(&self.run_dir).map_err(|error| format!("empty the run directory: {error}"))?;
        // what a kernel forgets: links (their namespaces are gone with their processes), tables and rules
        let links: Vec<String> = audit_links();
        for link in links.iter().filter(|link| *link != "lo") {
            let _ = run("ip", &["link", "del", link]);
        }
        let _ = run("nft", &["flush", "ruleset"]);
        self.reboot_id(number)?;
        if let Some(registry) = &mut self.registry {
            registry.start_again()?;
        }
        Ok(())
    }

    fn reboot_id(&self, number: u32) -> Result {
        std::fs::write(&self.boot_id, format!("00000000-0000-0000-0000-{number:012}\n"))
            .map_err(|error| format!("write the boot id: {error}"))
    }

    /// Prints what helps to understand a failure.
    pub(crate) fn report(&self) {
        for args in [&["get", "--replicas"][..], &["events"]] {
            let output = self.boxship(args);
            println!("--- boxship {}", args.join(" "));
            print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
        for log in [self.run_dir.join("boxship.log"), self.dir.join("controller.log")] {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            println!("--- {}\n{}", log.display(), lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }

    /// Ends everything that still runs and removes the cgroups of a scenario that failed: the namespaces do the rest.
    pub(crate) fn finish(&mut self) {
        self.registry = None;
        if !self.own_pids {
            return;
        }
        let _ = kill(-1);
        let _ = wait_for("cgroups are removed", Duration::from_secs(3), || {
            let cgroups = audit::cgroups(&self.cgroup.borrow());
            // the deepest first
            let left = cgroups.iter().rev().filter(|dir| std::fs::remove_dir(dir).is_err()).count();
            ensure!(left == 0, "{left} cgroups are left");
            Ok(())
        });
    }
}

/// The kernel's own first pid namespace (PROC_PID_INIT_INO).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The pid namespace of this process.
pub(crate) fn pid_namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

fn audit_links() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    text.lines().skip(2).filter_map(|line| line.split(':').next()).map(|name| name.trim().to_owned()).collect()
}

/// The containers of an object.
pub(crate) fn replicas(object: &Value) -> impl Iterator<Item = &Value> {
    object["replicas"].as_array().into_iter().flatten()
}

/// `kill -9`.
pub(crate) fn kill(pid: i32) -> Result {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .map_err(|error| format!("kill {pid}: {error}"))
}

pub(crate) fn run(program: &str, args: &[&str]) -> Result {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(program).args(args).env("PATH", path).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}
