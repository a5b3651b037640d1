//! One service becomes an App; one that others wait for until it has completed becomes a Job.

use std::collections::{BTreeMap, BTreeSet};

use runtime::image::ImageRef;
use runtime::runtime::SecurityConfig;

use super::project::Project;
use super::{Context, keys, merge, mounts, networks, peek, ports, rollout, tuning, words};
use crate::manifest::format::Format as _;
use crate::manifest::keys::{Entries, object_name};
use crate::manifest::native::dns::DnsName;
use crate::manifest::native::pull::PullPolicyText;
use crate::manifest::native::text::{Capability, ContainerPath, Hostname, Reference, Signal, User};
use crate::manifest::tree::{Entry, Extent, Node, Value};
use crate::model::object::{AppSpec, DependencySpec, EnvSpec, ImageChoice, JobSpec, ObjectSpec, TemplateSpec};
use crate::model::{
    Completion, DependsOn, Diagnostic, Healthcheck, Kind, Object, Probe, PullPolicy, Restart, RunPolicy, codes,
};

/// Docker's defaults.
const STOP_GRACE_MS: u64 = 10_000;
const INTERVAL_MS: u64 = 30_000;
const RETRIES: u32 = 3;
/// As native Jobs.
const BACKOFF_LIMIT: u32 = 6;

/// Finds what services say about each other, before any of them is lowered.
pub(super) fn note_relations<'n>(context: &mut Context<'n>) {
    let mut jobs = BTreeSet::new();
    let mut aliases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in context.active.values() {
        for dependency in peek(&entry.value, "depends_on").map_or(&[][..], Node::entries) {
            let condition = dependency.value.text("condition");
            if condition == Some("service_completed_successfully") {
                jobs.extend(context.active.get_key_value(dependency.key.as_str()).map(|(name, _)| *name));
            }
        }
        let links = peek(&entry.value, "links").map(|node| &node.value);
        let Some(Value::List(links)) = links else { continue };
        for link in links.iter().filter_map(|link| link.scalar()) {
            if let Some((service, alias)) = link.text.split_once(':').filter(|(_, alias)| DnsName::parse(alias).is_ok())
            {
                aliases.entry(service.to_owned()).or_default().insert(alias.to_owned());
            }
        }
    }
    context.jobs = jobs;
    context.aliases = aliases;
}

pub(super) fn lower(project: &mut Project<'_>, context: &Context<'_>, name: &str, entry: &Entry) -> Option<Object> {
    if entry.value.value == Value::Unknown {
        return None;
    }
    let kind = context.kind_of(name);
    let key = super::key(project, context, kind, entry)?;
    let before = project.reader.errors();
    let service = project.reader.keys(&entry.value, &keys::SERVICE);
    let ports = ports::lower(project, context, &service);
    let rollout = rollout::lower(project, &service);
    let mut aliases = aliases(project, context, name, &service);
    aliases.retain(|alias| *alias != key.name);
    let depends_on = dependencies(project, context, name, &service);
    let mut template = template(project, context, name, entry, &service)?;
    template.resources = rollout.resources;
    template.container_ports = ports.listened;
    if project.reader.errors() > before {
        return None;
    }
    let spec = match kind {
        Kind::Job => {
            if let Some(first) = ports.published.first() {
                let what = format!("port {} of a service that runs to completion is not published", first.host_port);
                project.reader.push(Diagnostic::warning(codes::NOT_HONOURED, what).at(first.span.clone()));
            }
            let backoff_limit = match rollout.restart {
                Restart::Never => 0,
                Restart::Always => BACKOFF_LIMIT,
                Restart::OnFailure { retries_max } => retries_max.unwrap_or(BACKOFF_LIMIT),
            };
            ObjectSpec::Job(Box::new(JobSpec {
                template,
                env_from: Vec::new(),
                schedule: None,
                backoff_limit,
                runs: RunPolicy::default(),
                depends_on,
            }))
        }
        Kind::App | Kind::Image | Kind::Volume | Kind::Config | Kind::Secret | Kind::Service | Kind::Network => {
            ObjectSpec::App(Box::new(AppSpec {
                replicas: rollout.replicas,
                ports: if template.is_bridged() { ports.published } else { Vec::new() },
                template,
                env_from: Vec::new(),
                strategy: rollout.strategy,
                depends_on,
                restart: rollout.restart,
                aliases,
                headless: rollout.headless,
                labels: BTreeMap::new(),
                port_names: BTreeMap::new(),
            }))
        }
    };
    Some(Object { key, span: super::place(project, entry.key_extent), spec })
}

