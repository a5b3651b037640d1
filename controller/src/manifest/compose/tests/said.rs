//! One example of what is said: about what is wrong (`CODE line:column suggestion`) and about what is not honoured (with
//! a `w`). Files begin at line 1 with `services:`.

use proptest::prelude::*;

use super::{load_text, said, shown};

/// What follows `services:\n  a:\n    image: i\n`, and what is said. Line numbers begin at 4.
const CASES: &[(&str, &[&str])] = &[
    ("    imgae: x\n", &["BX0104 4:5 image"]),
    ("    comand: x\n    x-mine: {a: 1}\n", &["BX0104 4:5 command"]),
    ("    labels: {a: b}\n    privileged: true\n", &["BX0142w 4:5", "BX0142w 5:5"]),
    ("    labels: [autoheal=true]\n    healthcheck: {test: x}\n", &[]),
    ("    labels: {}\n    privileged: false\n    pull_policy: missing\n", &[]),
    ("    image: I\n", &["BX0106 4:5", "BX0112 4:12 i"]),
    ("    ports: ['80:80', '53:53/sctp', 8080, '127.0.0.1:1-2:3-4', '[::1]:5:5']\n", &["BX0142w 4:22", "BX0142w 4:36"]),
    (
        "    ports: ['0:80', 'x:80', '80:80/icmp', '1-2:1-3', 'web:80:80']\n",
        &["BX0116 4:13", "BX0116 4:21", "BX0116 4:29", "BX0116 4:43", "BX0116 4:54"],
    ),
    (
        "    ports: [{target: 80, published: '8080', protocl: tcp}, {published: 80}]\n",
        &["BX0104 4:45 protocol", "BX0105 4:61"],
    ),
    ("    volumes: ['data:/x', '/nope/nope:/y', 'x:y:z:w']\n", &["BX0121 4:15", "BX0142w 4:26", "BX0115 4:43"]),
    (
        "    volumes: [{type: bind, source: /, target: x}, {type: volme, target: /y}, {target: /z}]\n",
        &["BX0115 4:16 /x", "BX0127 4:52", "BX0105 4:79"],
    ),
    ("    volumes: ['/var/run/docker.sock:/var/run/docker.sock']\n", &["BX0142w 4:15"]),
    ("    depends_on: [b, a]\n", &["BX0121 4:18 a"]),
    ("    depends_on: {a: {condition: service_healty}}\n", &["BX0107 4:33"]),
    ("    restart: allways\n    mem_limit: lots\n    cpus: x\n", &["BX0107 4:14", "BX0113 5:16", "BX0113 6:11"]),
    ("    healthcheck: {test: [curl, x]}\n", &["BX0117 4:25"]),
    ("    healthcheck: {test: x, interval: 5, start_interval: 1s}\n", &["BX0114 4:38 5s", "BX0142w 4:41"]),
    ("    healthcheck: {interval: 5s}\n", &["BX0142w 4:19"]),
    ("    environment: {A: [x]}\n    env_file: nope.env\n", &["BX0107 4:22", "BX0125 5:15"]),
    ("    environment: ['A=${NOT_SET}', 'B=${C:?say it}']\n", &["BX0120w 4:22", "BX0120 4:38"]),
    ("    command: \"${\"\n    entrypoint: \"x 'y\"\n", &["BX0120 4:15", "BX0127 5:17"]),
    (
        "    cap_add: [NET_ADMN]\n    stop_signal: TREM\n    user: ''\n",
        &["BX0127 4:15 NET_ADMIN", "BX0127 5:18 SIGTERM"],
    ),
    ("    security_opt: ['no-new-privileges:true', 'seccomp:unconfined']\n", &["BX0142w 4:46"]),
    ("    network_mode: none\n    ports: ['80:80']\n", &["BX0142w 5:5"]),
    ("    network_mode: host\n    ports: ['80:80']\n", &["BX0142w 5:5"]),
    ("    network_mode: service:b\n  b: {image: i}\n", &[]),
    ("    network_mode: service:b\n    scale: 2\n  b: {image: i}\n", &["BX0142w 2:3"]),
    ("    network_mode: service:b\n  b: {image: i, network_mode: 'service:a'}\n", &["BX0142w 4:19", "BX0142w 5:31"]),
    ("    networks: [front]\n", &["BX0121 4:16"]),
    ("    networks: [default]\n    network_mode: bridge\n", &["BX0126 5:19"]),
    ("    networks: {default: {ipv4_address: 10.0.0.x}}\n", &["BX0127 4:40"]),
    ("    secrets: [s]\n    configs: [{target: /x}]\n", &["BX0121 4:15", "BX0105 5:16"]),
    ("    build: .\n", &["BX0142w 4:5"]),
    ("    build: {context: ., dockrfile: x}\n", &["BX0104 4:25 dockerfile", "BX0142w 4:5"]),
    (
        "    deploy: {replicas: many, mode: replicated, placement: {}, labels: {a: b}}\n",
        &["BX0107 4:24", "BX0142w 4:63"],
    ),
    ("    deploy: {resources: {limits: {memroy: 1g}, reservations: {memory: 1g}}}\n", &["BX0104 4:35 memory"]),
    (
        "    gpus: all\n    deploy: {resources: {reservations: {devices: [{driver: nvidia, capabilities: [gpu]}]}}}\n",
        &["BX0142w 4:5", "BX0142w 5:41"],
    ),
    ("networks: {lan: {driver: macvlan, driver_opts: {parent: eth0}}}\n", &["BX0142w 4:18", "BX0142w 4:35"]),
    ("    deploy: {update_config: {order: start-frist}}\n", &["BX0107 4:37"]),
    (
        "    ulimits: {nofle: 1, core: {soft: 2, hard: 1}, cpu: x}\n",
        &["BX0127 4:15 nofile", "BX0127 4:32", "BX0127 4:56"],
    ),
    ("    sysctls: {kernel.core_pattern: x}\n    oom_score_adj: 2000\n", &["BX0127 4:15", "BX0107 5:20"]),
    ("    memswap_limit: 1g\n", &["BX0105 4:20"]),
    ("    mem_limit: 1g\n    memswap_limit: 512m\n", &["BX0127 5:20"]),
    ("    pull_policy: sometimes\n", &["BX0127 4:18"]),
    ("    pull_policy: alway\n", &["BX0127 4:18 always"]),
    ("    pull_policy: build\n", &["BX0142w 4:18"]),
    ("    pull_policy: every_12h\n", &[]),
    ("    command: !mine x\n", &["BX0108 4:14"]),
    ("    extends: {service: b}\n", &["BX0121 4:15 a"]),
    ("volumes: {a b: }\n", &["BX0110 4:11"]),
    ("    container_name: \"\\x01\"\n", &["BX0110 4:21"]),
    (
        "networks: {front: , back: {external: true}}\nversion: '3.8'\nvolumse: {}\n",
        &["BX0142w 4:28", "BX0104 6:1 volumes"],
    ),
    ("secrets: {s: {}, t: {external: true}}\n", &[]),
    ("networks: {a: {ipam: {config: [{subnet: 10.0.0.0/8}]}}}\n", &["BX0127 4:41"]),
    (
        "networks: {a: {ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.8.0.1}, {subnet: 'fd00::/64'}]}}}\n",
        &["BX0127 4:63", "BX0142w 4:83"],
    ),
    ("name: My Shop\n", &["BX0110 4:7 my-shop"]),
    ("include: [nope.yaml]\n", &["BX0125 4:11"]),
];

