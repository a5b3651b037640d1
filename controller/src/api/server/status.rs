//! The page and the events, with long polling.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use runtime::runtime::Finding;
use serde::Deserialize;
use tokio::sync::watch;

use super::Api;
use super::refusal::Answer;
use crate::api::types::{Event, Notice, Status};
use crate::execute::Executor;
use crate::memory::Memory;
use crate::probe::Probes;
use crate::reconcile::View;
use crate::sources::Sources;
use crate::status::{Live, status};

/// Longest wait for a change.
const WAIT_MS_MAX: u64 = 60_000;

/// Between two pages while something moves: ten times a second is as fast as eyes and progress bars need.
const PAGE_EVERY: Duration = Duration::from_millis(50);

/// How long a question waits for the first look at the host.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
pub(super) struct After {
    after: Option<u64>,
    timeout_ms: Option<u64>,
}

impl After {
    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.unwrap_or(0).min(WAIT_MS_MAX))
    }
}

pub(super) async fn get(State(api): State<Arc<Api>>, Query(query): Query<After>) -> Answer<Status> {
    let mut page = api.status.clone();
    // Before the first look an empty page would read as "nothing runs here".
    let _ = tokio::time::timeout(FIRST_LOOK_MAX, page.wait_for(|page| page.version > 0)).await;
    if let Some(after) = query.after {
        // A page of another controller's life has another version: anything but this one is news.
        let _ = tokio::time::timeout(query.timeout(), page.wait_for(|page| page.version != after)).await;
    }
    let page = page.borrow_and_update().clone();
    Ok(Json((*page).clone()))
}

pub(super) async fn events(State(api): State<Arc<Api>>, Query(query): Query<After>) -> Answer<Vec<Event>> {
    let after = query.after.unwrap_or(0);
    let mut newest = api.memory.event_watch();
    if api.memory.events_after(after).is_empty() {
        let _ = tokio::time::timeout(query.timeout(), newest.wait_for(|seq| *seq > after)).await;
    }
    Ok(Json(api.memory.events_after(after)))
}

/// Makes a new page whenever something it shows has changed.
pub(crate) async fn publish(
    mut views: watch::Receiver<Arc<View>>,
    sources: Arc<Sources>,
    memory: Arc<Memory>,
    executor: Arc<Executor>,
    probes: Arc<Probes>,
    mut findings: watch::Receiver<Arc<Vec<Finding>>>,
    pages: watch::Sender<Arc<Status>>,
) {
    let mut pulls = executor.pulls().changes();
    let mut said = sources.changes();
    if views.changed().await.is_err() {
        return;
    }
    loop {
        let view = views.borrow_and_update().clone();
        pulls.mark_unchanged();
        said.mark_unchanged();
        let found = findings.borrow_and_update().clone();
        let live = Live { probes: probes.failures(), pulls: executor.pulls().all() };
        let mut page = status(&view, &live);
        page.notices = notices(&view, &sources, &memory, &found);
        page.sources = sources.list();
        pages.send_if_modified(|old| {
            page.version = old.version;
            if page.version > 0 && **old == page {
                return false;
            }
            page.version += 1;
            *old = Arc::new(page);
            true
        });
        tokio::time::sleep(PAGE_EVERY).await;
        let changed = tokio::select! {
            changed = views.changed() => changed,
            changed = pulls.changed() => changed,
            changed = said.changed() => changed,
            changed = findings.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn notices(view: &View, sources: &Sources, memory: &Memory, findings: &[Finding]) -> Vec<Notice> {
    let mut notices = sources.notices();
    if let Some(why) = memory.problem() {
        notices.push(Notice {
            code: "BX0706".to_owned(),
            message: format!("StateNotPersisted: {why}; containers are kept as wanted, their history may be lost"),
            help: Some("df -h".to_owned()),
        });
    }
    if let Some(why) = &view.blind {
        let message = format!("the host cannot be observed, so nothing is changed: {why}");
        notices.push(Notice { code: "BX0707".to_owned(), message, help: None });
    }
    notices.extend(findings.iter().map(|Finding { what, effect, fix }| Notice {
        code: "BX0402".to_owned(),
        message: format!("{what}: {effect}"),
        help: Some(fix.clone()),
    }));
    notices
}
