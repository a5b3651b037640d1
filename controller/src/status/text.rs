//! One-line texts.

use runtime::runtime::ExitStatus;

/// `exit 3`, `killed by signal 9`, `OOM, exit 137`, `ended, nobody saw how`.
#[must_use]
pub fn exit_text(exit: ExitStatus) -> String {
    match exit {
        ExitStatus::Code(code) => format!("exit {code}"),
        ExitStatus::Signal(signal) => format!("killed by {}", signal_name(signal)),
        ExitStatus::OutOfMemory => "OOM, exit 137".to_owned(),
        ExitStatus::Unknown => "ended, nobody saw how".to_owned(),
    }
}

/// Names of signals with the same number on every Linux architecture we build for.
fn signal_name(signal: u8) -> String {
    let names = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM",
    ];
    match usize::from(signal).checked_sub(1).and_then(|n| names.get(n)) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {signal}"),
    }
}
