//! The three probes of a container, each with Kubernetes' own defaults.

use std::collections::BTreeMap;

use super::{Lower, keys};
use crate::manifest::keys::Entries;
use crate::manifest::tree::Node;
use crate::model::{Healthcheck, Probe, codes};

/// Kubernetes' defaults, in seconds.
const PERIOD: u32 = 10;
const TIMEOUT: u32 = 1;
const FAILURES: u32 = 3;
const SECONDS_MAX: u32 = 1_000_000;

/// The checks of a container.
pub(super) struct Checks {
    pub(super) readiness: Healthcheck,
    pub(super) startup: Option<Healthcheck>,
    pub(super) liveness: Option<Healthcheck>,
}

/// Without a readiness probe it is ready when its port is open, whatever the image says.
pub(super) fn checks(lower: &mut Lower, container: &Entries<'_>, names: &BTreeMap<String, u16>) -> Checks {
    let mut of = |key| container.get(key).and_then(|node| check(lower, node, names));
    let off = Healthcheck {
        probe: Probe::Off,
        interval_ms: u64::from(PERIOD) * 1_000,
        timeout_ms: u64::from(TIMEOUT) * 1_000,
        retries: FAILURES,
        start_period_ms: 0,
    };
    Checks {
        readiness: of("readinessProbe").unwrap_or(off),
        startup: of("startupProbe"),
        liveness: of("livenessProbe"),
    }
}

fn check(lower: &mut Lower, node: &Node, names: &BTreeMap<String, u16>) -> Option<Healthcheck> {
    let found = lower.reader.keys(node, &keys::PROBE);
    let probe = tried(lower, node, &found, names)?;
    let mut ms = |key, default| u64::from(seconds(lower, &found, key, default)) * 1_000;
    Some(Healthcheck {
        probe,
        interval_ms: ms("periodSeconds", PERIOD).max(1_000),
        timeout_ms: ms("timeoutSeconds", TIMEOUT).max(1_000),
        start_period_ms: ms("initialDelaySeconds", 0),
        retries: seconds(lower, &found, "failureThreshold", FAILURES).max(1),
    })
}

fn seconds(lower: &mut Lower, found: &Entries<'_>, key: &str, default: u32) -> u32 {
    found.get(key).and_then(|node| lower.reader.number(key, node, SECONDS_MAX)).unwrap_or(default)
}

fn tried(lower: &mut Lower, node: &Node, found: &Entries<'_>, names: &BTreeMap<String, u16>) -> Option<Probe> {
    if let Some(node) = found.get("exec") {
        let exec = lower.reader.keys(node, &keys::EXEC);
        let command = exec.get("command").map(|node| lower.reader.texts("command", node)).unwrap_or_default();
        if command.is_empty() {
            lower.reader.error(codes::HEALTHCHECK, node.extent, "`exec.command` is empty");
        }
        return Some(Probe::Exec(command));
    }
    if let Some(node) = found.get("httpGet") {
        let http = lower.reader.keys(node, &keys::HTTP_GET);
        let port = port(lower, &http, node, names)?;
        let path = http.get("path").and_then(|node| lower.reader.text("path", node)).unwrap_or_default();
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        if path.chars().any(|c| c.is_whitespace() || c.is_control()) {
            lower.reader.error(codes::HEALTHCHECK, node.extent, format!("the path of a probe has no blanks: {path:?}"));
        }
        return Some(Probe::Http { port, path });
    }
    if let Some(node) = found.get("tcpSocket") {
        let tcp = lower.reader.keys(node, &keys::TCP_SOCKET);
        return Some(Probe::Tcp { port: port(lower, &tcp, node, names)? });
    }
    if let Some(node) = found.get("grpc") {
        let grpc = lower.reader.keys(node, &keys::GRPC);
        lower.reader.not_honoured(node.extent, "`grpc` of the probe", "whether the port accepts a connection is tried");
        return Some(Probe::Tcp { port: port(lower, &grpc, node, names)? });
    }
    lower.reader.error(codes::HEALTHCHECK, node.extent, "a probe needs one of exec, httpGet, tcpSocket, grpc");
    None
}

fn port(lower: &mut Lower, found: &Entries<'_>, at: &Node, names: &BTreeMap<String, u16>) -> Option<u16> {
    let Some(node) = found.get("port") else {
        lower.reader.error(codes::MISSING_FIELD, at.extent, "this probe needs a key `port`");
        return None;
    };
    let text = lower.reader.text("port", node)?;
    let port = text.parse::<u16>().ok().filter(|port| *port > 0).or_else(|| names.get(&text).copied());
    if port.is_none() {
        let near = crate::text::nearest(&text, names.keys().map(String::as_str)).map(str::to_owned);
        let what = format!("{text:?} is neither a port nor the name of one of the container's");
        let diagnostic = crate::model::Diagnostic::error(codes::PORT, what).at(lower.reader.span(node.extent));
        lower.reader.push(diagnostic.suggest(near));
    }
    port
}
