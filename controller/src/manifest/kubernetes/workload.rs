//! What runs pods: Deployment, ReplicaSet, ReplicationController, StatefulSet, DaemonSet and Pod become Apps, Job and
//! CronJob Jobs.

use std::collections::{BTreeMap, BTreeSet};

use super::pod::{self, Pod};
use super::service::labels;
use super::volumes::Source;
use super::{Lower, Metadata, data, keys};
use crate::manifest::keys::{Entries, Section, object_name};
use crate::manifest::native::text::{Cron, TimeZone};
use crate::manifest::quantity::Amount;
use crate::manifest::tree::Node;
use crate::model::object::{AppSpec, JobSpec, MountWhatSpec};
use crate::model::{
    ConcurrencyPolicy, Kind, ObjectSpec, OnFailure, Restart, RunPolicy, Schedule, UpdateStrategy, codes,
};

type Lowered = Option<(Kind, String, ObjectSpec)>;

/// Kubernetes' defaults.
const PROGRESS_SECONDS: u32 = 600;
const BACKOFF_LIMIT: u32 = 6;
const REPLICAS_MAX: u32 = 1_000;

pub(super) fn app(lower: &mut Lower, root: &Node, metadata: &Metadata<'_>, kind: &str) -> Lowered {
    let key = lower.reading(Kind::App, &metadata.name);
    let section: &Section = match kind {
        "Deployment" => &keys::DEPLOYMENT,
        "StatefulSet" => &keys::STATEFUL_SET,
        "DaemonSet" => &keys::DAEMON_SET,
        _ => &keys::REPLICA_SET,
    };
    let spec = lower.spec(root, section)?;
    let replicas = spec.get("replicas").and_then(|node| lower.reader.number("replicas", node, REPLICAS_MAX));
    let replicas = replicas.unwrap_or(1);
    if kind == "StatefulSet" && replicas > 0 {
        let what = format!("the numbering of StatefulSet `{}`", metadata.name);
        let effect = "its replicas are called NAME-1, NAME-2, … instead of NAME-0, NAME-1, …";
        lower.reader.not_honoured(metadata.extent, &what, effect);
    }
    let Some(template) = spec.get("template") else {
        lower.reader.error(codes::MISSING_FIELD, root.extent, format!("this {kind} needs a key `template`"));
        return None;
    };
    let claims = spec.get("volumeClaimTemplates").map(|node| claims(lower, node)).unwrap_or_default();
    let pod = pod::template(lower, template, claims)?;
    if let Some(selector) = spec.get("selector") {
        check_selector(lower, selector, &pod.labels, kind == "ReplicationController");
    }
    if pod.restart != Restart::Always {
        let node = template.get("spec").and_then(|spec| spec.value.get("restartPolicy"));
        let extent = node.map_or(template.extent, |entry| entry.value.extent);
        lower.reader.error(codes::VALUE, extent, format!("the pods of a {kind} have `restartPolicy: Always`"));
    }
    let written = spec.get("strategy").or_else(|| spec.get("updateStrategy"));
    let mut strategy = strategy(lower, written, replicas, kind);
    let mut seconds = |key: &str| spec.get(key).and_then(|node| lower.reader.number(key, node, 10_000_000));
    strategy.min_ready_ms = u64::from(seconds("minReadySeconds").unwrap_or(0)) * 1_000;
    strategy.progress_deadline_ms = u64::from(seconds("progressDeadlineSeconds").unwrap_or(PROGRESS_SECONDS)) * 1_000;
    if kind == "StatefulSet" {
        let policy = spec.get("podManagementPolicy").map(|node| (lower.reader.text("podManagementPolicy", node), node));
        strategy.ordered = match policy {
            None => true,
            Some((text, node)) => match text.as_deref() {
                Some("OrderedReady") => true,
                Some("Parallel") => false,
                _ => {
                    lower.reader.wrong("podManagementPolicy", "OrderedReady or Parallel", node);
                    true
                }
            },
        };
    }
    // The governing service of a StatefulSet is an object of its own; here it is only checked to be a text.
    spec.get("serviceName").map(|node| lower.reader.text("serviceName", node));
    Some((Kind::App, key.name, app_spec(pod, replicas, strategy)))
}

