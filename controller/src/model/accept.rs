//! What the host takes of a load, and what it keeps: absence deletes, an error never does.
//!
//! Pure and idempotent: the same load twice gives the same generation. Rules, in this order: a root that cannot be read
//! changes nothing; a source that is suddenly empty changes nothing until confirmed; a file with an error, or without a
//! single byte, keeps the last good version of every object it defined and does not define well now; an object that does not resolve keeps its last
//! good version.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::object::{FileKind, Loaded, Object, ObjectSpec};
use super::{DesiredState, Diagnostic, Hold, ObjectKey, Resolution, SourceRef, Span, codes, resolve_with};

/// What the host has taken so far. Persisted by the store, so that errors keep their last good version over restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// What should be, resolved. `desired.generation` grows by one with each change that can have an effect.
    pub desired: DesiredState,
    /// The last good version of each object, as written.
    pub objects: Vec<Object>,
}

/// What a person has agreed to beforehand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Confirmation {
    /// Nothing.
    #[default]
    None,
    /// An empty source means what it says: remove everything.
    Removal,
}

/// One thing the status should show: a problem of the load or of resolving, or something held (`BX0150`-`BX0152`).
pub type Notice = Diagnostic;

/// Decides what `loaded` changes. The notices are complete: those of the load come first.
#[must_use]
pub fn accept(previous: &Accepted, loaded: &Loaded, confirmation: Confirmation) -> (Accepted, Vec<Notice>) {
    let mut notices = loaded.diagnostics.clone();
    if let Some(why) = &loaded.root_unreadable {
        notices.push(held_root(loaded, why, previous.objects.len()));
        return (keep_all(previous, loaded, format!("{} cannot be read: {why}", loaded.root)), notices);
    }
    let stays = |file: &str| keeps(loaded, file);
    let fresh: BTreeSet<&ObjectKey> = loaded.objects.iter().map(|object| &object.key).collect();
    let kept = previous.objects.iter().filter(|object| stays(&object.span.file) && !fresh.contains(&object.key));
    let candidates: Vec<Object> = loaded.objects.iter().chain(kept).cloned().collect();
    if candidates.is_empty() && !previous.objects.is_empty() && confirmation == Confirmation::None {
        notices.push(held_empty(loaded, previous.objects.len()));
        return (keep_all(previous, loaded, format!("{} is suddenly empty", loaded.root)), notices);
    }
    let (resolution, objects) = settle(previous, candidates, loaded, &mut notices);
    let mut desired = resolution.desired;
    desired.holds = holds(previous, loaded, &resolution.broken, &mut notices);
    let changed = !same_content(&desired, &previous.desired);
    desired.generation = previous.desired.generation + u64::from(changed);
    (Accepted { desired, objects }, notices)
}

/// Resolves until nothing new breaks: what breaks is replaced by its last good version, which never breaks.
fn settle(
    previous: &Accepted,
    candidates: Vec<Object>,
    loaded: &Loaded,
    notices: &mut Vec<Notice>,
) -> (Resolution, Vec<Object>) {
    let declared: BTreeSet<ObjectKey> = loaded.diagnostics.iter().filter_map(|d| d.object.clone()).collect();
    let mut demoted: BTreeSet<ObjectKey> = BTreeSet::new();
    loop {
        let mut objects: Vec<Object> = candidates.iter().filter(|o| !demoted.contains(&o.key)).cloned().collect();
        let is_leaf = |object: &Object| match object.spec {
            ObjectSpec::Image(_)
            | ObjectSpec::Volume(_)
            | ObjectSpec::Config(_)
            | ObjectSpec::Secret(_)
            | ObjectSpec::Service(_)
            | ObjectSpec::Network(_) => true,
            ObjectSpec::App(_) | ObjectSpec::Job(_) => false,
        };
        let last_good: Vec<&Object> = previous.objects.iter().filter(|o| demoted.contains(&o.key)).collect();
        objects.extend(last_good.iter().copied().filter(|object| is_leaf(object)).cloned());
        let keep = DesiredState {
            workloads: only(&previous.desired.workloads, &demoted),
            jobs: only(&previous.desired.jobs, &demoted),
            ..DesiredState::default()
        };
        let mut resolution = resolve_with(&objects, &keep, &declared);
        for diagnostic in std::mem::take(&mut resolution.diagnostics) {
            if !notices.contains(&diagnostic) {
                notices.push(diagnostic);
            }
        }
        let before = demoted.len();
        demoted.extend(resolution.broken.iter().cloned());
        if demoted.len() == before {
            objects.extend(last_good.into_iter().filter(|object| !is_leaf(object)).cloned());
            objects.sort_by(|a, b| a.key.cmp(&b.key));
            resolution.broken = demoted;
            return (resolution, objects);
        }
    }
}

