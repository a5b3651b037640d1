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

/// Unit of the kernel's memory counters. Larger pages round more, which only makes a difference smaller.
const PAGE_BYTES: u64 = 4_096;
/// v1 shows PAGE_COUNTER_MAX pages, just below 2^63, for "no limit" (include/linux/page_counter.h).
const NO_LIMIT_BYTES_MIN: u64 = 1 << 62;

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

    /// Whether the kernel's text for this file says the same: it counts memory in pages, and v1 shows "no limit" as the
    /// largest number of them.
    #[must_use]
    pub fn is_shown_as(&self, shown: &str) -> bool {
        let shown = shown.trim();
        let pages = |text: &str| match text {
            "max" | "-1" => Some(u64::MAX),
            number => {
                number.parse::<u64>().ok().map(|n| if n >= NO_LIMIT_BYTES_MIN { u64::MAX } else { n / PAGE_BYTES })
            }
        };
        let same_pages = || pages(shown).is_some() && pages(shown) == pages(&self.value);
        shown == self.value || (self.controller == "memory" && same_pages())
    }
}

/// Our limits in OCI's words; `None` becomes "unlimited", so that an update can lift a limit. Weights that are not asked
/// for are left as a new cgroup has them.
#[must_use]
pub fn to_oci(resources: &Resources) -> LinuxResources {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let memory = resources.memory_bytes.map_or(-1, bytes);
    // Swap would only hide that the limit is reached: without a word limit and limit with swap are the same.
    let with_swap = match resources.swap_bytes {
        None => memory,
        Some(u64::MAX) => -1,
        Some(_) if memory < 0 => -1,
        Some(swap) => memory.saturating_add(bytes(swap)),
    };
    let mut limits = LinuxMemoryBuilder::default().limit(memory).swap(with_swap);
    if let Some(low) = resources.memory_reservation_bytes {
        limits = limits.reservation(bytes(low));
    }
    let quota = resources.cpu_millis.map_or(-1, |millis| {
        let quota = u64::from(millis) * CPU_PERIOD_US / 1000;
        i64::try_from(quota).unwrap_or(i64::MAX).max(CPU_QUOTA_US_MIN)
    });
    let pids = resources.pids_max.map_or(-1, i64::from);
    let mut cpu = LinuxCpuBuilder::default().quota(quota).period(CPU_PERIOD_US);
    if let Some(shares) = resources.cpu_shares {
        cpu = cpu.shares(u64::from(shares));
    }
    LinuxResourcesBuilder::default()
        .memory(limits.build().expect("all fields have defaults"))
        .cpu(cpu.build().expect("all fields have defaults"))
        .pids(LinuxPidsBuilder::default().limit(pids).build().expect("all fields have defaults"))
        .build()
        .expect("all fields have defaults")
}

/// What takes away weights that limits do not name, for each version.
#[must_use]
pub fn lifted(resources: &Resources, is_v2: bool) -> Vec<Setting> {
    let mut settings = Vec::new();
    let weight = if is_v2 { ("cpu.weight", "100") } else { ("cpu.shares", "1024") };
    let low = if is_v2 { ("memory.low", "0") } else { ("memory.soft_limit_in_bytes", "-1") };
    if resources.cpu_shares.is_none() {
        settings.push(setting("cpu", weight.0, weight.1));
    }
    if resources.memory_reservation_bytes.is_none() {
        settings.push(setting("memory", low.0, low.1));
    }
    settings.into_iter().map(|setting| Setting { optional: true, ..setting }).collect()
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
            Resources {
                memory_bytes: Some(256 << 20),
                cpu_millis: Some(500),
                pids_max: Some(100),
                ..Resources::default()
            },
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
    fn weights_and_swap() {
        let swap_bytes = Some(64 << 20);
        let (cpu_shares, memory_reservation_bytes) = (Some(512), Some(32 << 20));
        let all = Resources {
            memory_bytes: Some(128 << 20),
            swap_bytes,
            memory_reservation_bytes,
            cpu_shares,
            ..Resources::default()
        };
        check(
            all.clone(),
            &expect![[r#"
            memory/memory.max = 134217728
            memory/memory.swap.max = 67108864
            memory/memory.low = 33554432
            cpu/cpu.weight = 20
            cpu/cpu.max = max 100000
            pids/pids.max = max
            --
            memory/memory.limit_in_bytes = 134217728
            memory/memory.memsw.limit_in_bytes = 201326592
            memory/memory.soft_limit_in_bytes = 33554432
            cpu/cpu.shares = 512
            cpu/cpu.cfs_period_us = 100000
            cpu/cpu.cfs_quota_us = -1
            pids/pids.max = max
        "#]],
        );
        let files = |limits: &Resources, v2| {
            lifted(limits, v2).iter().map(|one| format!("{}={}", one.file, one.value)).collect::<Vec<_>>()
        };
        assert_eq!(files(&all, true), [""; 0]);
        assert_eq!(files(&Resources::default(), true), ["cpu.weight=100", "memory.low=0"]);
        assert_eq!(files(&Resources::default(), false), ["cpu.shares=1024", "memory.soft_limit_in_bytes=-1"]);
    }

    #[test]
    fn the_kernels_text_is_compared_in_its_units() {
        let memory = setting("memory", "memory.limit_in_bytes", "100000001".to_owned());
        assert!(memory.is_shown_as("99999744\n"), "rounded down to a page");
        assert!(!memory.is_shown_as("99995648\n"), "a page less");
        assert!(setting("memory", "memory.limit_in_bytes", "-1".to_owned()).is_shown_as("9223372036854771712\n"));
        assert!(!memory.is_shown_as("max\n") && !memory.is_shown_as("junk\n"));
        let cpu = setting("cpu", "cpu.max", "50000 100000".to_owned());
        assert!(cpu.is_shown_as("50000 100000\n") && !cpu.is_shown_as("max 100000\n"));
        assert!(!setting("pids", "pids.max", "4097".to_owned()).is_shown_as("4098\n"), "pids are not pages");
    }

    #[test]
    fn no_limits_and_the_smallest() {
        check(
            Resources { memory_bytes: None, cpu_millis: Some(1), pids_max: None, ..Resources::default() },
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
