//! `boxship image …` with the real binary on real data roots where no controller runs, named after the rows of users'
//! behaviours they are about. Docker's registry, skopeo and podman judge what leaves us. Traffic stays on loopback.

#[path = "cli/archives.rs"]
mod archives;
#[path = "cli/desk.rs"]
mod desk;
#[expect(dead_code, reason = "shared with the other half of these tests")]
mod fake;
#[expect(dead_code, reason = "shared with the other half of these tests")]
mod lab;
#[path = "cli/made.rs"]
mod made;
#[path = "cli/names.rs"]
mod names;
#[path = "cli/remote.rs"]
mod remote;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A test: its name and what it does. `Err` is the reason it was skipped.
type Case = (&'static str, fn() -> Result<(), String>);

const CASES: &[&[Case]] = &[names::CASES, made::CASES, desk::CASES, archives::CASES, remote::CASES];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let all = || CASES.iter().flat_map(|cases| cases.iter());
    let has = |flag: &str| args.iter().any(|a| a == flag);
    if has("--list") {
        all().filter(|_| !has("--ignored")).for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let fits = |name: &str, wanted: &str| if has("--exact") { name == wanted } else { name.contains(wanted) };
    let is_root = rustix::process::geteuid().is_root();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, case) in all().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| fits(name, w))) {
        let outcome = if is_root { catch_unwind(AssertUnwindSafe(case)) } else { Ok(Err("needs root".into())) };
        match outcome {
            Ok(Ok(())) => {
                passed += 1;
                println!("test {name} ... ok");
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
