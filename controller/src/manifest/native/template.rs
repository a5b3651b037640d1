//! What an App and a Job share: image, environment, mounts, limits, health check, dependencies.

use std::collections::BTreeMap;

use runtime::runtime::{Resources, SecurityConfig};

use super::{Lower, network, wire};
use crate::manifest::format::{Format as _, ShortOr};
use crate::manifest::keys::is_header;
use crate::manifest::tree::Path;
use crate::model::object::{DependencySpec, EnvSpec, FileContent, ImageChoice, MountSpec, MountWhatSpec, TemplateSpec};
use crate::model::{
    Completion, DependsOn, Diagnostic, Healthcheck, HttpWith, Kind, OnChange, Probe, PullPolicy, codes,
};

/// Docker's default of ten seconds.
const STOP_GRACE_MS: u64 = 10_000;
const FILE_MODE: u32 = 0o644;
const SECRET_MODE: u32 = 0o400;

/// `None` when something is wrong that leaves no template; other errors are only pushed.
pub(super) fn lower(lower: &mut Lower<'_>, mut wire: wire::Template) -> Option<(TemplateSpec, Vec<DependencySpec>)> {
    let pod = super::members::lower(lower, &mut wire);
    let image = image(lower, &wire);
    let pull = pull_policy(lower, &wire);
    let env = env(lower, wire.env);
    let mounts = mounts(lower, wire.mounts);
    let readiness = wire.healthcheck.and_then(|check| healthcheck(lower, check, "healthcheck"));
    let startup = wire.startup.and_then(|check| healthcheck(lower, check, "startup"));
    let liveness = wire.liveness.and_then(|check| healthcheck(lower, check, "liveness"));
    let depends_on = dependencies(lower, &wire.depends_on);
    let networks = network::uses(lower, wire.networks);
    network::check_mode(lower, wire.network, &networks);
    let host_network = wire.network == Some(wire::Network::Host);
    let no_network = wire.network == Some(wire::Network::None);
    let tuning = wire.tuning.unwrap_or_default().lower(wire.stdin.unwrap_or(false), |field, key, bad| {
        let path = Path::default().key("tuning").key(field).key(key);
        let diagnostic = lower.error(bad.code, &path, format!("`{path}`: {}", bad.what)).suggest(bad.suggestion);
        lower.push(Diagnostic { help: bad.help, ..diagnostic });
    });
    let template = TemplateSpec {
        pull,
        image: image?,
        entrypoint: wire.entrypoint,
        args: wire.args,
        env,
        working_dir: wire.working_dir.map(|path| path.0),
        user: wire.user.map(|user| user.0),
        hostname: wire.hostname.map(|name| name.0),
        mounts,
        resources: wire.resources.map_or_else(Resources::default, |limits| Resources {
            memory_bytes: limits.memory.map(|memory| memory.0),
            cpu_millis: limits.cpu.map(|cpu| cpu.0),
            pids_max: limits.pids,
            swap_bytes: limits.swap.map(|swap| swap.0),
            memory_reservation_bytes: limits.memory_reservation.map(|memory| memory.0),
            cpu_shares: limits.cpu_shares,
        }),
        container_ports: std::collections::BTreeSet::new(),
        healthcheck: readiness,
        startup,
        liveness,
        stop_grace_ms: wire.stop_grace_period.map_or(STOP_GRACE_MS, |grace| grace.ms),
        stop_signal: wire.stop_signal.map(|signal| signal.0),
        security: wire.security.map_or_else(SecurityConfig::default, |security| SecurityConfig {
            allow_privilege_escalation: security.allow_privilege_escalation.unwrap_or(false),
            cap_add: security.cap_add.into_iter().map(|cap| cap.0).collect(),
            cap_drop: security.cap_drop.into_iter().map(|cap| cap.0).collect(),
            read_only_root: security.read_only_root.unwrap_or(false),
        }),
        shm_bytes: wire.shm_size.map(|size| size.0),
        init: wire.init.unwrap_or(false),
        lossy_log: wire.lossy.unwrap_or(false),
        host_network,
        no_network,
        networks,
        tty: wire.tty.unwrap_or(false),
        tuning,
        pod: pod?,
    };
    Some((template, depends_on))
}

