//! Limits as contents of cgroup files, for v2 and v1. Pure.

use std::borrow::Cow;

use oci_spec::runtime::{LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder};

use crate::runtime::Resources;

mod v1;
mod v2;

pub use v1::v1;
pub use v2::v2;

/// The controllers that limit something of ours.
pub const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Every controller a foreign specification can limit something with, and those that only count.
pub const ALL_CONTROLLERS: [&str; 12] = [
    "blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "net_cls", "net_prio", "pids",
    "rdma",
];
/// Their names on v2, where they have to be passed on to be used.
pub const ALL_CONTROLLERS_V2: [&str; 7] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma"];

/// Period of the CPU quota in microseconds, the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// Smallest quota the kernel takes, in microseconds (`min_cfs_quota_period`, kernel/sched/core.c).
const CPU_QUOTA_US_MIN: i64 = 1_000;

/// One file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// v1 hierarchy it belongs to; all are in one directory on v2.
    pub controller: &'static str,
    /// File name.
    pub file: Cow<'static, str>,
    /// Its content.
    pub value: String,
    /// Hosts may be built without this file.
    pub optional: bool,
}

impl Setting {
    /// Whether this takes a limit away: then nothing is lost where there is no such file.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.value.starts_with("max") || self.value == "-1"
    }
}

/// Our limits in OCI's words; `None` becomes "unlimited", so that an update can lift a limit.
#[must_use]
pub fn to_oci(resources: &Resources) -> LinuxResources {
    let memory = resources.memory_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let quota = resources.cpu_millis.map_or(-1, |millis| {
        let quota = u64::from(millis) * CPU_PERIOD_US / 1000;
        i64::try_from(quota).unwrap_or(i64::MAX).max(CPU_QUOTA_US_MIN)
    });
    let pids = resources.pids_max.map_or(-1, i64::from);
    // Swap would only hide that the limit is reached: limit and limit with swap are the same.
    LinuxResourcesBuilder::default()
        .memory(LinuxMemoryBuilder::default().limit(memory).swap(memory).build().expect("all fields have defaults"))
        .cpu(LinuxCpuBuilder::default().quota(quota).period(CPU_PERIOD_US).build().expect("all fields have defaults"))
        .pids(LinuxPidsBuilder::default().limit(pids).build().expect("all fields have defaults"))
        .build()
        .expect("all fields have defaults")
}

fn max(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

/// 0 is no limit too, as with every other runtime: nothing could run under it.
fn max_pids(limit: i64) -> String {
    max(if limit == 0 { -1 } else { limit })
}

fn setting(controller: &'static str, file: impl Into<Cow<'static, str>>, value: impl ToString) -> Setting {
    Setting { controller, file: file.into(), value: value.to_string(), optional: false }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(resources: Resources, expect: &Expect) {
        let oci = to_oci(&resources);
        let lines = |settings: Vec<Setting>| {
            settings.iter().map(|one| format!("{}/{} = {}\n", one.controller, one.file, one.value)).collect::<String>()
        };
        expect.assert_eq(&format!("{}--\n{}", lines(v2(&oci)), lines(v1(&oci))));
    }

    #[test]
    fn limits() {
        check(
            Resources { memory_bytes: Some(256 << 20), cpu_millis: Some(500), pids_max: Some(100) },
            &expect![[r#"
                memory/memory.max = 268435456
                memory/memory.swap.max = 0
                cpu/cpu.max = 50000 100000
                pids/pids.max = 100
                --
                memory/memory.limit_in_bytes = 268435456
                memory/memory.memsw.limit_in_bytes = 268435456
                cpu/cpu.cfs_period_us = 100000
                cpu/cpu.cfs_quota_us = 50000
                pids/pids.max = 100
            "#]],
        );
    }

    #[test]
    fn no_limits_and_the_smallest() {
        check(
            Resources { memory_bytes: None, cpu_millis: Some(1), pids_max: None },
            &expect![[r#"
                memory/memory.max = max
                memory/memory.swap.max = max
                cpu/cpu.max = 1000 100000
                pids/pids.max = max
                --
                memory/memory.limit_in_bytes = -1
                memory/memory.memsw.limit_in_bytes = -1
                cpu/cpu.cfs_period_us = 100000
                cpu/cpu.cfs_quota_us = 1000
                pids/pids.max = max
            "#]],
        );
    }
}
