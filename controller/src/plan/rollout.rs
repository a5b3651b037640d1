//! Which template an App should run now, and what is remembered of it: revisions, their progress, their failure, and the
//! way back to the last good one. The memory helps; without it the containers' own hashes are enough to go on.

use runtime::image::Digest;
use runtime::runtime::{ContainerState, ExitStatus, ImageConfig};

use super::bug::Bug;
use super::pass::{Found, Pass};
use super::template_hash::{changed_fields, pod_hash};
use super::{Action, Reason, WaitingOn};
use crate::model::{ContainerTemplate, ObjectKey, OnFailure, Revision, RevisionResult, TemplateHash, Workload};

/// What an App's replicas should be made from.
#[derive(Clone)]
pub(super) struct Target<'a> {
    pub(super) hash: TemplateHash,
    pub(super) template: &'a ContainerTemplate,
    pub(super) image: &'a Digest,
    pub(super) image_config: &'a ImageConfig,
    /// It is the way back to this revision.
    pub(super) undo: Option<u32>,
    /// It is what the manifest says: its progress is recorded.
    pub(super) is_wanted: bool,
    /// It was available once.
    pub(super) was_available: bool,
    /// What to fall back on slot by slot while it is not proven.
    pub(super) good: Option<Good<'a>>,
}

/// The last revision that was ready, if its image is still there.
#[derive(Clone)]
pub(super) struct Good<'a> {
    pub(super) revision: &'a Revision,
    pub(super) image_config: &'a ImageConfig,
}

/// Decides what to run. `None`: nothing is known that could be run; what runs is left alone.
pub(super) fn target<'a>(pass: &mut Pass<'a>, key: &'a ObjectKey, app: &'a Workload) -> Option<Target<'a>> {
    let observed = pass.observed;
    let revisions = observed.revisions.get(key).map_or(&[][..], Vec::as_slice);
    let last = revisions.last();
    let Some((digest, image_config)) = pass.images_of(&app.template, key) else {
        // The wanted image is on its way or cannot be had: go on with what was wanted before.
        let before = last.filter(|before| pass.has_member_images(&before.template))?;
        let image_config = *pass.images.get(&before.image)?;
        let target = Target {
            hash: before.template_hash.clone(),
            template: &before.template,
            image: &before.image,
            image_config,
            undo: None,
            is_wanted: false,
            was_available: before.available_max > 0,
            good: good_before(pass, revisions, &before.template_hash),
        };
        return Some(undone(pass, key, app, target, before));
    };
    // present, or there would be no digest of the whole
    let of_members = app.template.all().skip(1).filter_map(|member| observed.images.get(&member.image.reference));
    let hash = pod_hash(&app.template, digest, of_members.map(|image| &image.digest));
    let current = last.filter(|revision| revision.template_hash == hash);
    // Also as an earlier revision: what is wanted again needs no second proof, and nothing older in its place.
    let was_ready = revisions.iter().any(|r| r.template_hash == hash && r.result == RevisionResult::Ready);
    let target = Target {
        good: good_before(pass, revisions, &hash),
        hash,
        template: &app.template,
        image: digest,
        image_config,
        undo: None,
        is_wanted: true,
        was_available: was_ready || current.is_some_and(|revision| revision.available_max > 0),
    };
    Some(match current {
        Some(current) => undone(pass, key, app, target, current),
        None => target,
    })
}

/// The target itself, or the last good revision when it has failed.
fn undone<'a>(
    pass: &mut Pass<'a>,
    key: &ObjectKey,
    app: &Workload,
    target: Target<'a>,
    revision: &Revision,
) -> Target<'a> {
    if let Some(back) = asked_back(pass, key, revision)
        && let Some(image_config) = pass.images.get(&back.image).copied()
    {
        return way_back(Good { revision: back, image_config });
    }
    let failed = match revision.result {
        RevisionResult::Failed { .. } => !pass.has_bug(Bug::FailedRevisionRetried),
        RevisionResult::Rolling
        | RevisionResult::Ready
        | RevisionResult::Superseded
        | RevisionResult::Undone { .. } => false,
    };
    if !failed || app.strategy.on_failure == OnFailure::Hold {
        return target;
    }
    let Some(good) = target.good else {
        let revisions = pass.observed.revisions.get(key).into_iter().flatten();
        let mut lost = revisions.filter(|r| r.result == RevisionResult::Ready && r.template_hash != target.hash);
        if let Some(lost) = lost.next_back() {
            pass.wait(key, WaitingOn::LostImage { digest: lost.image.clone() });
        }
        return target;
    };
    way_back(good)
}

