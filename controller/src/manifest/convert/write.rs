//! The desired state as native manifests: one text for each stack. Fields at their defaults are left out; content of
//! mounted files goes into one Config for each stack. What cannot be written is left out: `convert` finds that.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

mod limits;

use crate::manifest::native::pull;
use crate::manifest::{native, yaml};
use crate::model::{
    ContainerTemplate, DependsOn, DesiredImage, DesiredJob, DesiredState, EnvValue, Healthcheck, ImageSource, Kind,
    Mount, MountWhat, NetworkUse, ObjectKey, OnChange, OnFailure, Pod, Probe, PublishedPort, Restart, Role, RunPolicy,
    SecretUse, UpdateStrategy, VolumeAccess, Workload,
};

/// Docker's, as in `native::template`.
const STOP_GRACE_MS: u64 = 10_000;
const PROGRESS_DEADLINE_MS: u64 = 600_000;
const BACKOFF_LIMIT: u32 = 6;
const FILE_MODE: u32 = 0o644;

/// The Config that holds the content of mounted files.
const CONFIG: &str = "files";

/// By stack.
pub(super) fn files(desired: &DesiredState) -> BTreeMap<String, String> {
    let mut stacks: BTreeMap<String, Stack> = BTreeMap::new();
    for (key, image) in &desired.images {
        stacks.entry(key.stack.clone()).or_default().documents.push(self::image(key, image));
    }
    for (key, volume) in &desired.volumes {
        let mut document = head(key);
        match volume.access {
            VolumeAccess::Single => {}
            VolumeAccess::Shared => put(&mut document, "access", "shared"),
            VolumeAccess::Any => put(&mut document, "access", "any"),
        }
        stacks.entry(key.stack.clone()).or_default().documents.push(document);
    }
    for (key, network) in &desired.networks {
        let mut document = head(key);
        if network.internal {
            put(&mut document, "internal", true);
        }
        if let Some(range) = network.range {
            put(&mut document, "subnet", range.subnet.to_string());
            if range.gateway != range.subnet.gateway() {
                put(&mut document, "gateway", range.gateway.to_string());
            }
        }
        stacks.entry(key.stack.clone()).or_default().documents.push(document);
    }
    for (key, app) in &desired.workloads {
        let stack = stacks.entry(key.stack.clone()).or_default();
        let document = self::app(stack, key, app);
        stack.documents.push(document);
    }
    for (key, job) in &desired.jobs {
        let stack = stacks.entry(key.stack.clone()).or_default();
        let document = self::job(stack, key, job);
        stack.documents.push(document);
    }
    stacks.into_iter().map(|(name, stack)| (name, stack.text())).collect()
}

type Document = Map<String, Json>;

#[derive(Default)]
struct Stack {
    documents: Vec<Document>,
    /// Content of the Config.
    data: BTreeMap<String, String>,
    /// What is used of Secrets, by name and key; they were read to be shown.
    secrets: BTreeMap<String, BTreeMap<String, String>>,
}

impl Stack {
    fn text(self) -> String {
        let documents = self.documents.into_iter().map(|document| escaped(Json::Object(document)));
        let config = (!self.data.is_empty())
            .then(|| json!({ "apiVersion": native::API_VERSION, "kind": "Config", "name": CONFIG, "data": self.data }));
        let secret =
            |(name, data)| json!({ "apiVersion": native::API_VERSION, "kind": "Secret", "name": name, "data": data });
        let secrets = self.secrets.into_iter().map(secret);
        let texts: Vec<String> =
            config.into_iter().chain(secrets).chain(documents).map(|document| yaml::write(&document)).collect();
        texts.join("---\n")
    }

    fn secret(&mut self, value: &SecretUse) {
        let data = self.secrets.entry(value.secret.clone()).or_default();
        data.insert(value.key.clone(), value.sealed.clone());
    }

    /// The key of some content: the name of the file where it is mounted, if that is free.
    fn content(&mut self, path: &str, content: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(content).ok()?;
        let name = path.rsplit('/').next().unwrap_or(path);
        let mut key = name.to_owned();
        let mut count = 1;
        while self.data.get(&key).is_some_and(|known| known != text) {
            count += 1;
            key = format!("{count}-{name}");
        }
        self.data.insert(key.clone(), text.to_owned());
        Some(key)
    }
}

fn put(document: &mut Document, key: &str, value: impl Into<Json>) {
    document.insert(key.to_owned(), value.into());
}

fn head(key: &ObjectKey) -> Document {
    let mut document = Document::new();
    put(&mut document, "apiVersion", native::API_VERSION);
    put(&mut document, "kind", native::title(key.kind));
    put(&mut document, "name", key.name.as_str());
    document
}

