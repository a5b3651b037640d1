//! Capability names and sets, as bits. Docker's default 14, additions and removals. Pure.

use std::collections::BTreeSet;

use oci_spec::runtime::{Capabilities, Capability};

use crate::runtime::SecurityConfig;
use crate::{Error, Result};

/// Every capability by its number (`linux/capability.h`, up to 5.9's CHECKPOINT_RESTORE).
const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// Docker's default set.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// The set a configuration asks for: Docker's 14, minus `cap_drop`, plus `cap_add`. `ALL` means all in either.
///
/// # Errors
/// `BadContainer` naming what is no capability.
pub fn effective_set(security: &SecurityConfig) -> Result<Capabilities> {
    let mut set: BTreeSet<u8> = DEFAULT.iter().map(|capability| index(*capability)).collect();
    for name in &security.cap_drop {
        match parse(name)? {
            Named::All => set.clear(),
            Named::One(at) => drop(set.remove(&at)),
        }
    }
    for name in &security.cap_add {
        match parse(name)? {
            Named::All => set.extend(ALL.iter().map(|capability| index(*capability))),
            Named::One(at) => drop(set.insert(at)),
        }
    }
    Ok(set.into_iter().map(|at| ALL[usize::from(at)]).collect())
}

/// A set as the kernel's bits.
#[must_use]
pub fn bits(set: &Capabilities) -> u64 {
    set.iter().fold(0, |bits, capability| bits | 1 << index(*capability))
}

/// Every name, as an OCI spec writes it.
#[must_use]
pub fn names() -> Vec<String> {
    ALL.iter().map(|capability| format!("CAP_{}", short(*capability))).collect()
}

/// Whether this is the name of a capability as an OCI spec writes it.
#[must_use]
pub fn is_known(name: &str) -> bool {
    name.strip_prefix("CAP_").is_some_and(|name| ALL.iter().any(|capability| short(*capability) == name))
}

fn short(capability: Capability) -> String {
    capability.to_string().trim_start_matches("CAP_").to_owned()
}

enum Named {
    All,
    One(u8),
}

fn parse(name: &str) -> Result<Named> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if short == "ALL" {
        return Ok(Named::All);
    }
    ALL.iter()
        .find(|capability| self::short(**capability) == short)
        .map(|capability| Named::One(index(*capability)))
        .ok_or_else(|| Error::BadContainer(format!("`{name}` is not a capability")))
}

fn index(capability: Capability) -> u8 {
    let at = ALL.iter().position(|known| *known == capability).expect("ALL lists every variant");
    u8::try_from(at).expect("41 entries")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> u64 {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let security = SecurityConfig { cap_add: texts(add), cap_drop: texts(drop), ..Default::default() };
        bits(&effective_set(&security).unwrap())
    }

    #[test]
    fn dockers_fourteen() {
        assert_eq!(set(&[], &[]), 0xa804_25fb);
    }

    #[test]
    fn names_with_and_without_prefix() {
        assert_eq!(set(&["CAP_SYS_ADMIN"], &["ALL"]), 1 << 21);
        assert_eq!(set(&["net_admin"], &["all"]), 1 << 12);
        assert_eq!(set(&["ALL"], &[]), (1 << 41) - 1);
        assert_eq!(set(&[], &["NET_RAW"]) & (1 << 13), 0);
    }

    #[test]
    fn what_is_no_capability_is_named() {
        let security = SecurityConfig { cap_add: vec!["CAP_MAGIC".into()], ..Default::default() };
        assert_eq!(effective_set(&security).unwrap_err().to_string(), "`CAP_MAGIC` is not a capability");
    }
}
