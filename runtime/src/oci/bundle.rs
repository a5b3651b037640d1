//! A bundle on disk: `config.json` read and checked, and what the start path needs beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, LinuxResourcesBuilder, Process, Spec};

use super::{place, validate};
use crate::error::{Doing as _, Error, Result};
use crate::runtime::IdRange;
use crate::security::capabilities;
use crate::spec::launch::{Attachment, Launch, RootSource, Told};

/// Where containers go whose `cgroupsPath` is left to us.
pub(super) const CGROUP_PARENT: &str = "boxship-oci";

/// A checked bundle.
pub(super) struct Bundle {
    pub(super) spec: Spec,
    pub(super) launch: Launch,
    /// What was left out, and why; for the log.
    pub(super) warnings: Vec<String>,
}

/// Reads a bundle.
///
/// # Errors
/// `BadContainer`, `Unsupported` (see `validate`); `Io`.
pub(super) fn read(bundle: &Path, id: &str) -> Result<Bundle> {
    let bundle = fs::canonicalize(bundle).doing(|| format!("open the bundle {}", bundle.display()))?;
    let file = bundle.join("config.json");
    let text = fs::read(&file).doing(|| format!("read {}", file.display()))?;
    examine(&text, bundle, id)
}

/// What [`read`] does with the text of the file. Any bytes at all are told from a configuration.
pub(super) fn examine(text: &[u8], bundle: PathBuf, id: &str) -> Result<Bundle> {
    let (mut spec, warnings) = parse(text)?;
    validate::check(&spec)?;
    shut_devices(&mut spec)?;
    let launch = launch(&spec, bundle, id)?;
    Ok(Bundle { spec, launch, warnings })
}

/// The spec, and what was left out of it. What the parser takes as it is needs no second look.
fn parse(text: &[u8]) -> Result<(Spec, Vec<String>)> {
    if let Ok(spec) = serde_json::from_slice(text) {
        return Ok((spec, Vec::new()));
    }
    let bad = |why: String| Error::BadContainer(format!("config.json {why}"));
    let mut value: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| bad(format!("is no JSON: {error}")))?;
    let warnings = value.get_mut("process").map(adjust_process).unwrap_or_default();
    // a second text, on one line: where in it the parser stopped is which property is wrong
    let text = serde_json::to_vec(&value).map_err(|error| bad(error.to_string()))?;
    let spec = serde_json::from_slice(&text).map_err(|error| {
        let said = error.to_string();
        let why = said.split(" at line ").next().unwrap_or_default();
        bad(format!("is no configuration: `{}`: {why}", place::path_at(&text, error.column())))
    })?;
    Ok((spec, warnings))
}

/// Reads the process of an `exec` from a file.
///
/// # Errors
/// `BadContainer`, `Io`.
pub fn read_process(file: &Path) -> Result<Process> {
    let text = fs::read(file).doing(|| format!("read {}", file.display()))?;
    let bad = |error: serde_json::Error| Error::BadContainer(format!("{} is no process: {error}", file.display()));
    let mut value: serde_json::Value = serde_json::from_slice(&text).map_err(bad)?;
    adjust_process(&mut value);
    serde_json::from_value(value).map_err(bad)
}

/// What the parser would refuse though the specification does not; what is said about it.
fn adjust_process(process: &mut serde_json::Value) -> Vec<String> {
    for flag in process.pointer_mut("/scheduler/flags").and_then(|flags| flags.as_array_mut()).into_iter().flatten() {
        // the parser's names of these two are not those of the specification
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
            Some(_) | None => {}
        }
    }
    drop_unknown_capabilities(process)
}

/// A capability this kernel does not know cannot be granted; it is told and left out (OCI config, "capabilities"). What is
/// not even the name of one stays, for the parser to refuse.
fn drop_unknown_capabilities(process: &mut serde_json::Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let Some(sets) = process.get_mut("capabilities").and_then(serde_json::Value::as_object_mut) else { return unknown };
    for set in sets.values_mut().filter_map(serde_json::Value::as_array_mut) {
        set.retain(|name| {
            let known = name.as_str().is_some_and(|name| capabilities::is_known(name) || !name.starts_with("CAP_"));
            if !known {
                unknown.push(format!("capability {name} is not known and was left out"));
            }
            known
        });
    }
    unknown.sort_unstable();
    unknown.dedup();
    unknown
}

/// A container without rules gets the basic devices only, as with every other runtime.
fn shut_devices(spec: &mut Spec) -> Result<()> {
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let mut resources = match linux.resources() {
        Some(resources) => resources.clone(),
        None => default_resources()?,
    };
    if resources.devices().is_none() {
        resources.set_devices(Some(Vec::new()));
    }
    linux.set_resources(Some(resources));
    Ok(())
}

fn default_resources() -> Result<LinuxResources> {
    LinuxResourcesBuilder::default().build().map_err(|error| Error::BadContainer(error.to_string()))
}

fn launch(spec: &Spec, bundle: PathBuf, id: &str) -> Result<Launch> {
    let root = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
    let linux = spec.linux().as_ref();
    let maps = linux.and_then(|linux| linux.uid_mappings().as_deref()).unwrap_or_default();
    let root_map = maps.iter().find(|map| map.container_id() == 0);
    let ids = root_map
        .map_or(IdRange { host_start: 0, len: u32::MAX }, |map| IdRange { host_start: map.host_id(), len: map.size() });
    let annotations: BTreeMap<String, String> =
        spec.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok(Launch {
        groups: Vec::new(),
        id: id.to_owned(),
        ids,
        root: RootSource::Directory { directory: bundle.join(root) },
        cgroup: cgroup(linux.and_then(|linux| linux.cgroups_path().as_deref()), id)?,
        user: None,
        numeric_user: true,
        all_controllers: true,
        mounts: Vec::new(),
        files_dir: PathBuf::new(),
        etc: None,
        network: Attachment::None,
        more_bridges: Vec::new(),
        reaper: false,
        told: Some(Told { bundle, annotations, version: spec.version().clone() }),
        holds: false,
        joins: None,
    })
}

/// The path below each hierarchy's root: absolute ones count from there, and where else to put relative ones is ours to say
/// (OCI config-linux, "Cgroups Path").
fn cgroup(path: Option<&Path>, id: &str) -> Result<String> {
    let text = path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(Error::BadContainer(format!("`linux.cgroupsPath` `{text}` leads out of the hierarchy")));
    }
    Ok(if parts.is_empty() { format!("{CGROUP_PARENT}/{id}") } else { parts.join("/") })
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_paths() {
        let of = |path: &str| cgroup(Some(Path::new(path)), "c1").unwrap();
        assert_eq!(of("/libpod_parent/libpod-x"), "libpod_parent/libpod-x");
        assert_eq!(of("a//b/"), "a/b");
        assert_eq!(of("/"), "boxship-oci/c1");
        assert_eq!(cgroup(None, "c1").unwrap(), "boxship-oci/c1");
        assert!(cgroup(Some(Path::new("/a/../b")), "c1").is_err());
    }

    #[test]
    fn unknown_capabilities_are_left_out() {
        let mut process = serde_json::json!({"capabilities": {"bounding": ["CAP_KILL", "CAP_MAGIC"], "ambient": []}});
        assert_eq!(drop_unknown_capabilities(&mut process), ["capability \"CAP_MAGIC\" is not known and was left out"]);
        assert_eq!(process["capabilities"]["bounding"], serde_json::json!(["CAP_KILL"]));
    }
}