/// The target that leads back to a revision which was good.
pub(super) fn way_back(good: Good<'_>) -> Target<'_> {
    Target {
        hash: good.revision.template_hash.clone(),
        template: &good.revision.template,
        image: &good.revision.image,
        image_config: good.image_config,
        undo: Some(good.revision.number),
        is_wanted: false,
        was_available: true,
        good: None,
    }
}

/// The revision that somebody wants instead of this one, as long as it is known and its image is there.
fn asked_back<'a>(pass: &Pass<'a>, key: &ObjectKey, of: &Revision) -> Option<&'a Revision> {
    let undo = pass.desired.orders.get(key)?.undo.as_ref()?;
    if undo.revision != of.number || undo.of != of.template_hash || pass.has_bug(Bug::UndoByHandIgnored) {
        return None;
    }
    let known = pass.observed.revisions.get(key).into_iter().flatten();
    let mut known =
        known.filter(|revision| revision.template_hash == undo.to && pass.images.contains_key(&revision.image));
    known.next_back()
}

/// A revision that ran, to be run again in the slots that had it.
pub(super) fn revision_of<'a>(pass: &Pass<'a>, key: &ObjectKey, hash: &TemplateHash) -> Option<Target<'a>> {
    let known = pass.observed.revisions.get(key)?;
    let revision = known.iter().rfind(|revision| revision.template_hash == *hash)?;
    let image_config = *pass.images.get(&revision.image)?;
    Some(way_back(Good { revision, image_config }))
}

/// Records what people asked of the newest revision: taken back, tried again, paused, resumed.
pub(super) fn record_by_hand(pass: &mut Pass<'_>, key: &ObjectKey, app: &Workload) {
    let observed = pass.observed;
    let Some(last) = observed.revisions.get(key).and_then(|revisions| revisions.last()) else { return };
    let paused = is_paused(pass, key);
    let to = asked_back(pass, key, last).map(|back| back.number);
    let result = match (to, &last.result) {
        (Some(to), _) => RevisionResult::Undone { to },
        (None, RevisionResult::Undone { .. }) => RevisionResult::Rolling,
        (None, other) => other.clone(),
    };
    if (&result, paused) != (&last.result, last.paused) {
        let revision = Revision { result, paused, progress_boot_ms: pass.now(), ..last.clone() };
        put(pass, key, app, revision, Reason::AskedByHand);
    }
}

/// Whether a roll-out is to go no further.
pub(super) fn is_paused(pass: &Pass<'_>, key: &ObjectKey) -> bool {
    pass.desired.orders.get(key).is_some_and(|by_hand| by_hand.paused) && !pass.has_bug(Bug::PauseIgnored)
}

fn good_before<'a>(pass: &Pass<'a>, revisions: &'a [Revision], hash: &TemplateHash) -> Option<Good<'a>> {
    let mut good = revisions.iter().rev().filter(|r| r.result == RevisionResult::Ready && r.template_hash != *hash);
    let revision = good.next().filter(|revision| pass.has_member_images(&revision.template))?;
    let image_config = *pass.images.get(&revision.image)?;
    Some(Good { revision, image_config })
}

/// What is seen of a target: how many replicas are available, and whether the roll-out is over.
pub(super) struct Progress {
    pub(super) available: u32,
    pub(super) is_complete: bool,
}

