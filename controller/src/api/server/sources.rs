//! Manifest sources over the socket: put in force, taken back, or only planned.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::Api;
use super::refusal::{Answer, Refusal, blocking};
use crate::api::types::{Applied, PlanView, SourceRequest};

#[derive(Debug, Deserialize)]
pub(super) struct Of {
    path: Option<PathBuf>,
    default_stack: Option<String>,
}

pub(super) async fn apply(State(api): State<Arc<Api>>, Json(request): Json<SourceRequest>) -> Answer<Applied> {
    if !request.path.is_absolute() {
        return Err(Refusal::bad_request(format!("{} is not an absolute path", request.path.display())));
    }
    api.sources.apply(request).await.map(Json).map_err(Refusal::internal)
}

pub(super) async fn remove(State(api): State<Arc<Api>>, Query(query): Query<Of>) -> Answer<Applied> {
    api.sources.remove(query.path).await.map(Json).map_err(Refusal::not_found)
}

pub(super) async fn plan(State(api): State<Arc<Api>>, Query(query): Query<Of>) -> Answer<PlanView> {
    let request = query.path.map(|path| SourceRequest {
        path,
        default_stack: query.default_stack.unwrap_or_default(),
        watch: false,
        confirm_removal: false,
    });
    let (sources, view) = (Arc::clone(&api.sources), api.views.borrow().clone());
    blocking(move || sources.plan(request, &view.seen.state)).await.map(Json)
}

pub(super) async fn shutdown(State(api): State<Arc<Api>>) -> Answer<serde_json::Value> {
    api.shutdown.notify_one();
    Ok(Json(serde_json::json!({})))
}
