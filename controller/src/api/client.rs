//! The CLI's side of the socket: one connection a request, JSON in and out, lines for streams.
//!
//! Knows nothing of the rooms behind the socket.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::types::ApiError;

/// Longest answer read whole, in bytes: the status of 1,000 replicas is about 1 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Talks to one controller.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("no controller answers on {socket}")]
    NotRunning {
        /// The socket tried.
        socket: PathBuf,
    },
    /// Somebody may listen, but not to this user.
    #[error("permission denied on {socket}: it is for root and its group")]
    Denied {
        /// The socket tried.
        socket: PathBuf,
    },
    /// The connection broke in the middle.
    #[error("the controller's answer broke off: {0}")]
    Broken(String),
    /// The controller said no.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, ClientError>;

impl Client {
    /// A client of the controller that listens on this socket; connects at each request.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket's path.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks with GET.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Asks with POST and a JSON body.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.ask(Method::POST, path, json(body)?).await
    }

    /// Asks with DELETE.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::DELETE, path, Bytes::new()).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T> {
        let response = self.send(method, path, body, None).await?;
        parse(&whole(response).await?)
    }

    /// Asks and hands each line of the answer to `each` as it comes, until the end or until it returns `false`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lines<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        each: impl FnMut(T) -> bool,
    ) -> Result<()> {
        read_lines(self.send(method, path, Bytes::new(), None).await?, each).await
    }

    /// The same with POST and a JSON body.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        each: impl FnMut(T) -> bool,
    ) -> Result<()> {
        read_lines(self.send(Method::POST, path, json(body)?, None).await?, each).await
    }

    /// Asks with POST and a JSON body and hands on the bytes of the answer as they come.
    ///
    /// # Errors
    /// See [`ClientError`]; `Broken` also when `each` fails.
    pub async fn download(
        &self,
        path: &str,
        body: &impl Serialize,
        mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<()> {
        let mut body = self.send(Method::POST, path, json(body)?, None).await?.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| ClientError::Broken(e.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            each(&data).map_err(|e| ClientError::Broken(format!("it could not be written: {e}")))?;
        }
        Ok(())
    }

    /// Asks for a protocol change and returns the raw stream.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upgrade(
        &self,
        path: &str,
        protocol: &'static str,
        body: &impl Serialize,
    ) -> Result<TokioIo<hyper::upgrade::Upgraded>> {
        let response = self.send(Method::POST, path, json(body)?, Some(protocol)).await?;
        let upgraded = hyper::upgrade::on(response).await.map_err(|e| ClientError::Broken(e.to_string()))?;
        Ok(TokioIo::new(upgraded))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        upgrade: Option<&'static str>,
    ) -> Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => ClientError::Denied { socket: self.socket.clone() },
            _ => ClientError::NotRunning { socket: self.socket.clone() },
        })?;
        let broken = |e: hyper::Error| ClientError::Broken(e.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder().method(method).uri(path).header("host", "boxship");
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(protocol) = upgrade {
            request = request.header("connection", "upgrade").header("upgrade", protocol);
        }
        let request = request.body(Full::new(body)).map_err(|e| ClientError::Broken(e.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let wanted = if upgrade.is_some() { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::OK };
        if response.status() == wanted {
            return Ok(response);
        }
        let status = response.status();
        let body = whole(response).await?;
        Err(ClientError::Api(serde_json::from_slice(&body).unwrap_or_else(|_| ApiError {
            code: "BX0900".to_owned(),
            message: format!("the controller answered {status}: {}", String::from_utf8_lossy(&body)),
            help: None,
        })))
    }
}

async fn read_lines<T: DeserializeOwned>(response: Response<Incoming>, mut each: impl FnMut(T) -> bool) -> Result<()> {
    let mut body = response.into_body();
    let mut pending: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ClientError::Broken(e.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            if !each(parse(&line)?) {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn json(body: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|e| ClientError::Broken(e.to_string()))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| ClientError::Broken(format!("not the JSON expected: {e}")))
}

async fn whole(response: Response<Incoming>) -> Result<Vec<u8>> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ClientError::Broken(e.to_string()))?;
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(ClientError::Broken(format!("longer than {ANSWER_BYTES_MAX} bytes")));
        }
    }
    Ok(bytes)
}

/// Percent-encodes a query value (RFC 3986 §2.1).
#[must_use]
pub fn query(value: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b':') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes every write");
        }
    }
    out
}
