//! All objects together become the desired state: the last place where a user's mistake can appear.
//!
//! References become what they name, contents become bytes, and what excludes each other is found: two objects of one
//! name, two publishers of one port, too many writers, circles. Pure. What is broken is left out and named, so that
//! `accept` can put its last good version in its place.

mod conflict;
mod network;
mod service;
mod template;

use std::collections::{BTreeMap, BTreeSet};

use runtime::runtime::HostPort;

use super::object::{AppSpec, DependencySpec, JobSpec, Object, ObjectSpec};
use super::{
    ContainerTemplate, DependsOn, DesiredImage, DesiredJob, DesiredNetwork, DesiredState, DesiredVolume, Diagnostic,
    Kind, Mount, MountWhat, ObjectKey, PublishedPort, Span, VolumeAccess, Workload, claim_key, codes,
};

/// What [`resolve_with`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Everything that is whole. `generation` and `holds` are left for `accept`.
    pub desired: DesiredState,
    /// What is wrong.
    pub diagnostics: Vec<Diagnostic>,
    /// What is left out because of it.
    pub broken: BTreeSet<ObjectKey>,
}

/// Resolves a set of objects that stands for itself (`check`, `up`, tests).
#[must_use]
pub fn resolve(objects: Vec<Object>) -> (DesiredState, Vec<Diagnostic>) {
    let resolution = resolve_with(&objects, &DesiredState::default(), &BTreeSet::new());
    (resolution.desired, resolution.diagnostics)
}

/// Resolves objects beside Apps and Jobs that are `kept` as they were resolved before.
///
/// `declared` are objects that exist in the manifests but have errors of their own: naming one breaks the one who
/// names it, without a second message.
#[must_use]
pub fn resolve_with(objects: &[Object], kept: &DesiredState, declared: &BTreeSet<ObjectKey>) -> Resolution {
    let mut resolver = Resolver { declared: declared.clone(), kept, ..Resolver::new(objects, kept) };
    resolver.leaves();
    for object in resolver.index.values().copied().collect::<Vec<_>>() {
        match &object.spec {
            ObjectSpec::App(app) => resolver.app(object, app),
            ObjectSpec::Job(job) => resolver.job(object, job),
            ObjectSpec::Image(_)
            | ObjectSpec::Volume(_)
            | ObjectSpec::Config(_)
            | ObjectSpec::Secret(_)
            | ObjectSpec::Service(_)
            | ObjectSpec::Network(_) => {}
        }
    }
    service::join(&mut resolver);
    conflict::cycles(&mut resolver);
    conflict::ports(&mut resolver);
    conflict::writers(&mut resolver);
    network::clashes(&mut resolver);
    resolver.finish()
}

/// The work in progress.
struct Resolver<'a> {
    index: BTreeMap<&'a ObjectKey, &'a Object>,
    declared: BTreeSet<ObjectKey>,
    kept: &'a DesiredState,
    out: Resolution,
}

impl<'a> Resolver<'a> {
    fn new(objects: &'a [Object], kept: &'a DesiredState) -> Self {
        let mut index: BTreeMap<&ObjectKey, &Object> = BTreeMap::new();
        let mut out = Resolution::default();
        let mut places: BTreeMap<&ObjectKey, Vec<&Span>> = BTreeMap::new();
        for object in objects {
            index.insert(&object.key, object);
            places.entry(&object.key).or_default().push(&object.span);
        }
        for (key, spans) in places {
            let [first, others @ ..] = spans.as_slice() else { continue };
            if others.is_empty() {
                continue;
            }
            index.remove(key);
            out.broken.insert(key.clone());
            for span in others {
                let what =
                    format!("two objects are called {} `{}` in stack `{}`", title(key.kind), key.name, key.stack);
                out.diagnostics.push(
                    Diagnostic::error(codes::SAME_NAME, what)
                        .at((*span).clone())
                        .why("the second one")
                        .also_at("the first one is here", (*first).clone())
                        .help("rename one of them, or remove it")
                        .of(key),
                );
            }
        }
        Self { index, declared: BTreeSet::new(), kept, out }
    }

    fn fail(&mut self, diagnostic: Diagnostic, key: &ObjectKey) {
        self.out.broken.insert(key.clone());
        self.out.diagnostics.push(diagnostic.of(key));
    }

