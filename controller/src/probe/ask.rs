//! One try of each kind of probe. The answer to a failed one is a line for people, bounded: it comes from the container.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use runtime::Runtime;
use runtime::error::chain;
use runtime::id::ContainerId;
use runtime::runtime::{ExecConfig, ExecSession, ExecStdio, ExitStatus};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;

use crate::model::HttpWith;

/// Bytes kept of what a probe said.
const OUTPUT_BYTES_MAX: usize = 2 << 10;

/// Bytes read of an HTTP answer.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// How long output may still come after the program of a check has ended (its children may hold the pipe).
const OUTPUT_GRACE: Duration = Duration::from_millis(100);

/// Why a try did not pass, for people.
#[derive(Debug)]
pub(super) enum Miss {
    /// The container's doing.
    Failed(String),
    /// It could not be asked.
    Unasked(String),
}

impl Miss {
    pub(super) fn text(self) -> String {
        match self {
            Self::Failed(text) | Self::Unasked(text) => text,
        }
    }
}

/// A connection is accepted.
pub(super) async fn tcp(address: Option<Ipv4Addr>, port: u16, timeout: Duration) -> Result<(), String> {
    connect(address, port, timeout).await.map(drop)
}

pub(super) async fn connect(address: Option<Ipv4Addr>, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let Some(address) = address else { return Err("it has no address".to_owned()) };
    match tokio::time::timeout(timeout, TcpStream::connect((address, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) => Err(format!("port {port}: {}", e.kind())),
        Err(_) => Err(format!("port {port}: no answer in {} ms", timeout.as_millis())),
    }
}

/// The answer's status is 200 to 399.
pub(super) async fn http(
    address: Option<Ipv4Addr>,
    port: u16,
    path: &str,
    with: &HttpWith,
    timeout: Duration,
) -> Result<(), String> {
    let exchange = async {
        let mut stream = connect(address, port, timeout).await?;
        let request = request(address.unwrap_or(Ipv4Addr::LOCALHOST), port, path, with);
        let broken = |e: std::io::Error| format!("GET :{port}{path}: {}", e.kind());
        let mut answer = Vec::new();
        if with.tls {
            let asked = tokio::task::spawn_blocking({
                let stream = stream.into_std().map_err(broken)?;
                move || runtime::tls::ask_anybody(stream, request.as_bytes(), ANSWER_BYTES_MAX, timeout)
            });
            let asked = asked.await.map_err(|_| "the check broke".to_owned())?;
            answer = asked.map_err(|e| format!("GET :{port}{path}: {e}"))?;
        } else {
            stream.write_all(request.as_bytes()).await.map_err(broken)?;
            stream.take(ANSWER_BYTES_MAX as u64).read_to_end(&mut answer).await.map_err(broken)?;
        }
        judge(&answer).map_err(|said| format!("GET :{port}{path}: {said}"))
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(result) => result,
        Err(_) => Err(format!("GET :{port}{path}: no answer in {} ms", timeout.as_millis())),
    }
}

/// What is sent. Header lines were checked where they were read.
fn request(host: Ipv4Addr, port: u16, path: &str, with: &HttpWith) -> String {
    let is_given = |name: &str| with.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    let mut request = format!("GET {path} HTTP/1.1\r\n");
    for (name, value) in
        [("host", format!("{host}:{port}")), ("user-agent", "boxship-probe".to_owned()), ("accept", "*/*".to_owned())]
    {
        if !is_given(name) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    for (name, value) in &with.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("connection: close\r\n\r\n");
    request
}

fn judge(answer: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(answer);
    let status_line = text.lines().next().unwrap_or_default();
    let code = status_line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse::<u16>().ok());
    match code {
        Some(200..=399) => Ok(()),
        Some(code) => {
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let body = clean(body.lines().next().unwrap_or_default().as_bytes());
            Err(if body.is_empty() { format!("status {code}") } else { format!("status {code}: {body}") })
        }
        None => Err("the answer is not HTTP".to_owned()),
    }
}

/// A program run in the container ends with 0. Past its deadline it is killed.
pub(super) async fn exec(
    runtime: Arc<dyn Runtime>,
    id: ContainerId,
    args: Vec<String>,
    timeout: Duration,
) -> Result<(), Miss> {
    let pipes = |e: std::io::Error| Miss::Unasked(format!("make a pipe: {e}"));
    let broke = || Miss::Unasked("the check broke".to_owned());
    let (reader, writer) = std::io::pipe().map_err(pipes)?;
    let mut reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(pipes)?;
    let begun = tokio::task::spawn_blocking(move || begin(&*runtime, &id, args, OwnedFd::from(writer)));
    let mut session = begun.await.map_err(|_| broke())??;
    let kill = session.killer();
    let mut waiting = tokio::task::spawn_blocking(move || session.wait());
    let mut output = Vec::new();
    let ended = {
        let read = collect(&mut reader, &mut output);
        let deadline = tokio::time::sleep(timeout);
        tokio::pin!(read, deadline);
        let ended = tokio::select! {
            ended = &mut waiting => Some(ended),
            () = &mut deadline => None,
            // The reader only ends with the pipe, long after the program in the worst case.
            () = &mut read => tokio::select! {
                ended = &mut waiting => Some(ended),
                () = &mut deadline => None,
            },
        };
        ended
    };
    let Some(ended) = ended else {
        kill();
        let _ = waiting.await;
        return Err(failed(format!("no result in {} ms", timeout.as_millis()), &output));
    };
    let _ = tokio::time::timeout(OUTPUT_GRACE, collect(&mut reader, &mut output)).await;
    match ended {
        Ok(Ok(ExitStatus::Code(0))) => Ok(()),
        Ok(Ok(exit)) => Err(failed(exit.to_string(), &output)),
        Ok(Err(error)) => Err(Miss::Unasked(chain(&error))),
        Err(_) => Err(broke()),
    }
}

fn begin(
    runtime: &dyn Runtime,
    id: &ContainerId,
    args: Vec<String>,
    output: OwnedFd,
) -> Result<Box<dyn ExecSession>, Miss> {
    let null = File::open("/dev/null").map_err(|e| Miss::Unasked(format!("open /dev/null: {e}")))?;
    let error = output.try_clone().map_err(|e| Miss::Unasked(format!("duplicate a pipe: {e}")))?;
    let config = ExecConfig { args, env: Default::default(), working_dir: None, user: None, tty: false };
    let begun = runtime.exec(id, &config, ExecStdio::Fds([null.into(), output, error]));
    begun.map_err(|error| match error {
        runtime::Error::BadContainer(_) => Miss::Failed(chain(&error)),
        // The container is ending, or the supervisor is away.
        _ => Miss::Unasked(chain(&error)),
    })
}

/// Reads to the end, keeping the first bytes and draining the rest.
async fn collect(reader: &mut pipe::Receiver, output: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = reader.read(&mut buffer).await {
        let keep = read.min(OUTPUT_BYTES_MAX.saturating_sub(output.len()));
        output.extend_from_slice(&buffer[..keep]);
    }
}

fn failed(what: String, output: &[u8]) -> Miss {
    let said = clean(output);
    Miss::Failed(if said.is_empty() { what } else { format!("{what}: {said}") })
}

/// Text from inside a container, for a terminal: no control characters, one line.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(OUTPUT_BYTES_MAX)]);
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_said_and_a_host_of_ones_own_replaces_the_address() {
        let with =
            HttpWith { tls: false, headers: vec![("Host".into(), "shop.example".into()), ("X-A".into(), "1".into())] };
        assert_eq!(
            request(Ipv4Addr::LOCALHOST, 80, "/h?x", &with),
            "GET /h?x HTTP/1.1\r\nuser-agent: boxship-probe\r\naccept: */*\r\nHost: shop.example\r\nX-A: 1\r\nconnection: close\r\n\r\n"
        );
        assert!(request(Ipv4Addr::LOCALHOST, 80, "/", &HttpWith::default()).contains("host: 127.0.0.1:80\r\n"));
    }

    #[test]
    fn answers_are_judged_by_their_status() {
        assert_eq!(judge(b"HTTP/1.1 204 No Content\r\n\r\n"), Ok(()));
        assert_eq!(judge(b"HTTP/1.0 302 Found\r\n\r\n"), Ok(()));
        assert_eq!(
            judge(b"HTTP/1.1 503 x\r\na: b\r\n\r\nno\x1b[31m db\nmore"),
            Err("status 503: no [31m db".to_owned())
        );
        assert_eq!(judge(b"SSH-2.0"), Err("the answer is not HTTP".to_owned()));
        assert_eq!(judge(b""), Err("the answer is not HTTP".to_owned()));
    }
}
