//! `exec`: a further program in a running container, with or without a terminal.

use std::io::Read as _;
use std::process::ExitCode;

use runtime::runtime::{ContainerConfig, ExitStatus};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::args::ExecArgs;
use super::context::{Context, Failure};
use super::hand;
use super::image::desk::Desk;
use super::terminal::{RawTerminal, window_size};
use crate::api::client::ClientError;
use crate::api::server::begin_exec;
use crate::api::types::{ApiError, EXEC_FRAME_BYTES_MAX, ExecFrame, ExecRequest};
use crate::model::by_hand;

/// How long leaving waits for what was typed to be passed on.
const HANG_UP: std::time::Duration = std::time::Duration::from_secs(5);

pub(super) async fn run(context: &Context, args: &ExecArgs) -> Result<ExitCode, Failure> {
    let status = match context.status().await {
        Err(Failure::Client(ClientError::NotRunning { .. })) => return run_here(context, args).await,
        other => other?,
    };
    let request = match context.find(&status, &args.what) {
        Ok((object, replica)) => request(args, &object.key.stack, replica.unwrap_or_else(|| object.key.name.clone())),
        // perhaps one made by hand
        Err(failure) => {
            let desk = hand::open(context, "exec").await?;
            let known = hand::is_known(&desk, &args.what).await?;
            known.then(|| request(args, "", args.what.clone())).ok_or(failure)?
        }
    };
    let stream = context.client.upgrade("/v1/exec", "boxship-exec", &request).await?;
    converse(stream, args.tty, args.interactive).await
}

/// Without a controller: by the supervisor that containers made by hand have.
async fn run_here(context: &Context, args: &ExecArgs) -> Result<ExitCode, Failure> {
    let desk = hand::open(context, "exec").await?;
    let begun = match &desk {
        // it has just started
        Desk::Controller(_) => return Box::pin(run(context, args)).await,
        Desk::Here { linux, .. } => {
            let begin = |config: &ContainerConfig| begin_exec(&**linux, &config.id, &request(args, "", String::new()));
            by_hand::find_container(&linux.container_configs()?, &args.what).cloned().and_then(|config| begin(&config))
        }
    };
    if begun.is_err() {
        hand::close(context, desk);
    } else {
        drop(desk);
    }
    converse(hand::local(begun?), args.tty, args.interactive).await
}

fn request(args: &ExecArgs, stack: &str, target: String) -> ExecRequest {
    ExecRequest {
        stack: stack.to_owned(),
        target,
        args: args.command.clone(),
        tty: args.tty.then(window_size),
        stdin: args.interactive,
        container: args.container.clone(),
        user: args.user.clone(),
        working_dir: args.workdir.clone(),
        env: args.env.iter().map(|e| split_env(e)).collect(),
    }
}

/// Talks to a program in frames until it ends: its output, its end, and where wanted stdin and the terminal's size.
pub(super) async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    tty: bool,
    interactive: bool,
) -> Result<ExitCode, Failure> {
    converse_until(stream, tty, interactive, Vec::new()).await
}

/// The same, until these keys were typed one after the other: then the program is left to itself.
pub(super) async fn converse_until(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    tty: bool,
    interactive: bool,
    keys: Vec<u8>,
) -> Result<ExitCode, Failure> {
    let (mut from, mut to) = tokio::io::split(stream);
    let _raw = if tty { RawTerminal::enter() } else { None };
    let (frames, mut outgoing) = mpsc::channel::<(ExecFrame, Vec<u8>)>(16);
    if interactive {
        read_stdin(frames.clone(), Keys::new(keys));
    }
    if tty {
        follow_window(frames.clone());
    }
    drop(frames);
    let mut sending = tokio::spawn(async move {
        while let Some((kind, payload)) = outgoing.recv().await {
            // the sign to leave comes behind everything that was typed before
            if kind == ExecFrame::Exit {
                let _ = to.shutdown().await;
                return;
            }
            if to.write_all(&frame(kind, &payload)).await.is_err() {
                break;
            }
        }
        // The write half stays open until the program ends: closing it would end the connection.
        std::future::pending::<()>().await;
    });
    let mut receiving = std::pin::pin!(receive(&mut from));
    let ended = tokio::select! {
        ended = &mut receiving => ended,
        _ = &mut sending => {
            // the other side hangs up when it has passed on what was typed before the keys; it may be this very process
            let _ = tokio::time::timeout(HANG_UP, receiving).await;
            Ok(ExitCode::SUCCESS)
        }
    };
    sending.abort();
    ended
}