fn template(
    project: &mut Project<'_>,
    context: &Context<'_>,
    name: &str,
    entry: &Entry,
    service: &Entries<'_>,
) -> Option<TemplateSpec> {
    let (host_network, no_network) = network_mode(project, context, name, service);
    let networks = networks::uses(project, context, &object_name(name), service);
    let image = image(project, context, name, entry, service);
    let hostname = service.get("hostname").and_then(|node| project.reader.format::<Hostname>("hostname", node));
    let user = service.get("user").filter(|node| node.scalar().is_none_or(|s| !s.text.is_empty()));
    let user = user.and_then(|node| project.reader.format::<User>("user", node));
    let working_dir = service.get("working_dir");
    let working_dir = working_dir.and_then(|node| project.reader.format::<ContainerPath>("working_dir", node));
    let stop_signal = service.get("stop_signal");
    let stop_signal = stop_signal.and_then(|node| project.reader.format::<Signal>("stop_signal", node));
    let stop_grace = service.get("stop_grace_period");
    let stop_grace = stop_grace.and_then(|node| rollout::duration(project, "stop_grace_period", node));
    let healthcheck = service.get("healthcheck").and_then(|node| healthcheck(project, node));
    let is_healed = is_healed(project, service);
    let liveness = healthcheck.clone().filter(|check| is_healed && check.probe != Probe::Off);
    let mut flag = |key| service.get(key).is_some_and(|node| project.reader.flag(key, node));
    let (init, tty) = (flag("init"), flag("tty"));
    let lossy_log = is_lossy(project, service);
    Some(TemplateSpec {
        entrypoint: service.get("entrypoint").and_then(|node| command(project, "entrypoint", node)),
        args: service.get("command").and_then(|node| command(project, "command", node)),
        env: environment(project, service),
        working_dir: working_dir.map(|path| path.0),
        user: user.map(|user| user.0),
        hostname: hostname.map(|name| name.0),
        mounts: mounts::lower(project, context, service),
        resources: runtime::runtime::Resources::default(),
        container_ports: BTreeSet::new(),
        healthcheck,
        startup: None,
        liveness,
        stop_grace_ms: stop_grace.unwrap_or(STOP_GRACE_MS),
        stop_signal: stop_signal.map(|signal| signal.0),
        security: security(project, service),
        shm_bytes: service.get("shm_size").and_then(|node| rollout::bytes(project, "shm_size", node)),
        init,
        lossy_log,
        host_network,
        no_network,
        networks,
        tty,
        tuning: tuning::lower(project, service),
        pod: None,
        pull: pull_policy(project, service),
        image: image?,
    })
}

fn pull_policy(project: &mut Project<'_>, service: &Entries<'_>) -> PullPolicy {
    let Some(node) = service.get("pull_policy") else { return PullPolicy::default() };
    if node.scalar().is_some_and(|scalar| scalar.text == "build") {
        project.reader.not_honoured(node.extent, "`pull_policy: build`", "images are pulled, not built");
        return PullPolicy::default();
    }
    project.reader.format::<PullPolicyText>("pull_policy", node).map_or_else(PullPolicy::default, |policy| policy.0)
}

/// With `build` alone, the name Compose gives the image that it builds.
fn image(
    project: &mut Project<'_>,
    context: &Context<'_>,
    name: &str,
    entry: &Entry,
    service: &Entries<'_>,
) -> Option<ImageChoice> {
    let written = service.get("image");
    if let Some(build) = service.entry("build") {
        if build.value.is_map() {
            // Every key of it says the same: it is told once, at `build`.
            let before = project.reader.out.len();
            project.reader.keys(&build.value, &keys::BUILD);
            let errors: Vec<Diagnostic> = project.reader.out.drain(before..).filter(Diagnostic::is_error).collect();
            project.reader.out.extend(errors);
        }
        let built = format!("{}-{}", context.stack, object_name(name));
        let used = match written.and_then(Node::scalar) {
            Some(image) => format!("image `{}` is used, if it can be had", image.text),
            None => format!("image `{built}` is used, if it can be had"),
        };
        let what = format!("`build` is not honoured: images are pulled, not built; {used}");
        let span = project.reader.span(build.key_extent);
        let help = "build it elsewhere and push it: docker build -t REGISTRY/NAME . && docker push REGISTRY/NAME";
        project.reader.push(Diagnostic::warning(codes::NOT_HONOURED, what).at(span).help(help));
        if written.is_none() {
            let span = project.reader.span(build.key_extent);
            return built.parse::<ImageRef>().ok().map(|reference| ImageChoice::Reference(reference, span));
        }
    }
    let Some(node) = written else {
        let what = format!("service `{name}` needs a key `image`");
        project.reader.error(codes::MISSING_FIELD, entry.key_extent, what);
        return None;
    };
    let reference = project.reader.format::<Reference>("image", node)?;
    Some(ImageChoice::Reference(reference.0, project.reader.span(node.extent)))
}

