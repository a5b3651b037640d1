//! Images over the socket: the list, and everything else as one request with lines of progress.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use runtime::LinuxRuntime;
use runtime::image::Digest;
use runtime::runtime::{ImageInfo, PullPhase, PullProgress};
use tokio::sync::mpsc;

use super::Api;
use super::refusal::{Answer, Refusal, blocking};
use crate::api::images::{self, Declared, ImageAnswer, ImageLine, ImageRequest, SaveRequest};
use crate::api::types::{ApiError, ImageView, LayerStatus};
use crate::model::{ObjectKey, ObservedContainer, needed_images};

/// Lines waiting for a slow reader; further progress is dropped, the result is not.
const LINES_MAX: usize = 256;

pub(super) async fn list(State(api): State<Arc<Api>>) -> Answer<Vec<ImageView>> {
    let linux = linux(&api)?;
    let view = api.views.borrow().clone();
    let objects = move |image: &ImageInfo| {
        let containers = view.seen.state.containers.values().filter(|container| container.image == image.digest);
        let mut users: Vec<ObjectKey> = containers.map(|container| container.replica.workload.clone()).collect();
        let declared = view.desired.images.iter().filter(|(_, wanted)| image.references.contains(&wanted.reference));
        users.extend(declared.map(|(key, _)| key.clone()));
        users.sort();
        users.dedup();
        users
    };
    Ok(Json(blocking(move || images::list(&linux, objects)).await??))
}

/// What manifests name, and where; and what an undo needs.
fn declared(api: &Api) -> Declared {
    let view = api.views.borrow().clone();
    let (desired, state) = (&view.desired, &view.seen.state);
    let images = desired.images.iter().map(|(key, image)| (&image.reference, key, &image.source));
    let users = state.containers.values().flat_map(ObservedContainer::images);
    let (references, digests) = needed_images(desired, &state.images, users, &state.revisions);
    let mut needed = BTreeSet::new();
    for (reference, image) in &state.images {
        let earlier = image.previous.iter().map(|previous| &previous.digest).filter(|digest| digests.contains(digest));
        let now = Some(&image.digest).filter(|digest| references.contains(reference) || digests.contains(digest));
        needed.extend(earlier.chain(now).map(|digest| reference.at(digest.clone())));
    }
    Declared {
        names: images.map(|(name, key, source)| (name.clone(), format!("{key}, declared in {source}"))).collect(),
        needed,
    }
}

pub(super) fn linux(api: &Api) -> Result<Arc<LinuxRuntime>, Refusal> {
    api.linux.clone().ok_or_else(|| Refusal::bad_request("this controller has no image store"))
}

pub(super) async fn act(State(api): State<Arc<Api>>, Json(request): Json<ImageRequest>) -> Result<Response, Refusal> {
    let (send, lines) = mpsc::channel(LINES_MAX);
    let linux = linux(&api)?;
    let bell = Arc::clone(&api.bell);
    let declared = declared(&api);
    let memory = Arc::clone(&api.memory);
    tokio::task::spawn_blocking(move || {
        let result = images::perform(&linux, &declared, &request, &Lines(send.clone()));
        if let (ImageRequest::Pull(name), Ok(ImageAnswer::Held(image))) = (&request, &result)
            && let Ok(reference) = name.parse()
        {
            memory.record_image_checked(&reference, &image.digest);
        }
        bell.notify_one();
        let last = match result {
            Ok(answer) => ImageLine::Done(Box::new(answer)),
            Err(error) => ImageLine::Failed(ApiError::from(&error)),
        };
        let _ = send.blocking_send(last);
    });
    Ok(ndjson(lines))
}

/// Sends each move of a layer as a line.
struct Lines(mpsc::Sender<ImageLine>);

impl PullProgress for Lines {
    fn layer(&self, digest: &Digest, phase: PullPhase, done_bytes: u64, total_bytes: u64) {
        let line = ImageLine::Layer(LayerStatus { digest: digest.clone(), phase, done_bytes, total_bytes });
        // A full queue is a slow reader: the next line tells more.
        let _ = self.0.try_send(line);
    }
}

/// Pieces of an archive waiting for a slow reader.
const PIECES_MAX: usize = 8;
const PIECE_BYTES: usize = 256 << 10;

pub(super) async fn save(State(api): State<Arc<Api>>, Json(request): Json<SaveRequest>) -> Result<Response, Refusal> {
    let linux = linux(&api)?;
    let store = Arc::clone(&linux);
    let chosen = blocking(move || images::to_save(&store, &request.names)).await??;
    let (send, pieces) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let mut out = std::io::BufWriter::with_capacity(PIECE_BYTES, Pieces(send.clone()));
        if let Err(error) = linux.images().save(&chosen, request.format, &mut out) {
            // the answer breaks off, so that nobody takes what came for an archive
            let _ = send.blocking_send(Err(std::io::Error::other(runtime::error::chain(&error))));
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], Body::new(Stream(pieces, |piece| piece))).into_response())
}

/// Writes what is written to it to a reader of the socket.
struct Pieces(mpsc::Sender<std::io::Result<Bytes>>);

impl std::io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Values as lines of JSON, as they come.
pub(super) fn ndjson<T: serde::Serialize + Send + 'static>(values: mpsc::Receiver<T>) -> Response {
    let line = |value: T| {
        let mut line = serde_json::to_vec(&value).unwrap_or_default();
        line.push(b'\n');
        Ok(Bytes::from(line))
    };
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(Stream(values, line))).into_response()
}

/// A response body of values as they come, each made into bytes.
struct Stream<T, F>(mpsc::Receiver<T>, F);

impl<T, F> hyper::body::Body for Stream<T, F>
where
    T: Send + 'static,
    F: Fn(T) -> std::io::Result<Bytes> + Send + Unpin + 'static,
{
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        let value = self.0.poll_recv(context);
        value.map(|value| value.map(|value| (self.1)(value).map(hyper::body::Frame::data)))
    }
}
