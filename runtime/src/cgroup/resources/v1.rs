//! Limits as files of the v1 hierarchies (Documentation/admin-guide/cgroup-v1). Pure.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use crate::cgroup::devices;

use super::{CPU_PERIOD_US, Setting, max_pids, setting};

/// The files of v1 cgroups.
#[must_use]
pub fn v1(limits: &LinuxResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    settings.extend(limits.memory().iter().flat_map(memory));
    settings.extend(limits.cpu().iter().flat_map(cpu));
    settings.extend(limits.pids().iter().map(|pids| setting("pids", "pids.max", max_pids(pids.limit()))));
    settings.extend(limits.block_io().iter().flat_map(block_io));
    for huge in limits.hugepage_limits().iter().flatten() {
        let file = format!("hugetlb.{}.limit_in_bytes", huge.page_size());
        settings.push(setting("hugetlb", file, huge.limit()));
    }
    if let Some(network) = limits.network() {
        settings.extend(network.class_id().map(|class| setting("net_cls", "net_cls.classid", class)));
        for one in network.priorities().iter().flatten() {
            settings.push(setting("net_prio", "net_prio.ifpriomap", format!("{} {}", one.name(), one.priority())));
        }
    }
    settings.extend(super::v2::rdma(limits));
    settings.extend(limits.devices().iter().flat_map(|rules| devices::v1(rules)));
    settings
}

fn memory(memory: &LinuxMemory) -> Vec<Setting> {
    let file = |file: &'static str, limit: Option<i64>| limit.map(|limit| setting("memory", file, limit.max(-1)));
    let optional = |setting: Setting| Setting { optional: true, ..setting };
    // Kernel memory alone cannot be limited since 6.1 and has no file then.
    let settings = [
        file("memory.limit_in_bytes", memory.limit()),
        file("memory.memsw.limit_in_bytes", memory.swap()).map(optional),
        file("memory.soft_limit_in_bytes", memory.reservation()),
        file("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp()).map(optional),
        memory.swappiness().map(|swappiness| setting("memory", "memory.swappiness", swappiness)),
        memory.disable_oom_killer().map(|off| setting("memory", "memory.oom_control", u8::from(off))),
    ];
    settings.into_iter().flatten().collect()
}

fn cpu(cpu: &LinuxCpu) -> Vec<Setting> {
    let period = cpu.period().or(cpu.quota().map(|_| CPU_PERIOD_US));
    let settings = [
        // 0 is "as it is" in engines that always send the field.
        cpu.shares().filter(|shares| *shares != 0).map(|shares| setting("cpu", "cpu.shares", shares)),
        period.filter(|period| *period != 0).map(|period| setting("cpu", "cpu.cfs_period_us", period)),
        cpu.quota().filter(|quota| *quota != 0).map(|quota| setting("cpu", "cpu.cfs_quota_us", quota.max(-1))),
        cpu.burst().map(|burst| setting("cpu", "cpu.cfs_burst_us", burst)),
        cpu.realtime_period().filter(|period| *period != 0).map(|period| setting("cpu", "cpu.rt_period_us", period)),
        cpu.realtime_runtime().filter(|time| *time != 0).map(|time| setting("cpu", "cpu.rt_runtime_us", time)),
        cpu.idle().map(|idle| setting("cpu", "cpu.idle", idle)),
        cpu.cpus().as_ref().filter(|list| !list.is_empty()).map(|list| setting("cpuset", "cpuset.cpus", list)),
        cpu.mems().as_ref().filter(|list| !list.is_empty()).map(|list| setting("cpuset", "cpuset.mems", list)),
    ];
    settings.into_iter().flatten().collect()
}

fn block_io(io: &LinuxBlockIo) -> Vec<Setting> {
    let mut settings = Vec::new();
    // Which of the two there is depends on the scheduler the kernel was built with.
    let weight = |file: &'static str, value: u16| Setting { optional: true, ..setting("blkio", file, value) };
    for value in io.weight().iter().filter(|value| **value != 0) {
        settings.extend([weight("blkio.weight", *value), weight("blkio.bfq.weight", *value)]);
    }
    settings.extend(io.leaf_weight().filter(|value| *value != 0).map(|value| weight("blkio.leaf_weight", value)));
    for device in io.weight_device().iter().flatten() {
        let value = |weight: u16| format!("{}:{} {weight}", device.major(), device.minor());
        let file = |file: &'static str, value| Setting { optional: true, ..setting("blkio", file, value) };
        settings.extend(device.weight().map(|weight| file("blkio.bfq.weight_device", value(weight))));
        settings.extend(device.leaf_weight().map(|weight| file("blkio.leaf_weight_device", value(weight))));
    }
    let mut throttle = |file: &'static str, devices: &Option<Vec<LinuxThrottleDevice>>| {
        for device in devices.iter().flatten() {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            settings.push(setting("blkio", file, value));
        }
    };
    throttle("blkio.throttle.read_bps_device", io.throttle_read_bps_device());
    throttle("blkio.throttle.write_bps_device", io.throttle_write_bps_device());
    throttle("blkio.throttle.read_iops_device", io.throttle_read_iops_device());
    throttle("blkio.throttle.write_iops_device", io.throttle_write_iops_device());
    settings
}
