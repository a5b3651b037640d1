//! What a configuration becomes, as text.

use std::collections::BTreeMap;
use std::path::PathBuf;

use expect_test::{Expect, expect};

use super::launch::Launch;
use super::{Bridge, LowerInput, lower};
use crate::layout::Layout;
use crate::runtime::{
    ContainerConfig, IdRange, ImageConfig, LogConfig, MountConfig, MountSource, NetworkAddress, NetworkMode, Resources,
    SecurityConfig,
};
use crate::{Error, Result};

fn config() -> ContainerConfig {
    ContainerConfig {
        id: "shop-web-1".parse().unwrap(),
        labels: BTreeMap::new(),
        hostname: "web-1".into(),
        image: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
        entrypoint: None,
        args: None,
        env: BTreeMap::new(),
        sealed_env: BTreeMap::new(),
        working_dir: None,
        user: None,
        mounts: vec![],
        network: NetworkMode::None,
        resources: Resources::default(),
        ids: IdRange { host_start: 1 << 20, len: 1 << 16 },
        security: SecurityConfig::default(),
        stop_signal: None,
        shm_bytes: 64 << 20,
        tty: false,
        init: false,
        dns_search: vec!["shop".into()],
        extras: crate::runtime::Extras::default(),
        log: LogConfig::default(),
        pod: None,
    }
}

fn image() -> ImageConfig {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    ImageConfig {
        entrypoint: texts(&["/entry"]),
        cmd: texts(&["serve"]),
        env: texts(&["A=1", "B=2"]),
        ..Default::default()
    }
}

fn lowered(config: &ContainerConfig) -> Result<(oci_spec::runtime::Spec, Launch)> {
    let layout = Layout::new("/data", "/run/boxship");
    let bridge =
        |name: &str, third: u8| Bridge { interface: name.into(), gateway: [10, 88, third, 1].into(), prefix_len: 24 };
    let secrets = BTreeMap::from([("s1:x".to_owned(), b"hunter2".to_vec())]);
    lower(&LowerInput {
        secrets: &secrets,
        config,
        image: &image(),
        layers: vec![PathBuf::from("/data/images/top"), PathBuf::from("/data/images/base")],
        layout: &layout,
        cgroup_parent: "boxship-1",
        bridges: vec![bridge("bx-net", 0), bridge("bx-back", 1)],
    })
}

