//! A pod: its containers, the first of which is the main one, and what they have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use runtime::image::ImageRef;
use runtime::runtime::Protocol;
use runtime::runtime::Resources;

use super::service::labels;
use super::volumes::Source;
use super::{Lower, keys, members, names, probe, security, volumes};
use crate::manifest::format::{Bad, Format};
use crate::manifest::keys::Entries;
use crate::manifest::native::text::{ContainerPath, Hostname, Reference};
use crate::manifest::quantity::{Cpu, Memory};
use crate::manifest::tree::Node;
use crate::model::object::{EnvFromSpec, EnvSpec, ImageChoice, PortSpec, TemplateSpec};
use crate::model::{self, Member, PullPolicy, Restart, Role, Tuning, codes};

/// Kubernetes' default.
const GRACE_SECONDS: u32 = 30;

/// What a pod says.
pub(super) struct Pod {
    pub(super) template: TemplateSpec,
    pub(super) env_from: Vec<EnvFromSpec>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) port_names: BTreeMap<String, u16>,
    /// Host ports.
    pub(super) ports: Vec<PortSpec>,
    pub(super) restart: Restart,
}

/// Ports of a container.
#[derive(Default)]
struct Ports {
    names: BTreeMap<String, u16>,
    listened: BTreeSet<u16>,
    published: Vec<PortSpec>,
}

impl Ports {
    /// Those of another container of the pod; a name means what it meant first.
    fn add(&mut self, other: Self) {
        for (name, port) in other.names {
            self.names.entry(name).or_insert(port);
        }
        self.published.extend(other.published);
    }
}

/// Lowers a pod template: a mapping with `metadata` and `spec`. `more` are volumes its workload gives it.
pub(super) fn template(lower: &mut Lower, node: &Node, more: BTreeMap<String, Source>) -> Option<Pod> {
    let found = lower.reader.keys(node, &keys::TEMPLATE);
    let labels = found.get("metadata").map(|node| lower.reader.keys(node, &keys::METADATA));
    let labels = labels.and_then(|metadata| metadata.get("labels")).map(|node| self::labels(lower, "labels", node));
    let Some(spec) = found.get("spec") else {
        lower.reader.error(codes::MISSING_FIELD, node.extent, "a pod template needs a key `spec`");
        return None;
    };
    pod(lower, spec, labels.unwrap_or_default(), more)
}

pub(super) fn pod(
    lower: &mut Lower,
    spec: &Node,
    labels: BTreeMap<String, String>,
    more: BTreeMap<String, Source>,
) -> Option<Pod> {
    let found = lower.reader.keys(spec, &keys::POD);
    let written = members::read(lower, &found, spec);
    let main = written.iter().position(|one| one.role == Role::Main)?;
    let mut sources = volumes::sources(lower, found.get("volumes"));
    members::share(lower, &written, &mut sources, found.get("volumes"));
    sources.extend(more);
    account(lower, &found);
    let context = Context { labels: &labels, pod: &found, sources: &sources };
    let mut all: Vec<Option<Lowered>> = written.iter().map(|one| container(lower, one.node, &context)).collect();
    let grace = found.get("terminationGracePeriodSeconds");
    let grace = grace.and_then(|node| lower.reader.number("terminationGracePeriodSeconds", node, 1_000_000));
    let hostname = found.get("hostname").and_then(|node| lower.reader.format::<Hostname>("hostname", node));
    let share_pids = found.get("shareProcessNamespace").map(|node| lower.reader.flag("shareProcessNamespace", node));
    let host_network = found.get("hostNetwork").is_some_and(|node| lower.reader.flag("hostNetwork", node));
    let restart = restart(lower, &found);
    let mut ports = Ports::default();
    for one in all.iter_mut().flatten() {
        ports.add(std::mem::take(&mut one.ports));
    }
    let Lowered { mut template, env_from, .. } = all[main].take()?;
    let main_name = written[main].name.clone();
    if written.len() > 1 {
        let members = written.into_iter().zip(all).filter(|(one, _)| one.role != Role::Main);
        let member = |(one, lowered): (members::Written<'_>, Option<Lowered>)| {
            let Lowered { template, env_from, .. } = lowered?;
            Some(Member { name: one.name, role: one.role, template, env_from })
        };
        let members = members.map(member).collect::<Option<Vec<_>>>()?;
        template.pod = Some(Box::new(model::Pod { main: main_name, share_pids: share_pids == Some(true), members }));
    }
    template.hostname = hostname.map(|name| name.0);
    template.stop_grace_ms = u64::from(grace.unwrap_or(GRACE_SECONDS)) * 1_000;
    template.host_network = host_network;
    // With the host's network the program listens on the host itself.
    let published = if template.host_network { Vec::new() } else { ports.published };
    Some(Pod { template, env_from, labels, port_names: ports.names, ports: published, restart })
}