fn image(key: &ObjectKey, image: &DesiredImage) -> Document {
    let mut document = head(key);
    put(&mut document, "ref", image.reference.to_string());
    if let Some(ms) = image.follow_ms {
        put(&mut document, "follow", duration(ms));
    }
    put(&mut document, "keep", image.keep);
    if let Some(policy) = pull::text(image.pull) {
        put(&mut document, "pullPolicy", policy);
    }
    document
}

fn app(stack: &mut Stack, key: &ObjectKey, app: &Workload) -> Document {
    let mut document = head(key);
    if app.replicas != 1 {
        put(&mut document, "replicas", app.replicas);
    }
    template(stack, &mut document, &app.template);
    let ports = ports(&app.ports, &app.template.container_ports);
    if !ports.is_empty() {
        put(&mut document, "ports", ports);
    }
    let strategy = strategy(&app.strategy, app.replicas);
    if !strategy.is_empty() {
        put(&mut document, "strategy", strategy);
    }
    match app.restart {
        Restart::Always => {}
        Restart::OnFailure { retries_max: None } => put(&mut document, "restart", "on-failure"),
        Restart::OnFailure { retries_max: Some(max) } => put(&mut document, "restart", format!("on-failure:{max}")),
        Restart::Never => put(&mut document, "restart", "never"),
    }
    if !app.aliases.is_empty() {
        put(&mut document, "aliases", app.aliases.iter().cloned().collect::<Vec<_>>());
    }
    if app.headless {
        put(&mut document, "headless", true);
    }
    depends_on(&mut document, &app.depends_on);
    document
}

fn job(stack: &mut Stack, key: &ObjectKey, job: &DesiredJob) -> Document {
    let mut document = head(key);
    template(stack, &mut document, &job.template);
    if let Some(schedule) = &job.schedule {
        put(&mut document, "schedule", schedule.cron.as_str());
        put(&mut document, "timeZone", schedule.time_zone.as_str());
        put(&mut document, "concurrencyPolicy", format!("{:?}", schedule.concurrency));
    }
    if job.backoff_limit != BACKOFF_LIMIT {
        put(&mut document, "backoffLimit", job.backoff_limit);
    }
    runs(&mut document, &job.runs);
    depends_on(&mut document, &job.depends_on);
    document
}

fn runs(document: &mut Document, runs: &RunPolicy) {
    let otherwise = RunPolicy::default();
    let numbers = [
        ("completions", runs.completions, otherwise.completions),
        ("parallelism", runs.parallelism, otherwise.parallelism),
        ("successfulRunsHistoryLimit", runs.keep_succeeded, otherwise.keep_succeeded),
        ("failedRunsHistoryLimit", runs.keep_failed, otherwise.keep_failed),
    ];
    for (key, value, _) in numbers.iter().filter(|(_, value, otherwise)| value != otherwise) {
        put(document, key, *value);
    }
    if runs.indexed {
        put(document, "completionMode", "Indexed");
    }
    let durations =
        [("activeDeadline", runs.deadline_ms), ("ttlAfterFinished", runs.ttl_ms), ("startingDeadline", runs.late_ms)];
    for (key, ms) in durations {
        if let Some(ms) = ms {
            put(document, key, duration(ms));
        }
    }
    if runs.suspend {
        put(document, "suspend", true);
    }
}

fn environment(stack: &mut Stack, document: &mut Document, template: &ContainerTemplate) {
    if !template.env.is_empty() {
        let env = template.env.iter().map(|(name, value)| match value {
            EnvValue::Plain(value) => (name.clone(), Json::from(value.as_str())),
            EnvValue::Secret(value) => {
                stack.secret(value);
                (name.clone(), json!({ "secret": value.secret, "key": value.key }))
            }
        });
        put(document, "env", env.collect::<Map<_, _>>());
    }
}

