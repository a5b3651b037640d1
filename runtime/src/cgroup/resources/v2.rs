//! Limits as files of a v2 cgroup (Documentation/admin-guide/cgroup-v2.rst). Pure.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::{CPU_PERIOD_US, Setting, max, max_pids, setting};

/// The files of a v2 cgroup.
#[must_use]
pub fn v2(limits: &LinuxResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    settings.extend(limits.memory().iter().flat_map(memory));
    settings.extend(limits.cpu().iter().flat_map(cpu));
    settings.extend(limits.pids().iter().map(|pids| setting("pids", "pids.max", max_pids(pids.limit()))));
    settings.extend(limits.block_io().iter().flat_map(block_io));
    for huge in limits.hugepage_limits().iter().flatten() {
        settings.push(setting("hugetlb", format!("hugetlb.{}.max", huge.page_size()), huge.limit()));
    }
    settings.extend(rdma(limits));
    for (file, value) in limits.unified().iter().flatten() {
        settings.push(setting("unified", file.clone(), value));
    }
    settings
}

fn memory(memory: &LinuxMemory) -> Vec<Setting> {
    let mut settings = Vec::new();
    settings.extend(memory.limit().map(|limit| setting("memory", "memory.max", max(limit))));
    if let Some(swap) = memory.swap() {
        // OCI's swap is memory and swap together; v2 counts swap alone.
        let limit = memory.limit().unwrap_or(0).max(0);
        let alone = if swap < 0 { -1 } else { swap.saturating_sub(limit).max(0) };
        settings.push(Setting { optional: true, ..setting("memory", "memory.swap.max", max(alone)) });
    }
    settings.extend(memory.reservation().map(|low| setting("memory", "memory.low", max(low))));
    settings
}

fn cpu(cpu: &LinuxCpu) -> Vec<Setting> {
    let mut settings = Vec::new();
    settings
        .extend(cpu.shares().filter(|shares| *shares != 0).map(|shares| setting("cpu", "cpu.weight", weight(shares))));
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let value = format!("{} {}", max(quota.unwrap_or(-1)), period.unwrap_or(CPU_PERIOD_US));
        settings.push(setting("cpu", "cpu.max", value));
    }
    settings.extend(cpu.burst().map(|burst| setting("cpu", "cpu.max.burst", burst)));
    settings.extend(cpu.idle().map(|idle| setting("cpu", "cpu.idle", idle)));
    let list = |file: &'static str, list: &Option<String>| {
        list.as_ref().filter(|list| !list.is_empty()).map(|list| setting("cpuset", file, list))
    };
    settings.extend(list("cpuset.cpus", cpu.cpus()));
    settings.extend(list("cpuset.mems", cpu.mems()));
    settings
}

/// v1 shares, 2 to 262144, as a v2 weight, 1 to 10000: the line every runtime draws.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn block_io(io: &LinuxBlockIo) -> Vec<Setting> {
    let mut settings = Vec::new();
    for value in io.weight().iter().filter(|value| **value != 0) {
        settings.push(Setting { optional: true, ..setting("io", "io.bfq.weight", value) });
    }
    let mut throttle = |what: &str, devices: &Option<Vec<LinuxThrottleDevice>>| {
        for device in devices.iter().flatten() {
            settings.push(setting(
                "io",
                "io.max",
                format!("{}:{} {what}={}", device.major(), device.minor(), device.rate()),
            ));
        }
    };
    throttle("rbps", io.throttle_read_bps_device());
    throttle("wbps", io.throttle_write_bps_device());
    throttle("riops", io.throttle_read_iops_device());
    throttle("wiops", io.throttle_write_iops_device());
    settings
}

/// The same file on v1 and v2.
pub(super) fn rdma(limits: &LinuxResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (device, limit) in limits.rdma().iter().flatten() {
        let handles = limit.hca_handles().map(|count| format!(" hca_handle={count}")).unwrap_or_default();
        let objects = limit.hca_objects().map(|count| format!(" hca_object={count}")).unwrap_or_default();
        settings.push(setting("rdma", "rdma.max", format!("{device}{handles}{objects}")));
    }
    settings
}
