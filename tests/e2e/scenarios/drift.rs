//! Thirty kinds of drift made by hand, all at once, each on an App of its own: every one is undone without a word from
//! anybody, within the loop's resync period at most. What was undone is read from the kernel or the wire.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{alone, on_images};
use crate::http;
use crate::lab::{Lab, kill, replicas};
use crate::wait::wait_for;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[alone(on_images("thirty_kinds_of_drift_are_undone", 150, all_kinds))];

/// The loop looks every 30 s whether or not anything rang; what it sees then takes it some time to put right.
const UNDONE: Duration = Duration::from_secs(60);

/// One kind: the name of its stack and App, the damage, and how it is seen undone.
type Drift = (&'static str, fn(&Victim) -> Result, fn(&Victim) -> Result);

const KINDS: [Drift; 30] = [
    ("process-killed", |v| kill(v.pid), replaced),
    ("cgroup-killed", |v| write(&v.cgroup("cgroup.kill")?, "1"), replaced),
    ("frozen", |v| write(&v.cgroup("cgroup.freeze")?, "1"), untouched),
    ("memory-raised", memory_raised, limits_hold),
    ("memory-lowered", |v| v.set(&["memory.limit_in_bytes", "memory.max"], "33554432"), limits_hold),
    ("pids-raised", |v| v.set(&["pids.max"], "77"), limits_hold),
    ("cpu-raised", |v| v.set(&["cpu.cfs_quota_us", "cpu.max"], "90000"), limits_hold),
    ("directory-deleted", |v| remove(&v.dir()), replaced),
    ("config-deleted", |v| remove(&v.dir().join("config.json")), config_is_whole),
    ("config-damaged", |v| write(&v.dir().join("config.json"), "{\"id\": 7"), config_is_whole),
    ("config-emptied", |v| write(&v.dir().join("config.json"), ""), config_is_whole),
    ("created-twice", created_twice, no_copy),
    ("file-changed", |v| v.lab.write("file-changed/word", "after\n"), says_after),
    ("volume-label-deleted", |v| remove(&v.volume_label()), |v| exists(&v.volume_label())),
    ("veth-deleted", |v| ip(&["link", "del", &v.veth]), replaced),
    ("veth-down", |v| ip(&["link", "set", &v.veth, "down"]), untouched),
    ("veth-off-bridge", |v| ip(&["link", "set", &v.veth, "nomaster"]), untouched),
    ("address-removed", |v| v.inside(&["ip", "address", "flush", "dev", "eth0"]), replaced),
    ("route-removed", |v| v.inside(&["ip", "route", "del", "default"]), replaced),
    ("interface-down", |v| v.inside(&["ip", "link", "set", "eth0", "down"]), replaced),
    ("interface-deleted", |v| v.inside(&["ip", "link", "del", "eth0"]), replaced),
    ("bridge-deleted", |v| ip(&["link", "del", &v.bridge]), untouched),
    ("bridge-down", |v| ip(&["link", "set", &v.bridge, "down"]), untouched),
    ("bridge-flushed", |v| ip(&["address", "flush", "dev", &v.bridge]), untouched),
    ("bridge-address", |v| ip(&["address", "add", "192.0.2.7/24", "dev", &v.bridge]), no_strange_address),
    ("record-deleted", |v| remove(&v.network_record()), |v| exists(&v.network_record()).and_then(|()| untouched(v))),
    ("rules-flushed", |_| run("nft", &["flush", "ruleset"]), |_| rules_are_loaded()),
    ("forwarding-off", |_| write(Path::new(FORWARD), "0"), |_| says(Path::new(FORWARD), "1")),
    ("stray-link", |v| ip(&["link", "add", &v.stray(), "type", "bridge"]), no_stray),
    ("switchboard-killed", |v| kill(v.lab.daemon("switchboard")?), names_are_answered),
];

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

fn all_kinds(lab: &mut Lab) -> Result {
    for (name, ..) in KINDS {
        lab.write(&format!("{name}/word"), "before\n")?;
        lab.write(&format!("{name}/app.yaml"), &app(lab, name))?;
    }
    lab.start_controller()?;
    for (name, ..) in KINDS {
        lab.ready(&format!("app/{name}"), 1, Duration::from_secs(60))?;
    }
    let victims = KINDS.iter().map(|(name, ..)| Victim::of(lab, name)).collect::<Result<Vec<_>>>()?;
    let begin = Instant::now();
    for ((name, make, _), victim) in KINDS.iter().zip(&victims) {
        make(victim).map_err(|why| format!("{name}: not made: {why}"))?;
    }
    let mut left: Vec<usize> = (0..KINDS.len()).collect();
    let mut times = Vec::new();
    let outcome = wait_for("every drift is undone", UNDONE, || {
        let mut whys = Vec::new();
        left.retain(|&at| match KINDS[at].2(&victims[at]) {
            Ok(()) => {
                times.push(format!("{} {:.1}", KINDS[at].0, begin.elapsed().as_secs_f32()));
                false
            }
            Err(why) => {
                whys.push(format!("{}: {why}", KINDS[at].0));
                true
            }
        });
        ensure!(left.is_empty(), "{}", whys.join("; "));
        Ok(())
    });
    println!("measured: seconds until undone: {}", times.join(", "));
    outcome?;
    // and all of them together are well, with nothing more to do
    for (name, ..) in KINDS {
        lab.ready(&format!("app/{name}"), 1, Duration::from_secs(20))?;
    }
    wait_for("nothing is left to do", Duration::from_secs(20), || {
        let plan = lab.ok(&["plan", "-o", "json"])?;
        let plan: serde_json::Value = serde_json::from_str(&plan).map_err(|error| error.to_string())?;
        ensure!(plan["plan"]["steps"].as_array().is_some_and(Vec::is_empty), "planned: {}", plan["plan"]["steps"]);
        Ok(())
    })?;
    Ok(())
}

fn app(lab: &Lab, name: &str) -> String {
    format!(
        "apiVersion: boxship/v1\nkind: Volume\nname: data\n---\n\
         apiVersion: boxship/v1\nkind: App\nname: {name}\nimage: {}\n\
         entrypoint: [/bin/busybox, httpd, -f, -p, \"80\", -h, /www]\n\
         healthcheck: {{tcp: \":80\", interval: 2s}}\nresources: {{cpu: 500m, memory: 64Mi, pids: 50}}\n\
         mounts:\n- {{path: /www/word, file: ./word, onChange: roll}}\n- {{path: /data, volume: data}}\n",
        lab.image("busybox:1")
    )
}

/// An App as it was before.
struct Victim<'a> {
    lab: &'a Lab,
    name: &'static str,
    container: String,
    pid: i32,
    address: String,
    /// The host's end of its link, and the bridge that is on.
    veth: String,
    bridge: String,
}