fn template(stack: &mut Stack, document: &mut Document, template: &ContainerTemplate) {
    put(document, "image", template.image.reference.to_string());
    let mut texts = |key: &str, words: &Option<Vec<String>>| {
        if let Some(words) = words {
            put(document, key, words.clone());
        }
    };
    texts("entrypoint", &template.entrypoint);
    texts("args", &template.args);
    environment(stack, document, template);
    let mut text = |key: &str, value: &Option<String>| {
        if let Some(value) = value {
            put(document, key, value.as_str());
        }
    };
    text("workingDir", &template.working_dir);
    text("user", &template.user);
    text("hostname", &template.hostname);
    text("stopSignal", &template.stop_signal);
    text("pullPolicy", &pull::text(template.pull));
    let mounts: Vec<Json> = template.mounts.iter().filter_map(|mount| self::mount(stack, mount)).collect();
    if !mounts.is_empty() {
        put(document, "mounts", mounts);
    }
    limits::resources(document, &template.resources);
    let checks =
        [("healthcheck", &template.healthcheck), ("startup", &template.startup), ("liveness", &template.liveness)];
    for (key, check) in checks {
        if let Some(check) = check {
            put(document, key, healthcheck(check));
        }
    }
    if template.stop_grace_ms != STOP_GRACE_MS {
        put(document, "stopGracePeriod", duration(template.stop_grace_ms));
    }
    security(document, template);
    if let Some(bytes) = template.shm_bytes {
        put(document, "shmSize", memory(bytes));
    }
    limits::tuning(document, &template.tuning);
    let flags = [
        ("init", template.init),
        ("lossy", template.lossy_log),
        ("tty", template.tty),
        ("stdin", template.tuning.stdin),
    ];
    for (key, set) in flags {
        if set {
            put(document, key, true);
        }
    }
    if !template.is_bridged() {
        put(document, "network", if template.no_network { "none" } else { "host" });
    }
    if !template.networks.is_empty() {
        put(document, "networks", template.networks.iter().map(network_use).collect::<Vec<_>>());
    }
    if let Some(pod) = &template.pod {
        self::pod(stack, document, pod);
    }
}

fn network_use(network: &NetworkUse) -> Json {
    let name = &network.network.name;
    if network.aliases.is_empty() && network.address.is_none() {
        return json!(name);
    }
    let mut fields = Document::new();
    put(&mut fields, "name", name.as_str());
    if !network.aliases.is_empty() {
        put(&mut fields, "aliases", network.aliases.iter().cloned().collect::<Vec<_>>());
    }
    if let Some(address) = network.address {
        put(&mut fields, "address", address.to_string());
    }
    Json::Object(fields)
}

/// The main container is the App or Job itself; the others are lists beside it.
fn pod(stack: &mut Stack, document: &mut Document, pod: &Pod<ImageSource, EnvValue, Mount, NetworkUse>) {
    let mut lists: BTreeMap<&str, Vec<Json>> = BTreeMap::new();
    for member in &pod.members {
        let mut fields = Document::new();
        put(&mut fields, "name", member.name.as_str());
        self::template(stack, &mut fields, &member.template);
        for key in ["stopGracePeriod", "networks"] {
            fields.remove(key);
        }
        if member.role == Role::Sidecar {
            put(&mut fields, "restart", "always");
        }
        let list = if member.role == Role::Beside { "containers" } else { "initContainers" };
        lists.entry(list).or_default().push(Json::Object(fields));
    }
    for (name, list) in lists {
        put(document, name, list);
    }
    if pod.share_pids {
        put(document, "shareProcessNamespace", true);
    }
}

fn security(document: &mut Document, template: &ContainerTemplate) {
    let security = &template.security;
    let mut fields = Document::new();
    let flags =
        [("readOnlyRoot", security.read_only_root), ("allowPrivilegeEscalation", security.allow_privilege_escalation)];
    for (key, set) in flags {
        if set {
            put(&mut fields, key, true);
        }
    }
    for (key, list) in [("capAdd", &security.cap_add), ("capDrop", &security.cap_drop)] {
        if !list.is_empty() {
            put(&mut fields, key, list.clone());
        }
    }
    if !fields.is_empty() {
        put(document, "security", fields);
    }
}

fn mount(stack: &mut Stack, mount: &Mount) -> Option<Json> {
    let mut fields = Document::new();
    put(&mut fields, "path", mount.path.as_str());
    let mut is_content = false;
    match &mount.what {
        MountWhat::Volume(key) => put(&mut fields, "volume", key.name.as_str()),
        MountWhat::Bind(path) => put(&mut fields, "bind", path.as_str()),
        MountWhat::Tmpfs { size_bytes: Some(bytes) } => put(&mut fields, "tmpfs", memory(*bytes)),
        MountWhat::Tmpfs { size_bytes: None } => put(&mut fields, "tmpfs", true),
        MountWhat::Claim(name) => put(&mut fields, "claim", name.as_str()),
        MountWhat::Anonymous => put(&mut fields, "anonymous", true),
        MountWhat::Scratch(name) => put(&mut fields, "scratch", name.as_str()),
        MountWhat::File { content, mode } => {
            is_content = true;
            put(&mut fields, "config", CONFIG);
            put(&mut fields, "key", stack.content(&mount.path, content)?);
            if *mode != FILE_MODE {
                put(&mut fields, "mode", format!("{mode:04o}"));
            }
            if mount.on_change == OnChange::None {
                put(&mut fields, "onChange", "none");
            }
        }
        MountWhat::Secret { value, mode, owner } => {
            is_content = true;
            stack.secret(value);
            put(&mut fields, "secret", value.secret.as_str());
            put(&mut fields, "key", value.key.as_str());
            put(&mut fields, "mode", format!("{mode:04o}"));
            if let Some([user, group]) = owner {
                put(&mut fields, "uid", *user);
                put(&mut fields, "gid", *group);
            }
            if mount.on_change == OnChange::None {
                put(&mut fields, "onChange", "none");
            }
        }
    }
    if mount.read_only && !is_content {
        put(&mut fields, "readOnly", true);
    }
    Some(Json::Object(fields))
}