fn only<T: Clone>(all: &BTreeMap<ObjectKey, T>, keys: &BTreeSet<ObjectKey>) -> BTreeMap<ObjectKey, T> {
    all.iter().filter(|(key, _)| keys.contains(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Whether what a file defined stays although this load does not show it.
fn keeps(loaded: &Loaded, file: &str) -> bool {
    let broken = matches!(loaded.files.get(file), Some(FileKind::Broken | FileKind::Empty));
    broken || loaded.unreadable.keys().any(|directory| is_under(file, directory))
}

fn is_under(file: &str, directory: &str) -> bool {
    file.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// One hold for each file that keeps something, so that even after a lost database nothing of it is removed.
fn holds(previous: &Accepted, loaded: &Loaded, broken: &BTreeSet<ObjectKey>, notices: &mut Vec<Notice>) -> Vec<Hold> {
    let mut files: BTreeMap<String, (&'static str, String)> = BTreeMap::new();
    for (file, _) in loaded.files.iter().filter(|(_, kind)| **kind == FileKind::Broken) {
        files.insert(file.clone(), (codes::HELD_BROKEN, format!("{file} has errors")));
    }
    for (file, _) in loaded.files.iter().filter(|(_, kind)| **kind == FileKind::Empty) {
        if previous.objects.iter().any(|object| object.span.file == *file) {
            let why = format!("{file} is suddenly empty (delete the file to remove what it defined)");
            files.insert(file.clone(), (codes::HELD_BROKEN, why));
        }
    }
    for object in loaded.objects.iter().filter(|object| broken.contains(&object.key)) {
        let file = object.span.file.clone();
        let why = format!("{file} has errors");
        files.entry(file).or_insert((codes::HELD_BROKEN, why));
    }
    let mut holds = Vec::new();
    for (directory, why) in &loaded.unreadable {
        let known = previous.objects.iter().map(|object| &object.span.file).filter(|file| is_under(file, directory));
        let before = files.len();
        for file in known {
            files.insert(file.clone(), (codes::HELD_UNREADABLE, format!("{directory} cannot be read: {why}")));
        }
        if files.len() == before && previous.objects.is_empty() {
            // Nothing is known of what was in there (a lost database): then nothing at all may be removed.
            holds.push(hold(loaded, None, format!("{directory} cannot be read: {why}")));
        }
    }
    for (file, (code, reason)) in files {
        let count = previous.objects.iter().filter(|object| object.span.file == file).count();
        if count > 0 {
            let what = format!("{reason}: {} it defined before stay as they are", objects(count));
            notices.push(Diagnostic::warning(code, what).at(Span::file(file.clone())));
        }
        holds.push(hold(loaded, Some(file), reason));
    }
    holds
}

fn keep_all(previous: &Accepted, loaded: &Loaded, reason: String) -> Accepted {
    let mut kept = previous.clone();
    kept.desired.holds = vec![hold(loaded, None, reason)];
    kept
}

fn hold(loaded: &Loaded, file: Option<String>, reason: String) -> Hold {
    Hold { root: Some(loaded.root.clone()), file, reason }
}

fn held_root(loaded: &Loaded, why: &str, count: usize) -> Notice {
    let stays = if count == 0 { String::new() } else { format!(", {} stay as they are", objects(count)) };
    let what = format!("{} cannot be read: {why}; nothing is changed{stays}", loaded.root);
    Diagnostic::warning(codes::HELD_UNREADABLE, what)
}

fn held_empty(loaded: &Loaded, count: usize) -> Notice {
    let what =
        format!("{} has no objects any more; {} stay until the removal is confirmed", loaded.root, objects(count));
    Diagnostic::warning(codes::HELD_EMPTY, what).help(format!("boxship up {} --confirm-removal", loaded.root))
}

fn objects(count: usize) -> String {
    if count == 1 { "the 1 object".to_owned() } else { format!("the {count} objects") }
}

/// Whether two states differ in nothing that can have an effect: places, holds and the generation do not count.
#[must_use]
pub fn same_content(a: &DesiredState, b: &DesiredState) -> bool {
    without_places(a) == without_places(b)
}

/// The content alone: no places, holds, roots or generation.
#[must_use]
pub fn without_places(state: &DesiredState) -> DesiredState {
    let nowhere = || SourceRef { file: String::new(), line: 0, column: 0 };
    let mut state = state.clone();
    state.generation = 0;
    state.holds.clear();
    state.roots.clear();
    state.images.values_mut().for_each(|image| image.source = nowhere());
    state.volumes.values_mut().for_each(|volume| volume.source = nowhere());
    state.networks.values_mut().for_each(|network| network.source = nowhere());
    let workloads = state.workloads.values_mut().map(|w| {
        w.source = nowhere();
        w.ports.iter_mut().for_each(|port| port.source = nowhere());
        &mut w.template
    });
    let jobs = state.jobs.values_mut().map(|job| {
        job.source = nowhere();
        &mut job.template
    });
    for template in workloads.chain(jobs) {
        template.image.source = nowhere();
        template.mounts.iter_mut().for_each(|mount| mount.source = nowhere());
    }
    state
}

#[cfg(test)]
mod tests;
