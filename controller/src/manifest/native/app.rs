//! `kind: App`.

use std::collections::BTreeMap;

use runtime::runtime::Protocol;

use super::{Lower, template, wire};
use crate::manifest::duration::Duration;
use crate::manifest::format::ShortOr;
use crate::manifest::quantity::Amount;
use crate::manifest::tree::Path;
use crate::model::object::{AppSpec, PortSpec};
use crate::model::{OnFailure, Restart, UpdateStrategy, codes};

/// Kubernetes' default of ten minutes.
const PROGRESS_DEADLINE_MS: u64 = 600_000;

pub(super) fn lower(lower: &mut Lower<'_>, mut app: wire::App) -> Option<AppSpec> {
    let mut template = template::lower(lower, app.take_template());
    let (ports, container_ports) = ports(lower, app.ports);
    let replicas = app.replicas.unwrap_or(1);
    let strategy = strategy(lower, app.strategy, replicas);
    if let Some((template, _)) = &mut template {
        template.container_ports = container_ports;
        template::default_http_port(lower, template);
        if !template.is_bridged() && !ports.is_empty() {
            let (mode, why) =
                if template.host_network { ("host", "listens on the host itself") } else { ("none", "has no address") };
            let what = format!("`network: {mode}` publishes nothing: the program {why}");
            let diagnostic = lower.error(codes::CONFLICT, &Path::default().key("ports"), what);
            lower.push(diagnostic.help(format!("remove `publish`, or `network: {mode}`")));
        }
    }
    let (template, depends_on) = template?;
    let aliases = app.aliases.into_iter().map(|alias| alias.0);
    Some(AppSpec {
        replicas,
        template,
        env_from: Vec::new(),
        ports,
        strategy,
        depends_on,
        restart: app.restart.map_or(Restart::Always, |restart| restart.0),
        aliases: aliases.filter(|alias| *alias != lower.key.name).collect(),
        headless: app.headless.unwrap_or(false),
        labels: BTreeMap::new(),
        port_names: BTreeMap::new(),
    })
}

fn ports(
    lower: &Lower<'_>,
    wire: Vec<ShortOr<super::text::PortMapping, wire::Port>>,
) -> (Vec<PortSpec>, std::collections::BTreeSet<u16>) {
    let mut published = Vec::new();
    let mut container_ports = std::collections::BTreeSet::new();
    for (i, port) in wire.into_iter().enumerate() {
        let path = Path::default().key("ports").index(i);
        let (container_port, protocol, publish, path) = match port {
            ShortOr::Short(mapping) => (mapping.container_port, mapping.protocol, mapping.publish, path),
            ShortOr::Long(port) => {
                let protocol = port.protocol.map_or(Protocol::Tcp, wire::Protocol::lower);
                (port.container_port, protocol, port.publish, path.key("publish"))
            }
        };
        // readiness is asked for on these: a datagram that is not answered says nothing
        if protocol.is_tcp() {
            container_ports.insert(container_port);
        }
        if let Some(publish) = publish {
            let (address, host_port) = (publish.address, publish.port);
            published.push(PortSpec { address, host_port, container_port, protocol, span: lower.span(&path) });
        }
    }
    (published, container_ports)
}

fn strategy(lower: &mut Lower<'_>, wire: Option<wire::Strategy>, replicas: u32) -> UpdateStrategy {
    let ms = |duration: Option<Duration>, default| duration.map_or(default, |duration| duration.ms);
    let given = wire.as_ref();
    let max_surge = given.and_then(|s| s.max_surge).unwrap_or(Amount::Count(1)).of(replicas, true);
    let max_unavailable = given.and_then(|s| s.max_unavailable).unwrap_or(Amount::Count(0)).of(replicas, false);
    if max_surge == 0 && max_unavailable == 0 && replicas > 0 {
        let what = "`strategy`: with `maxSurge` and `maxUnavailable` both 0 nothing can ever be replaced";
        let diagnostic = lower.error(codes::CONFLICT, &Path::default().key("strategy"), what);
        lower.push(diagnostic.help("`maxUnavailable: 1` replaces stop-first, `maxSurge: 1` start-first"));
    }
    UpdateStrategy {
        max_surge,
        max_unavailable,
        ordered: given.and_then(|s| s.ordered).unwrap_or(false),
        min_ready_ms: ms(given.and_then(|s| s.min_ready), 0),
        progress_deadline_ms: ms(given.and_then(|s| s.progress_deadline), PROGRESS_DEADLINE_MS),
        on_failure: match given.and_then(|s| s.on_failure).unwrap_or(wire::OnFailure::Undo) {
            wire::OnFailure::Undo => OnFailure::Undo,
            wire::OnFailure::Hold => OnFailure::Hold,
        },
    }
}