/// What the containers of a pod are read with.
struct Context<'c, 'n> {
    labels: &'c BTreeMap<String, String>,
    pod: &'c Entries<'n>,
    sources: &'c BTreeMap<String, Source>,
}

/// One container by itself.
struct Lowered {
    template: TemplateSpec,
    env_from: Vec<EnvFromSpec>,
    ports: Ports,
}

/// Kubernetes' default: `latest`, also unsaid, is asked for.
fn pull_policy(lower: &mut Lower, node: Option<&Node>, image: &ImageRef) -> PullPolicy {
    let Some(node) = node else {
        let is_latest = image.digest().is_none() && image.tag().is_none_or(|tag| tag == "latest");
        return if is_latest { PullPolicy::Always } else { PullPolicy::Missing };
    };
    match lower.reader.text("imagePullPolicy", node).as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("IfNotPresent") | None => PullPolicy::Missing,
        Some("Never") => PullPolicy::Never,
        Some(text) => {
            let near = crate::text::nearest(text, ["Always", "IfNotPresent", "Never"]);
            let bad = Bad::new(codes::VALUE, format!("expected Always, IfNotPresent or Never, found {text:?}"));
            lower.reader.bad("imagePullPolicy", near.map_or(bad.clone(), |near| bad.suggest(near)), node.extent);
            PullPolicy::Missing
        }
    }
}

fn container(lower: &mut Lower, node: &Node, context: &Context<'_, '_>) -> Option<Lowered> {
    let own = lower.reader.keys(node, &keys::CONTAINER);
    let ports = ports(lower, own.get("ports"));
    let mut security = security::lower(lower, context.pod.get("securityContext"), own.get("securityContext"));
    names::lower(lower, context.pod, &mut security.tuning);
    let checks = probe::checks(lower, &own, &ports.names);
    let (env, env_from) = environment(lower, &own, context.labels, context.pod);
    let working_dir = own.get("workingDir");
    let working_dir = working_dir.and_then(|node| lower.reader.format::<ContainerPath>("workingDir", node));
    let mut words = |key| own.get(key).map(|node| expanded(lower, key, node, &env));
    let (entrypoint, args) = (words("command"), words("args"));
    let image = match own.get("image") {
        Some(node) => lower.reader.format::<Reference>("image", node).map(|reference| (reference.0, node.extent)),
        None => {
            lower.reader.error(codes::MISSING_FIELD, node.extent, "a container needs a key `image`");
            None
        }
    };
    let (image, image_extent) = image?;
    let template = TemplateSpec {
        pull: pull_policy(lower, own.get("imagePullPolicy"), &image),
        image: ImageChoice::Reference(image, lower.reader.span(image_extent)),
        entrypoint,
        args,
        env,
        working_dir: working_dir.map(|path| path.0),
        user: security.user,
        hostname: None,
        mounts: volumes::mounts(lower, own.get("volumeMounts"), context.sources),
        resources: resources(lower, own.get("resources")),
        container_ports: ports.listened.clone(),
        healthcheck: Some(checks.readiness),
        startup: checks.startup,
        liveness: checks.liveness,
        stop_grace_ms: u64::from(GRACE_SECONDS) * 1_000,
        stop_signal: None,
        security: security.config,
        shm_bytes: None,
        init: false,
        lossy_log: false,
        networks: Vec::new(),
        host_network: false,
        no_network: false,
        tty: own.get("tty").is_some_and(|node| lower.reader.flag("tty", node)),
        tuning: Tuning {
            stdin: own.get("stdin").is_some_and(|node| lower.reader.flag("stdin", node)),
            ..security.tuning
        },
        pod: None,
    };
    Some(Lowered { template, env_from, ports })
}

/// Each pod has an account in Kubernetes; here it means nothing.
fn account(lower: &mut Lower, found: &Entries<'_>) {
    for key in ["serviceAccountName", "serviceAccount"] {
        if let Some(node) = found.get(key)
            && lower.reader.text(key, node).is_some_and(|name| name != "default")
        {
            let span = found.entry(key).map_or(node.extent, |entry| entry.key_extent);
            lower.reader.not_honoured(span, &format!("`{key}` of the pod"), "there is no API server to reach");
        }
    }
}

fn restart(lower: &mut Lower, found: &Entries<'_>) -> Restart {
    let Some(node) = found.get("restartPolicy") else { return Restart::Always };
    match lower.reader.text("restartPolicy", node).as_deref() {
        Some("Always") => Restart::Always,
        Some("OnFailure") => Restart::OnFailure { retries_max: None },
        Some("Never") => Restart::Never,
        _ => {
            lower.reader.wrong("restartPolicy", "Always, OnFailure or Never", node);
            Restart::Always
        }
    }
}