/// Keys that are looked for in what is typed.
struct Keys {
    wanted: Vec<u8>,
    seen: usize,
}

impl Keys {
    fn new(wanted: Vec<u8>) -> Self {
        Self { wanted, seen: 0 }
    }

    /// What of these bytes goes on, and whether the keys are complete. The first keys wait until it is clear what they are.
    fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut on = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.wanted.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == self.wanted.len() {
                    return (on, true);
                }
                continue;
            }
            on.extend_from_slice(&self.wanted[..self.seen]);
            self.seen = usize::from(self.wanted.first() == Some(byte) && self.wanted.len() > 1);
            if self.seen == 0 {
                on.push(*byte);
            }
        }
        (on, false)
    }
}

async fn receive(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<ExitCode, Failure> {
    let broken = |e: std::io::Error| Failure::Client(ClientError::Broken(e.to_string()));
    loop {
        let kind = from.read_u8().await.map_err(broken)?;
        let len = from.read_u32().await.map_err(broken)? as usize;
        if len > EXEC_FRAME_BYTES_MAX {
            return Err(Failure::Client(ClientError::Broken(format!("a frame of {len} bytes"))));
        }
        let mut payload = vec![0; len];
        from.read_exact(&mut payload).await.map_err(broken)?;
        match ExecFrame::from_byte(kind) {
            Some(ExecFrame::Stdout) => write_all(&mut std::io::stdout().lock(), &payload),
            Some(ExecFrame::Stderr) => write_all(&mut std::io::stderr().lock(), &payload),
            Some(ExecFrame::Exit) => return ended(&payload),
            Some(ExecFrame::Stdin | ExecFrame::Resize) | None => {
                return Err(Failure::Client(ClientError::Broken(format!("a frame of kind {kind}"))));
            }
        }
    }
}

/// A reader that went away (`| head`) is no error of ours.
fn write_all(out: &mut impl std::io::Write, bytes: &[u8]) {
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// The program's own code; 128 + signal; 137 for memory as a shell would see it.
fn ended(payload: &[u8]) -> Result<ExitCode, Failure> {
    if let Ok(exit) = serde_json::from_slice::<ExitStatus>(payload) {
        return Ok(ExitCode::from(crate::hand::shell_code(exit)));
    }
    let error = serde_json::from_slice::<ApiError>(payload)
        .map_err(|e| Failure::Client(ClientError::Broken(format!("not an exit status: {e}"))))?;
    Err(Failure::Other(error))
}

pub(super) fn frame(kind: ExecFrame, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind as u8];
    let len = u32::try_from(payload.len()).expect("payloads are at most 64 KiB");
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads stdin on a thread of its own: a blocking read cannot be cancelled, and the process ends without it.
fn read_stdin(frames: mpsc::Sender<(ExecFrame, Vec<u8>)>, mut keys: Keys) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; EXEC_FRAME_BYTES_MAX];
        loop {
            let count = std::io::stdin().lock().read(&mut buffer).unwrap_or(0);
            let (bytes, is_left) = keys.pass(&buffer[..count]);
            // an empty frame would be the end of input
            let sent = bytes.is_empty() && count > 0 || frames.blocking_send((ExecFrame::Stdin, bytes)).is_ok();
            if is_left {
                let _ = frames.blocking_send((ExecFrame::Exit, Vec::new()));
            }
            if !sent || is_left || count == 0 {
                return;
            }
        }
    });
}

fn follow_window(frames: mpsc::Sender<(ExecFrame, Vec<u8>)>) {
    tokio::spawn(async move {
        let Ok(mut changes) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change()) else {
            return;
        };
        while changes.recv().await.is_some() {
            let (rows, columns) = window_size();
            let payload = [rows.to_be_bytes(), columns.to_be_bytes()].concat();
            if frames.send((ExecFrame::Resize, payload)).await.is_err() {
                return;
            }
        }
    });
}

fn split_env(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_across_reads_and_nothing_else_is_lost() {
        let mut keys = Keys::new(vec![16, 17]);
        assert_eq!(keys.pass(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.pass(b"c"), (b"\x10c".to_vec(), false), "it was something else");
        assert_eq!(keys.pass(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.pass(b"\x11rest"), (Vec::new(), true));
        let mut none = Keys::new(Vec::new());
        assert_eq!(none.pass(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
        let mut one = Keys::new(vec![b'q']);
        assert_eq!(one.pass(b"aq"), (b"a".to_vec(), true));
    }
}
