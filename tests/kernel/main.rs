//! Real containers from a hand-made image, through the runtime's own start path, looked at from both sides.
//!
//! Not under the usual harness: starting containers needs a single-threaded process, and the whole run moves into a
//! network namespace of its own. Needs root and `/bin/busybox` (Debian's busybox-static); says so otherwise.

mod basics;
mod escapes;
mod exec;
mod isolation;
mod lab;
mod limits;
mod network;
mod volumes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use lab::Lab;

type Case = (&'static str, fn(&Lab));

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let cases: Vec<Case> =
        [basics::CASES, isolation::CASES, volumes::CASES, limits::CASES, exec::CASES, network::CASES, escapes::CASES]
            .concat()
            .into_iter()
            .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())))
            .collect();
    if std::env::args().any(|arg| arg == "--list") {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if let Some(why) = why_not() {
        println!("0 passed, 0 failed, {} skipped: {why}", cases.len());
        return ExitCode::SUCCESS;
    }
    let host = std::fs::read_link("/proc/self/ns/net").expect("/proc is mounted");
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
    assert_ne!(host, std::fs::read_link("/proc/self/ns/net").expect("/proc is mounted"), "still in the host's network");
    let lab = Lab::new();
    let mut failed = 0;
    for (name, case) in &cases {
        match catch_unwind(AssertUnwindSafe(|| case(&lab))) {
            Ok(()) => println!("test {name} ... ok"),
            Err(_) => {
                failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
    println!("{} passed, {failed} failed, 0 skipped", cases.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn why_not() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("it takes root to start containers");
    }
    if !std::path::Path::new("/bin/busybox").exists() {
        return Some("/bin/busybox is missing (apt-get install busybox-static)");
    }
    None
}
