//! The programs inside containers: this binary under other names.

use std::io::Write as _;
use std::process::ExitCode;

/// Names it has in the image's `/bin`.
pub(crate) const NAMES: &[&str] = &["sh", "true", "false", "sleep", "lines", "graceful", "eat", "echo"];

/// Runs the program of this name; `None` when it is none.
pub(crate) fn run(name: &str, args: &[String]) -> Option<ExitCode> {
    let code = match name {
        "true" => 0,
        "false" => 1,
        "sh" => shell(args),
        "sleep" => sleep(),
        "lines" => lines(args),
        "graceful" => graceful(),
        "eat" => eat(),
        "echo" => {
            println!("{}", args.join(" "));
            0
        }
        _ => return None,
    };
    Some(ExitCode::from(code))
}

/// `sh -c "exit N"` and nothing else.
fn shell(args: &[String]) -> u8 {
    let line = args.get(1).map_or("", String::as_str);
    line.strip_prefix("exit ").and_then(|code| code.parse().ok()).unwrap_or(2)
}

/// Ends only by a signal: as a first process, only by SIGKILL.
fn sleep() -> u8 {
    loop {
        nix::unistd::pause();
    }
}

/// `lines COUNT CODE`: numbered lines as fast as they go, then an end with CODE.
fn lines(args: &[String]) -> u8 {
    let number = |at: usize| args.get(at).and_then(|arg| arg.parse::<u64>().ok()).unwrap_or(0);
    // one write per line, as programs do that do not buffer
    let mut out = std::fs::File::options().write(true).open("/dev/stdout").expect("a container has /dev/stdout");
    for n in 0..number(0) {
        out.write_all(format!("line {n}\n").as_bytes()).expect("stdout takes lines");
    }
    u8::try_from(number(1)).unwrap_or(0)
}

/// Waits for SIGTERM, says goodbye and ends with 0.
fn graceful() -> u8 {
    use nix::sys::signal::{SigSet, Signal};
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGTERM);
    wanted.thread_block().expect("signals can be blocked");
    println!("ready");
    wanted.wait().expect("signals can be waited for");
    println!("goodbye");
    0
}

/// Takes memory until it is killed.
fn eat() -> u8 {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    while hoard.len() < 1024 {
        hoard.push(vec![1; 1 << 20]);
    }
    3
}