/// A list is taken as it is; a text is split as a shell does, without running one.
fn command(project: &mut Project<'_>, what: &str, node: &Node) -> Option<Vec<String>> {
    if matches!(node.value, Value::List(_)) {
        return Some(project.reader.texts(what, node));
    }
    let text = project.reader.text(what, node)?;
    let split = words::split(&text);
    if split.is_none() {
        project.reader.error(codes::VALUE, node.extent, format!("`{what}`: a quote is never closed"));
    }
    split
}

fn environment(project: &mut Project<'_>, service: &Entries<'_>) -> BTreeMap<String, EnvSpec> {
    let mut env = BTreeMap::new();
    if let Some(node) = service.get("env_file") {
        for file in node.one_or_more() {
            env_file(project, file, &mut env);
        }
    }
    let Some(node) = service.get("environment") else { return env };
    let node = merge::as_map(node.clone(), "environment");
    for entry in project.reader.map("environment", &node) {
        if entry.key.is_empty() || entry.key.contains(['=', '\0']) {
            let what = format!("{:?} is not the name of an environment variable", entry.key);
            project.reader.error(codes::NAME, entry.key_extent, what);
        } else if entry.value.is_null() {
            // Without a value it is the environment's; not there either, it is not set.
            match project.variables.get(&entry.key) {
                Some(value) => drop(env.insert(entry.key.clone(), EnvSpec::Plain(value.clone()))),
                None => drop(env.remove(&entry.key)),
            }
        } else if let Some(value) = project.reader.text("environment", &entry.value) {
            env.insert(entry.key.clone(), EnvSpec::Plain(value));
        }
    }
    env
}

fn env_file(project: &mut Project<'_>, node: &Node, env: &mut BTreeMap<String, EnvSpec>) {
    let (path, required, extent) = if node.is_map() {
        let found = project.reader.keys(node, &keys::ENV_FILE);
        let required = found.get("required").is_none_or(|node| project.reader.flag("required", node));
        let path = found.get("path").and_then(|node| project.reader.text("path", node));
        (path, required, found.get("path").map_or(node.extent, |node| node.extent))
    } else {
        (project.reader.text("env_file", node), true, node.extent)
    };
    let Some(path) = path else { return };
    let path = project.path(&path, extent);
    match project.read(&path) {
        Ok(text) => {
            let variables = project.variables.clone();
            match super::dotenv::read(&text, &variables) {
                Ok(settings) => {
                    for (name, value) in settings {
                        if let Some(value) = value.or_else(|| variables.get(&name).cloned()) {
                            env.insert(name, EnvSpec::Plain(value));
                        }
                    }
                }
                Err((line, what)) => project.bad_line(&path, line, &what),
            }
        }
        Err(_) if !required => {}
        Err(why) => {
            let what = format!("{} cannot be read: {why}", path.display());
            project.reader.error(codes::FILE, extent, what);
        }
    }
}

fn healthcheck(project: &mut Project<'_>, node: &Node) -> Option<Healthcheck> {
    let found = project.reader.keys(node, &keys::HEALTHCHECK);
    let mut ms = |key, default| {
        let given = found.get(key).and_then(|node| rollout::duration(project, key, node));
        given.filter(|ms| *ms > 0 || key == "start_period").unwrap_or(default)
    };
    let interval_ms = ms("interval", INTERVAL_MS);
    let timeout_ms = ms("timeout", INTERVAL_MS);
    let start_period_ms = ms("start_period", 0);
    let retries = found.get("retries").and_then(|node| project.reader.number("retries", node, 1_000));
    let disabled = found.get("disable").is_some_and(|node| project.reader.flag("disable", node));
    let probe = match found.get("test") {
        _ if disabled => Probe::Off,
        Some(test) => probe(project, test)?,
        None => {
            let effect = "without `test` the image's own check goes as the image says";
            project.reader.not_honoured(node.extent, "this healthcheck", effect);
            return None;
        }
    };
    let retries = retries.filter(|count| *count > 0).unwrap_or(RETRIES);
    Some(Healthcheck { probe, interval_ms, timeout_ms, retries, start_period_ms, successes: 1 })
}

