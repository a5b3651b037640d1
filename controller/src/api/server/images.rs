//! Images over the socket: list, pull with progress, remove.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use runtime::image::{Digest, ImageRef};
use runtime::runtime::{PullPhase, PullProgress, PullRequest};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::Api;
use super::refusal::{Answer, Refusal, blocking};
use crate::api::types::{ApiError, ImageView, LayerStatus, PullLine};
use crate::model::ObjectKey;

/// Lines waiting for a slow reader; further progress is dropped, the result is not.
const LINES_MAX: usize = 256;

#[derive(Debug, Deserialize)]
pub(super) struct Reference {
    #[serde(rename = "ref")]
    reference: String,
}

impl Reference {
    fn parse(&self) -> Result<ImageRef, Refusal> {
        self.reference.parse().map_err(|e: runtime::image::RefError| Refusal::bad_request(e.to_string()))
    }
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Answer<Vec<ImageView>> {
    let runtime = Arc::clone(&api.runtime);
    let images = blocking(move || runtime.list_images()).await??;
    let view = api.views.borrow().clone();
    let used_by = |image: &runtime::runtime::ImageInfo| {
        let containers = view.seen.state.containers.values().filter(|container| container.image == image.digest);
        let mut users: Vec<ObjectKey> = containers.map(|container| container.replica.workload.clone()).collect();
        let declared = view.desired.images.iter().filter(|(_, wanted)| image.references.contains(&wanted.reference));
        users.extend(declared.map(|(key, _)| key.clone()));
        users.sort();
        users.dedup();
        users
    };
    Ok(Json(images.into_iter().map(|image| ImageView { used_by: used_by(&image), image }).collect()))
}

pub(super) async fn remove(State(api): State<Arc<Api>>, Query(query): Query<Reference>) -> Answer<serde_json::Value> {
    let reference = query.parse()?;
    let declared = api
        .views
        .borrow()
        .desired
        .images
        .iter()
        .find(|(_, i)| i.reference == reference)
        .map(|(k, i)| (k.clone(), i.source.clone()));
    if let Some((key, source)) = declared {
        return Err(Refusal::conflict(format!("{reference} is held by {key}, declared in {source}")));
    }
    let runtime = Arc::clone(&api.runtime);
    blocking(move || runtime.remove_image(&reference)).await??;
    api.bell.notify_one();
    Ok(Json(serde_json::json!({})))
}

/// Sends each move of a layer as a line.
struct Lines(mpsc::Sender<PullLine>);

impl PullProgress for Lines {
    fn layer(&self, digest: &Digest, phase: PullPhase, done_bytes: u64, total_bytes: u64) {
        let line = PullLine::Layer(LayerStatus { digest: digest.clone(), phase, done_bytes, total_bytes });
        // A full queue is a slow reader: the next line tells more.
        let _ = self.0.try_send(line);
    }
}

pub(super) async fn pull(State(api): State<Arc<Api>>, Query(query): Query<Reference>) -> Result<Response, Refusal> {
    let request = PullRequest { reference: query.parse()?, refresh: true };
    let (send, lines) = mpsc::channel(LINES_MAX);
    let runtime = Arc::clone(&api.runtime);
    let bell = Arc::clone(&api.bell);
    tokio::task::spawn_blocking(move || {
        let result = runtime.pull_image(&request, &Lines(send.clone()));
        bell.notify_one();
        let last = match result {
            Ok(image) => PullLine::Done(Box::new(image)),
            Err(error) => PullLine::Failed(ApiError::from(&error)),
        };
        let _ = send.blocking_send(last);
    });
    Ok(ndjson(lines))
}

/// Values as lines of JSON, as they come.
pub(super) fn ndjson<T: serde::Serialize + Send + 'static>(values: mpsc::Receiver<T>) -> Response {
    let lines = Stream(values);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(lines)).into_response()
}

/// A response body of lines.
struct Stream<T>(mpsc::Receiver<T>);

impl<T: serde::Serialize + Send + 'static> hyper::body::Body for Stream<T> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|value| {
            let mut line = serde_json::to_vec(&value?).unwrap_or_default();
            line.push(b'\n');
            Some(Ok(hyper::body::Frame::data(Bytes::from(line))))
        })
    }
}
