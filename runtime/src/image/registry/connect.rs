//! Connections: TCP to the first address that answers, TLS with the system's or given authorities, then non-blocking.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::endpoint::Endpoint;
use super::failure::{message, unreachable};
use super::proxy::{Proxies, Proxy};
use super::resolve::{NoAddress, Resolver};
use crate::clock;
use crate::error::{Error, Result};
use crate::image::StoreOptions;
use crate::image::store::lock;

mod certs;

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
    certs_dirs: Vec<PathBuf>,
    proxies: Proxies,
    /// By the directory names of an origin: each may have authorities of its own.
    tls: Mutex<BTreeMap<String, Arc<ClientConfig>>>,
    stall_ms: u64,
}

/// An open connection, non-blocking.
pub(super) struct Wire {
    pub(super) stream: Stream,
    pub(super) is_public: bool,
    pub(super) stall_ms: u64,
    /// Plain HTTP goes to a proxy, which is told the whole address.
    pub(super) proxy: Option<Proxy>,
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
            certs_dirs: options.certs_dirs.clone(),
            proxies: options.proxies.clone().unwrap_or_else(Proxies::from_env),
            tls: Mutex::default(),
            stall_ms: options.stall_ms,
        }
    }

    /// Connects. With `only_public` set, an address inside somebody's own network is refused: a public registry has no
    /// business sending us there.
    pub(super) fn connect(&self, to: &Endpoint, only_public: bool) -> Result<Wire> {
        let failed = |e: std::io::Error| unreachable(format!("{to}: {e}"));
        let proxy = self.proxies.of(to)?;
        // a proxy looks the name up, and decides where it lets us go
        let at = proxy.as_ref().map_or(to, |proxy| &proxy.endpoint);
        let addresses = self.resolver.resolve(&at.host).map_err(|why| match why {
            NoAddress::Unknown => message("BX0301", format!("no host `{}`", at.host)),
            NoAddress::NoAnswer(why) => unreachable(format!("no address of `{}`: {why}", at.host)),
        })?;
        if only_public && proxy.is_none() && !addresses.iter().all(is_public) {
            let text = format!("a public registry sends us to {to}, which is in a private network");
            return Err(message("BX0301", text));
        }
        let mut socket = dial(at, &addresses)?;
        let is_public = proxy.is_none() && socket.peer_addr().is_ok_and(|peer| is_public(&peer.ip()));
        socket.set_nodelay(true).map_err(failed)?;
        socket.set_read_timeout(Some(HANDSHAKE_WAIT)).map_err(failed)?;
        socket.set_write_timeout(Some(HANDSHAKE_WAIT)).map_err(failed)?;
        if to.is_tls
            && let Some(proxy) = &proxy
        {
            super::proxy::tunnel(&mut socket, proxy, to)?;
        }
        let stream = if to.is_tls { Stream::Tls(Box::new(self.handshake(to, socket)?)) } else { Stream::Plain(socket) };
        stream.socket().set_nonblocking(true).map_err(failed)?;
        Ok(Wire { stream, is_public, stall_ms: self.stall_ms, proxy: proxy.filter(|_| !to.is_tls) })
    }

    fn handshake(&self, to: &Endpoint, mut socket: TcpStream) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let failed = |e: std::io::Error| tls_error(to, &e);
        let name = ServerName::try_from(to.host.clone())
            .map_err(|_| message("BX0301", format!("`{}` cannot be a server's name", to.host)))?;
        let mut tls =
            ClientConnection::new(self.tls(to)?, name).map_err(|e| message("BX0301", format!("{to}: {e}")))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).map_err(failed)?;
        }
        Ok(StreamOwned::new(tls, socket))
    }

    fn tls(&self, to: &Endpoint) -> Result<Arc<ClientConfig>> {
        let key = to.authority();
        if let Some(config) = lock(&self.tls).get(&key) {
            return Ok(Arc::clone(config));
        }
        let own = certs::Own::of(&self.certs_dirs, to)?;
        let mut roots = system_roots();
        for file in self.ca_files.iter().chain(&own.authorities) {
            let certificates = certs::read(file)?;
            if roots.add_parsable_certificates(certificates).0 == 0 {
                return Err(message("BX0301", format!("{} holds no certificate authority", file.display())));
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| message("BX0301", format!("set up TLS: {e}")))?
            .with_root_certificates(roots);
        let config = match own.client {
            None => config.with_no_client_auth(),
            Some((chain, key)) => config
                .with_client_auth_cert(chain, key)
                .map_err(|e| message("BX0304", format!("the client certificate for {to} cannot be used: {e}")))?,
        };
        let config = Arc::new(config);
        lock(&self.tls).insert(key, Arc::clone(&config));
        Ok(config)
    }
}

/// The host's authorities; Mozilla's list where the host has none.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let file = named.or_else(|| SYSTEM_CA_FILES.iter().map(PathBuf::from).find(|f| f.exists()));
    if let Some(list) = file.and_then(|f| certs::read(&f).ok()) {
        roots.add_parsable_certificates(list);
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
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
