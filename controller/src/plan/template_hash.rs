//! What counts as another template: a named, versioned list of fields, hashed. A container whose hash differs from the
//! wanted one is replaced; what is not in the list changes in place or needs no container at all.
//!
//! A field at its default is left out, so that a new field leaves old hashes as they are (golden test). Not in the
//! list: `resources` (changed in place), the three checks and `container_ports` (the controller probes), `stop_grace_ms`
//! (given with each stop), sources, and content mounted with `onChange: none`.

use std::collections::BTreeMap;

use runtime::image::Digest;
use sha2::{Digest as _, Sha256};

use super::name::hex;
use crate::model::{
    ContainerTemplate, DEFAULT_NETWORK, EnvValue, ImageSource, Mount, MountWhat, NetworkUse, OnChange, Pod, Role,
    TemplateHash,
};

/// Version of the list. Contract: raising it replaces every container of every host once.
const VERSION: &str = "v1";

/// The hash of a template that runs this image.
#[must_use]
pub fn template_hash(template: &ContainerTemplate, image: &Digest) -> TemplateHash {
    let fields = fields(template);
    let mut parts = vec!["image", image.as_str()];
    for (name, value) in &fields {
        parts.push(name);
        parts.push(value);
    }
    TemplateHash(format!("{VERSION}-{}", hex(&parts, 16)))
}

/// The hash of a template whose members run these images, in the order of [`ContainerTemplate::all`] after its own. One
/// without members hashes as ever.
#[must_use]
pub fn pod_hash<'d>(
    template: &ContainerTemplate,
    image: &Digest,
    of_members: impl Iterator<Item = &'d Digest>,
) -> TemplateHash {
    let own = template_hash(template, image);
    let of_members: Vec<&str> = of_members.map(Digest::as_str).collect();
    if of_members.is_empty() {
        return own;
    }
    let parts = [&[own.0.as_str()][..], &of_members[..]].concat();
    TemplateHash(format!("{VERSION}-{}", hex(&parts, 16)))
}

/// Names of the fields in which two templates differ, the image with its values: `image: a -> b`, `env.LOG_LEVEL`.
/// Values of other fields are left out: they may be secrets.
#[must_use]
pub fn changed_fields(old: (&ContainerTemplate, &Digest), new: (&ContainerTemplate, &Digest)) -> Vec<String> {
    let mut changed = Vec::new();
    if old.1 != new.1 {
        let (from, to) = (&old.0.image.reference, &new.0.image.reference);
        changed.push(match from == to {
            true => format!("image: {} -> {}", old.1.short(), new.1.short()),
            false => format!("image: {from} -> {to}"),
        });
    }
    let (old, new) = (fields(old.0), fields(new.0));
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    changed.extend(names.into_iter().filter(|name| old.get(*name) != new.get(*name)).cloned());
    changed
}

/// The list. Values are canonical texts.
pub(super) fn fields(template: &ContainerTemplate) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value);
        }
    };
    put("entrypoint", template.entrypoint.as_deref().map(list));
    put("args", template.args.as_deref().map(list));
    for (name, value) in &template.env {
        let value = match value {
            EnvValue::Plain(value) => value.clone(),
            EnvValue::Secret(value) => format!("secret {}", value.sealed),
        };
        put(&format!("env.{name}"), Some(value));
    }
    put("workingDir", template.working_dir.clone());
    put("user", template.user.clone());
    put("hostname", template.hostname.clone());
    for mount in &template.mounts {
        let access = if mount.read_only { "ro" } else { "rw" };
        put(&format!("mounts.{}", mount.path), Some(format!("{access} {}", mounted(&mount.what, mount.on_change))));
    }
    put("stopSignal", template.stop_signal.clone());
    put("shmBytes", template.shm_bytes.map(|bytes| bytes.to_string()));
    let flag = |set: bool| set.then(|| "true".to_owned());
    put("init", flag(template.init));
    put("lossy", flag(template.lossy_log));
    put("hostNetwork", flag(template.host_network));
    put("noNetwork", flag(template.no_network));
    put("tty", flag(template.tty));
    for (name, value) in template.tuning.fields() {
        put(&name, Some(value));
    }
    let is_own = |network: &NetworkUse| network.network.name == DEFAULT_NETWORK && network.range.is_none();
    let only_own = template.networks.iter().all(|network| is_own(network) && network.address.is_none());
    for network in template.networks.iter().filter(|_| !only_own) {
        put(&format!("networks.{}", network.network.name), Some(place(network)));
    }
    let security = &template.security;
    let names = |list_of: &[String]| (!list_of.is_empty()).then(|| list(list_of));
    put("security.allowPrivilegeEscalation", flag(security.allow_privilege_escalation));
    put("security.capAdd", names(&security.cap_add));
    put("security.capDrop", names(&security.cap_drop));
    put("security.readOnlyRoot", flag(security.read_only_root));
    if let Some(pod) = &template.pod {
        fields.extend(pod_fields(pod));
    }
    fields
}

