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
    let (mut from, mut to) = tokio::io::split(stream);
    let _raw = if tty { RawTerminal::enter() } else { None };
    let (frames, mut outgoing) = mpsc::channel::<(ExecFrame, Vec<u8>)>(16);
    if interactive {
        read_stdin(frames.clone());
    }
    if tty {
        follow_window(frames.clone());
    }
    drop(frames);
    tokio::spawn(async move {
        while let Some((kind, payload)) = outgoing.recv().await {
            if to.write_all(&frame(kind, &payload)).await.is_err() {
                break;
            }
        }
        // The write half stays open until the program ends: closing it would end the connection.
        std::future::pending::<()>().await;
    });
    receive(&mut from).await
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

fn frame(kind: ExecFrame, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind as u8];
    let len = u32::try_from(payload.len()).expect("payloads are at most 64 KiB");
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads stdin on a thread of its own: a blocking read cannot be cancelled, and the process ends without it.
fn read_stdin(frames: mpsc::Sender<(ExecFrame, Vec<u8>)>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; EXEC_FRAME_BYTES_MAX];
        loop {
            let count = std::io::stdin().lock().read(&mut buffer).unwrap_or(0);
            if frames.blocking_send((ExecFrame::Stdin, buffer[..count].to_vec())).is_err() || count == 0 {
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
