//! What only numbers show: many lives with the supervisor killed at random, and many containers that do nothing. Each is a
//! slice here, and whole behind an environment variable.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::Error;
use runtime::runtime::NetworkMode;

use crate::crash::{child_pid, counts, kill_supervisor};
use crate::lab::{DEADLINE, Lab, ok, wait_for};

const THREADS: u8 = 3;

fn setting(name: &str, slice: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(slice)
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    /// Below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Directories of cgroups of this lab in all hierarchies.
fn cgroups(lab: &Lab) -> usize {
    let parent = runtime::linux::cgroup_parent(&lab.own().layout);
    let hierarchies = runtime::cgroup::Hierarchies::of_host().expect("this host has cgroups");
    let roots = std::iter::once(&hierarchies.unified).chain(hierarchies.controllers.iter().map(|(_, root)| root));
    let inside = |root: &PathBuf| std::fs::read_dir(root.join(&parent)).into_iter().flatten().flatten();
    roots.map(|root| inside(root).filter(|entry| entry.path().is_dir()).count()).sum()
}

/// Threads make, stop or kill, and remove containers: no kill of the supervisor makes a call fail, and nothing is left.
/// `BOXSHIP_CYCLES=10000` is the campaign.
pub(crate) fn kills_during_creations_make_no_call_fail(lab: &Lab) {
    let cycles = setting("BOXSHIP_CYCLES", 500);
    let before = counts(lab);
    let done = AtomicU32::new(0);
    let failed = AtomicBool::new(false);
    let work = |thread: u8| {
        let mut random = Random(0x9e37_79b9 + u64::from(thread));
        let mut n = 0_u32;
        while done.load(Ordering::Relaxed) < cycles && !failed.load(Ordering::Relaxed) {
            n += 1;
            live(lab, &format!("storm-{thread}-{n}"), thread, &mut random);
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    let mut kills = 0;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (work, failed) = (&work, &failed);
                scope.spawn(move || {
                    let mark = Mark(failed);
                    work(thread);
                    std::mem::forget(mark);
                })
            })
            .collect();
        let mut random = Random(20_261_121);
        while workers.iter().any(|worker| !worker.is_finished()) {
            kill_supervisor(lab);
            kills += 1;
            // Some come while nobody has done anything since the last, some much later.
            let more = u32::try_from(random.below(30)).unwrap_or(0);
            let (reached, begun) = (done.load(Ordering::Relaxed) + more, Instant::now());
            while done.load(Ordering::Relaxed) < reached && begun.elapsed() < Duration::from_secs(2) {
                std::thread::yield_now();
            }
        }
    });
    println!("  {} lives, {kills} kills", done.load(Ordering::Relaxed));
    assert_eq!(ok("list", lab.runtime().list_containers()), []);
    let grown = || -> BTreeMap<&str, usize> {
        let after = counts(lab).into_iter();
        after
            .filter(|(name, count)| *count > before[name])
            .chain([("cgroups", cgroups(lab))].into_iter().filter(|(_, count)| *count > 0))
            .collect()
    };
    // Namespaces and their links die a moment after their last process.
    let begun = Instant::now();
    while !grown().is_empty() && begun.elapsed() < DEADLINE {
        std::thread::yield_now();
    }
    assert_eq!(grown(), BTreeMap::new(), "before: {before:?}");
}

/// Says that its thread panicked, so that the others end too.
struct Mark<'a>(&'a AtomicBool);

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One life: created, mostly started, stopped or killed or neither, removed.
fn live(lab: &Lab, name: &str, thread: u8, random: &mut Random) {
    let mut config = lab.config(name, &["/bin/sleep"]);
    let address = Ipv4Addr::new(10, 79, 0, 20 + thread);
    config.network = NetworkMode::Bridge { network: lab.network.name.clone(), address, more: Vec::new() };
    let runtime = lab.runtime();
    ok("create", runtime.create_container(&config));
    if random.below(8) > 0 {
        ok("start", runtime.start_container(&config.id));
        if random.below(2) == 0
            && let Some(pid) = lab.find(&config.id).and_then(|info| info.pid)
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        ok("stop", runtime.stop_container(&config.id, Duration::ZERO));
    }
    // A removal cut after its work finds nothing the second time, as its callers know.
    let removed = runtime.remove_container(&config.id);
    assert!(removed.as_ref().is_err_and(Error::is_not_found) || removed.is_ok(), "remove: {removed:?}");
}