/// `logging.options.mode: non-blocking`; the driver and its other options are ours to choose.
fn is_lossy(project: &mut Project<'_>, service: &Entries<'_>) -> bool {
    let Some(logging) = service.get("logging") else { return false };
    let entries = project.reader.keys(logging, &keys::LOGGING);
    let Some(options) = entries.get("options") else { return false };
    let entries = project.reader.keys(options, &keys::LOGGING_OPTIONS);
    let Some(mode) = entries.get("mode") else { return false };
    let text = project.reader.text("mode", mode);
    if let Some(other) = text.as_deref().filter(|text| !matches!(*text, "blocking" | "non-blocking")) {
        let what = format!("`mode: {other}`");
        project.reader.not_honoured(mode.extent, &what, "`blocking` and `non-blocking` are the two there are");
    }
    text.as_deref() == Some("non-blocking")
}

/// Whether the label is set by which people ask for a restart of what is unhealthy, which Compose itself does not do.
fn is_healed(project: &mut Project<'_>, service: &Entries<'_>) -> bool {
    let Some(entry) = service.entry("labels") else { return false };
    let node = merge::as_map(entry.value.clone(), "labels");
    let is_asked = |label: &Entry| label.key == "autoheal" && label.value.scalar().is_some_and(|s| s.text == "true");
    let labels = project.reader.map("labels", &node);
    if labels.iter().any(|label| !is_asked(label)) {
        project.reader.not_honoured(entry.key_extent, "`labels`", keys::INERT);
    }
    labels.iter().any(is_asked)
}

fn probe(project: &mut Project<'_>, test: &Node) -> Option<Probe> {
    let shell = |line: String| Probe::Exec(vec!["/bin/sh".to_owned(), "-c".to_owned(), line]);
    if test.scalar().is_some() {
        let line = project.reader.text("test", test)?;
        return Some(if line == "NONE" { Probe::Off } else { shell(line) });
    }
    let mut words = project.reader.texts("test", test).into_iter();
    match (words.next().as_deref(), words.collect::<Vec<_>>()) {
        (Some("NONE"), _) => Some(Probe::Off),
        (Some("CMD"), command) if !command.is_empty() => Some(Probe::Exec(command)),
        (Some("CMD-SHELL"), line) if !line.is_empty() => Some(shell(line.join(" "))),
        _ => {
            let what = "`test` begins with CMD, CMD-SHELL or NONE, or is a text for the shell";
            project.reader.error(codes::HEALTHCHECK, test.extent, what);
            None
        }
    }
}

fn security(project: &mut Project<'_>, service: &Entries<'_>) -> SecurityConfig {
    let mut capabilities = |key: &str| {
        let Some(node) = service.get(key) else { return Vec::new() };
        let items = project.reader.list(key, node);
        let parsed = items.iter().filter_map(|item| project.reader.format::<Capability>(key, item));
        parsed.map(|capability| capability.0).collect()
    };
    let mut security = SecurityConfig {
        allow_privilege_escalation: false,
        cap_add: capabilities("cap_add"),
        cap_drop: capabilities("cap_drop"),
        read_only_root: service.get("read_only").is_some_and(|node| project.reader.flag("read_only", node)),
    };
    let Some(node) = service.get("security_opt") else { return security };
    for item in project.reader.list("security_opt", node) {
        let Some(text) = project.reader.text("security_opt", item) else { continue };
        match text.replace('=', ":").as_str() {
            "no-new-privileges" | "no-new-privileges:true" => {}
            "no-new-privileges:false" => security.allow_privilege_escalation = true,
            _ => {
                let what = format!("the security option `{text}`");
                project.reader.not_honoured(item.extent, &what, "the safe defaults stay in force");
            }
        }
    }
    security
}

