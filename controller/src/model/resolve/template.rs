//! A template's names become what they stand for: the image's reference, a Config's bytes, a declared volume.

mod secret;

use std::sync::Arc;

use super::{Resolver, network, title};
use crate::model::object::{
    EnvFromSpec, EnvSpec, FileContent, ImageChoice, MountSpec, MountWhatSpec, NetworkUseSpec, ObjectSpec, TemplateSpec,
};
use crate::model::{
    ContainerTemplate, DesiredState, Diagnostic, EnvValue, ImageSource, Kind, Member, Mount, MountWhat, NetworkUse,
    ObjectKey, Pod, PullPolicy, Span, VolumeAccess, codes,
};

/// `None` when something it names does not exist: `key` is then marked as broken.
pub(super) fn resolve(
    resolver: &mut Resolver<'_>,
    key: &ObjectKey,
    spec: &TemplateSpec,
    from: &[EnvFromSpec],
) -> Option<ContainerTemplate> {
    let image = image(resolver, key, &spec.image, spec.pull);
    let mut env = std::collections::BTreeMap::new();
    let mut whole = true;
    for from in from {
        match env_from(resolver, key, from) {
            Some(more) => env.extend(more),
            None => whole = false,
        }
    }
    for (name, value) in &spec.env {
        match self::env(resolver, key, name, value) {
            Some(value) => drop(env.insert(name.clone(), value)),
            None => whole = false,
        }
    }
    let mut mounts = Vec::new();
    for spec in &spec.mounts {
        match mount(resolver, key, spec) {
            Some(more) => mounts.extend(more),
            None => whole = false,
        }
    }
    let networks = network::resolve(resolver, key, spec);
    let pod = match &spec.pod {
        None => Some(None),
        Some(pod) => self::pod(resolver, key, pod).map(|pod| Some(Box::new(pod))),
    };
    let ((image, pull), networks, pod) = (image?, networks?, pod?);
    whole.then(|| ContainerTemplate {
        image,
        pull,
        entrypoint: spec.entrypoint.clone(),
        args: spec.args.clone(),
        env,
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        hostname: spec.hostname.clone(),
        mounts,
        resources: spec.resources.clone(),
        container_ports: spec.container_ports.clone(),
        healthcheck: spec.healthcheck.clone(),
        startup: spec.startup.clone(),
        liveness: spec.liveness.clone(),
        stop_grace_ms: spec.stop_grace_ms,
        stop_signal: spec.stop_signal.clone(),
        security: spec.security.clone(),
        shm_bytes: spec.shm_bytes,
        init: spec.init,
        lossy_log: spec.lossy_log,
        host_network: spec.host_network,
        no_network: spec.no_network,
        networks,
        tty: spec.tty,
        tuning: spec.tuning.clone(),
        pod,
    })
}

/// The members of a pod; `None` when one of them names what does not exist.
fn pod(
    resolver: &mut Resolver<'_>,
    key: &ObjectKey,
    spec: &Pod<ImageChoice, EnvSpec, MountSpec, NetworkUseSpec>,
) -> Option<Pod<ImageSource, EnvValue, Mount, NetworkUse>> {
    // All of them, so that every mistake is told at once.
    let members: Vec<Option<_>> = spec
        .members
        .iter()
        .map(|member| {
            let template = resolve(resolver, key, &member.template, &member.env_from)?;
            Some(Member { name: member.name.clone(), role: member.role, template, env_from: Vec::new() })
        })
        .collect();
    let members = members.into_iter().collect::<Option<Vec<_>>>()?;
    Some(Pod { main: spec.main.clone(), share_pids: spec.share_pids, members })
}

/// Whether it writes to something that may have one user at a time.
pub(super) fn is_exclusive(template: &ContainerTemplate, replicas: u32, desired: &DesiredState) -> bool {
    // Of two that are replaced start-first, both would have the address.
    let has_address = template.networks.iter().any(|network| network.address.is_some());
    let mut mounts = template.all().flat_map(|template| &template.mounts).filter(|mount| !mount.read_only);
    has_address
        || mounts.any(|mount| match &mount.what {
            MountWhat::Volume(key) => match desired.volumes.get(key).map(|volume| volume.access) {
                None | Some(VolumeAccess::Single) => true,
                Some(VolumeAccess::Any) => replicas <= 1,
                Some(VolumeAccess::Shared) => false,
            },
            MountWhat::Bind(_) => true,
            MountWhat::File { .. }
            | MountWhat::Secret { .. }
            | MountWhat::Tmpfs { .. }
            | MountWhat::Claim(_)
            | MountWhat::Anonymous
            | MountWhat::Scratch(_) => false,
        })
}

