//! The OCI half of lowering: process, mounts, namespaces, limits, hardening. Pure.

use std::collections::HashMap;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
    Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use super::{LowerInput, check_target};
use crate::cgroup::resources;
use crate::runtime::{MountSource, NetworkMode, Ulimit};
use crate::security::{capabilities, masks, seccomp, sysctl};
use crate::{Error, Result};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Open files: what select(2) can take, and what a program may raise it to (systemd's values).
const NOFILE: (u64, u64) = (1024, NOFILE_MAX);
/// The latter.
pub(crate) const NOFILE_MAX: u64 = 524_288;

/// Builds the spec.
pub(super) fn spec(input: &LowerInput<'_>) -> Result<Spec> {
    let root = RootBuilder::default().path("rootfs").readonly(input.config.security.read_only_root);
    SpecBuilder::default()
        .version("1.2.0")
        .root(root.build().map_err(built)?)
        .hostname(input.config.hostname.clone())
        .process(process(input)?)
        .mounts(mounts(input)?)
        .linux(linux(input)?)
        .build()
        .map_err(built)
        .map(|mut spec| {
            spec.set_domainname(input.config.extras.domainname.clone());
            spec
        })
}

fn built(error: OciSpecError) -> Error {
    Error::BadContainer(format!("the OCI spec cannot be built: {error}"))
}

fn process(input: &LowerInput<'_>) -> Result<Process> {
    let config = input.config;
    let set = capabilities::effective_set(&config.security)?;
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(oci_spec::runtime::Capabilities::new())
        .ambient(oci_spec::runtime::Capabilities::new());
    let nofile = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(NOFILE.0).hard(NOFILE.1).build();
    let (uid, gid) = numeric_user(config.user.as_deref().or(input.image.user.as_deref()));
    ProcessBuilder::default()
        .terminal(config.tty)
        .user(UserBuilder::default().uid(uid).gid(gid).umask(0o022_u32).build().map_err(built)?)
        .args(args(input)?)
        .env(env(input)?)
        .cwd(cwd(input)?)
        .capabilities(capabilities.build().map_err(built)?)
        .rlimits(rlimits(nofile.map_err(built)?, &config.extras.ulimits)?)
        .no_new_privileges(!config.security.allow_privilege_escalation)
        .oom_score_adj(i32::from(config.extras.oom_score_adj.unwrap_or(0)))
        .build()
        .map_err(built)
}

/// The limit of open files every container has, and those that are asked for, which come before it.
fn rlimits(nofile: PosixRlimit, asked: &[Ulimit]) -> Result<Vec<PosixRlimit>> {
    let mut limits = Vec::new();
    for Ulimit { name, soft, hard } in asked {
        let kind = format!("RLIMIT_{}", name.to_ascii_uppercase()).parse::<PosixRlimitType>();
        let kind = kind.map_err(|_| Error::BadContainer(format!("there is no resource limit `{name}`")))?;
        if soft > hard {
            return Err(Error::BadContainer(format!("the limit `{name}` is {soft}, more than its maximum of {hard}")));
        }
        limits.push(PosixRlimitBuilder::default().typ(kind).soft(*soft).hard(*hard).build().map_err(built)?);
    }
    if !limits.iter().any(|limit| limit.typ() == nofile.typ()) {
        limits.push(nofile);
    }
    Ok(limits)
}

/// Ids that are known without the container's files; `Launch::user` decides at the start.
fn numeric_user(user: Option<&str>) -> (u32, u32) {
    let mut parts = user.unwrap_or_default().splitn(2, ':').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn args(input: &LowerInput<'_>) -> Result<Vec<String>> {
    let (config, image) = (input.config, input.image);
    let mut args = config.entrypoint.clone().unwrap_or_else(|| image.entrypoint.clone());
    match (&config.args, &config.entrypoint) {
        (Some(given), _) => args.extend(given.iter().cloned()),
        (None, None) => args.extend(image.cmd.iter().cloned()),
        (None, Some(_)) => {}
    }
    if args.first().is_none_or(String::is_empty) {
        return Err(Error::BadContainer(
            "there is nothing to run: neither the image nor the container names a program".into(),
        ));
    }
    if args.iter().any(|arg| arg.contains('\0')) {
        return Err(Error::BadContainer("an argument contains a zero byte".into()));
    }
    Ok(args)
}

fn env(input: &LowerInput<'_>) -> Result<Vec<String>> {
    let (given, sealed) = (&input.config.env, &input.config.sealed_env);
    if let Some(name) = given.keys().chain(sealed.keys()).find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(Error::BadContainer(format!("`{name}` cannot be the name of an environment variable")));
    }
    if let Some((name, _)) = given.iter().find(|(_, value)| value.contains('\0')) {
        return Err(Error::BadContainer(format!("the value of environment variable `{name}` contains a zero byte")));
    }
    let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let mut env: Vec<String> = input
        .image
        .env
        .iter()
        .filter(|line| !given.contains_key(&name(line)) && !sealed.contains_key(&name(line)) && !line.contains('\0'))
        .cloned()
        .collect();
    env.extend(given.iter().map(|(name, value)| format!("{name}={value}")));
    for (name, sealed) in &input.config.sealed_env {
        let Some(value) = input.secrets.get(sealed) else { continue };
        let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
        let text = text.ok_or_else(|| Error::BadContainer(format!("the secret in variable `{name}` is not text")))?;
        env.push(format!("{name}={text}"));
    }
    let has = |wanted: &str, env: &[String]| env.iter().any(|line| name(line) == wanted);
    if !has("PATH", &env) {
        env.insert(0, DEFAULT_PATH.to_owned());
    }
    if !has("HOSTNAME", &env) {
        env.push(format!("HOSTNAME={}", input.config.hostname));
    }
    if input.config.tty && !has("TERM", &env) {
        env.push("TERM=xterm".to_owned());
    }
    Ok(env)
}

/// An image's relative WORKDIR counts from the root, as in Docker.
fn cwd(input: &LowerInput<'_>) -> Result<String> {
    let dir = input.config.working_dir.as_deref().or(input.image.working_dir.as_deref()).unwrap_or("/");
    if dir.contains('\0') {
        return Err(Error::BadContainer("the working directory contains a zero byte".into()));
    }
    Ok(format!("/{}", dir.trim_start_matches('/')))
}

fn mounts(input: &LowerInput<'_>) -> Result<Vec<Mount>> {
    let shm = format!("size={}", input.config.shm_bytes);
    let standard: [(&str, &str, &[&str]); 7] = [
        ("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
        ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ];
    let own = &input.config.mounts;
    let mut mounts = Vec::new();
    for (target, kind, options) in standard {
        // Only what nothing else of ours rests on may be replaced.
        if !(target == "/dev/shm" && own.iter().any(|mount| mount.target == target)) {
            mounts.push(mount(target, kind, options.iter().map(|option| (*option).to_owned()).collect())?);
        }
    }
    for one in own.iter().filter(|_| !input.config.is_holder()) {
        let MountSource::Tmpfs { size_bytes } = &one.source else { continue };
        check_target(&one.target)?;
        let mut options: Vec<String> = ["nosuid", "nodev", "mode=1777"].map(str::to_owned).to_vec();
        options.extend(size_bytes.map(|bytes| format!("size={bytes}")));
        if one.read_only {
            options.push("ro".to_owned());
        }
        mounts.push(mount(&one.target, "tmpfs", options)?);
    }
    Ok(mounts)
}

fn mount(target: &str, kind: &str, options: Vec<String>) -> Result<Mount> {
    MountBuilder::default().destination(target).typ(kind).source(kind).options(options).build().map_err(built)
}

fn linux(input: &LowerInput<'_>) -> Result<Linux> {
    let config = input.config;
    let set = capabilities::effective_set(&config.security)?;
    let texts = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    LinuxBuilder::default()
        .uid_mappings(vec![mapping(input)?])
        .gid_mappings(vec![mapping(input)?])
        .sysctl(sysctl(input)?)
        .resources(resources::to_oci(&config.resources))
        .cgroups_path(format!("/{}/{}", input.cgroup_parent, config.id))
        .namespaces(namespaces(&config.network)?)
        .seccomp(seccomp::profile(&set))
        .masked_paths(texts(masks::MASKED))
        .readonly_paths(texts(masks::READ_ONLY))
        .build()
        .map_err(built)
}

fn mapping(input: &LowerInput<'_>) -> Result<LinuxIdMapping> {
    let ids = input.config.ids;
    if ids.len == 0 || ids.host_start.checked_add(ids.len).is_none() {
        return Err(Error::BadContainer(format!("{} host ids from {} on are no range", ids.len, ids.host_start)));
    }
    LinuxIdMappingBuilder::default().container_id(0_u32).host_id(ids.host_start).size(ids.len).build().map_err(built)
}

/// Ping without CAP_NET_RAW for every group that is mapped, and low ports for everybody; then what is asked for.
fn sysctl(input: &LowerInput<'_>) -> Result<HashMap<String, String>> {
    let config = input.config;
    let mut settings = HashMap::new();
    let own_network = config.network != NetworkMode::Host;
    if own_network {
        let last = config.ids.len.saturating_sub(1);
        settings.insert("net.ipv4.ping_group_range".to_owned(), format!("0 {last}"));
        settings.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
    }
    for (name, value) in &config.extras.sysctls {
        let of_host = match sysctl::namespace_of(name) {
            Some(LinuxNamespaceType::Network) => !own_network,
            Some(_) => false,
            None => true,
        };
        if of_host {
            return Err(Error::BadContainer(format!("the kernel's setting `{name}` would be the host's")));
        }
        settings.insert(sysctl::dotted(name), value.clone());
    }
    Ok(settings)
}

fn namespaces(network: &NetworkMode) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType as Type;
    let mut kinds = vec![Type::User, Type::Pid, Type::Mount, Type::Ipc, Type::Uts, Type::Cgroup];
    if *network != NetworkMode::Host {
        kinds.push(Type::Network);
    }
    kinds.into_iter().map(|kind| LinuxNamespaceBuilder::default().typ(kind).build().map_err(built)).collect()
}
