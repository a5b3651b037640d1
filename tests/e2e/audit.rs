//! What the kernel holds that a scenario could leak, read from the kernel: mounts, network namespaces, links, addresses,
//! nftables tables, rules, listening sockets, processes and cgroups.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Result, ensure};

/// Everything there is, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Audit(BTreeMap<&'static str, BTreeSet<String>>);

impl Audit {
    /// Of the namespaces this process is in; `mark` is in the names of this scenario's cgroups.
    pub(crate) fn take(mark: &str) -> Self {
        let mut kinds: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
        kinds.insert(
            "mounts",
            lines("/proc/self/mountinfo").iter().filter_map(|l| l.split(' ').nth(4).map(Into::into)).collect(),
        );
        kinds.insert(
            "links",
            lines("/proc/self/net/dev")
                .iter()
                .skip(2)
                .filter_map(|l| l.split(':').next())
                .map(|l| l.trim().into())
                .collect(),
        );
        kinds.insert("addresses", output("ip", &["-o", "address"]));
        kinds.insert("network namespaces", network_namespaces());
        kinds.insert("nftables", output("nft", &["list", "tables"]));
        kinds.insert("routing rules", output("ip", &["rule"]));
        kinds.insert("listening", listening());
        kinds.insert("processes", processes().into_iter().map(|(pid, command)| format!("{pid} {command}")).collect());
        kinds.insert("cgroups", cgroups(mark));
        Self(kinds)
    }

    /// Nothing is here that was not there before.
    pub(crate) fn nothing_more_than(&self, before: &Self) -> Result {
        let mut more = Vec::new();
        for (kind, now) in &self.0 {
            let extra: Vec<&String> = now.difference(&before.0[kind]).collect();
            if !extra.is_empty() {
                more.push(format!("{} {kind}: {}", extra.len(), join(&extra)));
            }
        }
        ensure!(more.is_empty(), "left behind: {}", more.join("; "));
        Ok(())
    }

    /// How many of each kind: for cycles, where names differ but numbers must not grow.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, usize> {
        self.0.iter().map(|(kind, things)| (*kind, things.len())).collect()
    }
}

fn join(things: &[&String]) -> String {
    let shown: Vec<&str> = things.iter().take(5).map(|thing| thing.as_str()).collect();
    shown.join(", ") + if things.len() > 5 { ", …" } else { "" }
}

fn lines(path: &str) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn output(program: &str, args: &[&str]) -> BTreeSet<String> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    match Command::new(program).args(args).env("PATH", path).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim().to_owned()).collect(),
        Err(_) => BTreeSet::new(),
    }
}

/// Network namespaces some process is in, or that are held by a mount or an open descriptor.
fn network_namespaces() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (pid, _) in processes() {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let fds = std::fs::read_dir(dir.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        for link in fds.chain([dir.join("ns/net")]) {
            if let Ok(target) = std::fs::read_link(link)
                && target.to_string_lossy().starts_with("net:")
            {
                found.insert(target.to_string_lossy().into_owned());
            }
        }
    }
    let held = lines("/proc/self/mountinfo").into_iter().filter(|line| line.contains(" nsfs "));
    found.extend(held.filter_map(|line| line.split(' ').nth(3).map(str::to_owned)));
    found
}

fn listening() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        for line in lines(file).iter().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields.get(3) == Some(&"0A") {
                found.insert(fields[1].to_owned());
            }
        }
    }
    found
}

/// Processes of this pid namespace, without the zombies that process 1 is about to reap.
pub(crate) fn processes() -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with('Z') || rest.is_empty()) {
            continue;
        }
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        found.push((pid, String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ")));
    }
    found
}

/// Open descriptors of a process by what they are, with numbers taken out.
pub(crate) fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or(0)
}

/// Cgroups with the mark in their path, below every mounted hierarchy.
pub(crate) fn cgroups(mark: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut todo = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !mark.is_empty() && is_marked(&entry.path(), mark) {
                    found.insert(entry.path().to_string_lossy().into_owned());
                }
                todo.push(entry.path());
            }
        }
    }
    found
}

fn is_marked(path: &Path, mark: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(mark))
}