    fn leaves(&mut self) {
        for (key, object) in &self.index {
            let source = object.span.start();
            match &object.spec {
                ObjectSpec::Image(image) => {
                    let image = DesiredImage {
                        source: image.span.as_ref().map_or(source, Span::start),
                        reference: image.reference.clone(),
                        follow_ms: image.follow_ms,
                        keep: image.keep,
                        pull: image.pull,
                    };
                    self.out.desired.images.insert((*key).clone(), image);
                }
                ObjectSpec::Volume(volume) => {
                    let volume = DesiredVolume { source, access: volume.access };
                    self.out.desired.volumes.insert((*key).clone(), volume);
                }
                ObjectSpec::Network(network) => {
                    let network = DesiredNetwork { source, internal: network.internal, range: network.range };
                    self.out.desired.networks.insert((*key).clone(), network);
                }
                ObjectSpec::App(_)
                | ObjectSpec::Job(_)
                | ObjectSpec::Config(_)
                | ObjectSpec::Secret(_)
                | ObjectSpec::Service(_) => {}
            }
        }
    }

    fn app(&mut self, object: &Object, app: &AppSpec) {
        let template = template::resolve(self, &object.key, &app.template, &app.env_from);
        let depends_on = self.dependencies(&object.key, &app.depends_on);
        let (Some(template), Some(depends_on)) = (template, depends_on) else { return };
        if !network::is_for_so_many(self, &object.key, &app.template, app.replicas) {
            return;
        }
        self.claims(object, &template, app.replicas);
        let ports = app.ports.iter().map(|port| PublishedPort {
            at: HostPort { address: port.address, port: port.host_port, protocol: port.protocol },
            container_port: port.container_port,
            source: port.span.start(),
        });
        let workload = Workload {
            source: object.span.start(),
            replicas: app.replicas,
            exclusive: template::is_exclusive(&template, app.replicas, &self.out.desired),
            template,
            ports: ports.collect(),
            strategy: app.strategy.clone(),
            depends_on,
            restart: app.restart,
            aliases: app.aliases.clone(),
            headless: app.headless,
            services: BTreeMap::new(),
        };
        self.out.desired.workloads.insert(object.key.clone(), workload);
    }

    /// The volumes of each replica's claims are declared with the App: no plan removes them, and people see whose they are.
    fn claims(&mut self, object: &Object, template: &ContainerTemplate, replicas: u32) {
        let claim = |mount: &Mount| match &mount.what {
            MountWhat::Claim(name) => Some(name.clone()),
            MountWhat::Volume(_)
            | MountWhat::Bind(_)
            | MountWhat::File { .. }
            | MountWhat::Secret { .. }
            | MountWhat::Tmpfs { .. }
            | MountWhat::Anonymous
            | MountWhat::Scratch(_) => None,
        };
        let claims: BTreeSet<String> = template.all().flat_map(|one| &one.mounts).filter_map(claim).collect();
        for (claim, ordinal) in claims.iter().flat_map(|claim| (1..=replicas).map(move |ordinal| (claim, ordinal))) {
            let volume = DesiredVolume { source: object.span.start(), access: VolumeAccess::Single };
            self.out.desired.volumes.entry(claim_key(&object.key, claim, ordinal)).or_insert(volume);
        }
    }

    fn job(&mut self, object: &Object, job: &JobSpec) {
        let template = template::resolve(self, &object.key, &job.template, &job.env_from);
        let depends_on = self.dependencies(&object.key, &job.depends_on);
        let (Some(template), Some(depends_on)) = (template, depends_on) else { return };
        let desired = DesiredJob {
            source: object.span.start(),
            template,
            schedule: job.schedule.clone(),
            backoff_limit: job.backoff_limit,
            runs: job.runs.clone(),
            depends_on,
        };
        self.out.desired.jobs.insert(object.key.clone(), desired);
    }

    /// Names become keys; `None` (and `broken`) when one does not exist.
    fn dependencies(&mut self, key: &ObjectKey, wanted: &[DependencySpec]) -> Option<BTreeMap<ObjectKey, DependsOn>> {
        let mut found = BTreeMap::new();
        let mut whole = true;
        for dependency in wanted {
            match self.dependency(key, dependency) {
                Ok(target) => {
                    found.insert(target, dependency.condition);
                }
                Err(Some(diagnostic)) => {
                    whole = false;
                    self.fail(*diagnostic, key);
                }
                Err(None) => {
                    whole = false;
                    self.out.broken.insert(key.clone());
                }
            }
        }
        whole.then_some(found)
    }

