//! Which of the kernel's settings belong to a namespace of a container, so that setting one leaves the host's alone. Pure.

use oci_spec::runtime::LinuxNamespaceType as Type;

/// Settings of IPC namespaces (ipc/ipc_sysctl.c).
const IPC: [&str; 9] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
    "kernel/auto_msgmni",
];

/// The kind of namespace a setting belongs to; `None`: to the host, or it is no name of a setting. As sysctl(8) has it,
/// whichever of `.` and `/` comes first separates.
#[must_use]
pub fn namespace_of(name: &str) -> Option<Type> {
    let path = path_of(name);
    let is_part = |part: &str| !part.is_empty() && part != ".." && !part.contains('\0');
    if !path.split('/').all(is_part) {
        return None;
    }
    if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
        Some(Type::Ipc)
    } else if path.starts_with("net/") {
        Some(Type::Network)
    } else if path == "kernel/domainname" || path == "kernel/hostname" {
        Some(Type::Uts)
    } else {
        None
    }
}

/// With dots between its parts.
#[must_use]
pub fn dotted(name: &str) -> String {
    swapped(&path_of(name))
}

fn path_of(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => swapped(name),
        Some(_) | None => name.to_owned(),
    }
}

fn swapped(name: &str) -> String {
    let swap = |c: char| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_namespace_has() {
        for (name, kind) in [
            ("net.core.somaxconn", Some(Type::Network)),
            ("net/ipv4/conf/eth0.1/forwarding", Some(Type::Network)),
            ("kernel.shmmax", Some(Type::Ipc)),
            ("fs.mqueue.msg_max", Some(Type::Ipc)),
            ("kernel/hostname", Some(Type::Uts)),
            ("kernel.core_pattern", None),
            ("vm.swappiness", None),
            ("net.", None),
            ("net/../kernel/core_pattern", None),
            ("net..core", None),
            ("", None),
        ] {
            assert_eq!(namespace_of(name), kind, "{name}");
        }
        assert_eq!(dotted("net/ipv4/conf/eth0.1/forwarding"), "net.ipv4.conf.eth0/1.forwarding");
        assert_eq!(dotted("net.core.somaxconn"), "net.core.somaxconn");
    }
}