/// With `imageFrom` it is the Image that says when it is pulled.
fn pull_policy(lower: &mut Lower<'_>, wire: &wire::Template) -> PullPolicy {
    if let (Some(_), Some(name)) = (&wire.pull_policy, &wire.image_from) {
        let what = format!("`pullPolicy` has no effect beside `imageFrom`: Image `{}` says when it is pulled", name.0);
        let diagnostic = lower.error(codes::CONFLICT, &Path::default().key("pullPolicy"), what);
        lower.push(diagnostic.help("move it to the Image: `follow: 1h`, or `pullPolicy: never`"));
    }
    wire.pull_policy.map_or_else(PullPolicy::default, |policy| policy.0)
}

fn image(lower: &mut Lower<'_>, wire: &wire::Template) -> Option<ImageChoice> {
    let path = |key| Path::default().key(key);
    match (&wire.image, &wire.image_from) {
        (Some(reference), None) => Some(ImageChoice::Reference(reference.0.clone(), lower.span(&path("image")))),
        (None, Some(name)) => Some(ImageChoice::From(name.0.clone(), lower.span(&path("imageFrom")))),
        (Some(_), Some(_)) => {
            let diagnostic = lower
                .error(codes::CONFLICT, &path("imageFrom"), "`image` and `imageFrom` exclude each other")
                .also_at("`image` is here", lower.span(&path("image")));
            lower.push(diagnostic.help("remove one of them"));
            None
        }
        (None, None) => {
            let what = format!("{} needs a field `image` or `imageFrom`", lower.what());
            let diagnostic = lower.error(codes::MISSING_FIELD, &path("name"), what);
            lower.push(diagnostic);
            None
        }
    }
}

fn env(
    lower: &mut Lower<'_>,
    wire: BTreeMap<String, ShortOr<super::text::AnyScalar, wire::EnvFrom>>,
) -> BTreeMap<String, EnvSpec> {
    let mut env = BTreeMap::new();
    for (name, value) in wire {
        let path = Path::default().key("env").key(&name);
        if name.is_empty() || name.contains(['=', '\0']) {
            let what = format!("{name:?} is not the name of an environment variable");
            let diagnostic = lower.error(codes::NAME, &path, what);
            lower.push(diagnostic);
        }
        let value = match value {
            ShortOr::Short(text) => EnvSpec::Plain(text.0),
            ShortOr::Long(wire::EnvFrom { config: Some(config), key: Some(key), secret: None }) => {
                EnvSpec::Config { name: config.0, key: key.0, span: lower.span(&path) }
            }
            ShortOr::Long(wire::EnvFrom { config: None, key, secret: Some(secret) }) => {
                EnvSpec::Secret { name: secret.0, key: key.map(|key| key.0), span: lower.span(&path) }
            }
            ShortOr::Long(_) => {
                let what = format!("`{path}` needs `config` and `key`, or `secret`");
                let help = "{config: NAME, key: KEY}   ·   {secret: NAME, key: KEY}";
                let diagnostic = lower.error(codes::MISSING_FIELD, &path, what).help(help);
                lower.push(diagnostic);
                continue;
            }
        };
        env.insert(name, value);
    }
    env
}

fn mounts(lower: &mut Lower<'_>, wire: Vec<wire::Mount>) -> Vec<MountSpec> {
    let mut mounts: Vec<MountSpec> = Vec::new();
    let mut seen: BTreeMap<String, Path> = BTreeMap::new();
    for (i, mount) in wire.into_iter().enumerate() {
        let path = Path::default().key("mounts").index(i);
        let target = mount.path.0.clone();
        if target == "/" {
            let what = format!("`{path}.path`: the root of the container cannot be mounted over");
            let diagnostic = lower.error(codes::MOUNT, &path.key("path"), what);
            lower.push(diagnostic);
        }
        if let Some(first) = seen.insert(target.clone(), path.key("path")) {
            let diagnostic = lower
                .error(codes::CONFLICT, &path.key("path"), format!("{target} is mounted twice"))
                .also_at("the first one is here", lower.span(&first));
            lower.push(diagnostic);
        }
        mounts.extend(self::mount(lower, mount, &path));
    }
    mounts
}