impl<'a> Victim<'a> {
    fn of(lab: &'a Lab, name: &'static str) -> Result<Self> {
        let (container, pid) = lab.pids(&format!("app/{name}"))?.pop().ok_or("no container")?;
        let object = lab.object(&format!("app/{name}"))?;
        let address = replicas(&object).find_map(|replica| replica["address"].as_str().map(str::to_owned));
        // `2: eth0@if37: …` inside, `37: bv-…@if2: … master bx-… state UP …` outside
        let within = output("nsenter", &["-t", &pid.to_string(), "--net", "ip", "-o", "link", "show", "eth0"])?;
        let index = within.split("@if").nth(1).and_then(|rest| rest.split(':').next()).ok_or("no eth0")?.to_owned();
        let links = output("ip", &["-o", "link"])?;
        let line = links.lines().find(|line| line.starts_with(&format!("{index}: "))).ok_or("no host end")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let veth = words[1].split('@').next().unwrap_or_default().to_owned();
        let master = words.iter().position(|word| *word == "master").and_then(|at| words.get(at + 1));
        let bridge = (*master.ok_or("on no bridge")?).to_owned();
        let address = address.ok_or("no address")?;
        Ok(Self { lab, name, container, pid, address, veth, bridge })
    }

    fn dir(&self) -> PathBuf {
        self.lab.data_root.join("containers").join(&self.container)
    }

    fn copy(&self) -> PathBuf {
        self.lab.data_root.join("containers").join(format!("{}x", self.container))
    }

    fn volume_label(&self) -> PathBuf {
        let volumes = std::fs::read_dir(self.lab.data_root.join("volumes")).into_iter().flatten().flatten();
        let own = format!("{}-data", self.name);
        let found = volumes.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains(&own));
        found.unwrap_or_default().join("volume.json")
    }

    fn network_record(&self) -> PathBuf {
        self.lab.data_root.join("networks").join(format!("{}.json", self.name))
    }

    /// A link with our mark that is nobody's.
    fn stray(&self) -> String {
        format!("{}stray", &self.veth[..8])
    }

    /// The file of this name in one of the container's cgroups.
    fn cgroup(&self, file: &str) -> Result<PathBuf> {
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).map_err(|error| error.to_string())?;
        let mut paths = text.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let path = path.trim_start_matches('/');
            let roots = [controllers, "unified", ""].map(|root| Path::new("/sys/fs/cgroup").join(root));
            roots.into_iter().map(|root| root.join(path).join(file)).find(|path| path.exists())
        });
        paths.next_back().ok_or_else(|| format!("no {file}"))
    }

    /// Writes to the first of these files the host has.
    fn set(&self, files: &[&str], value: &str) -> Result {
        let path = files.iter().find_map(|file| self.cgroup(file).ok()).ok_or("no such limit here")?;
        write(&path, value)
    }

    /// Runs a program of the host in the container's network.
    fn inside(&self, command: &[&str]) -> Result {
        let pid = self.pid.to_string();
        let words: Vec<&str> = ["-t", &pid, "--net"].iter().chain(command).copied().collect();
        run("nsenter", &words)
    }
}