/// Most that our own processes may take for one more container.
const PSS_EACH_MAX_KIB: u64 = 30;
/// Most the supervisor may take in all, without the program itself, which tests are built without optimisation.
const SUPERVISOR_MAX_KIB: u64 = 8 << 10;

/// A line of `smaps_rollup`.
fn memory_kib(pid: i32, what: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix(what)).expect("the kernel tells it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn ours(lab: &Lab) -> Vec<(&'static str, i32)> {
    let keeper = i32::try_from(lab.own().keeper.id()).expect("a pid");
    let child = |name| (name, child_pid(lab, name).as_raw());
    vec![("keeper", keeper), child("supervisor"), child("switchboard")]
}

/// How often they woke up so far.
fn wake_ups(lab: &Lab) -> u64 {
    let of = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("it is there");
        line.trim().parse::<u64>().expect("a number")
    };
    ours(lab).into_iter().map(|(_, pid)| of(pid)).sum()
}

/// Containers that do nothing cost memory within bounds, and nobody of ours wakes up for them.
/// `BOXSHIP_DENSITY=1000` is the campaign: docs/benchmarks.md.
pub(crate) fn idle_containers_cost_little(lab: &Lab) {
    let count = setting("BOXSHIP_DENSITY", 50);
    let start = |name: String| {
        let mut config = lab.config(&name, &["/bin/sleep"]);
        config.network = NetworkMode::None;
        lab.run(&config);
    };
    // What the first ones take is taken once.
    (0..5).for_each(|n| start(format!("first-{n}")));
    let measure =
        || -> Vec<(&str, u64)> { ours(lab).into_iter().map(|(name, pid)| (name, memory_kib(pid, "Pss:"))).collect() };
    let sum = |all: &[(&str, u64)]| all.iter().map(|(_, kib)| kib).sum::<u64>();
    let before = measure();
    (0..count).for_each(|n| start(format!("idle-{n}")));
    let after = measure();
    let each = (sum(&after).saturating_sub(sum(&before))) as f64 / f64::from(count);
    println!("  {count} idle containers: {each:.1} KiB PSS each; before {before:?}, after {after:?}");
    assert!(each <= PSS_EACH_MAX_KIB as f64, "{each:.1} KiB each");
    let supervisor = memory_kib(child_pid(lab, "supervisor").as_raw(), "Pss_Anon:");
    println!("  supervisor: {supervisor} KiB beside its program");
    assert!(supervisor <= SUPERVISOR_MAX_KIB, "{supervisor} KiB");
    // The deadlines of the last start are 30 s away: somebody has to have taken them back.
    let supervisor = child_pid(lab, "supervisor").as_raw();
    wait_for("the supervisor to sleep without a deadline", || sleeps_for_ever(supervisor).then_some(()));
    let woken_within = |seconds: u64| {
        let begun = wake_ups(lab);
        std::thread::park_timeout(Duration::from_secs(seconds));
        wake_ups(lab) - begun
    };
    assert!((0..10).any(|_| woken_within(3) == 0), "never three seconds without a wake-up");
    if count > 50 {
        assert_eq!(woken_within(60), 0, "wake-ups in an idle minute");
    }
}

/// Whether a process sits in an epoll_pwait(2) without a timeout, its fourth argument.
fn sleeps_for_ever(pid: i32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/syscall")).expect("it lives");
    let mut words = text.split_ascii_whitespace();
    words.next() == Some(&libc::SYS_epoll_pwait.to_string()) && words.nth(3).is_some_and(|ms| ms.ends_with("ffffffff"))
}
