//! What can go wrong below the [`Runtime`](crate::Runtime) boundary, one variant per thing a caller does differently.

use std::fmt;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation of the runtime.
///
/// `Display` names the operation and the object and never repeats `source()`; print the chain once with [`chain`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The object named does not exist. For removals this means "already done".
    #[error("{what} `{name}` does not exist")]
    NotFound {
        /// The kind of object: `image`, `container`, `network`, `volume`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The object exists already with another content, or the transition is not legal in its state.
    #[error("{0}")]
    Conflict(String),
    /// A registry answered with something other than the thing asked for. Trying again may help when `retry` is true.
    #[error("{message}")]
    Registry {
        /// Stable code, see `docs/errors.md`: `BX0301` host unknown … `BX0306` rate limit.
        code: &'static str,
        /// What the registry said, for a person.
        message: String,
        /// Whether the same request may succeed later without anyone changing anything.
        retry: bool,
    },
    /// Bytes did not hash to their name, or an archive breaks its format or our bounds. Never becomes visible.
    #[error("{0}")]
    Untrusted(String),
    /// Not enough disk: nothing was changed.
    #[error(
        "not enough disk in {path}: needs {}, {} free{}; nothing was changed",
        Size(*needed_bytes), Size(*free_bytes), Prune(*reclaimable_bytes)
    )]
    NoSpace {
        /// The directory whose file system is full.
        path: String,
        /// Bytes needed.
        needed_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
        /// Bytes that removing unused images would free; 0 where nobody looked.
        reclaimable_bytes: u64,
    },
    /// A host port is taken by somebody else.
    #[error("port {}{} is already in use on {}{holder}", at.port, if at.protocol.is_tcp() { "" } else { "/udp" }, at.address)]
    PortInUse {
        /// Which.
        at: crate::runtime::HostPort,
        /// ` by NAME (pid N)` when it could be found, else empty.
        holder: String,
    },
    /// The host lacks something (a capability, a kernel feature, a tool): what, and what to do.
    #[error("{0}")]
    Unsupported(String),
    /// The container's own configuration makes it unstartable (no such executable, user or directory).
    #[error("{0}")]
    BadContainer(String),
    /// Another process of ours is away or answered nonsense; the caller tries again on its next pass.
    #[error("{process} is not reachable: {why}")]
    Unreachable {
        /// `supervisor`, `switchboard` or `keeper`.
        process: &'static str,
        /// What was seen.
        why: String,
    },
    /// A system call or file operation failed.
    #[error("{doing}")]
    Io {
        /// The operation and its object: `rename /a to /b`.
        doing: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// Bytes for people: `1.9 GiB`, `12 MiB`.
struct Size(u64);

/// What removing unused images would give, when it would give something.
struct Prune(u64);

impl fmt::Display for Prune {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, " (removing unused images would free {})", Size(self.0)) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = |unit: u64| self.0.saturating_mul(10).div_ceil(unit);
        match self.0 {
            0..1_048_576 => write!(f, "{} KiB", self.0.div_ceil(1 << 10)),
            1_048_576..1_073_741_824 => write!(f, "{}.{} MiB", tenths(1 << 20) / 10, tenths(1 << 20) % 10),
            _ => write!(f, "{}.{} GiB", tenths(1 << 30) / 10, tenths(1 << 30) % 10),
        }
    }
}

impl Error {
    /// Wraps an I/O error with what was being done.
    pub fn io(doing: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { doing: doing.into(), source: source.into() }
    }

    /// Its stable code of `docs/errors.md`, where it has one of its own.
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Registry { code, .. } => Some(code),
            Self::Untrusted(_) => Some("BX0307"),
            Self::NoSpace { .. } => Some("BX0310"),
            Self::PortInUse { .. } => Some("BX0401"),
            Self::NotFound { .. }
            | Self::Conflict(_)
            | Self::Unsupported(_)
            | Self::BadContainer(_)
            | Self::Unreachable { .. }
            | Self::Io { .. } => None,
        }
    }

    /// Whether this means "it is not there".
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// Adds what was being done to a `Result` whose error says only why.
pub trait Doing<T> {
    /// Names the operation and its object; `doing` is evaluated only on error.
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Error::io(doing(), source))
    }
}

/// An error and its sources on one line, for the one place that prints it.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    struct Chain<'a>(&'a dyn std::error::Error);
    impl fmt::Display for Chain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0)?;
            let mut next = self.0.source();
            while let Some(source) = next {
                write!(f, ": {source}")?;
                next = source.source();
            }
            Ok(())
        }
    }
    Chain(error).to_string()
}
