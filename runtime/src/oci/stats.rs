//! What a container uses now, from its cgroup files, in the words of runc's `events`.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::record::Container;
use crate::cgroup::Hierarchies;
use crate::error::Result;

/// Numbers of one container; what the host does not count is 0.
///
/// # Errors
/// `Unsupported`, `Io` when the host's cgroups cannot be found.
pub fn stats(container: &Container) -> Result<Value> {
    let hierarchies = Hierarchies::of_launch(&container.record.launch)?;
    let files = Files { hierarchies, name: &container.record.launch.cgroup };
    let data = if hierarchies.controllers.is_empty() { files.v2() } else { files.v1() };
    Ok(json!({ "type": "stats", "id": container.id(), "data": data }))
}

struct Files<'a> {
    hierarchies: &'a Hierarchies,
    name: &'a str,
}

impl Files<'_> {
    fn path(&self, controller: &str, file: &str) -> PathBuf {
        self.hierarchies.root_of(controller).join(self.name).join(file)
    }

    fn text(&self, controller: &str, file: &str) -> String {
        fs::read_to_string(self.path(controller, file)).unwrap_or_default()
    }

    /// A file with one number; `max` is the largest there is.
    fn number(&self, controller: &str, file: &str) -> u64 {
        let text = self.text(controller, file);
        if text.trim() == "max" { u64::MAX } else { text.trim().parse().unwrap_or(0) }
    }

    /// A number of a file of `key number` lines.
    fn keyed(&self, controller: &str, file: &str, key: &str) -> u64 {
        lines(&self.text(controller, file)).find(|(name, _)| *name == key).map_or(0, |(_, number)| number)
    }

    fn v1(&self) -> Value {
        let percpu: Vec<u64> = self
            .text("cpuacct", "cpuacct.usage_percpu")
            .split_ascii_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        let memory = |file: &str| self.number("memory", file);
        let raw: serde_json::Map<String, Value> =
            lines(&self.text("memory", "memory.stat")).map(|(key, number)| (key.to_owned(), number.into())).collect();
        json!({
            "cpu": {
                "usage": {
                    "total": self.number("cpuacct", "cpuacct.usage"),
                    "kernel": self.number("cpuacct", "cpuacct.usage_sys"),
                    "user": self.number("cpuacct", "cpuacct.usage_user"),
                    "percpu": percpu,
                },
                "throttling": self.throttling("throttled_time", 1),
            },
            "memory": {
                "usage": {
                    "usage": memory("memory.usage_in_bytes"),
                    "max": memory("memory.max_usage_in_bytes"),
                    "limit": memory("memory.limit_in_bytes"),
                    "failcnt": memory("memory.failcnt"),
                },
                "cache": self.keyed("memory", "memory.stat", "cache"),
                "raw": raw,
            },
            "pids": self.pids(),
            "blkio": { "ioServiceBytesRecursive": self.block_io() },
        })
    }

    fn v2(&self) -> Value {
        let micros = |key: &str| self.keyed("cpu", "cpu.stat", key) * 1000;
        let memory = |file: &str| self.number("memory", file);
        let raw: serde_json::Map<String, Value> =
            lines(&self.text("memory", "memory.stat")).map(|(key, number)| (key.to_owned(), number.into())).collect();
        json!({
            "cpu": {
                "usage": { "total": micros("usage_usec"), "kernel": micros("system_usec"), "user": micros("user_usec") },
                "throttling": self.throttling("throttled_usec", 1000),
            },
            "memory": {
                "usage": {
                    "usage": memory("memory.current"),
                    "max": memory("memory.peak"),
                    "limit": memory("memory.max"),
                    "failcnt": self.keyed("memory", "memory.events", "max"),
                },
                "cache": self.keyed("memory", "memory.stat", "file"),
                "raw": raw,
            },
            "pids": self.pids(),
        })
    }

    fn throttling(&self, time: &str, nanoseconds: u64) -> Value {
        let stat = |key: &str| self.keyed("cpu", "cpu.stat", key);
        json!({
            "periods": stat("nr_periods"),
            "throttledPeriods": stat("nr_throttled"),
            "throttledTime": stat(time) * nanoseconds,
        })
    }

    fn pids(&self) -> Value {
        let limit = self.number("pids", "pids.max");
        json!({ "current": self.number("pids", "pids.current"), "limit": if limit == u64::MAX { 0 } else { limit } })
    }

    /// Lines of `8:0 Read 4096`.
    fn block_io(&self) -> Vec<Value> {
        let text = self.text("blkio", "blkio.throttle.io_service_bytes_recursive");
        let entry = |line: &str| {
            let (device, rest) = line.split_once(' ')?;
            let ((major, minor), (op, value)) = (device.split_once(':')?, rest.split_once(' ')?);
            let number = |text: &str| text.trim().parse::<u64>().ok();
            Some(json!({ "major": number(major)?, "minor": number(minor)?, "op": op, "value": number(value)? }))
        };
        text.lines().filter_map(entry).collect()
    }
}

/// Lines of `key number`.
fn lines(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, number) = line.split_once(' ')?;
        Some((key, number.trim().parse().ok()?))
    })
}
