//! Cold pulls side by side: `cargo bench -p controller --bench pull -- [ROUNDS]`, as root, a few minutes.
//!
//! A registry on loopback, blobs in the page cache, stores on a loop device with a journaled ext4 (without a journal,
//! ext4 skips inodes deleted a moment ago, and every second round measures that). Everything runs in a mount and network
//! namespace of its own and, with cgroup v1, in a cgroup whose CPU time is told. Rounds are interleaved.
//! `BOXSHIP_BENCH=/path/to/boxship` measures another binary; `PEERS=boxship,docker` only some.

mod aims;
mod image;
mod peers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use image::Pack;
use peers::Peer;

/// Where it all happens.
pub(crate) struct Ground {
    /// Sockets, logs, the registry's storage.
    pub(crate) dir: PathBuf,
    /// The mounted disk.
    pub(crate) disk: PathBuf,
    /// `HOST:PORT`.
    pub(crate) registry: String,
}

const DISK_BYTES: u64 = 12 << 30;

fn main() {
    let rounds = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(3);
    if !rustix::process::geteuid().is_root() {
        println!("skipped: mounts a disk, which needs root");
        return;
    }
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pull");
    let layouts: Vec<(Pack, PathBuf)> = [Pack::Gzip, Pack::Zstd].map(|pack| (pack, layout(&work, pack))).into();
    own_namespaces();
    let usage = own_cgroup();
    let ground = prepare(&work, &layouts);
    let mut peers = peers::all(&ground);
    if let Ok(wanted) = std::env::var("PEERS") {
        peers.retain(|peer| wanted.split(',').any(|w| peer.name.starts_with(w)));
    }
    let mut seen: BTreeMap<(usize, &'static str, &'static str), Vec<Sample>> = BTreeMap::new();
    for round in 0..rounds {
        for (pack, layout) in &layouts {
            for (n, peer) in peers.iter().enumerate().filter(|(_, p)| p.reads.contains(pack)) {
                let Some(sample) = once(peer, *pack, layout, usage.as_deref()) else { continue };
                println!("{round} {} {}: {sample:?}", pack.name(), peer.name);
                seen.entry((n, peer.name, pack.name())).or_default().push(sample);
            }
        }
    }
    let met = aims::print(&report(&seen));
    drop(peers);
    let _ = std::fs::remove_dir_all(std::env::temp_dir().join(format!("boxship-bench-{}", std::process::id())));
    let _ = Command::new(script()).arg("stop").arg(ground.dir.join("registry")).status();
    // daemons may have mounted parts of it once more
    run("umount", &["--lazy", text(&ground.disk)]);
    if let Some(group) = usage.as_deref().and_then(Path::parent) {
        let _ = std::fs::write("/sys/fs/cgroup/cpuacct/cgroup.procs", std::process::id().to_string());
        let _ = std::fs::remove_dir(group);
    }
    for left in ["disk.img", "run"] {
        let _ = std::fs::remove_file(work.join(left)).or_else(|_| std::fs::remove_dir_all(work.join(left)));
    }
    println!("\n{}", if met { "every aim that was measured is met" } else { "not every aim is met" });
}

/// One cold pull.
#[derive(Debug, Clone, Copy)]
struct Sample {
    wall: Duration,
    cpu: Duration,
    /// Anonymous memory of the puller and its children, at its peak; not that of daemons.
    anon_kib: u64,
    warm: Duration,
}

fn once(peer: &Peer, pack: Pack, layout: &Path, usage: Option<&Path>) -> Option<Sample> {
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line]).env("PACK", pack.name()).env("LAYERS", layout.join("layers"));
        command.env("UNPACK", if pack == Pack::Gzip { "gzip -dc" } else { "zstd -dc" });
        command.stdout(Stdio::null());
        command
    };
    let cpu = || usage.and_then(|u| std::fs::read_to_string(u).ok()?.trim().parse().ok()).unwrap_or(0_u64);
    let timed = || {
        let (began, before) = (Instant::now(), cpu());
        let (status, anon_kib) = wait_measuring(shell(&peer.pull).spawn().expect("start"));
        if !status.success() {
            println!("{} does not pull {}: {status}", peer.name, pack.name());
            return None;
        }
        Some((began.elapsed(), Duration::from_nanos(cpu() - before), anon_kib))
    };
    rustix::fs::sync();
    let (wall, cpu, anon_kib) = timed()?;
    let is_store = !peer.pull.contains("$LAYERS");
    let warm = if is_store { timed()?.0 } else { Duration::ZERO };
    shell(&peer.forget).status().expect("start");
    Some(Sample { wall, cpu, anon_kib, warm })
}

