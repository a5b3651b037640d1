//! One suite over `&dyn Runtime`: the fake always, the real one where this is root. Then what only the real one has:
//! logs, stops, and kills of the supervisor in the middle of everything.
//!
//! Brings its own runner, since the same program is also the keeper, the supervisor, the switchboard, the unpacker and,
//! inside containers, every program. It runs in a network namespace of its own.

mod campaign;
mod contract;
mod crash;
mod guest;
mod lab;
mod linux;
mod pod;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use lab::Lab;

/// A test of the contract: its name and what it does to a fresh lab.
type Case = (&'static str, fn(&Lab));

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let name = args.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    if let Some(code) = guest::run(name, &args[1..]) {
        return code;
    }
    let rest = || args.iter().skip(2).map(std::ffi::OsString::from);
    let daemon = match args.get(1).map(String::as_str) {
        Some("keeper") => Some(runtime::keeper::run(rest())),
        Some("supervisor") => Some(runtime::supervisor::run(rest())),
        Some("switchboard") => Some(runtime::switchboard::run(rest())),
        Some("unpack") => return runtime::image::unpack_child(&args[2..]),
        _ => None,
    };
    match daemon {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("{}: {}", args[1], runtime::error::chain(&error));
            ExitCode::FAILURE
        }
        None => run_cases(&args[1..]),
    }
}

fn run_cases(args: &[String]) -> ExitCode {
    let all =
        |kind: &str, cases: &'static [Case]| cases.iter().map(move |(name, _)| format!("{kind}::{name}")).collect();
    let contract = || contract::CASES.iter().chain(pod::CASES);
    let names: [Vec<String>; 5] = [
        all("fake", contract::CASES),
        all("fake", pod::CASES),
        all("linux", contract::CASES),
        all("linux", pod::CASES),
        all("linux", linux::CASES),
    ];
    if args.iter().any(|arg| arg == "--list") {
        names.iter().flatten().for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|want| name.contains(want.as_str()));
    let mut tally = Tally::default();
    for (name, case) in contract().filter(|(name, _)| chosen(&format!("fake::{name}"))) {
        tally.run(&format!("fake::{name}"), || case(&Lab::fake()));
    }
    let why_not = lab::enter_namespaces().err();
    for (name, case) in contract().chain(linux::CASES) {
        let name = format!("linux::{name}");
        match &why_not {
            _ if !chosen(&name) => {}
            Some(why) => tally.skip(&name, why),
            None => tally.run(&name, || lab::on_linux(*case)),
        }
    }
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    if tally.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Tally {
    fn run(&mut self, name: &str, case: impl FnOnce()) {
        let begun = std::time::Instant::now();
        let ok = catch_unwind(AssertUnwindSafe(case)).is_ok();
        if ok {
            self.passed += 1
        } else {
            self.failed += 1
        }
        println!("test {name} ... {} ({} ms)", if ok { "ok" } else { "FAILED" }, begun.elapsed().as_millis());
    }

    fn skip(&mut self, name: &str, why: &str) {
        self.skipped += 1;
        println!("test {name} ... skipped: {why}");
    }
}
