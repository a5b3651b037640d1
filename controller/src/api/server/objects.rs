//! One object over the socket: described, directed by hand, or deleted where no manifest holds it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};

use super::Api;
use super::listener::Peer;
use super::logs::tail;
use super::refusal::{Answer, Refusal, blocking};
use crate::api::types::{Applied, Description, Order, Ordered};
use crate::model::{Kind, ObjectKey};
use crate::status::{Live, describe as describe_object};

/// Log lines shown with a description.
const LOG_LINES: usize = 10;

fn key(stack: &str, kind: &str, name: &str) -> Result<ObjectKey, Refusal> {
    format!("{stack}/{kind}/{name}").parse().map_err(|e: crate::model::KeyError| Refusal::bad_request(e.to_string()))
}

pub(super) async fn describe(
    State(api): State<Arc<Api>>,
    Path((stack, kind, name)): Path<(String, String, String)>,
) -> Answer<Description> {
    let key = key(&stack, &kind, &name)?;
    let view = api.views.borrow().clone();
    let live = Live { probes: api.probes.failures(), pulls: api.executor.pulls().all() };
    let detail = describe_object(&view, &live, &api.memory.events_after(0), &key);
    let detail = detail.ok_or_else(|| Refusal::not_found(format!("there is no {key}")))?;
    let mut description = detail.description;
    description.notices.clone_from(&api.status.borrow().notices);
    if let Some((replica, container)) = detail.telling {
        let dir = api.runtime.log_dir(&container);
        description.log_tail = blocking(move || tail(&dir, &replica, LOG_LINES)).await?;
    }
    Ok(Json(description))
}

/// Something asked of an object by hand.
pub(super) async fn order(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((stack, kind, name)): Path<(String, String, String)>,
    Json(order): Json<Order>,
) -> Answer<Ordered> {
    let key = key(&stack, &kind, &name)?;
    let (view, sources) = (api.views.borrow().clone(), Arc::clone(&api.sources));
    let said = blocking(move || sources.order(&key, &order, &view.seen.state, &peer.name())).await??;
    api.bell.notify_one();
    Ok(Json(Ordered { said }))
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path((stack, kind, name)): Path<(String, String, String)>,
) -> Answer<Applied> {
    let key = key(&stack, &kind, &name)?;
    if let Some(applied) = api.sources.remove_object(&key).await.map_err(Refusal::conflict)? {
        return Ok(Json(applied));
    }
    let view = api.views.borrow().clone();
    let volumes = &view.seen.state.volumes;
    let volume = volumes.iter().find(|(_, volume)| volume.owner == key && volume.anonymous_of.is_none());
    let Some((volume, _)) = volume.filter(|_| key.kind == Kind::Volume) else {
        return Err(Refusal::not_found(format!("there is no {key}")));
    };
    let (runtime, volume) = (Arc::clone(&api.runtime), volume.clone());
    blocking(move || runtime.remove_volume(&volume)).await??;
    api.memory.record_event(Some(&key), "Removed", "volume and its data, as asked".to_owned(), false);
    api.bell.notify_one();
    Ok(Json(api.sources.nothing_changed()))
}