/// Whether the service uses the host's network, and whether it has none.
fn network_mode(project: &mut Project<'_>, context: &Context<'_>, name: &str, service: &Entries<'_>) -> (bool, bool) {
    let Some(node) = service.get("network_mode") else { return (false, false) };
    let Some(mode) = project.reader.text("network_mode", node) else { return (false, false) };
    match mode.as_str() {
        "host" | "none" => {
            if let Some(ports) = service.entry("ports") {
                let effect = match mode.as_str() {
                    "host" => "with `network_mode: host` the program listens on the host itself",
                    _ => "with `network_mode: none` the program has no address",
                };
                project.reader.not_honoured(ports.key_extent, "`ports`", effect);
            }
            return (mode == "host", mode == "none");
        }
        "bridge" | "default" => {}
        _ if context.hosts.contains_key(name) => {}
        other => {
            if let Some(name) = other.strip_prefix("service:").filter(|name| !context.active.contains_key(name)) {
                let what = format!("`network_mode` names service `{name}`, which is not there");
                project.reader.error(codes::DANGLING, node.extent, what);
            }
            let what = format!("`network_mode: {other}`");
            project.reader.not_honoured(node.extent, &what, "it has its own address on the stack's network");
        }
    }
    (false, false)
}

/// Further names: of the container, those that links give it, and its own when that is no name here.
fn aliases(project: &mut Project<'_>, context: &Context<'_>, name: &str, service: &Entries<'_>) -> BTreeSet<String> {
    let mut aliases: BTreeSet<String> = context.aliases.get(name).cloned().unwrap_or_default();
    aliases.insert(name.to_owned());
    let own = service.get("container_name");
    aliases.extend(own.and_then(|node| project.reader.format::<DnsName>("container_name", node)).map(|name| name.0));
    aliases
}

fn dependencies(
    project: &mut Project<'_>,
    context: &Context<'_>,
    own: &str,
    service: &Entries<'_>,
) -> Vec<DependencySpec> {
    let mut found: BTreeMap<String, DependencySpec> = BTreeMap::new();
    if let Some(node) = service.get("links") {
        for item in project.reader.list("links", node) {
            let Some(text) = project.reader.text("links", item) else { continue };
            let (name, alias) = text.split_once(':').unwrap_or((&text, "alias"));
            if let Err(bad) = DnsName::parse(alias) {
                project.reader.error(codes::NAME, item.extent, bad.what);
            }
            if let Some(spec) = dependency(project, context, name, DependsOn::Started, item.extent) {
                found.insert(name.to_owned(), spec);
            }
        }
    }
    // Containers of one replica do not wait for each other.
    let replica_of = |name: &str| context.hosts.get(name).map_or_else(|| name.to_owned(), |host| (*host).to_owned());
    let Some(node) = service.get("depends_on") else { return found.into_values().collect() };
    let node = merge::as_map(node.clone(), "depends_on");
    for entry in project.reader.map("depends_on", &node) {
        let keys = project.reader.keys(&entry.value, &keys::DEPENDENCY);
        if context.active.contains_key(entry.key.as_str())
            && replica_of(&entry.key) == replica_of(own)
            && entry.key != own
        {
            continue;
        }
        let required = keys.get("required").is_none_or(|node| project.reader.flag("required", node));
        if !required && !context.active.contains_key(entry.key.as_str()) {
            continue;
        }
        let condition = match keys.get("condition").map(|node| (project.reader.text("condition", node), node)) {
            None => DependsOn::Started,
            Some((text, node)) => match text.as_deref() {
                Some("service_started") => DependsOn::Started,
                Some("service_healthy") => DependsOn::Ready,
                Some("service_completed_successfully") => DependsOn::Completed(Completion::Success),
                _ => {
                    let known = "service_started, service_healthy or service_completed_successfully";
                    project.reader.wrong("condition", known, node);
                    continue;
                }
            },
        };
        if let Some(spec) = dependency(project, context, &entry.key, condition, entry.key_extent) {
            found.insert(entry.key.clone(), spec);
        }
    }
    found.into_values().collect()
}

fn dependency(
    project: &mut Project<'_>,
    context: &Context<'_>,
    name: &str,
    condition: DependsOn,
    extent: Extent,
) -> Option<DependencySpec> {
    if !context.active.contains_key(name) {
        let near = crate::text::nearest(name, context.active.keys().copied()).map(str::to_owned);
        let what = match context.inactive.contains(name) {
            true => format!("service `{name}` does not run: its profile is not asked for"),
            false => format!("there is no service `{name}`"),
        };
        let diagnostic = Diagnostic::error(codes::DANGLING, what).at(project.reader.span(extent)).suggest(near);
        project.reader.push(diagnostic);
        return None;
    }
    let kind = context.kind_of(name);
    // What runs to completion is waited for until then, whatever is asked.
    let condition = if kind == Kind::Job { DependsOn::Completed(Completion::Success) } else { condition };
    let span = project.reader.span(extent);
    let name = object_name(context.hosts.get(name).copied().unwrap_or(name));
    Some(DependencySpec { kind: Some(kind), name, condition, span })
}
