//! What one container costs: create → start → exit → delete of a static `true`, by a bare program that makes the same
//! kernel calls, by `boxship oci run`, `crun run` and `runc run`, and by the supervisor, for which no program is started.
//!
//! `cargo bench -p controller --bench start` (root; `-- ROUNDS` for more than 30). Each round runs every row once, so
//! that what else the machine does hits all of them. Warm: one after the other; cold: after 200 ms of quiet. What all of
//! them keep below /run by default, state and run directories, is on a tmpfs here too.
//!
//! `-- logs` measures how fast containers may write to their logs instead.

#[path = "start/flood.rs"]
mod flood;
#[path = "start/supervised.rs"]
mod supervised;

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde_json::{Value, json};

use supervised::Supervised;

/// The program people run.
const BOXSHIP: &str = env!("CARGO_BIN_EXE_boxship");
/// Directory of the cgroups of all rows in each hierarchy.
const CGROUP_PARENT: &str = "boxship-bench";
const QUIET: Duration = Duration::from_millis(200);

/// One row.
struct Row {
    name: &'static str,
    how: How,
    /// Wall and CPU seconds of each round.
    taken: Vec<(f64, f64)>,
}

enum How {
    /// Program and arguments; crun 1.8 is not shown the v2 tree of a hybrid host, which it refuses.
    Program {
        program: PathBuf,
        args: Vec<String>,
        without_unified: bool,
    },
    Supervisor(Box<Supervised>),
}

/// The two views of mounts programs are started from.
struct Views {
    whole: fs::File,
    without_unified: fs::File,
}

fn main() -> ExitCode {
    if let Some(code) = supervised::daemon() {
        return code;
    }
    let rounds: usize = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(30);
    if !nix::unistd::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("skipped: it takes root and /bin/busybox (apt-get install busybox-static)");
        return ExitCode::SUCCESS;
    }
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let run = tempfile::tempdir_in("/dev/shm").expect("there is a tmpfs");
    if std::env::args().any(|arg| arg == "logs") {
        flood::measure(dir.path(), run.path());
        return ExitCode::SUCCESS;
    }
    make_parents();
    let mut rows = rows(dir.path(), run.path());
    let views = views();
    for (title, pause, rounds) in [("warm", Duration::ZERO, rounds), ("cold", QUIET, rounds.div_ceil(2))] {
        rows.iter_mut().for_each(|row| row.taken.clear());
        for round in 0..=rounds {
            for row in &mut rows {
                quiet(pause);
                let taken = row.how.once(&views);
                // The first fills caches.
                if round > 0 {
                    row.taken.push(taken);
                }
            }
        }
        print(title, &rows);
    }
    drop(rows);
    remove_parents();
    ExitCode::SUCCESS
}

fn rows(dir: &Path, run: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name, program: &str, before: &[&str], without_unified| {
        let own = dir.join(name);
        make_bundle(&own, name);
        let mut args: Vec<String> = before.iter().map(|&word| word.to_owned()).collect();
        let path = |path: &Path| path.to_string_lossy().into_owned();
        args.extend(["--root".into(), path(&run.join(name)), "run".into(), "--bundle".into(), path(&own)]);
        args.push(format!("bench-{name}"));
        rows.push(Row {
            name,
            how: How::Program { program: program.into(), args, without_unified },
            taken: Vec::new(),
        });
    };
    add("boxship-oci", BOXSHIP, &["oci"], false);
    let hybrid = Path::new("/sys/fs/cgroup/unified").exists();
    for (name, program, without_unified) in [("crun", "/usr/bin/crun", hybrid), ("runc", "/usr/sbin/runc", false)] {
        if Path::new(program).exists() {
            add(name, program, &[], without_unified);
        } else {
            println!("skipped: {program} is not installed");
        }
    }
    rows.insert(0, Row { name: "bare", how: floor(dir), taken: Vec::new() });
    rows.push(Row { name: "supervisor", how: How::Supervisor(Box::new(Supervised::new(dir, run))), taken: Vec::new() });
    rows
}

/// The bare program, built from C so that it shares nothing with what is measured.
fn floor(dir: &Path) -> How {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/start/floor.c");
    let program = dir.join("floor");
    let built = Command::new("cc").args(["-O2", "-static", "-o"]).arg(&program).arg(source).status();
    assert!(built.expect("a C compiler").success(), "floor.c does not compile");
    let args = vec![dir.join("boxship-oci/rootfs").to_string_lossy().into_owned(), format!("/{CGROUP_PARENT}/floor")];
    How::Program { program, args, without_unified: false }
}