fn page(address: &str) -> Result<String> {
    let at = format!("{address}:80").parse().map_err(|error| format!("{address}: {error}"))?;
    Ok(http::get_from(at, "/word", Duration::from_millis(500))?.body)
}

/// The one replica the status calls ready; it answers.
fn now(victim: &Victim) -> Result<String> {
    let object = victim.lab.object(&format!("app/{}", victim.name))?;
    let replica = replicas(&object).find(|replica| replica["ready"] == true).ok_or("not ready")?;
    page(replica["address"].as_str().unwrap_or_default())?;
    Ok(replica["container"].as_str().unwrap_or_default().to_owned())
}

/// Another container answers.
fn replaced(victim: &Victim) -> Result {
    let container = now(victim)?;
    ensure!(container != victim.container, "still {container}");
    Ok(())
}

/// The same process answers at the same address.
fn untouched(victim: &Victim) -> Result {
    page(&victim.address)?;
    let container = now(victim)?;
    ensure!(container == victim.container, "replaced by {container}");
    exists(Path::new(&format!("/proc/{}", victim.pid)))
}

fn limits_hold(victim: &Victim) -> Result {
    let memory = victim.cgroup("memory.limit_in_bytes").or_else(|_| victim.cgroup("memory.max"))?;
    says(&memory, "67108864")?;
    says(&victim.cgroup("pids.max")?, "50")?;
    match victim.cgroup("cpu.cfs_quota_us") {
        Ok(quota) => says(&quota, "50000")?,
        Err(_) => says(&victim.cgroup("cpu.max")?, "50000 100000")?,
    }
    untouched(victim)
}

fn config_is_whole(victim: &Victim) -> Result {
    let text = std::fs::read(victim.dir().join("config.json")).map_err(|error| error.to_string())?;
    let config: serde_json::Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    ensure!(config["id"] == *victim.container, "{config}");
    untouched(victim)
}

/// v1 takes no limit above the one of memory and swap together.
fn memory_raised(victim: &Victim) -> Result {
    let _ = victim.set(&["memory.memsw.limit_in_bytes"], "99999744");
    victim.set(&["memory.limit_in_bytes", "memory.max"], "99999744")
}

/// A container that claims to be the same replica.
fn created_twice(victim: &Victim) -> Result {
    let text = std::fs::read_to_string(victim.dir().join("config.json")).map_err(|error| error.to_string())?;
    std::fs::create_dir(victim.copy()).map_err(|error| error.to_string())?;
    let copy = text.replace(&victim.container, &format!("{}x", victim.container));
    write(&victim.copy().join("config.json"), &copy)
}

fn no_copy(victim: &Victim) -> Result {
    ensure!(!victim.copy().exists(), "the copy is still there");
    untouched(victim)
}

fn says_after(victim: &Victim) -> Result {
    let object = victim.lab.object(&format!("app/{}", victim.name))?;
    let replica = replicas(&object).find(|replica| replica["ready"] == true).ok_or("not ready")?;
    let word = page(replica["address"].as_str().unwrap_or_default())?;
    ensure!(word == "after\n", "says {word:?}");
    Ok(())
}

fn no_strange_address(victim: &Victim) -> Result {
    let addresses = output("ip", &["-o", "address", "show", "dev", &victim.bridge])?;
    ensure!(!addresses.contains("192.0.2.7"), "{addresses}");
    untouched(victim)
}

fn rules_are_loaded() -> Result {
    let tables = output("nft", &["list", "tables"])?;
    ensure!(tables.contains("boxship"), "tables: {tables:?}");
    Ok(())
}

fn no_stray(victim: &Victim) -> Result {
    let links = output("ip", &["-o", "link"])?;
    ensure!(!links.contains(&victim.stray()), "{} is still there", victim.stray());
    Ok(())
}

fn names_are_answered(victim: &Victim) -> Result {
    let key = format!("app/{}", victim.name);
    victim.lab.ok(&["exec", &key, "--", "/bin/busybox", "nslookup", victim.name]).map(drop)
}

fn exists(path: &Path) -> Result {
    ensure!(path.exists(), "no {}", path.display());
    Ok(())
}

fn says(path: &Path, text: &str) -> Result {
    let found = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    ensure!(found.trim() == text, "{} says {found:?}", path.display());
    Ok(())
}

fn write(path: &Path, text: &str) -> Result {
    std::fs::write(path, text).map_err(|error| format!("write {}: {error}", path.display()))
}

fn remove(path: &Path) -> Result {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    removed.map_err(|error| format!("remove {}: {error}", path.display()))
}

fn ip(args: &[&str]) -> Result {
    run("ip", args)
}

fn run(program: &str, args: &[&str]) -> Result {
    output(program, args).map(drop)
}

fn output(program: &str, args: &[&str]) -> Result<String> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(program).args(args).env("PATH", path).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {said}", args.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
