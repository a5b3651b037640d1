//! `securityContext`, of the pod and of the container: who the program runs as, and what it may.

use runtime::runtime::SecurityConfig;

use super::{Lower, keys};
use crate::manifest::keys::Entries;
use crate::manifest::native::text::Capability;
use crate::manifest::native::tuning::SysctlName;
use crate::manifest::tree::Node;
use crate::model::{Tuning, codes};

/// What both contexts say together.
#[derive(Default)]
pub(super) struct Security {
    pub(super) user: Option<String>,
    pub(super) config: SecurityConfig,
    pub(super) tuning: Tuning,
}

pub(super) fn lower(lower: &mut Lower, pod: Option<&Node>, container: Option<&Node>) -> Security {
    let pod = pod.map(|node| lower.reader.keys(node, &keys::POD_SECURITY)).unwrap_or_default();
    let own = container.map(|node| lower.reader.keys(node, &keys::SECURITY)).unwrap_or_default();
    for found in [&pod, &own] {
        if let Some(node) = found.get("seccompProfile") {
            lower.reader.keys(node, &keys::SECCOMP);
        }
    }
    let user = user(lower, &pod, &own);
    let mut config = SecurityConfig::default();
    if let Some(node) = own.get("readOnlyRootFilesystem") {
        config.read_only_root = lower.reader.flag("readOnlyRootFilesystem", node);
    }
    // Safe by default: the right to gain rights is given when it is asked for, not when it is not refused.
    if let Some(node) = own.get("allowPrivilegeEscalation") {
        config.allow_privilege_escalation = lower.reader.flag("allowPrivilegeEscalation", node);
    }
    if let Some(node) = own.get("capabilities") {
        let found = lower.reader.keys(node, &keys::CAPABILITIES);
        config.cap_add = capabilities(lower, &found, "add");
        config.cap_drop = capabilities(lower, &found, "drop");
    }
    let tuning = tuning(lower, &pod);
    Security { user, config, tuning }
}

/// Groups and settings of the pod, which all its containers have.
fn tuning(lower: &mut Lower, pod: &Entries<'_>) -> Tuning {
    let mut tuning = Tuning::default();
    if let Some(node) = pod.get("supplementalGroups") {
        let items = lower.reader.list("supplementalGroups", node);
        let groups = items.iter().filter_map(|item| lower.reader.number("supplementalGroups", item, u32::MAX));
        tuning.groups = groups.map(|group| group.to_string()).collect();
    }
    for item in pod.get("sysctls").map(|node| lower.reader.list("sysctls", node)).unwrap_or_default() {
        let found = lower.reader.keys(item, &keys::SYSCTL);
        let name = found.get("name").and_then(|node| lower.reader.format::<SysctlName>("name", node));
        let value = found.get("value").and_then(|node| lower.reader.text("value", node));
        tuning.sysctls.extend(name.map(|name| name.0).zip(value));
    }
    tuning
}

fn capabilities(lower: &mut Lower, found: &Entries<'_>, key: &str) -> Vec<String> {
    let Some(node) = found.get(key) else { return Vec::new() };
    let items = lower.reader.list(key, node);
    items.iter().filter_map(|item| lower.reader.format::<Capability>(key, item)).map(|cap| cap.0).collect()
}

/// `uid[:gid]`; the container's wins over the pod's.
fn user(lower: &mut Lower, pod: &Entries<'_>, own: &Entries<'_>) -> Option<String> {
    let either = |key: &str| own.get(key).or_else(|| pod.get(key));
    let user = either("runAsUser").and_then(|node| lower.reader.number("runAsUser", node, u32::MAX));
    let group = either("runAsGroup").map(|node| (lower.reader.number("runAsGroup", node, u32::MAX), node));
    if let Some(node) = either("runAsNonRoot")
        && lower.reader.flag("runAsNonRoot", node)
    {
        match user {
            Some(0) => {
                lower.reader.error(codes::CONFLICT, node.extent, "`runAsNonRoot` with `runAsUser: 0`");
            }
            Some(_) => {}
            None => {
                let effect = "the image says who it runs as, and that is not looked at";
                lower.reader.not_honoured(node.extent, "`runAsNonRoot` without `runAsUser`", effect);
            }
        }
    }
    match (user, group) {
        (Some(user), Some((Some(group), _))) => Some(format!("{user}:{group}")),
        (Some(user), _) => Some(user.to_string()),
        (None, Some((_, node))) => {
            let effect = "the group is that of the image's user";
            lower.reader.not_honoured(node.extent, "`runAsGroup` without `runAsUser`", effect);
            None
        }
        (None, None) => None,
    }
}
