//! Accepts on the unix socket and logs who connects: the kernel's word on peer pid, uid and gid.

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use tokio::net::{UnixListener, UnixStream, unix};

/// A listener that looks at its peers.
pub(super) struct Peers(pub(super) UnixListener);

impl Listener for Peers {
    type Io = UnixStream;
    type Addr = unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    // Out of descriptors, mostly: others are closed meanwhile.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// Who is at the other end, by the kernel's word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(Option<unix::UCred>);

impl Connected<IncomingStream<'_, Peers>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Peers>) -> Self {
        Self(stream.io().peer_cred().ok())
    }
}

impl Peer {
    /// `uid 1000`, for events.
    pub(super) fn name(self) -> String {
        self.0.map_or_else(|| "somebody".to_owned(), |peer| format!("uid {}", peer.uid()))
    }
}

/// Logs who asks for what: changes always, reads when asked to be loud.
pub(super) async fn log_peer(ConnectInfo(Peer(peer)): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    let (pid, uid, gid) = (peer.and_then(|p| p.pid()), peer.map(|p| p.uid()), peer.map(|p| p.gid()));
    let (method, path) = (request.method(), request.uri().path());
    if method == Method::GET {
        tracing::debug!(pid, uid, gid, %method, path, "asked");
    } else {
        tracing::info!(pid, uid, gid, %method, path, "asked");
    }
    next.run(request).await
}