fn app_spec(pod: Pod, replicas: u32, strategy: UpdateStrategy) -> ObjectSpec {
    ObjectSpec::App(Box::new(AppSpec {
        replicas,
        template: pod.template,
        env_from: pod.env_from,
        ports: pod.ports,
        strategy,
        depends_on: Vec::new(),
        restart: pod.restart,
        aliases: BTreeSet::new(),
        headless: false,
        labels: pod.labels,
        port_names: pod.port_names,
    }))
}

/// A pod by itself: one replica.
pub(super) fn pod(lower: &mut Lower, root: &Node, metadata: &Metadata<'_>) -> Lowered {
    let key = lower.reading(Kind::App, &metadata.name);
    lower.reader.keys(root, &keys::OBJECT);
    let Some(spec) = root.get("spec") else {
        lower.reader.error(codes::MISSING_FIELD, root.extent, "this Pod needs a key `spec`");
        return None;
    };
    let labels = metadata.labels.map(|node| labels(lower, "labels", node)).unwrap_or_default();
    let pod = pod::pod(lower, &spec.value, labels, BTreeMap::new())?;
    let strategy = strategy(lower, None, 1, "Pod");
    Some((Kind::App, key.name, app_spec(pod, 1, strategy)))
}

pub(super) fn job(lower: &mut Lower, root: &Node, metadata: &Metadata<'_>) -> Lowered {
    let key = lower.reading(Kind::Job, &metadata.name);
    let spec = lower.spec(root, &keys::JOB)?;
    let job = job_spec(lower, &spec, root, None)?;
    Some((Kind::Job, key.name, ObjectSpec::Job(Box::new(job))))
}

pub(super) fn cron_job(lower: &mut Lower, root: &Node, metadata: &Metadata<'_>) -> Lowered {
    let key = lower.reading(Kind::Job, &metadata.name);
    let spec = lower.spec(root, &keys::CRON_JOB)?;
    let Some(cron) = spec.get("schedule") else {
        lower.reader.error(codes::MISSING_FIELD, root.extent, "a CronJob needs a key `schedule`");
        return None;
    };
    let cron = cron_text(lower, cron)?;
    let zone = spec.get("timeZone").and_then(|node| lower.reader.format::<TimeZone>("timeZone", node));
    let concurrency =
        match spec.get("concurrencyPolicy").map(|node| (lower.reader.text("concurrencyPolicy", node), node)) {
            None => ConcurrencyPolicy::Allow,
            Some((text, node)) => match text.as_deref() {
                Some("Allow") => ConcurrencyPolicy::Allow,
                Some("Forbid") => ConcurrencyPolicy::Forbid,
                Some("Replace") => ConcurrencyPolicy::Replace,
                _ => {
                    lower.reader.wrong("concurrencyPolicy", "Allow, Forbid or Replace", node);
                    ConcurrencyPolicy::Allow
                }
            },
        };
    let Some(template) = spec.get("jobTemplate") else {
        lower.reader.error(codes::MISSING_FIELD, root.extent, "a CronJob needs a key `jobTemplate`");
        return None;
    };
    let found = lower.reader.keys(template, &keys::JOB_TEMPLATE);
    let Some(inner) = found.get("spec") else {
        lower.reader.error(codes::MISSING_FIELD, template.extent, "`jobTemplate` needs a key `spec`");
        return None;
    };
    let inner = lower.reader.keys(inner, &keys::JOB);
    let time_zone = zone.map_or_else(|| "UTC".to_owned(), |zone| zone.0);
    let mut job = job_spec(lower, &inner, root, Some(Schedule { cron, time_zone, concurrency }))?;
    job.runs.suspend |= spec.get("suspend").is_some_and(|node| lower.reader.flag("suspend", node));
    let mut number = |key: &str, max| spec.get(key).and_then(|node| lower.reader.number(key, node, max));
    job.runs.late_ms = number("startingDeadlineSeconds", u32::MAX).map(|seconds| u64::from(seconds) * 1_000);
    job.runs.keep_succeeded = number("successfulJobsHistoryLimit", 100).unwrap_or(job.runs.keep_succeeded);
    job.runs.keep_failed = number("failedJobsHistoryLimit", 100).unwrap_or(job.runs.keep_failed);
    Some((Kind::Job, key.name, ObjectSpec::Job(Box::new(job))))
}

