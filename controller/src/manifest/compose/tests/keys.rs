//! The tables of keys: each honoured key does something, and each misspelt one is understood.

use super::{load_files, plain, said, shown};
use crate::manifest::compose::keys;
use crate::manifest::keys::How;

/// Text files that examples name.
const FILES: [(&str, &str); 3] =
    [("e.env", "FROM_FILE=1\n"), ("base.yaml", "services:\n  base: {image: i, init: true}\n"), ("c.txt", "content\n")];

/// For each honoured key, by its table and name: a project without it and with it.
const EXAMPLES: &[(&str, &str, &str, &str)] = &[
    ("", "name", "", "name: other\n"),
    ("", "services", "", "services: {c: {image: i}}\n"),
    ("", "volumes", "", "volumes: {v: }\n"),
    (
        "",
        "networks",
        "services: {c: {image: i, networks: [n]}}\n",
        "networks: {n: }\nservices: {c: {image: i, networks: [n]}}\n",
    ),
    (
        "",
        "secrets",
        "services: {c: {image: i, secrets: [s]}}\n",
        "secrets: {s: {file: c.txt}}\nservices: {c: {image: i, secrets: [s]}}\n",
    ),
    (
        "",
        "configs",
        "services: {c: {image: i, configs: [s]}}\n",
        "configs: {s: {content: x}}\nservices: {c: {image: i, configs: [s]}}\n",
    ),
    ("", "include", "", "include: [base.yaml]\n"),
    ("services.*", "image", "build: .", "image: j"),
    ("services.*", "build", "", "build: ."),
    ("services.*", "command", "image: i", "image: i\n    command: x 'y z'"),
    ("services.*", "entrypoint", "image: i", "image: i\n    entrypoint: [x]"),
    ("services.*", "environment", "image: i", "image: i\n    environment: {A: 1}"),
    ("services.*", "env_file", "image: i", "image: i\n    env_file: e.env"),
    ("services.*", "volumes", "image: i", "image: i\n    volumes: [/data]"),
    ("services.*", "tmpfs", "image: i", "image: i\n    tmpfs: /run:size=1m"),
    ("services.*", "ports", "image: i", "image: i\n    ports: ['80:80']"),
    ("services.*", "expose", "image: i", "image: i\n    expose: [80]"),
    ("services.*", "depends_on", "image: i", "image: i\n    depends_on: [b]"),
    ("services.*", "healthcheck", "image: i", "image: i\n    healthcheck: {disable: true}"),
    ("services.*", "restart", "image: i", "image: i\n    restart: on-failure:3"),
    ("services.*", "deploy", "image: i", "image: i\n    deploy: {replicas: 2}"),
    ("services.*", "scale", "image: i", "image: i\n    scale: 2"),
    ("services.*", "container_name", "image: i", "image: i\n    container_name: other"),
    ("services.*", "hostname", "image: i", "image: i\n    hostname: h"),
    ("services.*", "networks", "image: i", "image: i\n    networks: {default: {aliases: [x]}}"),
    ("services.*", "network_mode", "image: i", "image: i\n    network_mode: host"),
    ("services.*", "links", "image: i", "image: i\n    links: ['b:c']"),
    ("services.*", "user", "image: i", "image: i\n    user: 1000:1000"),
    ("services.*", "working_dir", "image: i", "image: i\n    working_dir: /x"),
    ("services.*", "stop_grace_period", "image: i", "image: i\n    stop_grace_period: 1m30s"),
    ("services.*", "stop_signal", "image: i", "image: i\n    stop_signal: SIGUSR1"),
    ("services.*", "init", "image: i", "image: i\n    init: true"),
    ("services.*", "tty", "image: i", "image: i\n    tty: true"),
    ("services.*", "logging", "image: i", "image: i\n    logging: {options: {mode: non-blocking}}"),
    ("services.*.logging", "options", "image: i", "image: i\n    logging: {options: {mode: non-blocking}}"),
    ("services.*.logging.options", "mode", "image: i", "image: i\n    logging: {options: {mode: non-blocking}}"),
    ("services.*", "read_only", "image: i", "image: i\n    read_only: true"),
    ("services.*", "cap_add", "image: i", "image: i\n    cap_add: [NET_ADMIN]"),
    ("services.*", "cap_drop", "image: i", "image: i\n    cap_drop: [ALL]"),
    ("services.*", "security_opt", "image: i", "image: i\n    security_opt: ['no-new-privileges:false']"),
    ("services.*", "shm_size", "image: i", "image: i\n    shm_size: 128mb"),
    ("services.*", "pull_policy", "image: i", "image: i\n    pull_policy: daily"),
    ("services.*", "mem_limit", "image: i", "image: i\n    mem_limit: 64m"),
    ("services.*", "cpus", "image: i", "image: i\n    cpus: '0.5'"),
    ("services.*", "pids_limit", "image: i", "image: i\n    pids_limit: 10"),
    ("services.*", "secrets", "image: i", "image: i\n    secrets: [s]\nsecrets: {s: {file: c.txt}}"),
    ("services.*", "configs", "image: i", "image: i\n    configs: [s]\nconfigs: {s: {file: c.txt}}"),
    ("services.*", "profiles", "image: i", "image: i\n    profiles: [x]"),
    (
        "services.*",
        "extra_hosts",
        "image: i",
        "image: i\n    extra_hosts: ['a=1.2.3.4', 'host.docker.internal:host-gateway']",
    ),
    ("services.*", "dns_search", "image: i", "image: i\n    dns_search: example.com"),
    ("services.*", "dns_opt", "image: i", "image: i\n    dns_opt: ['ndots:2']"),
    ("services.*", "ulimits", "image: i", "image: i\n    ulimits: {nofile: 65536}"),
    ("services.*", "sysctls", "image: i", "image: i\n    sysctls: [net.core.somaxconn=1024]"),
    ("services.*", "group_add", "image: i", "image: i\n    group_add: [mail]"),
    ("services.*", "oom_score_adj", "image: i", "image: i\n    oom_score_adj: -500"),
    ("services.*", "domainname", "image: i", "image: i\n    domainname: d"),
    ("services.*", "stdin_open", "image: i", "image: i\n    stdin_open: true"),
    ("services.*", "cpu_shares", "image: i", "image: i\n    cpu_shares: 512"),
    ("services.*", "mem_reservation", "image: i", "image: i\n    mem_reservation: 64m"),
    ("services.*", "memswap_limit", "mem_limit: 64m", "mem_limit: 64m\n    memswap_limit: 128m"),
    ("services.*.ulimits.*", "soft", "ulimits: {nofile: {hard: 9}}", "ulimits: {nofile: {soft: 5, hard: 9}}"),
    ("services.*.ulimits.*", "hard", "ulimits: {nofile: {soft: 5}}", "ulimits: {nofile: {soft: 5, hard: 9}}"),
    ("services.*.deploy.resources", "reservations", "scale: 1", "deploy: {resources: {reservations: {memory: 64m}}}"),
    (
        "services.*.deploy.resources.reservations",
        "memory",
        "scale: 1",
        "deploy: {resources: {reservations: {memory: 64m}}}",
    ),
    ("services.*", "extends", "image: i", "image: i\n    extends: {file: base.yaml, service: base}"),
    ("services.*.healthcheck", "test", "healthcheck: {test: a}", "healthcheck: {test: [CMD, b]}"),
    ("services.*.healthcheck", "interval", "healthcheck: {test: a}", "healthcheck: {test: a, interval: 1s}"),
    ("services.*.healthcheck", "timeout", "healthcheck: {test: a}", "healthcheck: {test: a, timeout: 1s}"),
    ("services.*.healthcheck", "retries", "healthcheck: {test: a}", "healthcheck: {test: a, retries: 9}"),
    ("services.*.healthcheck", "start_period", "healthcheck: {test: a}", "healthcheck: {test: a, start_period: 1s}"),
    ("services.*.healthcheck", "disable", "healthcheck: {test: a}", "healthcheck: {test: a, disable: true}"),
    ("services.*.deploy", "replicas", "scale: 1", "deploy: {replicas: 3}"),
    ("services.*.deploy", "endpoint_mode", "scale: 1", "deploy: {endpoint_mode: dnsrr}"),
    ("services.*.deploy", "resources", "scale: 1", "deploy: {resources: {limits: {memory: 1g}}}"),
    ("services.*.deploy", "restart_policy", "scale: 1", "deploy: {restart_policy: {}}"),
    ("services.*.deploy", "update_config", "scale: 1", "deploy: {update_config: {}}"),
    ("services.*.deploy.resources", "limits", "scale: 1", "deploy: {resources: {limits: {memory: 1g}}}"),
    ("services.*.deploy.resources.limits", "cpus", "scale: 1", "deploy: {resources: {limits: {cpus: '1.5'}}}"),
    ("services.*.deploy.resources.limits", "memory", "scale: 1", "deploy: {resources: {limits: {memory: 1g}}}"),
    ("services.*.deploy.resources.limits", "pids", "scale: 1", "deploy: {resources: {limits: {pids: 5}}}"),
    ("services.*.deploy.restart_policy", "condition", "scale: 1", "deploy: {restart_policy: {condition: any}}"),
    (
        "services.*.deploy.restart_policy",
        "max_attempts",
        "deploy: {restart_policy: {condition: on-failure}}",
        "deploy: {restart_policy: {condition: on-failure, max_attempts: 2}}",
    ),
    (
        "services.*.deploy.update_config",
        "parallelism",
        "deploy: {update_config: {}}",
        "deploy: {update_config: {parallelism: 2}}",
    ),
    (
        "services.*.deploy.update_config",
        "order",
        "deploy: {update_config: {}}",
        "deploy: {update_config: {order: start-first}}",
    ),
    (
        "services.*.deploy.update_config",
        "failure_action",
        "deploy: {update_config: {}}",
        "deploy: {update_config: {failure_action: rollback}}",
    ),
    (
        "services.*.deploy.update_config",
        "monitor",
        "deploy: {update_config: {}}",
        "deploy: {update_config: {monitor: 5s}}",
    ),
    ("services.*.ports[]", "target", "ports: [{target: 80}]", "ports: [{target: 81}]"),
    ("services.*.ports[]", "published", "ports: [{target: 80}]", "ports: [{target: 80, published: 80}]"),
    (
        "services.*.ports[]",
        "protocol",
        "ports: [{target: 80, published: 80}]",
        "ports: [{target: 80, published: 80, protocol: udp}]",
    ),
    (
        "services.*.ports[]",
        "host_ip",
        "ports: [{target: 80, published: 80}]",
        "ports: [{target: 80, published: 80, host_ip: 127.0.0.1}]",
    ),
    ("services.*.volumes[]", "type", "volumes: [{type: volume, target: /x}]", "volumes: [{type: tmpfs, target: /x}]"),
    (
        "services.*.volumes[]",
        "source",
        "volumes: [{type: bind, source: /a, target: /x}]",
        "volumes: [{type: bind, source: /b, target: /x}]",
    ),
    (
        "services.*.volumes[]",
        "target",
        "volumes: [{type: volume, target: /x}]",
        "volumes: [{type: volume, target: /y}]",
    ),
    (
        "services.*.volumes[]",
        "read_only",
        "volumes: [{type: bind, source: /a, target: /x}]",
        "volumes: [{type: bind, source: /a, target: /x, read_only: true}]",
    ),
    (
        "services.*.volumes[]",
        "bind",
        "volumes: [{type: bind, source: /a, target: /x}]",
        "volumes: [{type: bind, source: /a, target: /x, bind: {create_host_path: true}}]",
    ),
    (
        "services.*.volumes[]",
        "volume",
        "volumes: [{type: volume, target: /x}]",
        "volumes: [{type: volume, target: /x, volume: {subpath: y}}]",
    ),
    (
        "services.*.volumes[]",
        "tmpfs",
        "volumes: [{type: tmpfs, target: /x}]",
        "volumes: [{type: tmpfs, target: /x, tmpfs: {size: 1m}}]",
    ),
    (
        "services.*.volumes[].bind",
        "create_host_path",
        "volumes: [{type: bind, source: /a, target: /x}]",
        "volumes: [{type: bind, source: /a, target: /x, bind: {create_host_path: true}}]",
    ),
    (
        "services.*.volumes[].tmpfs",
        "size",
        "volumes: [{type: tmpfs, target: /x}]",
        "volumes: [{type: tmpfs, target: /x, tmpfs: {size: 1m}}]",
    ),
    ("services.*.networks.*", "aliases", "networks: {default: {}}", "networks: {default: {aliases: [x]}}"),
    (
        "services.*.networks.*",
        "ipv4_address",
        "networks: {default: {}}",
        "networks: {default: {ipv4_address: 10.1.2.3}}",
    ),
    ("networks.*", "internal", "networks: {n: }\n", "networks: {n: {internal: true}}\n"),
    ("networks.*", "ipam", "networks: {n: }\n", "networks: {n: {ipam: {config: [{subnet: 10.1.2.0/24}]}}}\n"),
    (
        "networks.*.ipam",
        "config",
        "networks: {n: {ipam: {}}}\n",
        "networks: {n: {ipam: {config: [{subnet: 10.1.2.0/24}]}}}\n",
    ),
    (
        "networks.*.ipam.config[]",
        "subnet",
        "networks: {n: {ipam: {config: [{}]}}}\n",
        "networks: {n: {ipam: {config: [{subnet: 10.1.2.0/24}]}}}\n",
    ),
    (
        "networks.*.ipam.config[]",
        "gateway",
        "networks: {n: {ipam: {config: [{subnet: 10.1.2.0/24}]}}}\n",
        "networks: {n: {ipam: {config: [{subnet: 10.1.2.0/24, gateway: 10.1.2.9}]}}}\n",
    ),
    ("services.*.depends_on.*", "condition", "depends_on: {b: }", "depends_on: {b: {condition: service_healthy}}"),
    (
        "services.*.depends_on.*",
        "required",
        "depends_on: {z: }",
        "depends_on: {z: {condition: service_started, required: false}}",
    ),
    (
        "services.*.env_file[]",
        "path",
        "env_file: [{path: c.env, required: false}]",
        "env_file: [{path: e.env, required: false}]",
    ),
    ("services.*.env_file[]", "required", "env_file: [{path: c.env}]", "env_file: [{path: c.env, required: false}]"),
    ("services.*.secrets[]", "source", "secrets: [{target: x}]", "secrets: [{source: top, target: x}]"),
    ("services.*.secrets[]", "target", "secrets: [{source: top}]", "secrets: [{source: top, target: x}]"),
    ("services.*.secrets[]", "mode", "configs: [{source: top}]", "configs: [{source: top, mode: 0400}]"),
    ("services.*.extends", "service", "extends: {file: base.yaml}", "extends: {file: base.yaml, service: base}"),
    ("services.*.extends", "file", "extends: {service: b}", "extends: {file: base.yaml, service: base}"),
    ("secrets.*", "file", "configs: [e]\nconfigs: {e: {content: x}}", "configs: [e]\nconfigs: {e: {file: c.txt}}"),
    (
        "secrets.*",
        "environment",
        "configs: [e]\nconfigs: {e: {content: x}}",
        "configs: [e]\nconfigs: {e: {environment: HOME}}",
    ),
    ("secrets.*", "content", "configs: [e]\nconfigs: {e: {content: x}}", "configs: [e]\nconfigs: {e: {content: y}}"),
    ("secrets.*", "external", "configs: [e]\nconfigs: {e: {}}", "configs: [e]\nconfigs: {e: {external: true}}"),
    ("include[]", "path", "", "include: [{path: base.yaml}]\n"),
    (
        "include[]",
        "project_directory",
        "include: [{path: vars.yaml}]\n",
        "include: [{path: vars.yaml, project_directory: sub}]\n",
    ),
    ("include[]", "env_file", "include: [{path: vars.yaml}]\n", "include: [{path: vars.yaml, env_file: e.env}]\n"),
];