fn mount(lower: &mut Lower<'_>, wire: wire::Mount, path: &Path) -> Option<MountSpec> {
    let set = [
        ("file", wire.file.is_some()),
        ("config", wire.config.is_some()),
        ("secret", wire.secret.is_some()),
        ("volume", wire.volume.is_some()),
        ("claim", wire.claim.is_some()),
        ("bind", wire.bind.is_some()),
        ("tmpfs", wire.tmpfs.is_some()),
        ("anonymous", wire.anonymous == Some(true)),
        ("scratch", wire.scratch.is_some()),
    ];
    let set: Vec<&str> = set.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect();
    let [what] = set.as_slice() else {
        let diagnostic = match set.as_slice() {
            [_, second, ..] => {
                let what = format!("`{path}` can show one thing, but has {}", set.join(" and "));
                lower.error(codes::MOUNT, &path.key(second), what)
            }
            _ => lower.error(codes::MOUNT, path, format!("`{path}` does not say what is mounted at {}", wire.path.0)),
        };
        lower.push(
            diagnostic
                .help("write exactly one of file, config, secret, volume, claim, bind, tmpfs, anonymous, scratch"),
        );
        return None;
    };
    let span = lower.span(&path.key(what));
    let is_secret = *what == "secret";
    let is_content = is_secret || matches!(*what, "file" | "config");
    let on_change = on_change(lower, &wire, path, is_content);
    misplaced(lower, &wire, path, what);
    let is_anonymous = wire.anonymous == Some(true);
    let owner = (wire.uid.is_some() || wire.gid.is_some())
        .then(|| [wire.uid.unwrap_or_default(), wire.gid.unwrap_or_default()]);
    let what = match (wire.file, wire.config, wire.volume, wire.bind, wire.tmpfs) {
        (None, None, None, None, None) if is_anonymous => MountWhatSpec::Anonymous,
        (None, None, None, None, None) if wire.scratch.is_some() => {
            MountWhatSpec::Scratch(wire.scratch.map(|name| name.0).unwrap_or_default())
        }
        (None, None, None, None, None) if wire.claim.is_some() => {
            refuse_claim_of_job(lower, path);
            MountWhatSpec::Claim(wire.claim.map(|name| name.0).unwrap_or_default())
        }
        (None, None, None, None, None) if is_secret => {
            let name = wire.secret.map(|name| name.0).unwrap_or_default();
            MountWhatSpec::Secret { name, key: wire.key.map(|key| key.0), owner }
        }
        (Some(file), ..) => MountWhatSpec::File(FileContent {
            path: Some(lower.absolute(&file.0)),
            bytes: Vec::new().into(),
            span: span.clone(),
        }),
        (_, Some(name), ..) => MountWhatSpec::Config { name: name.0, key: wire.key.map(|key| key.0) },
        (_, _, Some(name), ..) => MountWhatSpec::Volume(name.0),
        (_, _, _, Some(path), _) => MountWhatSpec::Bind(lower.absolute(&path.0)),
        (_, _, _, _, size) => MountWhatSpec::Tmpfs { size_bytes: size.and_then(|size| size.0) },
    };
    Some(MountSpec {
        path: wire.path.0,
        what,
        read_only: wire.read_only.unwrap_or(is_content),
        on_change,
        mode: wire.mode.map_or(if is_secret { SECRET_MODE } else { FILE_MODE }, |mode| mode.0),
        span,
    })
}

/// The runs of a Job have numbers that nobody comes back to.
fn refuse_claim_of_job(lower: &mut Lower<'_>, path: &Path) {
    if lower.key.kind != Kind::App {
        let what = format!("`{path}.claim`: only the replicas of an App have numbers that stay");
        let diagnostic = lower.error(codes::MOUNT, &path.key("claim"), what);
        lower.push(diagnostic.help("declare a Volume, and write `volume: NAME`"));
    }
}