#[test]
fn every_message() {
    let mut failed = Vec::new();
    for (text, expected) in CASES {
        let loaded = load_text(&format!("services:\n  a:\n    image: i\n{text}"));
        let (mut said, mut expected) = (said(&loaded), expected.to_vec());
        said.sort();
        expected.sort_unstable();
        if said != expected {
            failed.push(format!("{text}said {said:?}\nnot  {expected:?}\n{}", shown(&loaded)));
        }
    }
    assert!(failed.is_empty(), "{}\n{} of {} failed", failed.join("\n"), failed.len(), CASES.len());
}

#[test]
fn a_message_says_what_happens_instead() {
    let loaded = load_text("services:\n  web:\n    image: i\n    privileged: true\n");
    expect_test::expect![[r#"
        warning[BX0142]: `privileged` of service is not honoured: there is no privileged mode: the container keeps the safe defaults; name what it needs with `cap_add`
         --> shop/compose.yaml:4:5
          |
        3 |     image: i
        4 |     privileged: true
          |     ^^^^^^^^^^

    "#]]
    .assert_eq(&shown(&loaded).replace(&format!("{}/", loaded.root), ""));
}

const EXAMPLE: &str = include_str!("../../../../../examples/compose/compose.yaml");

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_gives_objects_or_words_and_never_a_panic(
        at in 0..EXAMPLE.len(), cut in 0..12usize,
        splice in prop_oneof!["[ \\n\\t:{}\\[\\],\"'|>&*!%@#$<-]{0,6}", Just("${X".to_owned()), Just("*a".to_owned()), Just("\n---\n".to_owned()), ".{0,3}"],
    ) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        bytes.splice(at..(at + cut).min(EXAMPLE.len()), splice.bytes());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let loaded = load_text(&text);
        let _ = shown(&loaded);
        let _ = crate::model::resolve(loaded.objects.clone());
    }
}
