//! Containers made by hand over the socket: one request as one value, and a connection attached to one.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest as _, Query, Request, State};
use axum::response::Response;
use runtime::{LinuxRuntime, Result};
use serde::Deserialize;

use super::Api;
use super::exec::{ATTACH_PROTOCOL, Begun, switch, wants};
use super::refusal::{Answer, Refusal, blocking};
use crate::api::types::AttachRequest;
use crate::hand::{self, HandAnswer, HandRequest};

/// Between two looks of a wait that nothing rang for.
const WAIT_LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn act(State(api): State<Arc<Api>>, Json(request): Json<HandRequest>) -> Answer<HandAnswer> {
    let linux = linux(&api)?;
    Ok(Json(blocking(move || hand::perform(&linux, &request)).await??))
}

/// Answers once the container has ended. Holds no thread meanwhile, since whoever asked may have left.
pub(super) async fn wait(State(api): State<Arc<Api>>, Query(which): Query<Which>) -> Answer<HandAnswer> {
    let linux = linux(&api)?;
    let mut views = api.views.clone();
    let request = HandRequest::Ended(which.container);
    loop {
        let (linux, request) = (Arc::clone(&linux), request.clone());
        let answer = blocking(move || hand::perform(&linux, &request)).await??;
        if answer != HandAnswer::Ended(None) {
            return Ok(Json(answer));
        }
        // an exit leads to a look at everything
        let _ = tokio::time::timeout(WAIT_LOOK_EVERY, views.changed()).await;
    }
}

/// Query of a wait.
#[derive(Debug, Deserialize)]
pub(super) struct Which {
    container: String,
}

pub(super) async fn attach(
    State(api): State<Arc<Api>>,
    mut request: Request,
) -> std::result::Result<Response, Refusal> {
    if !wants(&request, ATTACH_PROTOCOL) {
        return Err(Refusal::bad_request(format!("to attach needs `Upgrade: {ATTACH_PROTOCOL}`")));
    }
    let linux = linux(&api)?;
    let upgrade = hyper::upgrade::on(&mut request);
    let Json(wanted) = Json::<AttachRequest>::from_request(request, &())
        .await
        .map_err(|rejection| Refusal::bad_request(rejection.body_text()))?;
    let begun = blocking(move || begin(&linux, &wanted)).await??;
    switch(upgrade, begun, ATTACH_PROTOCOL)
}

/// Attaches to a container, which is started where that is asked for.
pub(crate) fn begin(linux: &LinuxRuntime, wanted: &AttachRequest) -> Result<Begun> {
    let attached = hand::attach_and_start(linux, &wanted.name, wanted.start, wanted.stdin)?;
    let mut session = attached.session;
    let terminal = session.terminal();
    if let (Some(terminal), Some((rows, columns))) = (&terminal, wanted.tty) {
        // A size that cannot be set is no reason not to run.
        let _ = runtime::sys::terminal::set_window_size(terminal, rows, columns);
    }
    let mut outputs = attached.outputs.into_iter();
    let stdout = outputs.next().ok_or_else(|| runtime::Error::Unsupported("nothing to attach to".to_owned()))?;
    let stdin: Option<OwnedFd> = attached.input.filter(|_| wanted.stdin);
    let kill = session.killer();
    Ok(Begun { session, kill, stdin, stdout, stderr: outputs.next(), terminal, ends_with_output: true })
}

fn linux(api: &Api) -> std::result::Result<Arc<LinuxRuntime>, Refusal> {
    api.linux.clone().ok_or_else(|| Refusal::conflict("this controller's runtime makes no containers by hand"))
}
