//! End to end: the real binary, real images from Debian's packages, a real registry on loopback.
//!
//! Each scenario runs in mount, network and pid namespaces of its own (`unshare` of util-linux), so that nothing it makes
//! can outlive it and an audit sees only what is its own. Without root, tools or images a scenario says why it is skipped.
//! `cargo test --test e2e -- WORD…` runs the scenarios whose names contain one of the words; `-- --list` names them.

mod audit;
mod http;
mod lab;
mod lines;
mod names;
mod registry;
mod scenarios;
mod wait;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::Instant;

/// What scenarios return: an error is a sentence about what was seen instead.
pub(crate) type Result<T = ()> = std::result::Result<T, String>;

/// One scenario.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut lab::Lab) -> Result,
    /// Needs images and a registry.
    pub(crate) images: bool,
    /// Needs root and namespaces of its own.
    pub(crate) root: bool,
    /// Measures times or makes a load: nothing else may run beside it.
    pub(crate) alone: bool,
    /// Seconds after which it has failed.
    pub(crate) limit_secs: u32,
}

/// Fails a scenario with a sentence unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
pub(crate) use ensure;

/// First argument of the process inside the namespaces: runs one scenario and writes its result to a file.
const INSIDE: &str = "--inside";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, result, outer_pids] = args.as_slice()
        && flag == INSIDE
    {
        return inside(name, result, outer_pids);
    }
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let chosen: Vec<&Scenario> = scenarios::ALL
        .iter()
        .copied()
        .flatten()
        .filter(|scenario| words.is_empty() || words.iter().any(|word| scenario.name.contains(word.as_str())))
        .collect();
    if args.iter().any(|arg| arg == "--list") {
        chosen.iter().for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    let tally = Mutex::new(Tally::default());
    // what measures times or makes a load runs alone, the rest side by side
    let (alone, together): (Vec<&Scenario>, Vec<&Scenario>) = chosen.into_iter().partition(|scenario| scenario.alone);
    let queue = Mutex::new(together.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let Some(scenario) = queue.lock().expect("no panic while locked").next() else { break };
                    run_one(scenario, &tally);
                }
            });
        }
    });
    for scenario in alone {
        run_one(scenario, &tally);
    }
    tally.into_inner().expect("no panic while locked").close()
}

fn run_one(scenario: &Scenario, tally: &Mutex<Tally>) {
    let begin = Instant::now();
    let outcome = outside(scenario);
    tally.lock().expect("no panic while locked").add(scenario, &outcome, begin.elapsed().as_secs_f32());
}

/// Scenarios that run at once: they mostly wait.
const SIDE_BY_SIDE: usize = 3;

/// What came of the scenarios so far.
#[derive(Default)]
struct Tally {
    passed: usize,
    skipped: usize,
    failed: Vec<&'static str>,
}

impl Tally {
    /// Counts and prints one.
    fn add(&mut self, scenario: &Scenario, outcome: &Outcome, secs: f32) {
        match outcome {
            Outcome::Ok(measured) => {
                self.passed += 1;
                println!("test {} ... ok ({secs:.1} s{measured})", scenario.name);
            }
            Outcome::Skipped(why) => {
                self.skipped += 1;
                println!("test {} ... skipped: {why}", scenario.name);
            }
            Outcome::Failed(why) => {
                println!("test {} ... FAILED ({secs:.1} s)\n{why}", scenario.name);
                self.failed.push(scenario.name);
            }
        }
    }

    fn close(self) -> ExitCode {
        if !self.failed.is_empty() {
            println!("\nfailed: {}", self.failed.join(" "));
        }
        println!("\n{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped);
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

enum Outcome {
    /// With what it measured.
    Ok(String),
    Skipped(String),
    Failed(String),
}

/// Runs one scenario in a process of its own and reads what came of it.
fn outside(scenario: &Scenario) -> Outcome {
    if let Some(why) = missing(scenario) {
        return Outcome::Skipped(why);
    }
    let dir = lab::dir_of(scenario.name);
    let _ = std::fs::remove_dir_all(&dir);
    if let Err(error) = std::fs::create_dir_all(&dir) {
        return Outcome::Failed(format!("make {}: {error}", dir.display()));
    }
    let (result, log) = (dir.join("result"), dir.join("log"));
    let Ok(output) = std::fs::File::create(&log) else { return Outcome::Failed(format!("make {}", log.display())) };
    let exe = std::env::current_exe().expect("own path");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &scenario.limit_secs.to_string()]);
    if scenario.root {
        command.args(["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]);
        // a shell as process 1: it reaps what is orphaned
        command.args(["sh", "-c", "\"$0\" \"$@\"; exit $?"]);
    }
    command.arg(exe).args([INSIDE, scenario.name]).arg(&result).arg(lab::pid_namespace());
    command.stdin(Stdio::null()).stderr(output.try_clone().expect("descriptor")).stdout(output);
    let status = match command.status() {
        Ok(status) => status,
        Err(error) => return Outcome::Failed(format!("run timeout: {error}")),
    };
    match std::fs::read_to_string(&result) {
        Ok(text) if text == "ok" && status.success() => {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let measured =
                said.lines().filter_map(|line| line.strip_prefix("measured: ")).map(|text| format!("; {text}"));
            let measured = measured.collect();
            lab::remove(&dir);
            Outcome::Ok(measured)
        }
        Ok(text) => Outcome::Failed(format!("  {}\n{}  kept: {}", text.trim_end(), tail(&log), dir.display())),
        Err(_) => {
            let why = match status.code() {
                Some(124 | 137) => format!("not done after {} s", scenario.limit_secs),
                _ => format!("ended without a result ({status})"),
            };
            Outcome::Failed(format!("  {why}\n{}  kept: {}", tail(&log), dir.display()))
        }
    }
}

/// Why the scenario cannot run here.
fn missing(scenario: &Scenario) -> Option<String> {
    if !scenario.root {
        return None;
    }
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root for namespaces and mounts".to_owned());
    }
    let tools =
        ["timeout", "unshare", "ip"].iter().chain(["docker-registry", "curl"].iter().filter(|_| scenario.images));
    for tool in tools {
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        if !path.split(':').any(|dir| PathBuf::from(dir).join(tool).exists()) {
            return Some(format!("`{tool}` is not installed (.ci/run installs it)"));
        }
    }
    if scenario.images && !registry::images_dir().join("stamp").exists() {
        return Some(format!("no images in {} (tests/images/make.sh makes them)", registry::images_dir().display()));
    }
    None
}

fn inside(name: &str, result: &str, outer_pids: &str) -> ExitCode {
    let Some(scenario) = scenarios::ALL.iter().copied().flatten().find(|scenario| scenario.name == name) else {
        return ExitCode::FAILURE;
    };
    let outcome = lab::Lab::new(scenario, outer_pids).and_then(|mut lab| {
        let run = std::panic::AssertUnwindSafe(|| (scenario.run)(&mut lab));
        let outcome =
            std::panic::catch_unwind(run).unwrap_or_else(|_| Err("the scenario panicked, see the log".into()));
        if outcome.is_err() {
            lab.report();
        }
        lab.finish();
        outcome
    });
    let text = outcome.as_ref().map_or_else(|why| format!("{why}\n"), |()| "ok".to_owned());
    match std::fs::write(result, text) {
        Ok(()) if outcome.is_ok() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn tail(log: &std::path::Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].iter().map(|line| format!("  | {line}\n")).collect()
}
