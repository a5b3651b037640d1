//! What a configuration may say: the MUSTs of the runtime specification and the combinations that could only fail later
//! and less clearly. Pure.

use oci_spec::runtime::{Linux, LinuxNamespaceType as Type, LinuxResources, Process, Spec};

use crate::network::link::IFNAME_BYTES_MAX;
use crate::process::memory_policy;
use crate::security::{seccomp, sysctl};
use crate::{Error, Result};

/// Checks a configuration.
///
/// # Errors
/// `BadContainer` naming the first property that is wrong; `Unsupported` for one that cannot be had here.
pub(super) fn check(spec: &Spec) -> Result<()> {
    check_version(spec.version())?;
    if spec.root().as_ref().is_none_or(|root| root.path().as_os_str().is_empty()) {
        return bad("`root.path` is missing");
    }
    match spec.process() {
        Some(process) => check_process(process)?,
        None => return bad("`process` is missing"),
    }
    let Some(linux) = spec.linux() else { return bad("`linux` is missing") };
    check_namespaces(spec, linux)?;
    for name in linux.sysctl().iter().flatten().map(|(name, _)| name) {
        check_sysctl(name, linux)?;
    }
    if spec.annotations().iter().flatten().any(|(key, _)| key.is_empty()) {
        return bad("`annotations` has an empty key");
    }
    if let Some(profile) = linux.seccomp() {
        seccomp::compile(profile).map_err(|error| match error {
            Error::BadContainer(why) => Error::BadContainer(format!("config.json: `linux.seccomp`: {why}")),
            Error::Unsupported(why) => Error::Unsupported(format!("config.json: `linux.seccomp`: {why}")),
            other => other,
        })?;
    }
    linux.resources().as_ref().map_or(Ok(()), check_resources)?;
    if linux.intel_rdt().is_some() {
        return Err(Error::Unsupported("`linux.intelRdt` is not supported".into()));
    }
    if let Some(policy) = linux.memory_policy() {
        memory_policy::lower(policy)?;
    }
    check_net_devices(linux)?;
    for (what, paths) in [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())] {
        if let Some(path) = paths.iter().flatten().find(|path| !path.starts_with('/')) {
            return bad(format!("`linux.{what}`: `{path}` is not absolute"));
        }
    }
    Ok(())
}

/// Interfaces are moved into a network namespace: there must be one, and names the kernel takes.
fn check_net_devices(linux: &Linux) -> Result<()> {
    let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) else { return Ok(()) };
    if !linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == Type::Network) {
        return bad("`linux.netDevices` needs a network namespace");
    }
    let mut inside: Vec<&str> = Vec::new();
    for (name, device) in devices {
        let own = device.name().as_deref().filter(|own| !own.is_empty()).unwrap_or(name);
        for one in [name.as_str(), own] {
            let odd =
                |byte: u8| byte == b'/' || byte == b':' || byte == b'%' || byte.is_ascii_whitespace() || byte == 0;
            if one.is_empty() || one.len() > IFNAME_BYTES_MAX || matches!(one, "." | "..") || one.bytes().any(odd) {
                return bad(format!("`linux.netDevices`: `{one}` is no name of a network device"));
            }
        }
        if inside.contains(&own) {
            return bad(format!("`linux.netDevices`: two devices are called `{own}` inside"));
        }
        inside.push(own);
    }
    Ok(())
}

fn bad<T>(why: impl Into<String>) -> Result<T> {
    Err(Error::BadContainer(format!("config.json: {}", why.into())))
}

/// Semantic versioning: this is 1.x, and earlier versions of it are a part of it.
fn check_version(version: &str) -> Result<()> {
    let (numbers, _) = version.split_once(['-', '+']).unwrap_or((version, ""));
    let parsed: Option<Vec<u64>> = numbers.split('.').map(|part| part.parse().ok()).collect();
    match parsed.as_deref() {
        Some([1, _, _]) => Ok(()),
        Some([_, _, _]) => bad(format!("`ociVersion` {version} is not supported, 1.x is")),
        Some(_) | None => bad(format!("`ociVersion` `{version}` is no version")),
    }
}

/// What a program needs to be started, here and in an exec.
pub(super) fn check_process(process: &Process) -> Result<()> {
    if process.args().as_ref().is_none_or(|args| args.first().is_none_or(String::is_empty)) {
        return bad("`process.args` names no program");
    }
    if !process.cwd().is_absolute() {
        return bad(format!("`process.cwd` `{}` is not absolute", process.cwd().display()));
    }
    let mut seen = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        if seen.contains(&limit.typ()) {
            return bad(format!("`process.rlimits` has {} twice", limit.typ()));
        }
        if limit.soft() > limit.hard() {
            return bad(format!("`process.rlimits`: the soft limit of {} is above the hard one", limit.typ()));
        }
        seen.push(limit.typ());
    }
    if process.oom_score_adj().is_some_and(|score| !(-1000..=1000).contains(&score)) {
        return bad("`process.oomScoreAdj` is not between -1000 and 1000");
    }
    for (what, label, there) in [
        ("apparmorProfile", process.apparmor_profile(), "/sys/kernel/security/apparmor"),
        ("selinuxLabel", process.selinux_label(), "/sys/fs/selinux/enforce"),
    ] {
        if label.as_ref().is_some_and(|label| !label.is_empty()) {
            let module = there.split('/').nth(if what == "apparmorProfile" { 4 } else { 3 }).unwrap_or_default();
            return Err(Error::Unsupported(format!("`process.{what}` needs {module}, which is not supported")));
        }
    }
    Ok(())
}

