//! Images end to end: registries that behave and that do not, archives that are hostile, stores that were cut off.
//!
//! The same program is the sandboxed unpacker (`unpack`) and a puller to be killed (`pull DATA_ROOT REFERENCE`), so it
//! brings its own runner. Traffic stays on loopback.

mod archives;
mod differential;
mod dropped;
mod fake;
mod faults;
mod lab;
mod login;
mod power;
mod real;
mod signed;
mod standin;
mod stores;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A test: its name and what it does. `Err` is the reason it was skipped.
type Case = (&'static str, fn() -> Result<(), String>);

const CASES: &[&[Case]] = &[
    archives::CASES,
    differential::CASES,
    faults::CASES,
    standin::CASES,
    login::CASES,
    signed::CASES,
    stores::CASES,
    dropped::CASES,
    power::CASES,
    real::CASES,
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let all = || CASES.iter().flat_map(|cases| cases.iter());
    match args.first().map(String::as_str) {
        Some("unpack") => return runtime::image::unpack_child(&args[1..]),
        Some("pull") => return lab::pull_process(&args[1..]),
        Some("helped") => return login::helped(&args[1..]),
        _ => {}
    }
    let has = |flag: &str| args.iter().any(|a| a == flag);
    if has("--list") {
        // asked for the ignored ones only, there are none
        all().filter(|_| !has("--ignored")).for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let fits = |name: &str, wanted: &str| if has("--exact") { name == wanted } else { name.contains(wanted) };
    let chosen = all().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| fits(name, w)));
    if is_root() {
        own_mounts();
    }
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, case) in chosen {
        let began = std::time::Instant::now();
        let outcome = if is_root() { catch_unwind(AssertUnwindSafe(case)) } else { Ok(Err("needs root".into())) };
        match outcome {
            Ok(Ok(())) => {
                passed += 1;
                println!("test {name} ... ok ({} ms)", began.elapsed().as_millis());
            }
            Ok(Err(why)) => {
                skipped += 1;
                println!("test {name} ... skipped: {why}");
            }
            Err(_) => {
                failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What the tests mount is seen by nobody else.
fn own_mounts() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("an own mount namespace");
    let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).expect("private mounts");
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}
