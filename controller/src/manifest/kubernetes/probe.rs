//! The three probes of a container, each with Kubernetes' own defaults.

use std::collections::BTreeMap;

use super::{Lower, keys};
use crate::manifest::keys::Entries;
use crate::manifest::keys::is_header;
use crate::manifest::tree::Node;
use crate::model::{Healthcheck, HttpWith, Probe, codes};

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
    let mut of = |key, counts| container.get(key).and_then(|node| check(lower, node, names, counts));
    let off = Healthcheck {
        probe: Probe::Off,
        interval_ms: u64::from(PERIOD) * 1_000,
        timeout_ms: u64::from(TIMEOUT) * 1_000,
        retries: FAILURES,
        start_period_ms: 0,
        successes: 1,
    };
    Checks {
        readiness: of("readinessProbe", true).unwrap_or(off),
        startup: of("startupProbe", false),
        liveness: of("livenessProbe", false),
    }
}

/// `counts`: only readiness may ask for several successes.
fn check(lower: &mut Lower, node: &Node, names: &BTreeMap<String, u16>, counts: bool) -> Option<Healthcheck> {
    let found = lower.reader.keys(node, &keys::PROBE);
    let successes = seconds(lower, &found, "successThreshold", 1).max(1);
    if let Some(node) = found.get("successThreshold").filter(|_| successes > 1 && !counts) {
        let what = "`successThreshold` is 1 but for readiness";
        lower.reader.error(codes::HEALTHCHECK, node.extent, what);
    }
    let probe = tried(lower, node, &found, names)?;
    let mut ms = |key, default| u64::from(seconds(lower, &found, key, default)) * 1_000;
    Some(Healthcheck {
        probe,
        interval_ms: ms("periodSeconds", PERIOD).max(1_000),
        timeout_ms: ms("timeoutSeconds", TIMEOUT).max(1_000),
        start_period_ms: ms("initialDelaySeconds", 0),
        retries: seconds(lower, &found, "failureThreshold", FAILURES).max(1),
        successes,
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
        let tls = match http.get("scheme").map(|node| (lower.reader.text("scheme", node), node)) {
            None => false,
            Some((text, node)) => match text.as_deref() {
                Some("HTTP") => false,
                Some("HTTPS") => true,
                _ => {
                    lower.reader.wrong("scheme", "HTTP or HTTPS", node);
                    false
                }
            },
        };
        let headers = headers(lower, &http);
        return Some(Probe::Http { port, path, with: HttpWith { tls, headers } });
    }
    if let Some(node) = found.get("tcpSocket") {
        let tcp = lower.reader.keys(node, &keys::TCP_SOCKET);
        return Some(Probe::Tcp { port: port(lower, &tcp, node, names)? });
    }
    if let Some(node) = found.get("grpc") {
        let grpc = lower.reader.keys(node, &keys::GRPC);
        let service = grpc.get("service").and_then(|node| lower.reader.text("service", node)).unwrap_or_default();
        return Some(Probe::Grpc { port: port(lower, &grpc, node, names)?, service });
    }
    lower.reader.error(codes::HEALTHCHECK, node.extent, "a probe needs one of exec, httpGet, tcpSocket, grpc");
    None
}

/// `httpHeaders`, with what could end a header refused.
fn headers(lower: &mut Lower, http: &Entries<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    let Some(node) = http.get("httpHeaders") else { return headers };
    for item in lower.reader.list("httpHeaders", node) {
        let found = lower.reader.keys(item, &keys::HTTP_HEADER);
        let mut text = |key| found.get(key).and_then(|node| lower.reader.text(key, node));
        let (Some(name), Some(value)) = (text("name"), text("value")) else {
            lower.reader.error(codes::MISSING_FIELD, item.extent, "a header needs `name` and `value`");
            continue;
        };
        if is_header(&name, &value) {
            headers.push((name, value));
        } else {
            lower.reader.error(codes::HEALTHCHECK, item.extent, format!("{name:?} cannot be a header of a request"));
        }
    }
    headers
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
