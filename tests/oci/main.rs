//! The OCI command line, case by case, against `boxship oci` and, where they are installed, runc and crun: that the
//! peers agree is what shows that a case asks for the right thing. Where one does not, the case says which and why.
//!
//! A runner of its own, since cases need root, `/bin/busybox` (Debian's busybox-static) and say so otherwise.

mod hooks;
mod lab;
mod lifecycle;
mod linux;
mod mounts;
mod podman;
mod process;
mod suites;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use lab::{Peer, Runtime};

/// One case: its name, the peers that do not agree, what is asked.
type Case = (&'static str, &'static [&'static str], fn(&Peer));

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let all =
        [lifecycle::CASES, process::CASES, mounts::CASES, linux::CASES, hooks::CASES, suites::CASES, podman::CASES]
            .concat();
    let cases: Vec<Case> = all.into_iter().filter(|(name, ..)| is_wanted(name)).collect();
    for (name, ..) in &cases {
        assert!(include_str!("../../docs/oci.md").contains(&format!("`{name}`")), "docs/oci.md does not name {name}");
    }
    if std::env::args().any(|arg| arg == "--list") {
        cases.iter().for_each(|(name, ..)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if let Some(why) = lab::why_not() {
        println!("0 passed, 0 failed, {} skipped: {why}", cases.len());
        return ExitCode::SUCCESS;
    }
    let runtimes = lab::runtimes();
    let left = Mutex::new(jobs(&cases, &runtimes));
    let ended: Vec<bool> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| work(&left))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|_| vec![false])).collect()
    });
    lab::sweep_cgroups();
    let names: Vec<&str> = runtimes.iter().map(|runtime| runtime.name).collect();
    let passed = ended.iter().filter(|ended| **ended).count();
    println!("{passed} passed, {} failed, 0 skipped ({})", ended.len() - passed, names.join(", "));
    if passed == ended.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many cases run beside each other: most of a case is waiting for the kernel.
const WORKERS: usize = 4;

/// Every case against every runtime that agrees with it, podman's last.
fn jobs<'a>(cases: &'a [Case], runtimes: &'a [Runtime]) -> Vec<(&'a Case, &'a Runtime)> {
    let each = cases.iter().flat_map(|case| runtimes.iter().map(move |runtime| (case, runtime)));
    each.filter(|((_, differ, _), runtime)| !differ.contains(&runtime.name)).collect()
}

/// Takes cases until none is left; whether each one passed.
fn work(left: &Mutex<Vec<(&Case, &Runtime)>>) -> Vec<bool> {
    let mut ended = Vec::new();
    loop {
        // The last ones are podman's, which take longest.
        let Some(((name, _, case), runtime)) = left.lock().ok().and_then(|mut left| left.pop()) else { return ended };
        let begin = Instant::now();
        let peer = Peer::new(runtime);
        let passed = catch_unwind(AssertUnwindSafe(|| case(&peer))).is_ok();
        peer.sweep();
        let how = if passed { "ok" } else { "FAILED" };
        println!("test {name} ({}) ... {how} ({:.1} s)", runtime.name, begin.elapsed().as_secs_f32());
        ended.push(passed);
    }
}