/// Five fields of cron, or one of its words.
fn cron_text(lower: &mut Lower, node: &Node) -> Option<String> {
    let text = lower.reader.text("schedule", node)?;
    let words = [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ];
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, fields)) => Some((*fields).to_owned()),
        None => lower.reader.format::<Cron>("schedule", node).map(|cron| cron.0),
    }
}

fn job_spec(lower: &mut Lower, spec: &Entries<'_>, root: &Node, schedule: Option<Schedule>) -> Option<JobSpec> {
    let Some(template) = spec.get("template") else {
        lower.reader.error(codes::MISSING_FIELD, root.extent, "a Job needs a key `template`");
        return None;
    };
    let pod = pod::template(lower, template, BTreeMap::new())?;
    if let Some(port) = pod.ports.first() {
        let what = format!("host port {} of a Job is not published", port.host_port);
        let warning = crate::model::Diagnostic::warning(codes::NOT_HONOURED, what).at(port.span.clone());
        lower.reader.push(warning);
    }
    let backoff_limit = spec.get("backoffLimit").and_then(|node| lower.reader.number("backoffLimit", node, 1_000));
    let backoff_limit = backoff_limit.unwrap_or(BACKOFF_LIMIT);
    let runs = runs(lower, spec);
    Some(JobSpec {
        template: pod.template,
        env_from: pod.env_from,
        schedule,
        backoff_limit,
        runs,
        depends_on: Vec::new(),
    })
}

fn runs(lower: &mut Lower, spec: &Entries<'_>) -> RunPolicy {
    let mut number = |key: &str, max| spec.get(key).and_then(|node| lower.reader.number(key, node, max));
    let seconds = |seconds: u32| u64::from(seconds) * 1_000;
    let parallelism = number("parallelism", 1_000);
    // Without `completions`, workers share a queue and all end when it is empty: each of them is one.
    let completions = number("completions", 1_000).or(parallelism).unwrap_or(1).max(1);
    let (deadline_ms, ttl_ms) = (
        number("activeDeadlineSeconds", u32::MAX).map(seconds),
        number("ttlSecondsAfterFinished", u32::MAX).map(seconds),
    );
    let indexed = match spec.get("completionMode").map(|node| (lower.reader.text("completionMode", node), node)) {
        None => false,
        Some((text, node)) => match text.as_deref() {
            Some("Indexed") => true,
            Some("NonIndexed") => false,
            _ => {
                lower.reader.wrong("completionMode", "NonIndexed or Indexed", node);
                false
            }
        },
    };
    RunPolicy {
        completions,
        parallelism: parallelism.unwrap_or(1),
        indexed,
        deadline_ms,
        ttl_ms,
        suspend: spec.get("suspend").is_some_and(|node| lower.reader.flag("suspend", node)),
        ..RunPolicy::default()
    }
}

/// Kubernetes' own defaults: a quarter more, a quarter less; one after the other for sets; held when it fails.
fn strategy(lower: &mut Lower, written: Option<&Node>, replicas: u32, kind: &str) -> UpdateStrategy {
    let quarter = Amount::Percent(25);
    let is_set = matches!(kind, "StatefulSet" | "DaemonSet");
    let (mut surge, mut unavailable) = if is_set { (Amount::Count(0), Amount::Count(1)) } else { (quarter, quarter) };
    if let Some(node) = written {
        let found = lower.reader.keys(node, &keys::STRATEGY);
        let kind = found.get("type").map(|node| (lower.reader.text("type", node), node));
        if let Some(rolling) = found.get("rollingUpdate") {
            let rolling = lower.reader.keys(rolling, &keys::ROLLING_UPDATE);
            let mut amount = |key| rolling.get(key).and_then(|node| lower.reader.format::<Amount>(key, node));
            surge = amount("maxSurge").unwrap_or(surge);
            unavailable = amount("maxUnavailable").unwrap_or(unavailable);
        }
        match kind {
            None => {}
            Some((text, node)) => match text.as_deref() {
                Some("RollingUpdate") => {}
                Some("Recreate") => (surge, unavailable) = (Amount::Count(0), Amount::Percent(100)),
                Some("OnDelete") => {
                    let effect = "replicas are replaced when the template changes";
                    lower.reader.not_honoured(node.extent, "`type: OnDelete`", effect);
                }
                _ => lower.reader.wrong("type", "RollingUpdate, Recreate or OnDelete", node),
            },
        }
    }
    let (max_surge, max_unavailable) = (surge.of(replicas, true), unavailable.of(replicas, false));
    // Kubernetes: both rounded to nothing means one may be missing.
    let max_unavailable = if max_surge == 0 && max_unavailable == 0 { 1 } else { max_unavailable };
    UpdateStrategy {
        max_surge,
        max_unavailable,
        ordered: false,
        min_ready_ms: 0,
        progress_deadline_ms: u64::from(PROGRESS_SECONDS) * 1_000,
        on_failure: OnFailure::Hold,
    }
}

