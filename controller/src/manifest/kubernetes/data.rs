//! ConfigMap, Secret and PersistentVolumeClaim.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Lower, Metadata, keys};
use crate::manifest::format::Format as _;
use crate::manifest::keys::{Entries, object_name};
use crate::manifest::native::text::FileName;
use crate::manifest::tree::Node;
use crate::model::object::{ConfigSpec, FileContent, SecretSpec, VolumeSpec};
use crate::model::{Kind, ObjectSpec, VolumeAccess, codes};

type Lowered = Option<(Kind, String, ObjectSpec)>;

pub(super) fn config_map(lower: &mut Lower, root: &Node, metadata: &Metadata<'_>) -> Lowered {
    lower.reading(Kind::Config, &metadata.name);
    let found = lower.reader.keys(root, &keys::CONFIG_MAP);
    let mut data = BTreeMap::new();
    texts(lower, &found, "data", &mut data);
    bytes(lower, &found, "binaryData", &mut data);
    Some((Kind::Config, metadata.name.clone(), ObjectSpec::Config(ConfigSpec { data })))
}

pub(super) fn secret(lower: &mut Lower, root: &Node, metadata: &Metadata<'_>) -> Lowered {
    lower.reading(Kind::Secret, &metadata.name);
    let found = lower.reader.keys(root, &keys::SECRET);
    let mut data = BTreeMap::new();
    bytes(lower, &found, "data", &mut data);
    texts(lower, &found, "stringData", &mut data);
    let spec = SecretSpec { data, binary: std::collections::BTreeSet::new() };
    Some((Kind::Secret, metadata.name.clone(), ObjectSpec::Secret(spec)))
}

fn texts(lower: &mut Lower, found: &Entries<'_>, section: &str, data: &mut BTreeMap<String, FileContent>) {
    let Some(node) = found.get(section) else { return };
    for entry in lower.reader.map(section, node) {
        let Some(text) = lower.reader.text(section, &entry.value) else { continue };
        add(lower, entry, text.into_bytes(), data);
    }
}

fn bytes(lower: &mut Lower, found: &Entries<'_>, section: &str, data: &mut BTreeMap<String, FileContent>) {
    let Some(node) = found.get(section) else { return };
    for entry in lower.reader.map(section, node) {
        let Some(text) = lower.reader.text(section, &entry.value) else { continue };
        let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        match BASE64.decode(packed) {
            Ok(bytes) => add(lower, entry, bytes, data),
            // The value is not shown: it may be the secret itself, written without its encoding.
            Err(_) => {
                let what = format!("`{section}.{}` is not base64", entry.key);
                let diagnostic = crate::model::Diagnostic::error(codes::VALUE, what)
                    .at(lower.reader.span(entry.value.extent))
                    .help("write plain text under `stringData`");
                lower.reader.push(diagnostic);
            }
        }
    }
}

fn add(
    lower: &mut Lower,
    entry: &crate::manifest::tree::Entry,
    bytes: Vec<u8>,
    data: &mut BTreeMap<String, FileContent>,
) {
    if let Err(bad) = FileName::parse(&entry.key) {
        return lower.reader.bad(&entry.key, bad, entry.key_extent);
    }
    let span = lower.reader.span(entry.value.extent);
    data.insert(entry.key.clone(), FileContent { path: None, bytes: bytes.into(), span });
}

pub(super) fn claim(lower: &mut Lower, root: &Node, metadata: &Metadata<'_>) -> Lowered {
    lower.reading(Kind::Volume, &metadata.name);
    let spec = lower.spec(root, &keys::CLAIM)?;
    let access = access(lower, &spec);
    Some((Kind::Volume, object_name(&metadata.name), ObjectSpec::Volume(VolumeSpec { access })))
}

/// `ReadWriteOnce` means one node: any number of pods, here.
pub(super) fn access(lower: &mut Lower, spec: &Entries<'_>) -> VolumeAccess {
    let modes = spec.get("accessModes").map(|node| (lower.reader.texts("accessModes", node), node));
    let Some((modes, node)) = modes else { return VolumeAccess::Any };
    let known = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];
    if !modes.iter().all(|mode| known.contains(&mode.as_str())) {
        lower.reader.error(codes::VALUE, node.extent, format!("`accessModes` are {}", known.join(", ")));
    }
    let has = |name: &str| modes.iter().any(|mode| mode == name);
    match (has("ReadWriteMany"), has("ReadWriteOncePod")) {
        (true, _) => VolumeAccess::Shared,
        (false, true) => VolumeAccess::Single,
        (false, false) => VolumeAccess::Any,
    }
}
