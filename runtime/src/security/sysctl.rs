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
    let path = path(name)?;
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

/// The path of a setting below /proc/sys; `None` for what is no name of one.
#[must_use]
pub fn path(name: &str) -> Option<String> {
    let path = path_of(name);
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    path.split('/').all(is_part).then_some(path)
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
    use proptest::prelude::*;

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

    fn part() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(vec![
                "net", "kernel", "fs", "mqueue", "shmmax", "hostname", "sem", "ipv4", "conf", "vm", "msg_max",
            ])
            .prop_map(str::to_owned),
            "[a-z0-9_:-]{1,8}",
            // names of interfaces have dots
            "[a-z0-9]{1,4}\\.[0-9]{1,4}",
        ]
    }

    proptest! {
        /// Both spellings of a setting are one, and lead to where its parts say.
        #[test]
        fn both_spellings_mean_the_same(mut parts in prop::collection::vec(part(), 1..6)) {
            // the first separator tells the two apart: it may not stand in the first name
            parts[0] = parts[0].replace('.', "");
            let with_slashes = parts.join("/");
            let with_dots =
                parts.iter().map(|part| part.replace('.', "/")).collect::<Vec<_>>().join(".");
            prop_assert_eq!(path(&with_slashes), Some(with_slashes.clone()));
            prop_assert_eq!(path(&with_dots), Some(with_slashes));
        }

        /// Whatever is written, the path stays below /proc/sys.
        #[test]
        fn no_name_leads_out(name in "[a-z./\\x00]{0,12}") {
            if let Some(path) = path(&name) {
                let parts: Vec<&str> = path.split('/').collect();
                prop_assert!(!parts.iter().any(|part| matches!(*part, "" | "." | "..")), "{} {}", name, path);
            }
        }

        /// Only what the kernel keeps for each namespace belongs to one: everything else is the host's.
        #[test]
        fn only_settings_of_namespaces_belong_to_one(parts in prop::collection::vec(part(), 1..5)) {
            let name = parts.join("/");
            let parts: Vec<&str> = name.split('/').collect();
            let expected = match parts.as_slice() {
                ["net", _, ..] => Some(Type::Network),
                ["fs", "mqueue", _, ..] => Some(Type::Ipc),
                ["kernel", "hostname" | "domainname"] => Some(Type::Uts),
                ["kernel", one] if one.starts_with("shm") || one.starts_with("msg") || *one == "sem" || *one == "auto_msgmni" => {
                    IPC.contains(&name.as_str()).then_some(Type::Ipc)
                }
                _ => None,
            };
            prop_assert_eq!(namespace_of(&name), expected);
        }
    }
}
