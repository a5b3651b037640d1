//! A small registry of our own on loopback, which can be told to misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use runtime::image::Digest;

use crate::lab::Image;

/// One request as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// One answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Close after this many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Then say nothing more and keep the connection open.
    pub(crate) hang: bool,
    /// Then break the connection instead of closing it.
    pub(crate) reset: bool,
    /// One byte of the body at a time, so many milliseconds apart.
    pub(crate) drip_ms: Option<u64>,
    /// So many bytes of the body a second.
    pub(crate) bytes_per_s: Option<u64>,
    /// Promise so many bytes, whatever there are.
    pub(crate) said: Option<usize>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Hook = Box<dyn Fn(&Asked, Answer) -> Answer + Send + Sync>;

#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, Vec<u8>>,
    tags: BTreeMap<String, Vec<String>>,
    log: Vec<Asked>,
    sent: u64,
}

/// A registry that lives until the test ends.
pub(crate) struct Fake {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        Self::with(|_, answer| answer)
    }

    /// `hook` sees each request with the answer a good registry would give.
    pub(crate) fn with(hook: impl Fn(&Asked, Answer) -> Answer + Send + Sync + 'static) -> Self {
        Self::served(hook, |stream| Some(Box::new(stream) as Box<dyn Duplex>))
    }

    /// The same behind something that wraps each connection: TLS.
    pub(crate) fn served(
        hook: impl Fn(&Asked, Answer) -> Answer + Send + Sync + 'static,
        wrap: impl Fn(TcpStream) -> Option<Box<dyn Duplex>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let (hook, wrap): (Arc<Hook>, _) = (Arc::new(Box::new(hook)), Arc::new(wrap));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, hook, wrap) = (Arc::clone(&shared), Arc::clone(&hook), Arc::clone(&wrap));
                let socket = stream.try_clone().expect("duplicate a socket");
                std::thread::spawn(move || wrap(stream).and_then(|s| serve(s, &socket, &state, &hook).ok()));
            }
        });
        Self { address, state }
    }

    pub(crate) fn push(&self, repository: &str, tag: &str, image: &Image) {
        let mut state = self.state.lock().expect("nobody panics here");
        for blob in image.layers.iter().chain([&image.config]) {
            state.blobs.insert(Digest::of(blob).to_string(), blob.clone());
        }
        for name in [tag.to_owned(), image.digest().to_string()] {
            state.manifests.insert(format!("{repository}/{name}"), image.manifest.clone());
        }
        state.tags.entry(repository.to_owned()).or_default().push(tag.to_owned());
    }

    pub(crate) fn push_index(&self, repository: &str, tag: &str, index: &[u8]) {
        let mut state = self.state.lock().expect("nobody panics here");
        for name in [tag.to_owned(), Digest::of(index).to_string()] {
            state.manifests.insert(format!("{repository}/{name}"), index.to_vec());
        }
    }

    /// Serves other bytes under the digest of `blob`.
    pub(crate) fn spoil(&self, blob: &[u8], bytes: Vec<u8>) {
        self.state.lock().expect("nobody panics here").blobs.insert(Digest::of(blob).to_string(), bytes);
    }

    pub(crate) fn log(&self) -> Vec<Asked> {
        self.state.lock().expect("nobody panics here").log.clone()
    }

    /// Bytes of bodies written so far.
    pub(crate) fn sent(&self) -> u64 {
        self.state.lock().expect("nobody panics here").sent
    }

    pub(crate) fn name(&self, repository_and_tag: &str) -> String {
        format!("{}/{repository_and_tag}", self.address)
    }
}

/// Both directions of a connection.
pub(crate) trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

