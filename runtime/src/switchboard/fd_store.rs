//! Where sockets outlive their process: a store of named descriptors, held by the keeper, so that a killed
//! switchboard refuses no connection.
//!
//! Names: `listen/<ip>:<port>` holds one listening TCP socket, `dns/<container id>` holds `[udp, tcp]` of one
//! container. Must not know how the keeper talks.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Result;
use crate::error::Doing;

/// Descriptors under one name.
pub type NamedFds = (String, Vec<OwnedFd>);

/// Named descriptors that somebody else keeps open. Duplicates go in and come out; `put` replaces.
pub trait FdStore: Send {
    /// Stores duplicates of `fds` under `name`.
    ///
    /// # Errors
    /// `Unreachable` when the holder is away.
    fn put(&mut self, name: &str, fds: &[&OwnedFd]) -> Result<()>;

    /// Duplicates of everything whose name begins with `prefix`.
    ///
    /// # Errors
    /// `Unreachable` when the holder is away.
    fn get_prefix(&mut self, prefix: &str) -> Result<Vec<NamedFds>>;

    /// Closes what is under `name`; nothing there is no error.
    ///
    /// # Errors
    /// `Unreachable` when the holder is away.
    fn remove(&mut self, name: &str) -> Result<()>;
}

/// A store in memory, shared by its clones: for tests, and for a switchboard that runs without a keeper.
#[derive(Debug, Clone, Default)]
pub struct MemoryFdStore(Arc<Mutex<BTreeMap<String, Vec<OwnedFd>>>>);

impl FdStore for MemoryFdStore {
    fn put(&mut self, name: &str, fds: &[&OwnedFd]) -> Result<()> {
        let copies = fds.iter().map(|fd| fd.try_clone()).collect::<std::io::Result<Vec<_>>>();
        let copies = copies.doing(|| format!("duplicate {name}"))?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), copies);
        Ok(())
    }

    fn get_prefix(&mut self, prefix: &str) -> Result<Vec<NamedFds>> {
        let store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = store.iter().filter(|(name, _)| name.starts_with(prefix));
        found
            .map(|(name, fds)| Ok((name.clone(), fds.iter().map(OwnedFd::try_clone).collect::<std::io::Result<_>>()?)))
            .collect::<std::io::Result<Vec<_>>>()
            .doing(|| format!("duplicate {prefix}*"))
    }

    fn remove(&mut self, name: &str) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }
}