/// The image and when it is asked for: where it comes from an Image object, that one says it.
fn image(
    resolver: &mut Resolver<'_>,
    key: &ObjectKey,
    choice: &ImageChoice,
    pull: PullPolicy,
) -> Option<(ImageSource, PullPolicy)> {
    match choice {
        ImageChoice::Reference(reference, span) => {
            Some((ImageSource { reference: reference.clone(), source: span.start() }, pull))
        }
        ImageChoice::From(name, span) => {
            let target = ObjectKey { stack: key.stack.clone(), kind: Kind::Image, name: name.clone() };
            match resolver.index.get(&target).map(|object| &object.spec) {
                Some(ObjectSpec::Image(image)) => {
                    Some((ImageSource { reference: image.reference.clone(), source: span.start() }, image.pull))
                }
                _ => {
                    dangling(resolver, key, &target, "imageFrom", span);
                    None
                }
            }
        }
    }
}

fn env(resolver: &mut Resolver<'_>, key: &ObjectKey, variable: &str, value: &EnvSpec) -> Option<EnvValue> {
    match value {
        EnvSpec::Plain(text) => Some(EnvValue::Plain(text.clone())),
        EnvSpec::Secret { name, key: secret_key, span } => {
            let field = format!("env.{variable}");
            secret::variable(resolver, key, (name, secret_key.as_deref()), &field, span).map(EnvValue::Secret)
        }
        EnvSpec::Config { name, key: config_key, span } => {
            let content = config_key_content(resolver, key, name, config_key, &format!("env.{variable}"), span)?;
            match std::str::from_utf8(&content.bytes) {
                Ok(text) if !text.contains('\0') => Some(EnvValue::Plain(text.to_owned())),
                _ => {
                    let what = format!("`env.{variable}`: key `{config_key}` of Config `{name}` is not text");
                    resolver.fail(Diagnostic::error(codes::VALUE, what).at(span.clone()), key);
                    None
                }
            }
        }
    }
}

/// As Kubernetes' `envFrom`: keys that are no names of variables, and content that is not text, are left out.
fn env_from(resolver: &mut Resolver<'_>, key: &ObjectKey, from: &EnvFromSpec) -> Option<Vec<(String, EnvValue)>> {
    if from.secret {
        return secret::variables(resolver, key, from);
    }
    let data = config(resolver, key, &from.name, "envFrom", &from.span)?;
    let values = data.iter().filter_map(|(name, content)| {
        let text = std::str::from_utf8(&content.bytes).ok().filter(|text| !text.contains('\0'))?;
        let name = format!("{}{name}", from.prefix);
        (!name.contains('=')).then(|| (name, EnvValue::Plain(text.to_owned())))
    });
    Some(values.collect())
}