fn effect(table: &str, text: &str) -> (std::collections::BTreeMap<String, serde_json::Value>, Vec<String>) {
    let text = if table.starts_with("services.*") || table == "secrets.*" {
        let image = if text.contains("image:") || text.contains("build:") { "" } else { "image: i\n    " };
        let top = if text.contains("\nsecrets:") || text.contains("\nconfigs:") {
            String::new()
        } else {
            "secrets: {top: {file: c.txt}}\nconfigs: {top: {content: x}}\n".to_owned()
        };
        let (own, rest) = text.split_once('\n').filter(|(_, rest)| !rest.starts_with(' ')).unwrap_or((text, ""));
        format!("services:\n  b: {{image: i}}\n  a:\n    {image}{own}\n{rest}\n{top}")
    } else if text.contains("services:") {
        text.to_owned()
    } else {
        format!("{text}services:\n  a: {{image: i}}\n")
    };
    let vars = "services:\n  base: {image: 'i:${FROM_FILE:-none}', volumes: ['./x:/x']}\n";
    let files: Vec<(&str, &str)> =
        FILES.iter().copied().chain([("compose.yaml", text.as_str()), ("vars.yaml", vars)]).collect();
    let loaded = load_files(&files, &[("HOME", "/home")]);
    (plain(&loaded.objects), said(&loaded))
}

