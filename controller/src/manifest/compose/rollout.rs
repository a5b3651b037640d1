//! `deploy`, `restart` and limits: how many replicas, what a new version and the end of a program lead to.

use runtime::runtime::Resources;

use super::keys;
use super::project::Project;
use crate::manifest::duration::Duration;
use crate::manifest::format::{Bad, Format};
use crate::manifest::keys::Entries;
use crate::manifest::quantity::Cpu;
use crate::manifest::tree::Node;
use crate::model::{OnFailure, Restart, UpdateStrategy, codes};

/// As native Apps.
const PROGRESS_DEADLINE_MS: u64 = 600_000;
const REPLICAS_MAX: u32 = 1_000;
/// cgroup v1's `cpu.shares`.
const SHARES_MAX: u32 = 262_144;

/// What `deploy` and its older spellings say.
pub(super) struct Rollout {
    pub(super) replicas: u32,
    pub(super) restart: Restart,
    pub(super) strategy: UpdateStrategy,
    pub(super) resources: Resources,
    /// Its name leads to the containers themselves.
    pub(super) headless: bool,
}

pub(super) fn lower(project: &mut Project<'_>, service: &Entries<'_>) -> Rollout {
    let mut rollout = Rollout {
        replicas: 1,
        restart: service.get("restart").map_or(Restart::Never, |node| restart(project, node)),
        strategy: strategy(project, None),
        resources: Resources::default(),
        headless: false,
    };
    rollout.resources.memory_bytes = service.get("mem_limit").and_then(|node| bytes(project, "mem_limit", node));
    rollout.resources.cpu_millis = service.get("cpus").and_then(|node| cpus(project, node));
    rollout.resources.pids_max = service.get("pids_limit").and_then(|node| pids(project, node));
    weights(project, service, &mut rollout.resources);
    if let Some(scale) = service.get("scale").and_then(|node| project.reader.number("scale", node, REPLICAS_MAX)) {
        rollout.replicas = scale;
    }
    if let Some(deploy) = service.get("deploy") {
        let deploy = project.reader.keys(deploy, &keys::DEPLOY);
        self::deploy(project, &deploy, &mut rollout);
    }
    rollout
}

/// What counts when the host is short, and swap: `memswap_limit` is memory and swap together, as in Docker.
fn weights(project: &mut Project<'_>, service: &Entries<'_>, resources: &mut Resources) {
    resources.memory_reservation_bytes =
        service.get("mem_reservation").and_then(|node| bytes(project, "mem_reservation", node));
    if let Some(node) = service.get("cpu_shares") {
        let shares = project.reader.number("cpu_shares", node, SHARES_MAX).filter(|shares| *shares > 0);
        resources.cpu_shares = shares.map(|shares| shares.max(2));
    }
    let Some(node) = service.get("memswap_limit") else { return };
    if node.scalar().is_some_and(|scalar| scalar.text == "-1") {
        resources.swap_bytes = Some(u64::MAX);
        return;
    }
    let Some(both) = bytes(project, "memswap_limit", node).filter(|both| *both > 0) else { return };
    match resources.memory_bytes {
        Some(memory) if memory <= both => resources.swap_bytes = Some(both - memory).filter(|swap| *swap > 0),
        Some(_) => project.reader.error(
            codes::VALUE,
            node.extent,
            "`memswap_limit` is memory and swap together: it is below `mem_limit`",
        ),
        None => project.reader.error(codes::MISSING_FIELD, node.extent, "`memswap_limit` needs `mem_limit` beside it"),
    }
}

fn deploy(project: &mut Project<'_>, deploy: &Entries<'_>, rollout: &mut Rollout) {
    if let Some(replicas) =
        deploy.get("replicas").and_then(|node| project.reader.number("replicas", node, REPLICAS_MAX))
    {
        rollout.replicas = replicas;
    }
    if let Some(node) = deploy.get("resources") {
        let found = project.reader.keys(node, &keys::RESOURCES);
        if let Some(node) = found.get("reservations") {
            let reserved = project.reader.keys(node, &keys::RESERVATIONS);
            let memory = reserved.get("memory").and_then(|node| bytes(project, "memory", node));
            let resources = &mut rollout.resources;
            resources.memory_reservation_bytes = memory.or(resources.memory_reservation_bytes);
        }
        if let Some(limits) = found.get("limits") {
            let limits = project.reader.keys(limits, &keys::LIMITS);
            let memory = limits.get("memory").and_then(|node| bytes(project, "memory", node));
            let cpu = limits.get("cpus").and_then(|node| cpus(project, node));
            let processes = limits.get("pids").and_then(|node| pids(project, node));
            let resources = &mut rollout.resources;
            resources.memory_bytes = memory.or(resources.memory_bytes);
            resources.cpu_millis = cpu.or(resources.cpu_millis);
            resources.pids_max = processes.or(resources.pids_max);
        }
    }
    if let Some(node) = deploy.get("restart_policy") {
        let policy = project.reader.keys(node, &keys::RESTART_POLICY);
        let retries_max = policy.get("max_attempts");
        let retries_max = retries_max.and_then(|node| project.reader.number("max_attempts", node, u32::MAX));
        let condition = policy.get("condition").map(|node| (project.reader.text("condition", node), node));
        rollout.restart = match condition {
            None => Restart::Always,
            Some((text, node)) => match text.as_deref() {
                Some("any") => Restart::Always,
                Some("on-failure") => Restart::OnFailure { retries_max: retries_max.filter(|max| *max > 0) },
                Some("none") => Restart::Never,
                _ => {
                    project.reader.wrong("condition", "any, on-failure or none", node);
                    Restart::Always
                }
            },
        };
    }
    if let Some(node) = deploy.get("endpoint_mode") {
        match project.reader.text("endpoint_mode", node).as_deref() {
            Some("dnsrr") => rollout.headless = true,
            Some("vip") => {}
            _ => project.reader.wrong("endpoint_mode", "vip or dnsrr", node),
        }
    }
    if let Some(node) = deploy.get("update_config") {
        let update = project.reader.keys(node, &keys::UPDATE_CONFIG);
        rollout.strategy = strategy(project, Some((&update, rollout.replicas)));
    }
}