fn mount(resolver: &mut Resolver<'_>, key: &ObjectKey, spec: &MountSpec) -> Option<Vec<Mount>> {
    let one = |path: String, what: MountWhat, read_only: bool| Mount {
        path,
        what,
        read_only,
        on_change: spec.on_change,
        source: spec.span.start(),
    };
    let file = |bytes: &Arc<[u8]>| MountWhat::File { content: bytes.clone(), mode: spec.mode };
    match &spec.what {
        MountWhatSpec::Volume(name) => {
            let target = ObjectKey { stack: key.stack.clone(), kind: Kind::Volume, name: name.clone() };
            if !resolver.out.desired.volumes.contains_key(&target) {
                dangling(resolver, key, &target, "volume", &spec.span);
                return None;
            }
            Some(vec![one(spec.path.clone(), MountWhat::Volume(target), spec.read_only)])
        }
        MountWhatSpec::Config { name, key: Some(config_key) } => {
            let content = config_key_content(resolver, key, name, config_key, "config", &spec.span)?;
            Some(vec![one(spec.path.clone(), file(&content.bytes), true)])
        }
        MountWhatSpec::Config { name, key: None } => {
            let data = config(resolver, key, name, "config", &spec.span)?;
            let under = |file_name: &str| format!("{}/{file_name}", spec.path.trim_end_matches('/'));
            Some(data.iter().map(|(name, content)| one(under(name), file(&content.bytes), true)).collect())
        }
        MountWhatSpec::Secret { name, key: secret_key, owner } => {
            let found = (name.as_str(), secret_key.as_deref());
            let files = secret::files(resolver, key, found, &spec.path, &spec.span)?;
            let what = |value| MountWhat::Secret { value, mode: spec.mode, owner: *owner };
            Some(files.into_iter().map(|(path, value)| one(path, what(value), true)).collect())
        }
        MountWhatSpec::File(content) => Some(vec![one(spec.path.clone(), file(&content.bytes), true)]),
        MountWhatSpec::Bind(path) => Some(vec![one(spec.path.clone(), MountWhat::Bind(path.clone()), spec.read_only)]),
        MountWhatSpec::Tmpfs { size_bytes } => {
            let what = MountWhat::Tmpfs { size_bytes: *size_bytes };
            Some(vec![one(spec.path.clone(), what, spec.read_only)])
        }
        MountWhatSpec::Claim(name) => {
            Some(vec![one(spec.path.clone(), MountWhat::Claim(name.clone()), spec.read_only)])
        }
        MountWhatSpec::Anonymous => Some(vec![one(spec.path.clone(), MountWhat::Anonymous, spec.read_only)]),
        MountWhatSpec::Scratch(name) => {
            Some(vec![one(spec.path.clone(), MountWhat::Scratch(name.clone()), spec.read_only)])
        }
    }
}

type Data = std::collections::BTreeMap<String, FileContent>;

fn config<'a>(r: &mut Resolver<'a>, key: &ObjectKey, name: &str, field: &str, span: &Span) -> Option<&'a Data> {
    let target = ObjectKey { stack: key.stack.clone(), kind: Kind::Config, name: name.to_owned() };
    match r.index.get(&target).map(|object| &object.spec) {
        Some(ObjectSpec::Config(config)) => Some(&config.data),
        _ => {
            dangling(r, key, &target, field, span);
            None
        }
    }
}

fn config_key_content<'a>(
    resolver: &mut Resolver<'a>,
    key: &ObjectKey,
    name: &str,
    config_key: &str,
    field: &str,
    span: &Span,
) -> Option<&'a FileContent> {
    let data = config(resolver, key, name, field, span)?;
    let found = data.get(config_key);
    if found.is_none() {
        no_such_key(resolver, key, ("Config", name, config_key), data, span);
    }
    found
}

/// Tells that a Config or Secret has no such key.
fn no_such_key(
    resolver: &mut Resolver<'_>,
    key: &ObjectKey,
    (kind, name, wanted): (&str, &str, &str),
    data: &Data,
    span: &Span,
) {
    let near = crate::text::nearest(wanted, data.keys().map(String::as_str)).map(str::to_owned);
    let what = format!("{kind} `{name}` has no key `{wanted}`");
    let keys = data.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let diagnostic = Diagnostic::error(codes::DANGLING, what).at(span.clone()).suggest(near);
    let diagnostic = if keys.is_empty() { diagnostic } else { diagnostic.note(format!("its keys are: {keys}")) };
    resolver.fail(diagnostic, key);
}

pub(super) fn dangling(resolver: &mut Resolver<'_>, key: &ObjectKey, target: &ObjectKey, field: &str, span: &Span) {
    if resolver.is_declared(target) {
        resolver.out.broken.insert(key.clone());
        return;
    }
    let kind = title(target.kind);
    let names = resolver.names(&key.stack, &[target.kind]);
    let near = crate::text::nearest(&target.name, names.iter().map(String::as_str)).map(str::to_owned);
    let what = format!("`{field}` names {kind} `{}`, but stack `{}` has no such {kind}", target.name, target.stack);
    let diagnostic = Diagnostic::error(codes::DANGLING, what).at(span.clone()).suggest(near);
    let diagnostic = match target.kind {
        Kind::Volume => {
            diagnostic.help(format!("declare it:  {{apiVersion: boxship/v1, kind: Volume, name: {}}}", target.name))
        }
        Kind::Network => {
            diagnostic.help(format!("declare it:  {{apiVersion: boxship/v1, kind: Network, name: {}}}", target.name))
        }
        Kind::Image | Kind::App | Kind::Job | Kind::Config | Kind::Secret | Kind::Service => diagnostic,
    };
    resolver.fail(diagnostic, key);
}