fn ports(lower: &mut Lower, node: Option<&Node>) -> Ports {
    let mut ports = Ports::default();
    let Some(node) = node else { return ports };
    for item in lower.reader.list("ports", node) {
        let found = lower.reader.keys(item, &keys::CONTAINER_PORT);
        let mut number = |key: &str| {
            let node = found.get(key)?;
            let number = lower.reader.number(key, node, 65_535)?;
            u16::try_from(number).ok().filter(|port| *port > 0)
        };
        let (port, host_port) = (number("containerPort"), number("hostPort"));
        let Some(container_port) = port else {
            lower.reader.error(codes::PORT, item.extent, "a port needs a key `containerPort`, 1-65535");
            continue;
        };
        let protocol = found.get("protocol").and_then(|node| lower.reader.text("protocol", node));
        if let Some(name) = found.get("name").and_then(|node| lower.reader.text("name", node)) {
            ports.names.insert(name, container_port);
        }
        let host_ip = found.get("hostIP").map(|node| (lower.reader.text("hostIP", node), node));
        let protocol = match protocol.as_deref() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some(_) => {
                if host_port.is_some() {
                    lower.reader.not_honoured(item.extent, "this host port", "only TCP and UDP ports are published");
                }
                continue;
            }
        };
        if protocol.is_tcp() {
            ports.listened.insert(container_port);
        }
        let Some(host_port) = host_port else { continue };
        let address = match host_ip {
            None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Some((text, node)) => match text.and_then(|text| text.parse().ok()) {
                Some(address) => address,
                None => {
                    lower.reader.error(codes::PORT, node.extent, "`hostIP` is not an IP address");
                    continue;
                }
            },
        };
        let span = lower.reader.span(item.extent);
        ports.published.push(PortSpec { address, host_port, container_port, protocol, span });
    }
    ports
}

fn resources(lower: &mut Lower, node: Option<&Node>) -> Resources {
    let mut resources = Resources::default();
    let Some(node) = node else { return resources };
    let found = lower.reader.keys(node, &keys::RESOURCES);
    let Some(limits) = found.get("limits") else { return resources };
    for entry in lower.reader.map("limits", limits) {
        match entry.key.as_str() {
            "cpu" => resources.cpu_millis = amount::<Cpu>(lower, "cpu", &entry.value).map(|cpu| cpu.0),
            "memory" => {
                resources.memory_bytes = amount::<Memory>(lower, "memory", &entry.value).map(|memory| memory.0);
            }
            other => {
                let effect = "it is not limited, and no devices are given";
                lower.reader.not_honoured(entry.key_extent, &format!("the limit `{other}`"), effect);
            }
        }
    }
    resources
}

/// A quantity as Kubernetes writes it, beyond what native manifests take: `.5`, `1e9`, thousandths of a byte.
pub(super) fn amount<T: Format>(lower: &mut Lower, what: &str, node: &Node) -> Option<T> {
    let text = lower.reader.text(what, node)?;
    let number = text.parse::<f64>().ok().filter(|number| (1.0..1e18).contains(number));
    let thousandths = text.strip_suffix('m').filter(|_| what != "cpu");
    let written = match (thousandths.and_then(|digits| digits.parse::<u64>().ok()), number) {
        (Some(thousandths), _) => (thousandths / 1_000).to_string(),
        (None, Some(number)) if text.contains(['e', 'E']) => format!("{number:.0}"),
        (None, _) if text.starts_with('.') => format!("0{text}"),
        (None, _) => text,
    };
    match T::parse(&written) {
        Ok(value) => Some(value),
        Err(bad) => {
            lower.reader.bad(what, bad, node.extent);
            None
        }
    }
}

type Environment = (BTreeMap<String, EnvSpec>, Vec<EnvFromSpec>);