/// How it ended, and the most anonymous memory it and its children had, in KiB.
fn wait_measuring(mut child: Child) -> (ExitStatus, u64) {
    let mut anon_kib = 0;
    loop {
        anon_kib = anon_kib.max(anonymous(child.id()));
        match child.try_wait().expect("wait") {
            Some(status) => return (status, anon_kib),
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// RssAnon of a process and those below it.
fn anonymous(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let own = status.lines().find_map(|l| l.strip_prefix("RssAnon:")?.split_whitespace().next()?.parse().ok());
    let mut all = own.unwrap_or(0);
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all += children.split_whitespace().filter_map(|c| c.parse().ok()).map(anonymous).sum::<u64>();
    }
    all
}

/// Medians of one peer and one packing.
pub(crate) struct Figures {
    pub(crate) peer: &'static str,
    pub(crate) pack: &'static str,
    pub(crate) wall_ms: u128,
    pub(crate) anon_mib: u128,
    pub(crate) warm_ms: u128,
}

fn report(seen: &BTreeMap<(usize, &'static str, &'static str), Vec<Sample>>) -> Vec<Figures> {
    let mut all = Vec::new();
    println!(
        "\n| cold pull | layers | wall ms, median [min..max] | CPU ms | anonymous MiB | warm ms |\n|---|---|---|---|---|---|"
    );
    for ((_, peer, pack), samples) in seen {
        let of = |what: &dyn Fn(&Sample) -> u128| {
            let mut all: Vec<u128> = samples.iter().map(what).collect();
            all.sort_unstable();
            (all[all.len() / 2], all[0], all[all.len() - 1])
        };
        let (wall, min, max) = of(&|s| s.wall.as_millis());
        let (cpu, ..) = of(&|s| s.cpu.as_millis());
        let (anon, ..) = of(&|s| u128::from(s.anon_kib / 1024));
        let (warm, ..) = of(&|s| s.warm.as_millis());
        println!("| {peer} | {pack} | {wall} [{min}..{max}] | {cpu} | {anon} | {warm} |");
        all.push(Figures { peer, pack, wall_ms: wall, anon_mib: anon, warm_ms: warm });
    }
    all
}

/// The layout and, beside it, `layers` with links to its layers alone. Made once.
fn layout(work: &Path, pack: Pack) -> PathBuf {
    let dir = work.join(format!("image-{}", pack.name()));
    if !dir.join("layers").exists() {
        let _ = std::fs::remove_dir_all(&dir);
        println!("making the image with {} layers", pack.name());
        let layers = image::make(&dir, pack);
        std::fs::create_dir_all(dir.join("links")).expect("make a directory");
        for (n, layer) in layers.iter().enumerate() {
            std::os::unix::fs::symlink(layer, dir.join("links").join(n.to_string())).expect("link");
        }
        std::fs::rename(dir.join("links"), dir.join("layers")).expect("rename");
    }
    dir
}

fn own_namespaces() {
    let spaces = nix::sched::CloneFlags::CLONE_NEWNS | nix::sched::CloneFlags::CLONE_NEWNET;
    nix::sched::unshare(spaces).expect("own namespaces");
    let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).expect("private mounts");
    run("ip", &["link", "set", "lo", "up"]);
}

/// A cgroup v1 group for the CPU time of everything below; `None` where there is none.
fn own_cgroup() -> Option<PathBuf> {
    let dir = PathBuf::from(format!("/sys/fs/cgroup/cpuacct/boxship-bench-{}", std::process::id()));
    std::fs::create_dir(&dir).ok()?;
    std::fs::write(dir.join("cgroup.procs"), std::process::id().to_string()).ok()?;
    Some(dir.join("cpuacct.usage"))
}

fn prepare(work: &Path, layouts: &[(Pack, PathBuf)]) -> Ground {
    let (image, disk, dir) = (work.join("disk.img"), work.join("disk"), work.join("run"));
    let _ = std::fs::remove_dir_all(&dir);
    for made in [&disk, &dir] {
        std::fs::create_dir_all(made).expect("make a directory");
    }
    let _ = std::fs::remove_file(&image);
    std::fs::File::create(&image).and_then(|f| f.set_len(DISK_BYTES)).expect("make a disk");
    run("mkfs.ext4", &["-q", "-O", "has_journal", "-E", "lazy_itable_init=0,lazy_journal_init=0", text(&image)]);
    run("mount", &["-o", "loop", text(&image), text(&disk)]);
    let started = Command::new(script()).arg("start").arg(work.join("storage")).arg(dir.join("registry")).output();
    let started = started.expect("start the registry");
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let registry = format!("127.0.0.1:{}", String::from_utf8_lossy(&started.stdout).trim());
    for (pack, layout) in layouts {
        let from = format!("oci:{}:1", layout.display());
        let to = format!("docker://{registry}/bench:{}", pack.name());
        run(
            "skopeo",
            &["--insecure-policy", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false", &from, &to],
        );
    }
    Ground { dir, disk, registry }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images/registry.sh")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(status.success(), "{program} {args:?}: {status}");
}