/// What is beside the main container, each by its name.
fn pod_fields(pod: &Pod<ImageSource, EnvValue, Mount, NetworkUse>) -> BTreeMap<String, String> {
    // How the main container is called makes no difference to it.
    let name = |(role, name): (Role, &str)| match role {
        Role::Main => role.as_str().to_owned(),
        Role::Init | Role::Sidecar | Role::Beside => format!("{}:{name}", role.as_str()),
    };
    let order: Vec<String> = pod.parts().into_iter().map(name).collect();
    let mut all = BTreeMap::from([("containers".to_owned(), order.join(" "))]);
    if pod.share_pids {
        all.insert("shareProcessNamespace".to_owned(), "true".to_owned());
    }
    for member in &pod.members {
        let name = |field: &str| format!("containers.{}.{field}", member.name);
        all.insert(name("image"), member.template.image.reference.to_string());
        all.extend(fields(&member.template).into_iter().map(|(field, value)| (name(&field), value)));
    }
    all
}

fn mounted(what: &MountWhat, on_change: OnChange) -> String {
    match (what, on_change) {
        (MountWhat::Volume(key), OnChange::Roll | OnChange::None) => format!("volume {key}"),
        (MountWhat::Bind(path), OnChange::Roll | OnChange::None) => format!("bind {path}"),
        (MountWhat::File { content, mode }, OnChange::Roll) => {
            let digest = Digest::from_hash(&Sha256::digest(content).into());
            format!("file {mode:o} {digest}")
        }
        (MountWhat::File { mode, .. }, OnChange::None) => format!("file {mode:o}"),
        (MountWhat::Secret { value, mode, owner }, OnChange::Roll) => {
            format!("secret {mode:o} {} {}", ids(*owner), value.sealed)
        }
        (MountWhat::Secret { mode, owner, .. }, OnChange::None) => format!("secret {mode:o} {}", ids(*owner)),
        (MountWhat::Anonymous, OnChange::Roll | OnChange::None) => "anonymous".to_owned(),
        (MountWhat::Claim(name), OnChange::Roll | OnChange::None) => format!("claim {name}"),
        (MountWhat::Scratch(name), OnChange::Roll | OnChange::None) => format!("scratch {name}"),
        (MountWhat::Tmpfs { size_bytes }, OnChange::Roll | OnChange::None) => {
            format!("tmpfs {}", size_bytes.map_or_else(|| "default".to_owned(), |bytes| bytes.to_string()))
        }
    }
}

fn ids(owner: Option<[u32; 2]>) -> String {
    owner.map_or_else(|| "user".to_owned(), |[user, group]| format!("{user}:{group}"))
}

/// Which network it is and where on it. Names on it, and whether it leads out, change in place.
fn place(network: &NetworkUse) -> String {
    let range =
        network.range.map_or_else(|| "chosen".to_owned(), |range| format!("{} {}", range.subnet, range.gateway));
    network.address.map_or_else(|| range.clone(), |address| format!("{range} {address}"))
}

/// A list as text in which no element can pass for two.
fn list(items: &[String]) -> String {
    items.iter().map(|item| format!("{}:{item}", item.len())).collect::<Vec<_>>().join(" ")
}
