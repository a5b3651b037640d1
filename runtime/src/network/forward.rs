//! `net.ipv4.ip_forward`: switched on only when a network needs it, and off again with the last one.
//!
//! That we switched it on is remembered by the kernel itself: the table `boxship-forward` exists exactly as long, drops
//! what is neither to nor from our bridges, and is shared by all data roots of the host. Invariant: the table is there
//! before the switch is on, and goes after it is off, so a crash never leaves a host that forwards for everybody.

use super::nftables;
use super::ruleset::{FORWARD_GUARD_TABLE, Family, forward_guard};
use crate::Result;
use crate::error::Doing;

const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";

/// Lets the host forward for our bridges.
///
/// # Errors
/// `Unsupported` without nf_tables: then the switch is left alone. `Io`.
pub(super) fn switch_on() -> Result<()> {
    if is_on()? {
        return Ok(());
    }
    nftables::replace(&[forward_guard()])?;
    std::fs::write(SWITCH, "1").doing(|| format!("write {SWITCH}"))
}

/// Undoes [`switch_on`] if it was us. Called when no bridge of any data root is left.
///
/// # Errors
/// `Unsupported`, `Io`.
pub(super) fn switch_off() -> Result<()> {
    if !nftables::holds(&forward_guard())? {
        return Ok(());
    }
    std::fs::write(SWITCH, "0").doing(|| format!("write {SWITCH}"))?;
    nftables::delete(&[(Family::Inet, FORWARD_GUARD_TABLE)])
}

/// Whether the host forwards.
///
/// # Errors
/// `Io`.
pub(super) fn is_on() -> Result<bool> {
    Ok(std::fs::read_to_string(SWITCH).doing(|| format!("read {SWITCH}"))?.trim() != "0")
}