/// Remembers a new revision, its progress and its outcome.
pub(super) fn record(
    pass: &mut Pass<'_>,
    key: &ObjectKey,
    app: &Workload,
    target: &Target<'_>,
    progress: &Progress,
    found: &[Found<'_>],
) {
    if !target.is_wanted {
        return;
    }
    let observed = pass.observed;
    let last = observed.revisions.get(key).and_then(|revisions| revisions.last());
    let Some(current) = last.filter(|revision| revision.template_hash == target.hash) else {
        if let Some(last) = last.filter(|revision| revision.result == RevisionResult::Rolling) {
            put(pass, key, app, Revision { result: RevisionResult::Superseded, ..last.clone() }, Reason::NewRevision);
        }
        let revision = Revision {
            number: last.map_or(1, |revision| revision.number.saturating_add(1)),
            template_hash: target.hash.clone(),
            template: app.template.clone(),
            image: target.image.clone(),
            result: if progress.is_complete { RevisionResult::Ready } else { RevisionResult::Rolling },
            available_max: progress.available,
            progress_boot_ms: pass.now(),
            created_unix_ms: observed.now_unix_ms,
            paused: is_paused(pass, key),
        };
        put(pass, key, app, revision, Reason::NewRevision);
        pass.wake(pass.now().saturating_add(app.strategy.progress_deadline_ms));
        return;
    };
    match &current.result {
        RevisionResult::Ready => {}
        RevisionResult::Rolling | RevisionResult::Failed { .. } if progress.is_complete => {
            let revision = Revision {
                result: RevisionResult::Ready,
                available_max: current.available_max.max(progress.available),
                ..current.clone()
            };
            put(pass, key, app, revision, Reason::RevisionDecided);
        }
        // An undo that was asked for and cannot be: `record_by_hand` says what becomes of it.
        RevisionResult::Failed { .. } | RevisionResult::Undone { .. } => {}
        // Superseded and wanted again without another between: a record was lost. Go on as with a new one.
        RevisionResult::Rolling | RevisionResult::Superseded => go_on(pass, key, app, current, progress, found),
    }
}

/// A revision under way: more available replicas are progress; without progress it fails at its deadline.
fn go_on(
    pass: &mut Pass<'_>,
    key: &ObjectKey,
    app: &Workload,
    current: &Revision,
    progress: &Progress,
    found: &[Found<'_>],
) {
    let now = pass.now();
    let of_earlier_boot = current.progress_boot_ms == 0 || current.progress_boot_ms > now;
    let is_rolling = current.result == RevisionResult::Rolling;
    if progress.available > current.available_max || of_earlier_boot || !is_rolling {
        let revision = Revision {
            result: RevisionResult::Rolling,
            available_max: current.available_max.max(progress.available),
            progress_boot_ms: now,
            ..current.clone()
        };
        put(pass, key, app, revision, Reason::Progressed);
        pass.wake(now.saturating_add(app.strategy.progress_deadline_ms));
        return;
    }
    if current.paused {
        return;
    }
    let deadline = current.progress_boot_ms.saturating_add(app.strategy.progress_deadline_ms);
    if app.replicas == 0 || deadline > now {
        pass.wake(deadline);
        return;
    }
    let why = failure_text(app, current, progress, found);
    let revision = Revision { result: RevisionResult::Failed { why }, ..current.clone() };
    put(pass, key, app, revision, Reason::RevisionDecided);
}

fn put(pass: &mut Pass<'_>, key: &ObjectKey, app: &Workload, revision: Revision, reason: Reason) {
    let action = Action::RecordRevision { app: key.clone(), revision: Box::new(revision) };
    pass.push(action, Some(key), reason, Some(&app.source), Vec::new());
}

fn failure_text(app: &Workload, current: &Revision, progress: &Progress, found: &[Found<'_>]) -> String {
    let mut why = format!(
        "{} of {} replicas available after {} s without progress",
        progress.available,
        app.replicas,
        app.strategy.progress_deadline_ms / 1000,
    );
    let ended = found.iter().filter(|(_, c)| c.template_hash == current.template_hash);
    let ended = ended.filter(|(_, c)| c.state == ContainerState::Stopped).max_by_key(|(_, c)| c.finished_boot_ms);
    if let Some((_, container)) = ended
        && let Some(exit) = container.exit
    {
        let how = match exit {
            ExitStatus::Code(code) => format!("exited with code {code}"),
            ExitStatus::Signal(signal) => format!("was killed by signal {signal}"),
            ExitStatus::OutOfMemory => "ran out of memory".to_owned(),
            ExitStatus::Unknown => "ended unseen".to_owned(),
        };
        why.push_str(&format!("; {} {how}", container.replica));
    }
    let pods = found.iter().filter(|(_, c)| c.template_hash == current.template_hash);
    let ended = pods.filter_map(|(_, c)| Some((c, c.pod.as_ref()?))).find_map(|(c, pod)| {
        let bad = |exit: &ExitStatus| *exit != ExitStatus::Code(0);
        let (_, name, exit) =
            pod.newest_of_all().find_map(|(role, name, m)| Some((role, name, m?.exit.filter(bad)?)))?;
        Some(format!("; container `{name}` of {}: {exit}", c.replica))
    });
    why.push_str(&ended.unwrap_or_default());
    why
}

/// Why a container of `old` gives way to the target.
pub(super) fn change_reason(pass: &Pass<'_>, key: &ObjectKey, old: &TemplateHash, target: &Target<'_>) -> Reason {
    if let Some(to) = target.undo {
        return Reason::Undo { to };
    }
    let revisions = pass.observed.revisions.get(key).into_iter().flatten();
    let mut of_old = revisions.filter(|revision| revision.template_hash == *old);
    let fields = of_old
        .next_back()
        .map(|revision| changed_fields((&revision.template, &revision.image), (target.template, target.image)));
    // the same in every field: what a tag of one of its other containers stands for has moved
    let fields = fields.map(|fields| if fields.is_empty() { vec!["containers.image".to_owned()] } else { fields });
    Reason::TemplateChanged { fields: fields.unwrap_or_default() }
}