fn refuses(config: &ContainerConfig, expect: &Expect) {
    match lowered(config).unwrap_err() {
        Error::BadContainer(message) => expect.assert_eq(&message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn commands_follow_docker_and_kubernetes() {
    let args = |entrypoint: Option<&[&str]>, args: Option<&[&str]>| {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let config = ContainerConfig { entrypoint: entrypoint.map(texts), args: args.map(texts), ..config() };
        let (spec, _) = lowered(&config).unwrap();
        spec.process().as_ref().unwrap().args().clone().unwrap().join(" ")
    };
    assert_eq!(args(None, None), "/entry serve");
    assert_eq!(args(None, Some(&["x"])), "/entry x");
    assert_eq!(args(Some(&["sh"]), None), "sh");
    assert_eq!(args(Some(&["sh"]), Some(&["-c"])), "sh -c");
    let nothing = ContainerConfig { entrypoint: Some(vec![]), ..config() };
    refuses(&nothing, &expect!["there is nothing to run: neither the image nor the container names a program"]);
}

#[test]
fn the_environment_is_the_images_with_ours_over_it() {
    let config = ContainerConfig { env: BTreeMap::from([("B".into(), "3".into())]), tty: true, ..config() };
    let (spec, _) = lowered(&config).unwrap();
    let env = spec.process().as_ref().unwrap().env().clone().unwrap();
    let expect = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "A=1",
        "B=3",
        "HOSTNAME=web-1",
        "TERM=xterm",
    ];
    assert_eq!(env, expect);
}

#[test]
fn mounts_are_sorted_and_told_apart() {
    let mount = |target: &str, source| MountConfig { target: target.into(), source, read_only: false };
    let mounts = vec![
        mount("/a/b/c", MountSource::File { content: b"x".to_vec(), mode: 0o4644 }),
        mount("/a", MountSource::Volume { name: "data".parse().unwrap() }),
        mount("/tmp", MountSource::Tmpfs { size_bytes: Some(1024) }),
        mount("/a/b", MountSource::Bind { path: "/srv".into() }),
    ];
    let (spec, launch) = lowered(&ContainerConfig { mounts, ..config() }).unwrap();
    expect![[r#"
        [{"target":"/a","source":{"volume":{"dir":"/data/volumes/data"}},"read_only":false},{"target":"/a/b","source":{"bind":{"path":"/srv"}},"read_only":false},{"target":"/a/b/c","source":{"file":{"name":"0/c","content":"eA==","mode":420}},"read_only":false}]"#]]
    .assert_eq(&serde_json::to_string(&launch.mounts).unwrap());
    let tmpfs = spec.mounts().as_ref().unwrap().last().unwrap().clone();
    assert_eq!(tmpfs.options().clone().unwrap().join(","), "nosuid,nodev,mode=1777,size=1024");
}

#[test]
fn bad_targets_are_refused() {
    for (target, expect) in [
        ("a", expect!["nothing can be mounted at `a`: it is not absolute"]),
        ("//", expect!["nothing can be mounted at `//`: it is the root itself"]),
        ("/a/../b", expect!["nothing can be mounted at `/a/../b`: it contains `..`"]),
    ] {
        let source = MountSource::Bind { path: "/srv".into() };
        let mounts = vec![MountConfig { target: target.into(), source, read_only: true }];
        refuses(&ContainerConfig { mounts, ..config() }, &expect);
    }
}

#[test]
fn a_bridge_gives_an_address_and_a_resolver() {
    let network = NetworkMode::on("shop".parse().unwrap(), [10, 88, 0, 7].into());
    let (spec, launch) = lowered(&ContainerConfig { network, ..config() }).unwrap();
    expect![[r#"{"hosts":"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.88.0.7\tweb-1\n","hostname":"web-1\n","resolv_conf":"search shop\nnameserver 127.0.0.11\noptions ndots:0\n"}"#]]
        .assert_eq(&serde_json::to_string(&launch.etc).unwrap());
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(linux.sysctl().as_ref().unwrap()["net.ipv4.ping_group_range"], "0 65535");
    assert_eq!(linux.namespaces().as_ref().unwrap().len(), 7);
    let (spec, launch) = lowered(&ContainerConfig { network: NetworkMode::Host, ..config() }).unwrap();
    assert_eq!(launch.etc.unwrap().resolv_conf, None);
    assert_eq!(spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap().len(), 6);
}

#[test]
fn each_further_network_is_an_interface() {
    let more =
        |third| NetworkAddress { network: format!("n{third}").parse().unwrap(), address: [10, 88, third, 7].into() };
    let on = |more| NetworkMode::Bridge { network: "shop".parse().unwrap(), address: [10, 88, 0, 7].into(), more };
    let (_, launch) = lowered(&ContainerConfig { network: on(vec![more(1)]), ..config() }).unwrap();
    let bridges: Vec<_> = launch.bridges().map(|b| (b.bridge.as_str(), b.address.to_string(), b.mac[5])).collect();
    assert_eq!(bridges, [("bx-net", "10.88.0.7".to_owned(), 7), ("bx-back", "10.88.1.7".to_owned(), 7)]);
    let names: Vec<&str> = launch.bridges().map(|b| b.host_interface.as_str()).collect();
    assert_ne!(names[0], names[1]);
    assert!(names.iter().all(|name| name.starts_with("bv-") && name.len() == 15), "{names:?}");
    refuses(
        &ContainerConfig { network: on((1..9).map(more).collect()), ..config() },
        &expect!["9 networks are more than the 8 one can be on"],
    );
    // What an earlier version wrote down reads back.
    let old: NetworkMode = serde_json::from_str(r#"{"bridge":{"network":"shop","address":"10.88.0.7"}}"#).unwrap();
    assert_eq!(old, NetworkMode::on("shop".parse().unwrap(), [10, 88, 0, 7].into()));
}

#[test]
fn both_survive_json() {
    let (spec, launch) = lowered(&config()).unwrap();
    let again: oci_spec::runtime::Spec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
    assert_eq!(spec, again);
    let again: Launch = serde_json::from_str(&serde_json::to_string(&launch).unwrap()).unwrap();
    assert_eq!(launch, again);
}
