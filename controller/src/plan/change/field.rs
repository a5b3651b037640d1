//! Two versions of one object, field by field, with old and new value and the place of the new one. Values that may be
//! secrets (environment, content of files) are never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::model::{
    ContainerTemplate, DesiredImage, DesiredJob, DesiredNetwork, DesiredVolume, RunPolicy, SourceRef, Workload,
};
use crate::plan::template_hash::fields as hashed_fields;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// As it is written: `image`, `env.LOG_LEVEL`, `resources.memory`.
    pub field: String,
    /// The value in force; `None`: not set, or not to be shown.
    pub old: Option<String>,
    /// The wanted value; `None`: not set, or not to be shown.
    pub new: Option<String>,
    /// The values may be secret: neither is told.
    pub hidden: bool,
    /// Containers are replaced for it.
    pub replaces: bool,
    /// Where it is written now, as exactly as is known: the field, else the object.
    pub place: SourceRef,
}

/// A value, and whether it may be told, replaces containers, and where it is written.
struct Value {
    text: String,
    hidden: bool,
    replaces: bool,
    place: SourceRef,
}

#[derive(Default)]
struct Values(BTreeMap<String, Value>);

impl Values {
    fn put(&mut self, field: &str, text: String, place: &SourceRef) {
        self.0.insert(field.to_owned(), Value { text, hidden: false, replaces: false, place: place.clone() });
    }

    fn put_some<T: ToString>(&mut self, field: &str, value: Option<T>, place: &SourceRef) {
        if let Some(value) = value {
            self.put(field, value.to_string(), place);
        }
    }

    /// Values nobody writes on one line: that they differ is told, not how.
    fn put_hidden(&mut self, field: &str, value: &impl Debug, place: &SourceRef) {
        let text = format!("{value:?}");
        self.0.insert(field.to_owned(), Value { text, hidden: true, replaces: false, place: place.clone() });
    }

    fn put_runs(&mut self, runs: &RunPolicy, place: &SourceRef) {
        self.put("completions", runs.completions.to_string(), place);
        self.put("parallelism", runs.parallelism.to_string(), place);
        self.put("completionMode", (if runs.indexed { "Indexed" } else { "NonIndexed" }).to_owned(), place);
        self.put("suspend", runs.suspend.to_string(), place);
        let ms = |ms: Option<u64>| ms.map(|ms| format!("{ms} ms"));
        self.put_some("activeDeadline", ms(runs.deadline_ms), place);
        self.put_some("ttlAfterFinished", ms(runs.ttl_ms), place);
        self.put_some("startingDeadline", ms(runs.late_ms), place);
        self.put("successfulRunsHistoryLimit", runs.keep_succeeded.to_string(), place);
        self.put("failedRunsHistoryLimit", runs.keep_failed.to_string(), place);
    }

    fn put_template(&mut self, template: &ContainerTemplate, place: &SourceRef) {
        let image = &template.image;
        let value =
            Value { text: image.reference.to_string(), hidden: false, replaces: true, place: image.source.clone() };
        self.0.insert("image".to_owned(), value);
        let mounts: BTreeMap<String, &SourceRef> =
            template.mounts.iter().map(|mount| (format!("mounts.{}", mount.path), &mount.source)).collect();
        for (field, text) in hashed_fields(template) {
            let place = mounts.get(&field).map_or(place, |place| *place).clone();
            let hidden = field.starts_with("env.")
                || (field.starts_with("mounts.") && (text.contains(" file ") || text.contains(" secret ")));
            self.0.insert(field, Value { text, hidden, replaces: true, place });
        }
        let limits = &template.resources;
        self.put_some("resources.memory", limits.memory_bytes.map(|bytes| format!("{bytes} bytes")), place);
        self.put_some("resources.cpu", limits.cpu_millis.map(|millis| format!("{millis}m")), place);
        self.put_some("resources.pids", limits.pids_max, place);
        let swap = limits
            .swap_bytes
            .map(|bytes| if bytes == u64::MAX { "unlimited".to_owned() } else { format!("{bytes} bytes") });
        self.put_some("resources.swap", swap, place);
        let reserved = limits.memory_reservation_bytes.map(|bytes| format!("{bytes} bytes"));
        self.put_some("resources.memoryReservation", reserved, place);
        self.put_some("resources.cpuShares", limits.cpu_shares, place);
        for network in &template.networks {
            for alias in &network.aliases {
                self.put(&format!("networks.{}.aliases.{alias}", network.network.name), "set".to_owned(), place);
            }
        }
        self.put("stopGracePeriod", format!("{} ms", template.stop_grace_ms), place);
        let checks =
            [("healthcheck", &template.healthcheck), ("startup", &template.startup), ("liveness", &template.liveness)];
        for (name, check) in checks {
            if let Some(check) = check {
                self.put_hidden(name, check, place);
            }
        }
    }
}

