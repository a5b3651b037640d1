//! The configuration `spec` writes for people to begin with: runc's, which every tool around it expects.

use oci_spec::runtime::Spec;

/// A shell on a read-only root in new namespaces; with `rootless`, for a user who is not root.
///
/// # Panics
/// Never: the text below is a configuration, which a test sees to.
#[must_use]
pub fn template(rootless: bool) -> Spec {
    let mut value: serde_json::Value =
        serde_json::from_str(include_str!("template.json")).expect("the template is JSON: see the test");
    if rootless {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let linux = &mut value["linux"];
        linux["uidMappings"] = serde_json::json!([{"containerID": 0, "hostID": uid, "size": 1}]);
        linux["gidMappings"] = serde_json::json!([{"containerID": 0, "hostID": gid, "size": 1}]);
        linux["namespaces"] = ["pid", "ipc", "uts", "mount", "cgroup", "user"]
            .iter()
            .map(|kind| serde_json::json!({"type": kind}))
            .collect();
        if let Some(linux) = linux.as_object_mut() {
            linux.remove("resources");
        }
    }
    serde_json::from_value(value).expect("the template is a configuration: see the test")
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_templates_are_configurations() {
        assert_eq!(super::template(false).version(), "1.2.0");
        assert!(super::template(true).linux().as_ref().unwrap().resources().is_none());
    }
}