    fn dependency(&self, key: &ObjectKey, wanted: &DependencySpec) -> Result<ObjectKey, Option<Box<Diagnostic>>> {
        let of = |kind| ObjectKey { stack: key.stack.clone(), kind, name: wanted.name.clone() };
        let kinds: &[Kind] = match (wanted.kind, wanted.condition) {
            (Some(Kind::Job), _) => &[Kind::Job],
            (Some(_), _) => &[Kind::App],
            (None, DependsOn::Completed(_)) => &[Kind::Job, Kind::App],
            (None, DependsOn::Started | DependsOn::Ready) => &[Kind::App, Kind::Job],
        };
        let exists = |key: &ObjectKey| {
            self.index.contains_key(key) || self.kept.workloads.contains_key(key) || self.kept.jobs.contains_key(key)
        };
        let error = |code, what: String| Diagnostic::error(code, what).at(wanted.span.clone());
        let Some(target) = kinds.iter().map(|kind| of(*kind)).find(exists) else {
            if kinds.iter().any(|kind| self.is_declared(&of(*kind))) {
                return Err(None);
            }
            let names = self.names(&key.stack, &[Kind::App, Kind::Job]);
            let what = format!("`dependsOn` names `{}`, but stack `{}` has no such App or Job", wanted.name, key.stack);
            let near = crate::text::nearest(&wanted.name, names.iter().map(String::as_str)).map(str::to_owned);
            return Err(Some(error(codes::DANGLING, what).suggest(near).into()));
        };
        let fits = match wanted.condition {
            DependsOn::Completed(_) => target.kind == Kind::Job,
            DependsOn::Ready | DependsOn::Started => target.kind == Kind::App,
        };
        if target == *key {
            let what = format!("{} `{}` depends on itself", title(key.kind), key.name);
            return Err(Some(error(codes::CYCLE, what).into()));
        }
        if !fits {
            let what =
                format!("{} `{}` can never be `{}`", title(target.kind), target.name, condition(wanted.condition));
            let right = if target.kind == Kind::Job { "completed" } else { "ready" };
            return Err(Some(error(codes::VALUE, what).suggest(Some(right.to_owned())).into()));
        }
        Ok(target)
    }

    /// Declared, but with errors that were reported already.
    fn is_declared(&self, key: &ObjectKey) -> bool {
        self.declared.contains(key) || self.out.broken.contains(key)
    }

    fn names(&self, stack: &str, kinds: &[Kind]) -> Vec<String> {
        let ours = self.index.keys().filter(|key| key.stack == stack && kinds.contains(&key.kind));
        ours.map(|key| key.name.clone()).collect()
    }

    /// Takes out what is broken and, again and again, what waits for something that is not there.
    fn finish(mut self) -> Resolution {
        loop {
            let desired = &mut self.out.desired;
            desired.workloads.retain(|key, _| !self.out.broken.contains(key));
            desired.jobs.retain(|key, _| !self.out.broken.contains(key));
            for (key, workload) in &self.kept.workloads {
                desired.workloads.entry(key.clone()).or_insert_with(|| workload.clone());
            }
            for (key, job) in &self.kept.jobs {
                desired.jobs.entry(key.clone()).or_insert_with(|| job.clone());
            }
            let there = |key: &ObjectKey| desired.workloads.contains_key(key) || desired.jobs.contains_key(key);
            let workloads = desired.workloads.iter().map(|(key, w)| (key, &w.depends_on));
            let jobs = desired.jobs.iter().map(|(key, j)| (key, &j.depends_on));
            let is_kept = |key: &ObjectKey| self.kept.workloads.contains_key(key) || self.kept.jobs.contains_key(key);
            let waiting_for_nothing: Vec<ObjectKey> = workloads
                .chain(jobs)
                .filter(|(key, on)| !is_kept(key) && !on.keys().all(there))
                .map(|(key, _)| key.clone())
                .collect();
            if waiting_for_nothing.is_empty() {
                return self.out;
            }
            self.out.broken.extend(waiting_for_nothing);
        }
    }
}

/// The kind as it is written in manifests.
pub(super) fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Image => "Image",
        Kind::App => "App",
        Kind::Job => "Job",
        Kind::Volume => "Volume",
        Kind::Config => "Config",
        Kind::Secret => "Secret",
        Kind::Service => "Service",
        Kind::Network => "Network",
    }
}

fn condition(condition: DependsOn) -> &'static str {
    match condition {
        DependsOn::Started => "started",
        DependsOn::Ready => "ready",
        DependsOn::Completed(_) => "completed",
    }
}

#[cfg(test)]
mod tests;