/// What differs between two versions of an App.
pub(super) fn of_workload(before: &Workload, wanted: &Workload) -> Vec<FieldChange> {
    let values = |app: &Workload| {
        let mut values = Values::default();
        let place = &app.source;
        values.put_template(&app.template, place);
        values.put("replicas", app.replicas.to_string(), place);
        for port in &app.ports {
            let field = format!("ports.{}", port.at);
            values.put(&field, port.container_port.to_string(), &port.source);
        }
        let strategy = &app.strategy;
        values.put("strategy.maxSurge", strategy.max_surge.to_string(), place);
        values.put("strategy.maxUnavailable", strategy.max_unavailable.to_string(), place);
        values.put("strategy.ordered", strategy.ordered.to_string(), place);
        values.put("strategy.minReady", format!("{} ms", strategy.min_ready_ms), place);
        values.put("strategy.progressDeadline", format!("{} ms", strategy.progress_deadline_ms), place);
        values.put_hidden("strategy.onFailure", &strategy.on_failure, place);
        values.put_hidden("restart", &app.restart, place);
        for (on, condition) in &app.depends_on {
            values.put(&format!("dependsOn.{}", on.name), format!("{condition:?}").to_lowercase(), place);
        }
        for alias in &app.aliases {
            values.put(&format!("aliases.{alias}"), "set".to_owned(), place);
        }
        if app.headless {
            values.put("headless", "true".to_owned(), place);
        }
        for (name, service) in &app.services {
            values.put(&format!("services.{name}"), format!("{:?}", service.ports), place);
        }
        values
    };
    differences(values(before), values(wanted), &wanted.source)
}

/// What differs between two versions of a Job.
pub(super) fn of_job(before: &DesiredJob, wanted: &DesiredJob) -> Vec<FieldChange> {
    let values = |job: &DesiredJob| {
        let mut values = Values::default();
        values.put_template(&job.template, &job.source);
        if let Some(schedule) = &job.schedule {
            values.put("schedule", format!("{} {}", schedule.cron, schedule.time_zone), &job.source);
            values.put_hidden("concurrencyPolicy", &schedule.concurrency, &job.source);
        }
        values.put("backoffLimit", job.backoff_limit.to_string(), &job.source);
        values.put_runs(&job.runs, &job.source);
        for (on, condition) in &job.depends_on {
            values.put(&format!("dependsOn.{}", on.name), format!("{condition:?}").to_lowercase(), &job.source);
        }
        values
    };
    differences(values(before), values(wanted), &wanted.source)
}

/// What differs between two versions of an Image.
pub(super) fn of_image(before: &DesiredImage, wanted: &DesiredImage) -> Vec<FieldChange> {
    let values = |image: &DesiredImage| {
        let mut values = Values::default();
        values.put("ref", image.reference.to_string(), &image.source);
        values.put_some("follow", image.follow_ms.map(|ms| format!("{ms} ms")), &image.source);
        values.put("keep", image.keep.to_string(), &image.source);
        values
    };
    differences(values(before), values(wanted), &wanted.source)
}

/// What differs between two versions of a Volume.
pub(super) fn of_volume(before: &DesiredVolume, wanted: &DesiredVolume) -> Vec<FieldChange> {
    let values = |volume: &DesiredVolume| {
        let mut values = Values::default();
        values.put("access", format!("{:?}", volume.access).to_lowercase(), &volume.source);
        values
    };
    differences(values(before), values(wanted), &wanted.source)
}

/// What differs between two versions of a Network.
pub(super) fn of_network(before: &DesiredNetwork, wanted: &DesiredNetwork) -> Vec<FieldChange> {
    let values = |network: &DesiredNetwork| {
        let mut values = Values::default();
        values.put("internal", network.internal.to_string(), &network.source);
        values.put_some("subnet", network.range.map(|range| range.subnet), &network.source);
        values.put_some("gateway", network.range.map(|range| range.gateway), &network.source);
        values
    };
    differences(values(before), values(wanted), &wanted.source)
}

fn differences(old: Values, new: Values, object: &SourceRef) -> Vec<FieldChange> {
    let names: BTreeSet<&String> = old.0.keys().chain(new.0.keys()).collect();
    let differs = |name: &&&String| old.0.get(**name).map(|v| &v.text) != new.0.get(**name).map(|v| &v.text);
    let change = |name: &String| {
        let (old, new) = (old.0.get(name), new.0.get(name));
        let any = |of: fn(&Value) -> bool| old.is_some_and(of) || new.is_some_and(of);
        let hidden = any(|value| value.hidden);
        let shown = |value: Option<&Value>| value.filter(|_| !hidden).map(|value| value.text.clone());
        FieldChange {
            field: name.clone(),
            old: shown(old),
            new: shown(new),
            hidden,
            replaces: any(|value| value.replaces),
            place: new.map_or_else(|| object.clone(), |value| value.place.clone()),
        }
    };
    names.iter().filter(differs).map(|name| change(name)).collect()
}