fn check_selector(lower: &mut Lower, node: &Node, labels: &BTreeMap<String, String>, is_plain: bool) {
    let found = if is_plain { Entries::default() } else { lower.reader.keys(node, &keys::SELECTOR) };
    if let Some(node) = found.get("matchExpressions") {
        for item in lower.reader.list("matchExpressions", node) {
            check_expression(lower, item, labels);
        }
    }
    let Some(wanted) = is_plain.then_some(node).or_else(|| found.get("matchLabels")) else { return };
    for (name, value) in self::labels(lower, "selector", wanted) {
        if labels.get(&name) != Some(&value) {
            let extent = wanted.get(&name).map_or(wanted.extent, |entry| entry.value.extent);
            let what = format!("the selector asks for `{name}: {value}`, which the pod template does not have");
            lower.reader.error(codes::CONFLICT, extent, what);
        }
    }
}

/// One of `matchExpressions`: whether the pod template's labels are among what it asks for.
fn check_expression(lower: &mut Lower, item: &Node, labels: &BTreeMap<String, String>) {
    let found = lower.reader.keys(item, &keys::EXPRESSION);
    let Some(key) = found.get("key").and_then(|node| lower.reader.text("key", node)) else {
        lower.reader.error(codes::MISSING_FIELD, item.extent, "a label expression needs a key `key`");
        return;
    };
    let mut values = Vec::new();
    if let Some(node) = found.get("values") {
        for item in lower.reader.list("values", node) {
            values.extend(lower.reader.text("values", item));
        }
    }
    let label = labels.get(&key);
    let holds = match found.get("operator").map(|node| (lower.reader.text("operator", node), node)) {
        None => {
            lower.reader.error(codes::MISSING_FIELD, item.extent, "a label expression needs a key `operator`");
            return;
        }
        Some((text, node)) => match text.as_deref() {
            Some("In") => label.is_some_and(|label| values.contains(label)),
            Some("NotIn") => label.is_none_or(|label| !values.contains(label)),
            Some("Exists") => label.is_some(),
            Some("DoesNotExist") => label.is_none(),
            _ => return lower.reader.wrong("operator", "In, NotIn, Exists or DoesNotExist", node),
        },
    };
    if !holds {
        let has = label.map_or_else(|| "does not have it".to_owned(), |label| format!("has `{label}`"));
        let what = format!("the selector's expression on `{key}` does not hold: the pod template {has}");
        lower.reader.error(codes::CONFLICT, item.extent, what);
    }
}

/// Volumes of a StatefulSet: one for each replica, kept when the replica or the set goes.
fn claims(lower: &mut Lower, node: &Node) -> BTreeMap<String, Source> {
    let mut sources = BTreeMap::new();
    for item in lower.reader.list("volumeClaimTemplates", node) {
        let found = lower.reader.keys(item, &keys::OBJECT);
        let metadata = found.get("metadata").map(|node| lower.reader.keys(node, &keys::METADATA));
        let name = metadata.as_ref().and_then(|metadata| metadata.get("name"));
        let Some(Some(name)) = name.map(|node| lower.reader.text("name", node)) else {
            lower.reader.error(codes::MISSING_FIELD, item.extent, "a claim needs a name");
            continue;
        };
        let spec = found.get("spec").map(|node| lower.reader.keys(node, &keys::CLAIM)).unwrap_or_default();
        data::access(lower, &spec);
        let what = MountWhatSpec::Claim(object_name(&name));
        sources.insert(name, Source::What(what, false));
    }
    sources
}
