//! Which memory nodes a program allocates from (OCI config-linux, "Memory Policy"; set_mempolicy(2)). Reading it is pure.

use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode};

use crate::error::{Doing as _, Error, Result};
use crate::sys::privilege;

/// Most nodes any kernel is built for (`MAX_NUMNODES`, CONFIG_NODES_SHIFT ≤ 10).
const NODES_MAX: u32 = 1024;

/// What the kernel is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// Mode and flags.
    mode: u32,
    /// A bit for each node.
    nodes: Vec<u64>,
}

/// Reads a policy.
///
/// # Errors
/// `BadContainer` for a list of nodes that is none.
pub fn lower(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    // linux/mempolicy.h
    let mode = match policy.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                Flag::MpolFNumaBalancing => 1 << 13,
                Flag::MpolFRelativeNodes => 1 << 14,
                Flag::MpolFStaticNodes => 1 << 15,
            }
    });
    let nodes = ranges(policy.nodes().as_deref().unwrap_or_default(), NODES_MAX).map_err(|part| {
        Error::BadContainer(format!("config.json: `linux.memoryPolicy.nodes`: `{part}` is no range of memory nodes"))
    })?;
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

/// A list of numbers below `end` as bits: `0-3,7`.
///
/// # Errors
/// The part that is no range.
pub fn ranges(text: &str, end: u32) -> std::result::Result<Vec<u64>, &str> {
    let mut bits = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|number| *number < end);
        let (Some(first), Some(last)) = (number(first), number(last)) else { return Err(part) };
        if first > last {
            return Err(part);
        }
        bits.resize(bits.len().max(last as usize / 64 + 1), 0);
        (first..=last).for_each(|number| bits[number as usize / 64] |= 1 << (number % 64));
    }
    Ok(bits)
}

/// Puts a policy in force for the calling thread and what it executes.
///
/// # Errors
/// `Io`: the kernel's word on modes, flags and nodes that do not go together.
pub(super) fn apply(policy: &MemoryPolicy) -> Result<()> {
    privilege::set_memory_policy(policy.mode, &policy.nodes).doing(|| "set the memory policy")
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxMemoryPolicyBuilder;

    use super::*;

    fn of(mode: Mode, nodes: &str, flags: &[Flag]) -> Result<MemoryPolicy> {
        let builder = LinuxMemoryPolicyBuilder::default().mode(mode).nodes(nodes.to_owned()).flags(flags.to_vec());
        lower(&builder.build().unwrap())
    }

    #[test]
    fn nodes_are_bits() {
        let policy = of(Mode::MpolBind, "0-1, 3,64", &[Flag::MpolFStaticNodes]).unwrap();
        assert_eq!(policy, MemoryPolicy { mode: 2 | 1 << 15, nodes: vec![0b1011, 1] });
        assert_eq!(of(Mode::MpolDefault, "", &[]).unwrap(), MemoryPolicy { mode: 0, nodes: vec![] });
        for bad in ["x", "3-1", "0-9876543210", "1024", "-", "1-2-3"] {
            assert!(of(Mode::MpolBind, bad, &[]).is_err(), "{bad}");
        }
    }
}