fn restart(project: &mut Project<'_>, node: &Node) -> Restart {
    let text = project.reader.text("restart", node).unwrap_or_default();
    let (word, retries) = text.split_once(':').map_or((text.as_str(), None), |(word, max)| (word, Some(max)));
    match (word, retries.map(str::parse::<u32>)) {
        ("" | "no" | "false", None) => Restart::Never,
        ("always" | "unless-stopped", None) => Restart::Always,
        ("on-failure", None) => Restart::OnFailure { retries_max: None },
        ("on-failure", Some(Ok(max))) => Restart::OnFailure { retries_max: Some(max).filter(|max| *max > 0) },
        _ => {
            project.reader.wrong("restart", "no, always, on-failure[:MAX] or unless-stopped", node);
            Restart::Never
        }
    }
}

/// Without `update_config` as native Apps: start-first where nothing forbids it, undone when it fails. With it, Compose's
/// own defaults: one after the other, stop-first, held when it fails.
fn strategy(project: &mut Project<'_>, update: Option<(&Entries<'_>, u32)>) -> UpdateStrategy {
    let plain = UpdateStrategy {
        max_surge: 1,
        max_unavailable: 0,
        ordered: false,
        min_ready_ms: 0,
        progress_deadline_ms: PROGRESS_DEADLINE_MS,
        on_failure: OnFailure::Undo,
    };
    let Some((update, replicas)) = update else { return plain };
    let at_once = update.get("parallelism").and_then(|node| project.reader.number("parallelism", node, REPLICAS_MAX));
    let at_once = match at_once {
        Some(0) => replicas.max(1),
        Some(count) => count,
        None => 1,
    };
    let mut word = |key, words: &[&str]| {
        let node = update.get(key)?;
        let text = project.reader.text(key, node)?;
        if !words.contains(&text.as_str()) {
            project.reader.wrong(key, &format!("one of {}", words.join(", ")), node);
        }
        Some(text)
    };
    let start_first = word("order", &["start-first", "stop-first"]).as_deref() == Some("start-first");
    let undo = word("failure_action", &["continue", "rollback", "pause"]).as_deref() == Some("rollback");
    let monitor = update.get("monitor").and_then(|node| duration(project, "monitor", node));
    UpdateStrategy {
        max_surge: if start_first { at_once } else { 0 },
        max_unavailable: if start_first { 0 } else { at_once },
        ordered: false,
        min_ready_ms: monitor.unwrap_or(0),
        on_failure: if undo { OnFailure::Undo } else { OnFailure::Hold },
        ..plain
    }
}

/// Go's durations; a bare number is seconds only where Compose takes one, which is nowhere.
pub(super) fn duration(project: &mut Project<'_>, what: &str, node: &Node) -> Option<u64> {
    let text = project.reader.text(what, node)?;
    // Parts below a millisecond mean nothing here.
    if let Some(number) = text.strip_suffix("us").or_else(|| text.strip_suffix("ns"))
        && number.parse::<u64>().is_ok()
    {
        return Some(1);
    }
    match Duration::parse(&text) {
        Ok(duration) => Some(duration.ms),
        Err(bad) => {
            project.reader.bad(what, bad, node.extent);
            None
        }
    }
}

/// `64m`, `1gb`, `512`: powers of 1024, as Docker reads them.
pub(super) fn bytes(project: &mut Project<'_>, what: &str, node: &Node) -> Option<u64> {
    let text = project.reader.text(what, node)?;
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let shift = match unit.trim() {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        _ => None,
    };
    let value = number.parse::<f64>().ok().filter(|value| *value < 1e9);
    let bytes = match (value, shift) {
        // Below 1e9 × 2^40 < 2^70 before the bound, so the cast saturates instead of being wrong.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and bounded after")]
        (Some(value), Some(shift)) => Some((value * f64::from(shift).exp2()) as u64).filter(|bytes| *bytes <= 1 << 60),
        _ => None,
    };
    if bytes.is_none() {
        let bad = Bad::new(codes::QUANTITY, format!("expected an amount of memory such as 512m, found {text:?}"));
        project.reader.bad(what, bad, node.extent);
    }
    // Docker's 0 and -1 are "no limit".
    bytes.filter(|bytes| *bytes > 0)
}

fn cpus(project: &mut Project<'_>, node: &Node) -> Option<u32> {
    let text = project.reader.text("cpus", node)?;
    if text.parse::<f64>() == Ok(0.0) {
        return None;
    }
    match Cpu::parse(&text) {
        Ok(cpu) => Some(cpu.0),
        Err(bad) => {
            project.reader.bad("cpus", bad, node.extent);
            None
        }
    }
}

fn pids(project: &mut Project<'_>, node: &Node) -> Option<u32> {
    if node.scalar().is_some_and(|scalar| scalar.text == "-1") {
        return None;
    }
    project.reader.number("pids", node, u32::MAX).filter(|max| *max > 0)
}
