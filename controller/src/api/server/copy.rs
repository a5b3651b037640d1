//! Copies over the socket: after the upgrade, frames in both directions as `exec` has them.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use runtime::LinuxRuntime;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::Api;
use super::exec::{receive, write};
use super::images::linux;
use super::refusal::Refusal;
use crate::api::copy::{CopyAnswer, CopyRequest, copy};
use crate::api::types::{EXEC_FRAME_BYTES_MAX, ExecFrame};

const PROTOCOL: &str = "boxship-copy";
/// Frames waiting for a slow client.
const FRAMES_MAX: usize = 8;
/// How long a client that was answered may take to stop sending: closing before would take the answer with it.
const LAST_WORDS: Duration = Duration::from_secs(10);

type Frame = (ExecFrame, Vec<u8>);

pub(super) async fn post(State(api): State<Arc<Api>>, mut request: Request) -> Result<Response, Refusal> {
    if request.headers().get(header::UPGRADE).is_none_or(|value| value != PROTOCOL) {
        return Err(Refusal::bad_request(format!("a copy needs `Upgrade: {PROTOCOL}`")));
    }
    let linux = linux(&api)?;
    let upgrade = hyper::upgrade::on(&mut request);
    let Json(wanted) = Json::<CopyRequest>::from_request(request, &())
        .await
        .map_err(|rejection| Refusal::bad_request(rejection.body_text()))?;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let (from, to) = tokio::io::split(TokioIo::new(upgraded));
                carry(linux, wanted, from, to).await;
            }
            Err(error) => tracing::debug!(%error, "a copy's client went away"),
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, PROTOCOL);
    response.body(Body::empty()).map_err(|e| Refusal::internal(e.to_string()))
}

async fn carry(
    linux: Arc<LinuxRuntime>,
    wanted: CopyRequest,
    from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin,
) {
    let (frames, mut outgoing) = mpsc::channel::<Frame>(FRAMES_MAX);
    let Ok((mut archive, sink)) = std::io::pipe() else { return };
    let mut input = tokio::spawn(receive(from, Some(OwnedFd::from(sink)), None));
    let working = tokio::task::spawn_blocking(move || {
        let mut out = std::io::BufWriter::with_capacity(EXEC_FRAME_BYTES_MAX, Frames(frames));
        copy(&linux, &wanted, &mut archive, &mut out).unwrap_or_else(CopyAnswer::from)
    });
    while let Some(frame) = outgoing.recv().await {
        if write(&mut to, &frame).await.is_err() {
            // the next frame finds nobody, and that ends the copy
            outgoing.close();
        }
    }
    if let Ok(answer) = working.await {
        let payload = serde_json::to_vec(&answer).unwrap_or_default();
        let _ = write(&mut to, &(ExecFrame::Exit, payload)).await;
    }
    let _ = to.shutdown().await;
    let _ = tokio::time::timeout(LAST_WORDS, &mut input).await;
    input.abort();
}

/// Sends what is written to it as frames.
struct Frames(mpsc::Sender<Frame>);

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let piece = &bytes[..bytes.len().min(EXEC_FRAME_BYTES_MAX)];
        let sent = self.0.blocking_send((ExecFrame::Stdout, piece.to_vec()));
        sent.map(|()| piece.len()).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