/// Fields that say nothing of what is mounted are told.
fn misplaced(lower: &mut Lower<'_>, wire: &wire::Mount, path: &Path, what: &str) {
    let is_secret = what == "secret";
    let is_content = is_secret || matches!(what, "file" | "config");
    for (field, set, fits, only) in [
        ("key", wire.key.is_some(), is_secret || what == "config", "`config` and `secret`"),
        ("mode", wire.mode.is_some(), is_content, "`file`, `config` and `secret`"),
        ("uid", wire.uid.is_some(), is_secret, "`secret`"),
        ("gid", wire.gid.is_some(), is_secret, "`secret`"),
        ("onChange", wire.on_change.is_some(), is_content, "`file`, `config` and `secret`"),
        ("readOnly", wire.read_only == Some(false), !is_content, "`volume`, `bind` and `tmpfs`: content is a copy"),
    ] {
        if set && !fits {
            let what = format!("`{path}.{field}` only goes with {only}");
            let diagnostic = lower.error(codes::CONFLICT, &path.key(field), what);
            lower.push(diagnostic.help(format!("remove `{field}`")));
        }
    }
}

fn on_change(lower: &mut Lower<'_>, wire: &wire::Mount, path: &Path, is_content: bool) -> OnChange {
    match wire.on_change {
        None if is_content => OnChange::Roll,
        Some(wire::OnChange::Roll) => OnChange::Roll,
        None | Some(wire::OnChange::None) => OnChange::None,
        Some(later @ (wire::OnChange::Restart | wire::OnChange::Signal)) => {
            let word = if later == wire::OnChange::Restart { "restart" } else { "signal" };
            let what = format!("`{path}.onChange: {word}` is not supported yet");
            let diagnostic = lower.error(codes::NOT_YET, &path.key("onChange"), what);
            lower.push(diagnostic.help("`roll` replaces the replicas one after the other"));
            OnChange::None
        }
    }
}

fn healthcheck(lower: &mut Lower<'_>, wire: wire::Healthcheck, field: &str) -> Option<Healthcheck> {
    let path = Path::default().key(field);
    let disable = wire.disable == Some(true);
    let set = [
        ("exec", wire.exec.is_some()),
        ("http", wire.http.is_some()),
        ("https", wire.https.is_some()),
        ("tcp", wire.tcp.is_some()),
        ("grpc", wire.grpc.is_some()),
    ];
    let set: Vec<&str> = set.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect();
    let with = http_with(lower, &wire, &path);
    let (tls, http) = (wire.https.is_some(), if set.len() == 1 { wire.https.or(wire.http) } else { None });
    let probe = match (wire.exec, http, wire.tcp.map(|tcp| tcp.0), wire.grpc.map(|grpc| grpc.0)) {
        (None, None, None, None) if disable && set.is_empty() => Probe::Off,
        (Some(command), None, None, None) if !disable && !command.is_empty() => Probe::Exec(command),
        // Port 0 stands for "the only port", filled in by `default_http_port`.
        (None, Some(http), None, None) if !disable => {
            Probe::Http { port: http.port.unwrap_or(0), path: http.path, with: HttpWith { tls, headers: with } }
        }
        (None, None, Some(port), None) if !disable && set.len() == 1 => Probe::Tcp { port },
        (None, None, None, Some(port)) if !disable && set.len() == 1 => {
            Probe::Grpc { port, service: wire.service.map(|service| service.0).unwrap_or_default() }
        }
        (exec, ..) => {
            let what = match (set.as_slice(), disable) {
                ([], _) => format!("`{field}` does not say what to try"),
                ([one], true) => format!("`{field}` is disabled and has `{one}`"),
                ([_], false) if exec.is_some() => format!("`{field}.exec` is empty"),
                _ => format!("`{field}` can try one thing, but has {}", set.join(" and ")),
            };
            let at = set.last().map_or_else(|| path.clone(), |last| path.key(last));
            let diagnostic = lower.error(codes::HEALTHCHECK, &at, what);
            lower.push(diagnostic.help("write exactly one of exec, http, https, tcp, grpc, or `disable: true`"));
            return None;
        }
    };
    let interval_ms = wire.interval.map_or(10_000, |interval| interval.ms);
    let timeout_ms = wire.timeout.map_or(5_000, |timeout| timeout.ms);
    for (name, value) in [("interval", interval_ms), ("timeout", timeout_ms)] {
        if value == 0 {
            let what = format!("`{field}.{name}` must be more than 0");
            let diagnostic = lower.error(codes::HEALTHCHECK, &path.key(name), what);
            lower.push(diagnostic);
        }
    }
    Some(Healthcheck {
        probe,
        interval_ms,
        timeout_ms,
        retries: wire.retries.unwrap_or(3),
        start_period_ms: wire.start_period.map_or(0, |period| period.ms),
        successes: wire.successes.unwrap_or(1),
    })
}

