//! One changed object as people read it: a line with the effect and what is noticed, then a line for each field.

use crate::api::types::{PlanView, PullView};
use crate::cli::format::{DIM, GREEN, RED, YELLOW, bytes};
use crate::cli::up::short;
use crate::plan::change::{Change, Effect, FieldChange, Interruption};

/// `~ app/web  rolling, 1 above 3 at once; nobody is interrupted`, fields and pulls below.
pub(super) fn text(change: &Change, pulls: &[PullView]) -> String {
    let (colour, sign) = match change.effect {
        Effect::Create => (GREEN, "+"),
        Effect::Remove => (RED, "-"),
        Effect::Replace { .. } => (YELLOW, "±"),
        Effect::InPlace | Effect::Scale { .. } | Effect::Rolling { .. } | Effect::Repair | Effect::Forget => {
            (YELLOW, "~")
        }
    };
    let object = short(&change.object);
    let mut out = format!("  {colour}{sign} {object:22}{colour:#} {}{}", effect(change), noticed(change.interruption));
    if let Some(source) = &change.source {
        out.push_str(&format!("  {DIM}{source}{DIM:#}"));
    }
    for field in &change.fields {
        out.push_str(&format!("\n      {}", field_line(field)));
    }
    for reference in &change.pulls {
        let known = pulls.iter().find(|pull| pull.reference == *reference);
        out.push_str(&format!("\n      pull {reference}: {}", cost(known)));
    }
    out
}

fn effect(change: &Change) -> String {
    match change.effect {
        Effect::Create => "create".to_owned(),
        Effect::InPlace => "change in place".to_owned(),
        Effect::Scale { from, to } => format!("scale from {from} to {to}"),
        Effect::Rolling { replicas, surge } => format!("rolling over {replicas}, new first, {surge} above at once"),
        Effect::Replace { replicas: 1 } => "replace, old first".to_owned(),
        Effect::Replace { replicas } => format!("rolling over {replicas}, old first"),
        Effect::Repair => {
            let reasons: Vec<String> = change.reasons.iter().map(|reason| super::words(reason)).collect();
            format!("put right: {}", reasons.join(", "))
        }
        Effect::Remove => "remove; volumes stay".to_owned(),
        Effect::Forget => "not declared any more; nothing of it is removed".to_owned(),
    }
}

fn noticed(interruption: Interruption) -> String {
    match interruption {
        Interruption::None => String::new(),
        Interruption::Fewer { serving } => format!("; at least {serving} serve throughout"),
        Interruption::Gap { stop_ms_max } => {
            format!(
                "; interrupted from the stop (at most {} s) until the new one is ready",
                stop_ms_max.div_ceil(1_000)
            )
        }
    }
}

fn field_line(field: &FieldChange) -> String {
    let FieldChange { field: name, old, new, hidden, place, .. } = field;
    let what = match (old, new) {
        (_, _) if *hidden => "changed (values are not shown)".to_owned(),
        (Some(old), Some(new)) => format!("{old} → {new}"),
        (None, Some(new)) => format!("unset → {new}"),
        (Some(old), None) => format!("{old} → unset"),
        (None, None) => "changed".to_owned(),
    };
    format!("{name}: {what}  {DIM}{place}{DIM:#}")
}

fn cost(pull: Option<&PullView>) -> String {
    let Some(cost) = pull.and_then(|pull| pull.cost.as_ref()) else {
        let why = pull.and_then(|pull| pull.unknown.as_deref()).unwrap_or("its registry was not asked");
        return format!("cost unknown ({why})");
    };
    let (fetch, total) = (bytes(cost.fetch_bytes), bytes(cost.total_bytes));
    format!("{fetch} of {total} to fetch in {} layers, is {} now", cost.layers, cost.digest.short())
}

/// `1 create, 2 change (1 rolling, 1 in place), 3 same`, and the bytes of all pulls.
pub(super) fn summary(view: &PlanView) -> String {
    let count = |wanted: fn(&Effect) -> bool| view.changes.iter().filter(|change| wanted(&change.effect)).count();
    let parts = [
        (count(|e| matches!(e, Effect::Create)), "create"),
        (count(|e| matches!(e, Effect::Rolling { .. })), "rolling"),
        (count(|e| matches!(e, Effect::Replace { .. })), "replace"),
        (count(|e| matches!(e, Effect::InPlace | Effect::Scale { .. })), "in place"),
        (count(|e| matches!(e, Effect::Repair)), "put right"),
        (count(|e| matches!(e, Effect::Remove)), "remove"),
        (count(|e| matches!(e, Effect::Forget)), "forget"),
    ];
    let mut said: Vec<String> =
        parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    said.push(format!("{} same", view.unchanged.len()));
    let fetch: u64 = view.pulls.iter().filter_map(|pull| pull.cost.as_ref()).map(|cost| cost.fetch_bytes).sum();
    if !view.pulls.is_empty() {
        said.push(format!("{} to pull", bytes(fetch)));
    }
    let gaps = view.changes.iter().filter(|change| matches!(change.interruption, Interruption::Gap { .. }));
    let gaps: Vec<String> = gaps.map(|change| short(&change.object)).collect();
    if !gaps.is_empty() {
        said.push(format!("interrupted: {}", gaps.join(", ")));
    }
    said.join(", ")
}
