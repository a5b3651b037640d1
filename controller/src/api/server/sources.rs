//! Manifest sources over the socket: put in force, taken back, or only planned.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::Api;
use super::refusal::{Answer, Refusal, blocking};
use crate::api::types::{Applied, PlanView, SourceRequest};
use crate::api::weigh::weighed;
use crate::reconcile::View;

/// How long a fresh look at the host is waited for; after that the last one counts.
const FRESH_LOOK_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
pub(super) struct Of {
    path: Option<PathBuf>,
    default_stack: Option<String>,
    #[serde(default)]
    confirm_removal: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Sealed {
    plan_hash: Option<String>,
}

pub(super) async fn apply(
    State(api): State<Arc<Api>>,
    Query(sealed): Query<Sealed>,
    Json(request): Json<SourceRequest>,
) -> Answer<Applied> {
    if !request.path.is_absolute() {
        return Err(Refusal::bad_request(format!("{} is not an absolute path", request.path.display())));
    }
    let Some(hash) = sealed.plan_hash else {
        return api.sources.apply(request).await.map(Json).map_err(Refusal::internal);
    };
    let view = fresh(&api).await;
    let (sources, path) = (Arc::clone(&api.sources), request.path.clone());
    let applied = blocking(move || sources.apply_sealed(request, &hash, &view.seen.state)).await?;
    let help = format!("boxship plan {}", path.display());
    applied.map(Json).map_err(|moved| Refusal::new(StatusCode::CONFLICT, "BX0603", moved, Some(help)))
}

pub(super) async fn remove(State(api): State<Arc<Api>>, Query(query): Query<Of>) -> Answer<Applied> {
    Ok(Json(api.sources.remove(query.path).await?))
}

pub(super) async fn plan(State(api): State<Arc<Api>>, Query(query): Query<Of>) -> Answer<PlanView> {
    let request = query.path.map(|path| SourceRequest {
        path,
        default_stack: query.default_stack.unwrap_or_default(),
        watch: false,
        confirm_removal: query.confirm_removal,
    });
    let view = fresh(&api).await;
    let sources = Arc::clone(&api.sources);
    let mut plan = blocking(move || sources.plan(request, &view.seen.state)).await?;
    let linux = api.linux.clone();
    plan.pulls = weighed(&plan, linux.map(|linux| move |reference: &_| linux.images().weigh(reference))).await;
    Ok(Json(plan))
}

/// The host as it is now rather than up to a resync ago: rings for a look and waits for it.
async fn fresh(api: &Api) -> Arc<View> {
    let mut views = api.views.clone();
    views.mark_unchanged();
    api.bell.notify_one();
    let _ = tokio::time::timeout(FRESH_LOOK_MAX, views.changed()).await;
    Arc::clone(&views.borrow_and_update())
}

pub(super) async fn shutdown(State(api): State<Arc<Api>>) -> Answer<serde_json::Value> {
    api.shutdown.notify_one();
    Ok(Json(serde_json::json!({})))
}