fn serve(mut stream: Box<dyn Duplex>, socket: &TcpStream, state: &Mutex<State>, hook: &Hook) -> std::io::Result<()> {
    let asked = read_request(&mut stream)?;
    let good = {
        let mut state = state.lock().expect("nobody panics here");
        state.log.push(asked.clone());
        good_answer(&state, &asked)
    };
    let answer = hook(&asked, good);
    let said = answer.said.unwrap_or(answer.body.len());
    write!(stream, "HTTP/1.1 {} X\r\ncontent-length: {said}\r\n", answer.status)?;
    for (name, value) in &answer.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    if asked.method == "HEAD" {
        return stream.flush();
    }
    let body = &answer.body[..answer.cut.unwrap_or(answer.body.len())];
    state.lock().expect("nobody panics here").sent += body.len() as u64;
    match answer.drip_ms {
        None => at_pace(&mut *stream, socket, body, answer.bytes_per_s)?,
        Some(ms) => {
            for byte in body {
                stream.write_all(std::slice::from_ref(byte))?;
                stream.flush()?;
                // until it hangs up, but not longer
                socket.set_read_timeout(Some(std::time::Duration::from_millis(ms)))?;
                if (&*socket).read(&mut [0]).is_ok_and(|n| n == 0) {
                    break;
                }
            }
        }
    }
    stream.flush()?;
    if answer.hang {
        std::io::copy(&mut stream, &mut std::io::sink())?;
    }
    if answer.reset {
        let linger = std::time::Duration::ZERO;
        rustix::net::sockopt::set_socket_linger(socket, Some(linger))?;
    }
    Ok(())
}

/// Ten pieces a second.
fn at_pace(stream: &mut dyn Write, socket: &TcpStream, body: &[u8], bytes_per_s: Option<u64>) -> std::io::Result<()> {
    let Some(rate) = bytes_per_s.and_then(|rate| usize::try_from(rate / 10).ok()) else {
        return stream.write_all(body);
    };
    for piece in body.chunks(rate.max(1)) {
        stream.write_all(piece)?;
        stream.flush()?;
        // until it hangs up, but not longer
        socket.set_read_timeout(Some(std::time::Duration::from_millis(100)))?;
        if (&*socket).read(&mut [0]).is_ok_and(|n| n == 0) {
            break;
        }
    }
    Ok(())
}

fn read_request(stream: &mut impl Read) -> std::io::Result<Asked> {
    let mut reader = BufReader::with_capacity(1, stream);
    let mut asked = Asked::default();
    let mut line = String::new();
    reader.read_line(&mut line)?;
    asked.method = line.split(' ').next().unwrap_or_default().to_owned();
    asked.path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        line.clear();
        if reader.read_line(&mut line)? <= 2 {
            return Ok(asked);
        }
        if let Some((name, value)) = line.trim_end().split_once(": ") {
            asked.headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }
}

fn good_answer(state: &State, asked: &Asked) -> Answer {
    let path = asked.path.strip_prefix("/v2/").unwrap_or_default();
    if !matches!(asked.method.as_str(), "GET" | "HEAD") {
        return Answer::new(403, "");
    }
    if path.is_empty() {
        return Answer::new(200, "{}");
    }
    let missing = |code: &str| Answer::new(404, format!(r#"{{"errors":[{{"code":"{code}","message":"unknown"}}]}}"#));
    if let Some((repository, name)) = path.split_once("/manifests/") {
        return match state.manifests.get(&format!("{repository}/{name}")) {
            Some(bytes) => {
                let is_index = String::from_utf8_lossy(bytes).contains("\"manifests\"");
                let kind = if is_index { "index" } else { "manifest" };
                Answer::new(200, bytes.clone())
                    .with("content-type", format!("application/vnd.oci.image.{kind}.v1+json"))
            }
            None => missing("MANIFEST_UNKNOWN"),
        };
    }
    if let Some((_, digest)) = path.split_once("/blobs/") {
        let Some(bytes) = state.blobs.get(digest) else { return missing("BLOB_UNKNOWN") };
        let range = asked.header("range").strip_prefix("bytes=").and_then(|range| range.split_once('-'));
        let to = range.and_then(|(_, to)| to.parse::<usize>().ok()).map_or(bytes.len(), |last| last + 1);
        let bytes = &bytes[..to.min(bytes.len())];
        let from = range.and_then(|(from, _)| from.parse().ok());
        return match from {
            Some(from) if from < bytes.len() => Answer::new(206, &bytes[from..])
                .with("content-range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
            _ => Answer::new(200, bytes),
        };
    }
    if let Some((repository, _)) = path.split_once("/tags/list") {
        return match state.tags.get(repository) {
            Some(tags) => Answer::new(200, serde_json::json!({"name": repository, "tags": tags}).to_string()),
            None => missing("NAME_UNKNOWN"),
        };
    }
    missing("UNSUPPORTED")
}
