//! The containers of a pod as they are written: which is which, and which volumes they share.

use std::collections::{BTreeMap, BTreeSet};

use super::Lower;
use super::volumes::Source;
use crate::manifest::keys::Entries;
use crate::manifest::tree::Node;
use crate::model::object::MountWhatSpec;
use crate::model::{Role, codes};

/// One container, not yet read.
pub(super) struct Written<'n> {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) node: &'n Node,
}

/// Init containers and sidecars in their order, then the main container (the first), then the others.
pub(super) fn read<'n>(lower: &mut Lower, pod: &Entries<'n>, spec: &Node) -> Vec<Written<'n>> {
    let list = |lower: &mut Lower, key| pod.get(key).map(|node| lower.reader.list(key, node)).unwrap_or_default();
    let (before, beside) = (list(lower, "initContainers"), list(lower, "containers"));
    if beside.is_empty() {
        lower.reader.error(codes::MISSING_FIELD, spec.extent, "a pod needs at least one of `containers`");
        return Vec::new();
    }
    let is_alone = before.is_empty() && beside.len() == 1;
    let mut all = Vec::new();
    let mut names: BTreeSet<String> = BTreeSet::new();
    let inits = before.iter().map(|node| (true, node));
    for (at, (is_init, node)) in inits.chain(beside.iter().map(|node| (false, node))).enumerate() {
        let role = match (is_init, at == before.len()) {
            (true, _) => init_role(lower, node),
            (false, is_first) => {
                if let Some(policy) = node.text("restartPolicy").filter(|policy| *policy != "Always") {
                    let extent = node.get("restartPolicy").map_or(node.extent, |entry| entry.value.extent);
                    let what = format!("`restartPolicy: {policy}` of a container");
                    lower.reader.not_honoured(extent, &what, "the pod's policy counts");
                }
                if is_first { Role::Main } else { Role::Beside }
            }
        };
        let name = node.get("name").and_then(|entry| lower.reader.text("name", &entry.value));
        let is_name = |name: &String| is_alone || runtime::id::check_name(name).is_ok();
        let Some(name) = name.filter(is_name).or_else(|| is_alone.then(String::new)) else {
            let what = "each of several containers of a pod needs a key `name`: a-z, 0-9 and `-`";
            lower.reader.error(codes::MISSING_FIELD, node.extent, what);
            continue;
        };
        if !names.insert(name.clone()) {
            let extent = node.get("name").map_or(node.extent, |entry| entry.value.extent);
            lower.reader.error(codes::CONFLICT, extent, format!("two containers of the pod are called `{name}`"));
        }
        all.push(Written { name, role, node });
    }
    all
}

/// Kubernetes calls an init container that is always restarted a sidecar.
fn init_role(lower: &mut Lower, node: &Node) -> Role {
    let Some(entry) = node.get("restartPolicy") else { return Role::Init };
    match lower.reader.text("restartPolicy", &entry.value).as_deref() {
        Some("Always") => Role::Sidecar,
        _ => {
            lower.reader.wrong("restartPolicy", "Always, which makes an init container a sidecar", &entry.value);
            Role::Init
        }
    }
}

/// Where several containers are, volumes of the pod's own are volumes of the pod, and live as long as it. Memory that more
/// than one of them mounts would not be the same memory.
pub(super) fn share(
    lower: &mut Lower,
    all: &[Written<'_>],
    sources: &mut BTreeMap<String, Source>,
    volumes: Option<&Node>,
) {
    if all.len() < 2 {
        return;
    }
    for (name, source) in sources {
        let Source::What(what, _) = source else { continue };
        match what {
            MountWhatSpec::Anonymous => *what = MountWhatSpec::Scratch(name.clone()),
            MountWhatSpec::Tmpfs { .. } if users(all, name) > 1 => {
                let extent = volume(volumes, name).map(|node| node.extent);
                if let Some(extent) = extent {
                    let effect = "containers of a pod share volumes on disk only, so that it is one";
                    lower.reader.not_honoured(extent, &format!("`medium: Memory` of volume `{name}`"), effect);
                }
                *what = MountWhatSpec::Scratch(name.clone());
            }
            MountWhatSpec::Tmpfs { .. }
            | MountWhatSpec::Volume(_)
            | MountWhatSpec::Claim(_)
            | MountWhatSpec::Config { .. }
            | MountWhatSpec::Secret { .. }
            | MountWhatSpec::File(_)
            | MountWhatSpec::Bind(_)
            | MountWhatSpec::Scratch(_) => {}
        }
    }
}

/// How many containers mount a volume.
fn users(all: &[Written<'_>], name: &str) -> usize {
    let mounts = |one: &&Written<'_>| {
        let list = one.node.get("volumeMounts").map(|entry| &entry.value);
        items(list).any(|mount| mount.text("name") == Some(name))
    };
    all.iter().filter(mounts).count()
}

fn volume<'n>(volumes: Option<&'n Node>, name: &str) -> Option<&'n Node> {
    items(volumes).find(|node| node.text("name") == Some(name))
}

fn items(node: Option<&Node>) -> impl Iterator<Item = &Node> {
    let list = node.and_then(|node| match &node.value {
        crate::manifest::tree::Value::List(items) => Some(items),
        _ => None,
    });
    list.into_iter().flatten()
}
