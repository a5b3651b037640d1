//! An upgrade in place: open and waiting connections go into the fd store before this process ends, and come out of it
//! in its successor. Listening and DNS sockets are in the store anyway.
//!
//! Names are a contract between versions: `flow/<n>/<state of relay>`, `wait/<n>/<ip>:<port>`, `names/<n>/<container>` and
//! `datagrams/<n>/<state of datagrams>`;
//! what does not read back is closed. Must not know how connections are dialled, relayed or answered.

use std::os::fd::OwnedFd;

use super::fd_store::FdStore;
use crate::clock::boot_ms;
use crate::error::chain;

const OPEN_PREFIX: &str = "flow/";
const WAITING_PREFIX: &str = "wait/";
const NAMES_PREFIX: &str = "names/";
const DATAGRAMS_PREFIX: &str = "datagrams/";
/// How long the store may take for all of them together; the keeper kills after 10 s.
const PATIENCE_MS: u64 = 5_000;
/// Between tries while the store's queue is full.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(1);

/// A connection between two lives.
pub(super) enum Parcel {
    /// An open one: what `Relay::into_parts` says, and its descriptors.
    Open(String, Vec<OwnedFd>),
    /// One that has no backend yet: the address of its port, and the client.
    Waiting(String, OwnedFd),
    /// A container that asks for names over TCP, and what `DnsStream::into_parts` says.
    Names(String, Vec<OwnedFd>),
    /// A client of a UDP port: what `datagrams` says of it, and the socket to its backend.
    Datagrams(String, OwnedFd),
}

/// Stores connections. What the store does not take in time is closed, and counted in the log.
pub(super) fn store(store: &mut dyn FdStore, parcels: Vec<Parcel>) {
    let give_up_at = boot_ms() + PATIENCE_MS;
    let mut lost = 0;
    for (number, parcel) in parcels.into_iter().enumerate() {
        let (name, fds) = match parcel {
            Parcel::Open(state, fds) => (format!("{OPEN_PREFIX}{number}/{state}"), fds),
            Parcel::Waiting(address, client) => (format!("{WAITING_PREFIX}{number}/{address}"), vec![client]),
            Parcel::Names(container, fds) => (format!("{NAMES_PREFIX}{number}/{container}"), fds),
            Parcel::Datagrams(state, fd) => (format!("{DATAGRAMS_PREFIX}{number}/{state}"), vec![fd]),
        };
        let fds: Vec<&OwnedFd> = fds.iter().collect();
        while let Err(e) = store.put(&name, &fds) {
            if boot_ms() >= give_up_at {
                tracing::warn!("a connection is lost: {}", chain(&e));
                lost += 1;
                break;
            }
            std::thread::sleep(AGAIN);
        }
    }
    if lost > 0 {
        tracing::warn!("{lost} connections did not survive the upgrade");
    }
}

/// Takes out what an earlier switchboard stored.
pub(super) fn take(store: &mut dyn FdStore) -> crate::Result<Vec<Parcel>> {
    let mut parcels = Vec::new();
    for prefix in [OPEN_PREFIX, WAITING_PREFIX, NAMES_PREFIX, DATAGRAMS_PREFIX] {
        for (name, mut fds) in store.get_prefix(prefix)? {
            // First of all: from here on the state in the name is no longer true.
            store.remove(&name)?;
            let rest = name[prefix.len()..].split_once('/').map(|(_, rest)| rest.to_owned());
            match rest {
                Some(state) if prefix == OPEN_PREFIX => parcels.push(Parcel::Open(state, fds)),
                Some(container) if prefix == NAMES_PREFIX => parcels.push(Parcel::Names(container, fds)),
                Some(state) if prefix == DATAGRAMS_PREFIX => {
                    parcels.extend(fds.pop().map(|fd| Parcel::Datagrams(state, fd)))
                }
                Some(address) => parcels.extend(fds.pop().map(|client| Parcel::Waiting(address, client))),
                None => {}
            }
        }
    }
    Ok(parcels)
}
