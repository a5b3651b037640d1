//! Looks into containers over the socket.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::Api;
use super::images::linux;
use super::refusal::{Answer, blocking};
use crate::api::look::{LookAnswer, LookRequest, look};

pub(super) async fn post(State(api): State<Arc<Api>>, Json(request): Json<LookRequest>) -> Answer<LookAnswer> {
    let linux = linux(&api)?;
    Ok(Json(blocking(move || look(&linux, &request)).await??))
}