/// Headers of a check's request, and what goes with the other kinds only told.
fn http_with(lower: &mut Lower<'_>, wire: &wire::Healthcheck, path: &Path) -> Vec<(String, String)> {
    let is_http = wire.http.is_some() || wire.https.is_some();
    for (field, set, fits, only) in [
        ("headers", !wire.headers.is_empty(), is_http, "`http` and `https`"),
        ("service", wire.service.is_some(), wire.grpc.is_some(), "`grpc`"),
    ] {
        if set && !fits {
            let what = format!("`{path}.{field}` only goes with {only}");
            let diagnostic = lower.error(codes::CONFLICT, &path.key(field), what);
            lower.push(diagnostic.help(format!("remove `{field}`")));
        }
    }
    let mut headers = Vec::new();
    for (name, value) in &wire.headers {
        if is_header(name, &value.0) {
            headers.push((name.clone(), value.0.clone()));
        } else {
            let at = path.key("headers").key(name);
            let diagnostic = lower.error(codes::HEALTHCHECK, &at, format!("{name:?} cannot be a header of a request"));
            lower.push(diagnostic);
        }
    }
    headers
}

/// `http: /healthz` means the only port there is.
pub(super) fn default_http_port(lower: &mut Lower<'_>, template: &mut TemplateSpec) {
    let only = match template.container_ports.iter().copied().collect::<Vec<_>>().as_slice() {
        [only] => Some(*only),
        _ => None,
    };
    let checks = [
        ("healthcheck", &mut template.healthcheck),
        ("startup", &mut template.startup),
        ("liveness", &mut template.liveness),
    ];
    for (field, check) in checks {
        let Some(Healthcheck { probe: Probe::Http { port: port @ 0, .. }, .. }) = check else { continue };
        match only {
            Some(only) => *port = only,
            None => {
                let path = Path::default().key(field).key("http");
                let what = format!("`{field}.http` names no port, and there is not exactly one in `ports`");
                let diagnostic = lower.error(codes::HEALTHCHECK, &path, what);
                lower.push(diagnostic.help("write it as :PORT/PATH, such as :3000/healthz"));
            }
        }
    }
}

fn dependencies(lower: &mut Lower<'_>, wire: &BTreeMap<String, wire::Condition>) -> Vec<DependencySpec> {
    let mut found = Vec::new();
    for (written, condition) in wire {
        let path = Path::default().key("dependsOn").key(written);
        let (kind, name) = match written.split_once('/') {
            Some(("app", name)) => (Some(Kind::App), name),
            Some(("job", name)) => (Some(Kind::Job), name),
            _ => (None, written.as_str()),
        };
        if let Err(bad) = super::text::Name::parse(name) {
            let diagnostic = lower.error(bad.code, &path, format!("`{path}`: {}", bad.what)).suggest(bad.suggestion);
            lower.push(diagnostic);
            continue;
        }
        let condition = match condition {
            wire::Condition::Started => DependsOn::Started,
            wire::Condition::Ready => DependsOn::Ready,
            wire::Condition::Completed => DependsOn::Completed(Completion::Success),
        };
        let span = lower.entry_span(&Path::default().key("dependsOn"), written);
        found.push(DependencySpec { kind, name: name.to_owned(), condition, span });
    }
    found
}
