//! Connections: TCP to the first address that answers, TLS with the system's or given authorities, then non-blocking.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::endpoint::Endpoint;
use super::failure::{message, unreachable};
use super::resolve::{NoAddress, Resolver};
use crate::clock;
use crate::error::{Error, Result};
use crate::image::StoreOptions;

/// For all addresses of a host together.
const CONNECT_WAIT_MS: u64 = 5_000;
/// For each read and write of a TLS handshake.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// Where the system's authorities are, on the distributions there are; the first that exists is taken.
const SYSTEM_CA_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Makes connections.
pub(super) struct Connector {
    resolver: Resolver,
    ca_files: Vec<PathBuf>,
    tls: OnceLock<Arc<ClientConfig>>,
    stall_ms: u64,
}

/// An open connection, non-blocking.
pub(super) struct Wire {
    pub(super) stream: Stream,
    pub(super) is_public: bool,
    pub(super) stall_ms: u64,
}

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.sock,
        }
    }
}

impl Connector {
    pub(super) fn new(options: &StoreOptions) -> Self {
        Self {
            resolver: Resolver { hosts_file: options.hosts_file.clone(), resolv_conf: options.resolv_conf.clone() },
            ca_files: options.ca_files.clone(),
            tls: OnceLock::new(),
            stall_ms: options.stall_ms,
        }
    }

    /// Connects. With `only_public` set, an address inside somebody's own network is refused: a public registry has no
    /// business sending us there.
    pub(super) fn connect(&self, to: &Endpoint, only_public: bool) -> Result<Wire> {
        let addresses = self.resolver.resolve(&to.host).map_err(|why| match why {
            NoAddress::Unknown => message("BX0301", format!("no host `{}`", to.host)),
            NoAddress::NoAnswer(why) => unreachable(format!("no address of `{}`: {why}", to.host)),
        })?;
        if only_public && !addresses.iter().all(is_public) {
            let text = format!("a public registry sends us to {to}, which is in a private network");
            return Err(message("BX0301", text));
        }
        let socket = dial(to, &addresses)?;
        let is_public = socket.peer_addr().is_ok_and(|peer| is_public(&peer.ip()));
        let failed = |e: std::io::Error| unreachable(format!("{to}: {e}"));
        socket.set_nodelay(true).map_err(failed)?;
        let stream = if to.is_tls { Stream::Tls(Box::new(self.handshake(to, socket)?)) } else { Stream::Plain(socket) };
        stream.socket().set_nonblocking(true).map_err(failed)?;
        Ok(Wire { stream, is_public, stall_ms: self.stall_ms })
    }

    fn handshake(&self, to: &Endpoint, mut socket: TcpStream) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let failed = |e: std::io::Error| tls_error(to, &e);
        socket.set_read_timeout(Some(HANDSHAKE_WAIT)).map_err(failed)?;
        socket.set_write_timeout(Some(HANDSHAKE_WAIT)).map_err(failed)?;
        let name = ServerName::try_from(to.host.clone())
            .map_err(|_| message("BX0301", format!("`{}` cannot be a server's name", to.host)))?;
        let mut tls = ClientConnection::new(self.tls()?, name).map_err(|e| message("BX0301", format!("{to}: {e}")))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).map_err(failed)?;
        }
        Ok(StreamOwned::new(tls, socket))
    }

    fn tls(&self) -> Result<Arc<ClientConfig>> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let mut roots = system_roots();
        for file in &self.ca_files {
            let certificates = certificates(file).map_err(|e| Error::io(format!("read {}", file.display()), e))?;
            if roots.add_parsable_certificates(certificates).0 == 0 {
                return Err(message("BX0301", format!("{} holds no certificate authority", file.display())));
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| message("BX0301", format!("set up TLS: {e}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }
}

/// The host's authorities; Mozilla's list where the host has none.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let file = named.or_else(|| SYSTEM_CA_FILES.iter().map(PathBuf::from).find(|f| f.exists()));
    if let Some(list) = file.and_then(|f| certificates(&f).ok()) {
        roots.add_parsable_certificates(list);
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn certificates(file: &Path) -> std::io::Result<Vec<CertificateDer<'static>>> {
    let mut reader = std::io::BufReader::new(std::fs::File::open(file)?);
    rustls_pemfile::certs(&mut reader).collect()
}

fn tls_error(to: &Endpoint, error: &std::io::Error) -> Error {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => message(
            "BX0301",
            format!("the certificate of {to} is not trusted ({why:?}); name its authority's PEM file as a CA file"),
        ),
        Some(other) => message("BX0301", format!("{to} does not speak TLS as it should: {other}")),
        None => unreachable(format!("{to}: TLS handshake: {error}")),
    }
}

fn dial(to: &Endpoint, addresses: &[IpAddr]) -> Result<TcpStream> {
    let deadline = clock::boot_ms() + CONNECT_WAIT_MS;
    let mut why = String::from("it has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_sub(clock::boot_ms());
        // a dead address leaves time for the others
        let share = left / (addresses.len() - tried).min(2) as u64;
        if share == 0 {
            break;
        }
        match TcpStream::connect_timeout(&SocketAddr::new(*address, to.port), Duration::from_millis(share)) {
            Ok(socket) => return Ok(socket),
            Err(e) => why = format!("{address}: {e}"),
        }
    }
    Err(unreachable(format!("{to} is not reachable ({why})")))
}

/// Not loopback, private, link-local or shared (RFC 6890).
fn is_public(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let [first, second, ..] = a.octets();
            let shared = first == 100 && (64..128).contains(&second);
            !(a.is_loopback() || a.is_private() || a.is_link_local() || a.is_unspecified() || shared || first == 0)
        }
        IpAddr::V6(a) => match a.to_ipv4_mapped() {
            Some(mapped) => is_public(&IpAddr::V4(mapped)),
            None => !(a.is_loopback() || a.is_unspecified() || a.is_unique_local() || a.is_unicast_link_local()),
        },
    }
}