fn make_bundle(dir: &Path, name: &str) {
    for part in ["bin", "proc", "dev", "sys"] {
        fs::create_dir_all(dir.join("rootfs").join(part)).unwrap();
    }
    fs::copy("/bin/busybox", dir.join("rootfs/bin/true")).unwrap();
    let made = Command::new(BOXSHIP).args(["oci", "spec", "--bundle"]).arg(dir).status().unwrap();
    assert!(made.success());
    let mut spec: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
    // What the oldest of them understands.
    spec["ociVersion"] = json!("1.0.2");
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/bin/true"]);
    spec["linux"]["cgroupsPath"] = json!(format!("/{CGROUP_PARENT}/{name}"));
    spec["linux"]["resources"] = json!({
        "memory": {"limit": 256 << 20},
        "pids": {"limit": 100},
        "devices": [{"allow": false, "access": "rwm"}],
    });
    fs::write(dir.join("config.json"), spec.to_string()).unwrap();
}

impl How {
    /// Wall and CPU seconds.
    fn once(&mut self, views: &Views) -> (f64, f64) {
        match self {
            Self::Supervisor(supervised) => supervised.once(),
            Self::Program { program, args, without_unified } => {
                let view = if *without_unified { &views.without_unified } else { &views.whole };
                setns(view.as_fd(), CloneFlags::CLONE_NEWNS).expect("this program has one thread");
                let before = cpu_of_children();
                let begin = Instant::now();
                let ended = Command::new(&*program).args(&*args).stdin(Stdio::null()).status().unwrap();
                let wall = begin.elapsed().as_secs_f64();
                assert!(ended.success(), "{} ended with {ended}", program.display());
                setns(views.whole.as_fd(), CloneFlags::CLONE_NEWNS).expect("it came from there");
                (wall, cpu_of_children() - before)
            }
        }
    }
}

/// Lets the kernel come to rest: that is what is measured, there is no state to wait for.
fn quiet(pause: Duration) {
    let timeout = nix::poll::PollTimeout::try_from(pause).expect("a short time");
    let _ = nix::poll::poll(&mut [], timeout);
}

fn cpu_of_children() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let micros = (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64;
    micros / 1e6
}

fn views() -> Views {
    let own = || fs::File::open("/proc/self/ns/mnt").unwrap();
    let whole = own();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).unwrap();
    // Where there is none, there is nothing to hide.
    let _ = nix::mount::umount2("/sys/fs/cgroup/unified", MntFlags::empty());
    let without_unified = own();
    setns(whole.as_fd(), CloneFlags::CLONE_NEWNS).unwrap();
    Views { whole, without_unified }
}

/// Roots of all hierarchies of this host.
fn hierarchies() -> Vec<PathBuf> {
    let found = runtime::cgroup::Hierarchies::all_of_host().expect("this host has cgroups");
    std::iter::once(found.unified.clone()).chain(found.controllers.iter().map(|(_, root)| root.clone())).collect()
}

fn make_parents() {
    for root in hierarchies() {
        let _ = fs::create_dir(root.join(CGROUP_PARENT));
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(inherited) = fs::read_to_string(root.join(file)) {
                let _ = fs::write(root.join(CGROUP_PARENT).join(file), inherited.trim());
            }
        }
        let _ = fs::write(root.join(CGROUP_PARENT).join("cgroup.subtree_control"), "+memory +pids");
    }
}

fn remove_parents() {
    for root in hierarchies() {
        let _ = fs::remove_dir(root.join(CGROUP_PARENT));
    }
}

fn print(title: &str, rows: &[Row]) {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("\n{title}, ms            load {}", load.split(' ').next().unwrap_or_default());
    println!("{:<12} {:>22} {:>10} {:>10} {:>10}", "", "wall: median (least)", "CPU: mean", "wall/crun", "CPU/crun");
    let crun = rows.iter().find(|row| row.name == "crun").map(figures);
    for row in rows {
        let mine = figures(row);
        let ratio = |which: fn(&Figures) -> f64| {
            crun.as_ref().map_or("-".to_owned(), |crun| format!("{:.2}", which(&mine) / which(crun)))
        };
        let wall = format!("{:.1} ({:.1})", mine.wall, mine.least);
        let (by_wall, by_cpu) = (ratio(|figures| figures.wall), ratio(|figures| figures.cpu));
        println!("{:<12} {wall:>22} {:>10.1} {by_wall:>10} {by_cpu:>10}", row.name, mine.cpu);
    }
}

/// Milliseconds.
struct Figures {
    wall: f64,
    least: f64,
    cpu: f64,
}

fn figures(row: &Row) -> Figures {
    let mut walls: Vec<f64> = row.taken.iter().map(|(wall, _)| wall * 1e3).collect();
    walls.sort_by(f64::total_cmp);
    let cpu = row.taken.iter().map(|(_, cpu)| cpu * 1e3).sum::<f64>() / row.taken.len() as f64;
    Figures { wall: walls[walls.len() / 2], least: walls[0], cpu }
}
