//! Accepts on the unix socket and logs who connects: the kernel's word on peer pid, uid and gid.

use axum::serve::Listener;
use tokio::net::{UnixListener, UnixStream, unix};

/// A listener that looks at its peers.
pub(super) struct Peers(pub(super) UnixListener);

impl Listener for Peers {
    type Io = UnixStream;
    type Addr = unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    if let Ok(peer) = stream.peer_cred() {
                        tracing::debug!(pid = peer.pid(), uid = peer.uid(), gid = peer.gid(), "connection");
                    }
                    return (stream, address);
                }
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
