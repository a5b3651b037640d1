//! Everything about one object, for `describe` and `why`.

use runtime::id::ContainerId;
use runtime::runtime::ContainerState;

use super::{Live, Page, waiting_text};
use crate::api::types::{Description, Event, ObjectStatus, RevisionView};
use crate::model::{ObjectKey, Revision, RevisionResult};
use crate::plan::changed_fields;
use crate::reconcile::View;

/// Events shown of one object.
const EVENTS_MAX: usize = 30;

/// A description but for its log, and which container's log tells most.
pub struct Detail {
    /// All but `log_tail`.
    pub description: Description,
    /// Failing first, then the newest; `None` without containers.
    pub telling: Option<(String, ContainerId)>,
}

/// Describes one object; `None` when nothing of it is declared or left.
#[must_use]
pub fn describe(view: &View, live: &Live, events: &[Event], key: &ObjectKey) -> Option<Detail> {
    let page = Page { view, live };
    page.keys().contains(key).then(|| {
        let status = page.object(key);
        let state = &view.seen.state;
        let of_it = events.iter().filter(|event| event.object.as_ref() == Some(key)).cloned();
        let mut events: Vec<Event> = of_it.collect();
        events.drain(..events.len().saturating_sub(EVENTS_MAX));
        let exits = state.exits.iter().filter(|(replica, _)| replica.workload == *key);
        let mut exits: Vec<_> =
            exits.flat_map(|(replica, all)| all.iter().map(|exit| (replica.to_string(), exit.clone()))).collect();
        exits.sort_by_key(|(_, exit)| exit.finished_unix_ms);
        let revisions = state.revisions.get(key).map(|all| {
            let before = std::iter::once(None).chain(all.iter().map(Some));
            all.iter().zip(before).map(|(revision, before)| revision_view(revision, before)).collect()
        });
        let telling = telling(&status);
        let waiting = page.waiting(key).map(waiting_text).collect();
        let description = Description {
            status,
            events,
            exits,
            revisions: revisions.unwrap_or_default(),
            orders: view.desired.orders.get(key).cloned().unwrap_or_default(),
            waiting,
            notices: Vec::new(),
            log_tail: Vec::new(),
        };
        Detail { description, telling }
    })
}

fn revision_view(revision: &Revision, before: Option<&Revision>) -> RevisionView {
    let changed =
        before.map(|before| changed_fields((&before.template, &before.image), (&revision.template, &revision.image)));
    RevisionView {
        number: revision.number,
        image: revision.template.image.reference.clone(),
        result: match &revision.result {
            RevisionResult::Rolling => "rolling".to_owned(),
            RevisionResult::Ready => "ready".to_owned(),
            RevisionResult::Failed { why } => format!("failed: {why}"),
            RevisionResult::Superseded => "superseded".to_owned(),
            RevisionResult::Undone { to } => format!("undone by hand: rev {to} runs"),
        },
        created_unix_ms: revision.created_unix_ms,
        changed: changed.unwrap_or_default(),
        paused: revision.paused,
    }
}

fn telling(status: &ObjectStatus) -> Option<(String, ContainerId)> {
    let rank = |replica: &&crate::api::types::ReplicaStatus| {
        let ended = replica.state == ContainerState::Stopped;
        (ended, !replica.ready, replica.started_unix_ms)
    };
    let most = status.replicas.iter().max_by_key(rank)?;
    Some((most.name.clone(), most.container.clone()))
}