fn environment(
    lower: &mut Lower,
    container: &Entries<'_>,
    labels: &BTreeMap<String, String>,
    pod: &Entries<'_>,
) -> Environment {
    let mut from = Vec::new();
    if let Some(node) = container.get("envFrom") {
        for item in lower.reader.list("envFrom", node) {
            let found = lower.reader.keys(item, &keys::ENV_FROM);
            let prefix = found.get("prefix").and_then(|node| lower.reader.text("prefix", node)).unwrap_or_default();
            for (key, is_secret) in [("configMapRef", false), ("secretRef", true)] {
                let Some(node) = found.get(key) else { continue };
                let reference = lower.reader.keys(node, &keys::NAME_REF);
                let Some(name) = reference.get("name").map(|node| (lower.reader.text("name", node), node)) else {
                    lower.reader.error(codes::MISSING_FIELD, node.extent, "this reference needs a key `name`");
                    continue;
                };
                let (Some(name), node) = name else { continue };
                let span = lower.reader.span(node.extent);
                from.push(EnvFromSpec { name, secret: is_secret, prefix: prefix.clone(), span });
            }
        }
    }
    let mut env = BTreeMap::new();
    if let Some(node) = container.get("env") {
        for item in lower.reader.list("env", node) {
            let found = lower.reader.keys(item, &keys::ENV);
            let Some(name) = found.get("name").and_then(|node| lower.reader.text("name", node)) else {
                lower.reader.error(codes::MISSING_FIELD, item.extent, "a variable needs a key `name`");
                continue;
            };
            if name.is_empty() || name.contains('=') {
                let what = format!("{name:?} is not the name of an environment variable");
                lower.reader.error(codes::NAME, item.extent, what);
                continue;
            }
            let value = match (found.get("value"), found.get("valueFrom")) {
                (Some(node), _) => {
                    lower.reader.text("value", node).map(|text| EnvSpec::Plain(expand(lower, &text, node, &env)))
                }
                (None, Some(node)) => value_from(lower, node, labels, pod),
                (None, None) => Some(EnvSpec::Plain(String::new())),
            };
            if let Some(value) = value {
                env.insert(name, value);
            }
        }
    }
    (env, from)
}

fn value_from(lower: &mut Lower, node: &Node, labels: &BTreeMap<String, String>, pod: &Entries<'_>) -> Option<EnvSpec> {
    let found = lower.reader.keys(node, &keys::VALUE_FROM);
    for (key, is_secret) in [("configMapKeyRef", false), ("secretKeyRef", true)] {
        let Some(node) = found.get(key) else { continue };
        let reference = lower.reader.keys(node, &keys::KEY_REF);
        let mut text = |key| reference.get(key).and_then(|node| lower.reader.text(key, node));
        let (Some(name), Some(key)) = (text("name"), text("key")) else {
            lower.reader.error(codes::MISSING_FIELD, node.extent, "this reference needs `name` and `key`");
            return None;
        };
        let span = lower.reader.span(node.extent);
        return Some(match is_secret {
            true => EnvSpec::Secret { name, key: Some(key), span },
            false => EnvSpec::Config { name, key, span },
        });
    }
    let node = found.get("fieldRef")?;
    let reference = lower.reader.keys(node, &keys::FIELD_REF);
    let path = reference.get("fieldPath").map(|node| (lower.reader.text("fieldPath", node), node));
    let Some((Some(path), node)) = path else {
        lower.reader.error(codes::MISSING_FIELD, node.extent, "`fieldRef` needs a key `fieldPath`");
        return None;
    };
    let label = path.strip_prefix("metadata.labels['").and_then(|rest| rest.strip_suffix("']"));
    let account = || pod.get("serviceAccountName").and_then(|node| node.scalar()).map(|scalar| scalar.text.clone());
    let value = match (path.as_str(), label) {
        ("metadata.namespace", _) => Some(lower.stack.clone()),
        ("spec.serviceAccountName", _) => Some(account().unwrap_or_else(|| "default".to_owned())),
        (_, Some(label)) => Some(labels.get(label).cloned().unwrap_or_default()),
        _ => None,
    };
    if value.is_none() {
        let effect = "the variable is not set, since the value differs from replica to replica";
        lower.reader.not_honoured(node.extent, &format!("`fieldPath: {path}`"), effect);
    }
    value.map(EnvSpec::Plain)
}

fn expanded(lower: &mut Lower, key: &str, node: &Node, env: &BTreeMap<String, EnvSpec>) -> Vec<String> {
    let mut words = Vec::new();
    for item in lower.reader.list(key, node) {
        if let Some(text) = lower.reader.text(key, item) {
            words.push(expand(lower, &text, item, env));
        }
    }
    words
}

/// `$(NAME)` of variables with a plain value; `$$` before a parenthesis is one. What is not known stays as it is, which is
/// told when the variable is there and its value is read from elsewhere.
fn expand(lower: &mut Lower, text: &str, node: &Node, env: &BTreeMap<String, EnvSpec>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(next) = after.strip_prefix('$') {
            out.push('$');
            rest = next;
            continue;
        }
        let name = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        match name.map(|(name, next)| (name, next, env.get(name))) {
            Some((_, next, Some(EnvSpec::Plain(value)))) if out.len() + value.len() < 1 << 20 => {
                out.push_str(value);
                rest = next;
            }
            Some((name, _, Some(EnvSpec::Config { .. } | EnvSpec::Secret { .. }))) => {
                let effect = "only variables with a plain value are put in; it stays as it is written";
                lower.reader.not_honoured(node.extent, &format!("`$({name})`"), effect);
                out.push('$');
                rest = after;
            }
            _ => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}