#[test]
fn every_honoured_key_does_something() {
    let mut failed = Vec::new();
    for (table, section) in keys::TABLES.all {
        for key in section.keys.iter().filter(|key| matches!(key.how, How::Honoured)) {
            let example = EXAMPLES.iter().find(|(t, name, ..)| t == table && *name == key.name);
            match example {
                None => failed.push(format!("no example of `{table}` `{}`", key.name)),
                Some((_, _, without, with)) => {
                    if effect(table, without) == effect(table, with) {
                        failed.push(format!("`{table}` `{}` changes nothing: {:?}", key.name, effect(table, with)));
                    }
                }
            }
        }
    }
    for (table, name, ..) in EXAMPLES {
        let known =
            keys::TABLES.all.iter().any(|(t, section)| t == table && section.keys.iter().any(|key| key.name == *name));
        if !known {
            failed.push(format!("an example of what is not there: `{table}` `{name}`"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Each key that is not honoured says so, once, where it is written, and says what follows.
#[test]
fn every_other_key_is_told() {
    for (table, section) in keys::TABLES.all {
        for key in section.keys {
            let How::Not { effect, .. } = key.how else { continue };
            assert!(!effect.contains('\n') && !effect.ends_with('.'), "{table} {}: {effect}", key.name);
            if *table != "services.*" || effect.is_empty() {
                continue;
            }
            let text = format!("services:\n  a:\n    image: i\n    {}: {{some: thing}}\n", key.name);
            let loaded = load_files(&[("compose.yaml", &text)], &[]);
            assert_eq!(said(&loaded), ["BX0142w 4:5"], "{}", shown(&loaded));
        }
    }
}

#[test]
fn a_slip_is_refused_at_its_place() {
    let loaded = load_files(&[("compose.yaml", "services: {a: {image: i, enviroment: {A: 1}}}\n")], &[]);
    assert_eq!((said(&loaded), loaded.objects.len()), (vec!["BX0104 1:26 environment".to_owned()], 0));
}
