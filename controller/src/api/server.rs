//! The controller's side of the socket: each route reads a value that is already there, or hands a request on.
//!
//! Reads never wait for a pass, a pull or a container: they answer from the last pass. Knows no policy.

mod containers;
mod copy;
mod exec;
mod images;
mod listener;
mod logs;
mod look;
mod objects;
mod refusal;
mod sources;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use runtime::layout::Layout;
use runtime::{LinuxRuntime, Runtime};
use tokio::net::UnixListener;
use tokio::sync::{Notify, watch};

pub(crate) use containers::begin as begin_attach;
pub(crate) use exec::{Begun, begin as begin_exec, carry};
pub(crate) use logs::{Following, one_container};
pub(crate) use status::publish;

use super::types::Status;
use crate::execute::Executor;
use crate::memory::Memory;
use crate::probe::Probes;
use crate::reconcile::View;
use crate::sources::Sources;

/// What the routes read and hand on to.
pub struct Api {
    /// Where things are.
    pub layout: Layout,
    /// For execs and log paths.
    pub runtime: Arc<dyn Runtime>,
    /// For images; `None` above a runtime without a store of its own.
    pub linux: Option<Arc<LinuxRuntime>>,
    /// For events.
    pub memory: Arc<Memory>,
    /// For pulls on their way.
    pub executor: Arc<Executor>,
    /// For what probes said.
    pub probes: Arc<Probes>,
    /// The last pass.
    pub views: watch::Receiver<Arc<View>>,
    /// The page made of it.
    pub status: watch::Receiver<Arc<Status>>,
    /// Where manifests come from.
    pub sources: Arc<Sources>,
    /// Asks the loop for a look.
    pub bell: Arc<Notify>,
    /// Rung by `POST /v1/shutdown`.
    pub shutdown: Arc<Notify>,
}

/// Serves until `stop` turns true; requests under way then are cut.
pub async fn serve(api: Arc<Api>, socket: UnixListener, mut stop: watch::Receiver<bool>) {
    let router = Router::new()
        .route("/v1/status", get(status::get))
        .route("/v1/events", get(status::events))
        .route("/v1/plan", get(sources::plan))
        .route("/v1/sources", post(sources::apply).delete(sources::remove))
        .route("/v1/objects/{stack}/{kind}/{name}", get(objects::describe).delete(objects::remove))
        .route("/v1/objects/{stack}/{kind}/{name}/order", post(objects::order))
        .route("/v1/logs", get(logs::get))
        .route("/v1/exec", post(exec::post))
        .route("/v1/containers", post(containers::act))
        .route("/v1/containers/wait", get(containers::wait))
        .route("/v1/containers/attach", post(containers::attach))
        .route("/v1/images", get(images::list).post(images::act))
        .route("/v1/images/save", post(images::save))
        .route("/v1/copy", post(copy::post))
        .route("/v1/look", post(look::post))
        .route("/v1/shutdown", post(sources::shutdown))
        .fallback(refusal::no_such_path)
        .layer(axum::middleware::from_fn(listener::log_peer))
        .with_state(api);
    let router = router.into_make_service_with_connect_info::<listener::Peer>();
    let serving = axum::serve(listener::Peers(socket), router);
    tokio::select! {
        ended = serving => if let Err(error) = ended { tracing::error!(%error, "the API ended") },
        _ = stop.wait_for(|stop| *stop) => {}
    }
}
