//! An end in words, the same everywhere: events, status lines, back-offs, probes.

use crate::runtime::ExitStatus;

impl std::fmt::Display for ExitStatus {
    /// `exit 3`, `killed by SIGKILL`, `OOM, exit 137`, `ended, nobody saw how`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(i32::from(*signal)) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
            Self::OutOfMemory => f.write_str("OOM, exit 137"),
            Self::Unknown => f.write_str("ended, nobody saw how"),
        }
    }
}
