//! The state database under crashes: a writer killed again and again, and power cut at random points of a recorded
//! write log. After each the store must open and hold exactly what was acknowledged, or that and the one batch under way.
//!
//! Must not know the store's files: what it promises is in `controller::store`.

mod kill;
mod model;
mod power;
mod trace;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use controller::store::{SledStore, StateStore as _};

/// What tests return: an error is a sentence.
pub(crate) type Result<T = ()> = std::result::Result<T, String>;

/// First argument of the process that writes: directory, seed, first batch, number of batches (0: for ever).
pub(crate) const WRITER: &str = "--writer";

/// One test.
type Test = (&'static str, fn(&Path) -> Result<Outcome>);

/// What came of it.
pub(crate) enum Outcome {
    /// What was counted.
    Passed(String),
    Skipped(String),
}

const TESTS: &[Test] = &[
    ("a_killed_writer_loses_no_acknowledged_batch", kill::loop_of_kills),
    ("a_power_cut_loses_no_acknowledged_batch", power::replay),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, dir, seed, first, count] = args.as_slice()
        && flag == WRITER
    {
        return match write(Path::new(dir), number(seed), number(first), number(count)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("writer: {why}");
                ExitCode::FAILURE
            }
        };
    }
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, test) in
        TESTS.iter().filter(|(name, _)| words.is_empty() || words.iter().any(|word| name.contains(*word)))
    {
        let dir = tempfile::tempdir().expect("a temporary directory");
        match test(dir.path()) {
            Ok(Outcome::Passed(counted)) => {
                passed += 1;
                println!("test {name} ... ok ({counted})");
            }
            Ok(Outcome::Skipped(why)) => {
                skipped += 1;
                println!("test {name} ... skipped: {why}");
            }
            Err(why) => {
                failed += 1;
                println!("test {name} ... FAILED\n  {why}\n  kept: {}", dir.keep().display());
            }
        }
    }
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

/// Commits batch after batch and says the number of each once it is acknowledged.
fn write(dir: &Path, seed: u64, first: u64, count: u64) -> Result {
    let store = SledStore::open(dir).map_err(|error| error.to_string())?;
    let mut out = std::io::stdout();
    for n in first.. {
        if count != 0 && n >= first + count {
            break;
        }
        store.commit(model::batch(seed, n)).map_err(|error| error.to_string())?;
        out.write_all(format!("{n}\n").as_bytes()).and_then(|()| out.flush()).map_err(|error| error.to_string())?;
    }
    store.close();
    Ok(())
}

/// The command that runs [`write`] in a process of its own.
pub(crate) fn writer(dir: &Path, seed: u64, first: u64, count: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.arg(WRITER).arg(dir).args([seed, first, count].map(|n| n.to_string()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}