fn check_namespaces(spec: &Spec, linux: &Linux) -> Result<()> {
    let listed = linux.namespaces().as_deref().unwrap_or_default();
    let has = |kind: Type| listed.iter().any(|namespace| namespace.typ() == kind);
    for (at, namespace) in listed.iter().enumerate() {
        if listed[..at].iter().any(|earlier| earlier.typ() == namespace.typ()) {
            return bad(format!("`linux.namespaces` has {} twice", namespace.typ()));
        }
        if namespace.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty() && !path.is_absolute()) {
            return bad(format!("the path of the {} namespace is not absolute", namespace.typ()));
        }
    }
    let listed_paths = |paths: &Option<Vec<String>>| paths.as_ref().is_some_and(|paths| !paths.is_empty());
    if !has(Type::Mount) && (listed_paths(linux.masked_paths()) || listed_paths(linux.readonly_paths())) {
        return bad("`linux.maskedPaths` and `linux.readonlyPaths` need a mount namespace, or the host's were changed");
    }
    for (name, value) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        if value.as_ref().is_some_and(|value| !value.is_empty()) && !has(Type::Uts) {
            return bad(format!("`{name}` needs a uts namespace, or it would be the host's"));
        }
    }
    let maps = |maps: &Option<Vec<_>>| maps.as_ref().is_some_and(|maps: &Vec<_>| !maps.is_empty());
    let makes_user = listed.iter().any(|namespace| {
        namespace.typ() == Type::User && namespace.path().as_ref().is_none_or(|path| path.as_os_str().is_empty())
    });
    if makes_user && !(maps(linux.uid_mappings()) && maps(linux.gid_mappings())) {
        return bad("a user namespace needs `linux.uidMappings` and `linux.gidMappings`");
    }
    if !has(Type::User) && (maps(linux.uid_mappings()) || maps(linux.gid_mappings())) {
        return bad("`linux.uidMappings` and `linux.gidMappings` need a user namespace");
    }
    if linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()) && !has(Type::Time) {
        return bad("`linux.timeOffsets` needs a time namespace");
    }
    Ok(())
}

/// Only settings that belong to one of the container's own namespaces: the others would be the host's.
fn check_sysctl(name: &str, linux: &Linux) -> Result<()> {
    let has = |kind: Type| linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == kind);
    match sysctl::namespace_of(name) {
        None => bad(format!("`linux.sysctl` `{name}` belongs to no namespace: it would be set for the whole host")),
        Some(kind) if !has(kind) => {
            bad(format!("`linux.sysctl` `{name}` needs a {kind} namespace, or it would be the host's"))
        }
        Some(_) => Ok(()),
    }
}

/// What becomes part of the name of a cgroup file stays in the cgroup's directory.
fn check_resources(resources: &LinuxResources) -> Result<()> {
    for file in resources.unified().iter().flatten().map(|(file, _)| file) {
        if file.is_empty() || file.contains(['/', '\0']) || matches!(file.as_str(), "." | "..") {
            return bad(format!("`linux.resources.unified`: `{file}` is no name of a file"));
        }
    }
    for huge in resources.hugepage_limits().iter().flatten() {
        let size = huge.page_size();
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return bad(format!("`linux.resources.hugepageLimits`: `{size}` is no size of a page"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(change: impl FnOnce(&mut serde_json::Value)) -> std::result::Result<(), String> {
        let mut value = serde_json::to_value(crate::oci::template(false)).unwrap();
        change(&mut value);
        let spec = serde_json::from_value(value).map_err(|error| error.to_string())?;
        check(&spec).map_err(|error| error.to_string())
    }

    #[test]
    fn the_template_is_right() {
        checked(|_| {}).unwrap();
    }

    #[test]
    fn versions() {
        for good in ["1.0.0", "1.2.1", "1.0.0-rc5", "1.3.0+dev"] {
            assert_eq!(check_version(good).map_err(|error| error.to_string()), Ok(()), "{good}");
        }
        for bad in ["", "1", "1.0", "0.9.0", "2.0.0", "x.y.z"] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_of_the_host_are_refused() {
        for (name, good) in [
            ("net.ipv4.ip_forward", true),
            ("net/ipv4/conf/eth0.100/rp_filter", true),
            ("kernel.shmmax", true),
            ("fs.mqueue.msg_max", true),
            ("kernel.core_pattern", false),
            ("vm.overcommit_memory", false),
            ("net..x", false),
            ("net/../kernel/core_pattern", false),
            ("kernel.shm_rmid_forced+kernel.core_pattern", false),
        ] {
            let answer = checked(|spec| spec["linux"]["sysctl"] = serde_json::json!({name: "1"}));
            assert_eq!(answer.is_ok(), good, "{name}: {answer:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |change: fn(&mut serde_json::Value), part: &str| {
            let error = checked(change).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        wrong(|spec| spec["process"]["cwd"] = "x".into(), "process.cwd");
        wrong(|spec| spec["process"]["args"] = serde_json::json!([]), "process.args");
        wrong(|spec| spec["root"]["path"] = "".into(), "root.path");
        wrong(|spec| spec["annotations"] = serde_json::json!({"": "x"}), "annotations");
        wrong(
            |spec| spec["linux"]["uidMappings"] = serde_json::json!([{"containerID": 0, "hostID": 1, "size": 1}]),
            "uidMappings",
        );
        wrong(|spec| spec["linux"]["namespaces"] = serde_json::json!([{"type": "mount"}]), "hostname");
        wrong(|spec| spec["linux"]["namespaces"] = serde_json::json!([{"type": "mount"}, {"type": "mount"}]), "twice");
        wrong(|spec| spec["process"]["oomScoreAdj"] = 1001.into(), "oomScoreAdj");
        wrong(|spec| spec.as_object_mut().unwrap().remove("process").map(drop).unwrap_or_default(), "process");
    }
}