fn ports(published: &[PublishedPort], listened: &BTreeSet<u16>) -> Vec<Json> {
    let of = |port: &PublishedPort| {
        let mut of = json!({ "containerPort": port.container_port, "publish": port.at.socket_address().to_string() });
        if !port.at.protocol.is_tcp() {
            of["protocol"] = json!(port.at.protocol);
        }
        of
    };
    let mut ports: Vec<Json> = published.iter().map(of).collect();
    let tcp = |port: u16| published.iter().any(|known| known.container_port == port && known.at.protocol.is_tcp());
    let others = listened.iter().filter(|port| !tcp(**port));
    ports.extend(others.map(|port| Json::from(*port)));
    ports
}

fn strategy(strategy: &UpdateStrategy, replicas: u32) -> Document {
    let mut fields = Document::new();
    // What is left out is one more and none less, of any number of replicas.
    if (strategy.max_surge, strategy.max_unavailable) != (1, 0) || replicas == 0 {
        put(&mut fields, "maxSurge", strategy.max_surge);
        put(&mut fields, "maxUnavailable", strategy.max_unavailable);
    }
    if strategy.min_ready_ms != 0 {
        put(&mut fields, "minReady", duration(strategy.min_ready_ms));
    }
    if strategy.ordered {
        put(&mut fields, "ordered", true);
    }
    if strategy.progress_deadline_ms != PROGRESS_DEADLINE_MS {
        put(&mut fields, "progressDeadline", duration(strategy.progress_deadline_ms));
    }
    match strategy.on_failure {
        OnFailure::Undo => {}
        OnFailure::Hold => put(&mut fields, "onFailure", "hold"),
    }
    fields
}

fn healthcheck(check: &Healthcheck) -> Document {
    let mut fields = Document::new();
    match &check.probe {
        Probe::Exec(words) => put(&mut fields, "exec", words.clone()),
        Probe::Http { port, path, with } => {
            put(&mut fields, if with.tls { "https" } else { "http" }, format!(":{port}{path}"));
            if !with.headers.is_empty() {
                let headers = with.headers.iter().map(|(name, value)| (name.clone(), Json::from(value.as_str())));
                put(&mut fields, "headers", headers.collect::<Map<_, _>>());
            }
        }
        Probe::Grpc { port, service } => {
            put(&mut fields, "grpc", format!(":{port}"));
            if !service.is_empty() {
                put(&mut fields, "service", service.as_str());
            }
        }
        Probe::Tcp { port } => put(&mut fields, "tcp", format!(":{port}")),
        Probe::Off => put(&mut fields, "disable", true),
    }
    put(&mut fields, "interval", duration(check.interval_ms));
    put(&mut fields, "timeout", duration(check.timeout_ms));
    put(&mut fields, "retries", check.retries);
    if check.successes > 1 {
        put(&mut fields, "successes", check.successes);
    }
    if check.start_period_ms != 0 {
        put(&mut fields, "startPeriod", duration(check.start_period_ms));
    }
    fields
}

fn depends_on(document: &mut Document, on: &BTreeMap<ObjectKey, DependsOn>) {
    let of = |(key, condition): (&ObjectKey, &DependsOn)| {
        let kind = if key.kind == Kind::Job { "job" } else { "app" };
        let condition = match condition {
            DependsOn::Started => "started",
            DependsOn::Ready => "ready",
            DependsOn::Completed(_) => "completed",
        };
        (format!("{kind}/{}", key.name), Json::from(condition))
    };
    if !on.is_empty() {
        put(document, "dependsOn", on.iter().map(of).collect::<Map<_, _>>());
    }
}

fn duration(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

fn memory(bytes: u64) -> Json {
    let units = [(30, "Gi"), (20, "Mi"), (10, "Ki")];
    let unit = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    unit.map_or_else(|| Json::from(bytes), |(shift, unit)| Json::from(format!("{}{unit}", bytes >> shift)))
}

/// A dollar sign that would begin a variable is written twice.
fn escaped(value: Json) -> Json {
    match value {
        Json::String(text) if text.contains("${") || text.contains("$$") => Json::String(text.replace('$', "$$")),
        Json::Object(map) => map.into_iter().map(|(key, value)| (key, escaped(value))).collect(),
        Json::Array(items) => items.into_iter().map(escaped).collect(),
        other => other,
    }
}
