//! Exec over the socket: after a protocol change the connection carries frames, see [`ExecFrame`].

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use runtime::id::ContainerId;
use runtime::runtime::{ContainerState, ExecConfig, ExecSession, ExecStdio, ExitStatus};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::Api;
use super::refusal::{Refusal, blocking};
use crate::api::types::{ApiError, EXEC_FRAME_BYTES_MAX, ExecFrame, ExecRequest};
use crate::model::{ObservedPod, Role, by_hand};

/// The protocols' names in the `Upgrade` header.
const PROTOCOL: &str = "boxship-exec";
pub(super) const ATTACH_PROTOCOL: &str = "boxship-attach";

/// Frames waiting for a slow client; then the program's output waits in its pipe.
const FRAMES_MAX: usize = 16;

/// How long output may still come after the program ended (its children may hold the pipe).
const OUTPUT_GRACE: Duration = Duration::from_millis(200);

type Frame = (ExecFrame, Vec<u8>);

pub(super) async fn post(State(api): State<Arc<Api>>, mut request: Request) -> Result<Response, Refusal> {
    if !wants(&request, PROTOCOL) {
        return Err(Refusal::bad_request(format!("exec needs `Upgrade: {PROTOCOL}`")));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let Json(exec) = Json::<ExecRequest>::from_request(request, &())
        .await
        .map_err(|rejection| Refusal::bad_request(rejection.body_text()))?;
    let container = find(&api, &exec)?;
    let runtime = Arc::clone(&api.runtime);
    let begun = blocking(move || begin(&*runtime, &container, &exec)).await??;
    switch(upgrade, begun, PROTOCOL)
}

/// Whether a request asks for a change to this protocol.
pub(super) fn wants(request: &Request, protocol: &str) -> bool {
    request.headers().get(header::UPGRADE).is_some_and(|value| value == protocol)
}

/// Answers with the change of protocol; the frames go on behind it.
pub(super) fn switch(
    upgrade: hyper::upgrade::OnUpgrade,
    begun: Begun,
    protocol: &'static str,
) -> Result<Response, Refusal> {
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let (from, to) = tokio::io::split(TokioIo::new(upgraded));
                carry(begun, from, to).await;
            }
            Err(error) => {
                tracing::debug!(%error, "a client went away");
                (begun.kill)();
            }
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, protocol);
    response.body(Body::empty()).map_err(|e| Refusal::internal(e.to_string()))
}

/// The running container meant: a replica by name, or an object's first one.
fn find(api: &Api, exec: &ExecRequest) -> Result<ContainerId, Refusal> {
    if let (true, Some(linux)) = (exec.stack.is_empty(), &api.linux) {
        return Ok(by_hand::find_container(&linux.container_configs()?, &exec.target)?.id.clone());
    }
    let view = api.views.borrow().clone();
    let in_stack = view.seen.state.containers.iter().filter(|(_, c)| c.replica.workload.stack == exec.stack);
    let running: Vec<_> = in_stack.filter(|(_, c)| c.state == ContainerState::Running).collect();
    let exact = running.iter().find(|(_, c)| c.replica.to_string() == exec.target);
    let first =
        running.iter().filter(|(_, c)| c.replica.workload.name == exec.target).min_by_key(|(_, c)| c.replica.ordinal);
    let found = exact.or(first);
    let none = || Refusal::conflict(format!("no container of {}/{} is running", exec.stack, exec.target));
    let (id, container) = found.ok_or_else(none)?;
    match &container.pod {
        Some(pod) => member(pod, exec),
        None if exec.container.as_ref().is_some_and(|name| *name != container.replica.workload.name) => {
            let what = format!("{} is one container, `{}`", container.replica, container.replica.workload.name);
            Err(Refusal::conflict(what))
        }
        None => Ok((*id).clone()),
    }
}

/// The running container of a pod that has the name; without one the main container.
fn member(pod: &ObservedPod, exec: &ExecRequest) -> Result<ContainerId, Refusal> {
    let main = pod.parts.iter().find(|(role, _)| *role == Role::Main).map(|(_, name)| name);
    let names = || pod.parts.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(", ");
    let name = exec.container.as_ref().or(main).filter(|name| pod.role(name).is_some());
    let Some(name) = name else {
        return Err(Refusal::conflict(format!("the containers of {} are: {}", exec.target, names())));
    };
    let running = pod.newest(name).filter(|(_, member)| member.state == ContainerState::Running);
    let not = || Refusal::conflict(format!("container `{name}` of {}/{} does not run", exec.stack, exec.target));
    running.map(|(id, _)| id.clone()).ok_or_else(not)
}

/// A program under way and its ends of the pipes.
pub(crate) struct Begun {
    pub(crate) session: Box<dyn ExecSession>,
    pub(crate) kill: Box<dyn Fn() + Send + Sync>,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) terminal: Option<OwnedFd>,
    /// Nobody else holds the output open: all of it comes, however slowly it is read.
    pub(crate) ends_with_output: bool,
}

/// Runs a further program in a container.
pub(crate) fn begin(
    runtime: &dyn runtime::Runtime,
    container: &ContainerId,
    exec: &ExecRequest,
) -> runtime::Result<Begun> {
    let config = ExecConfig {
        args: exec.args.clone(),
        env: exec.env.iter().cloned().collect::<BTreeMap<_, _>>(),
        working_dir: exec.working_dir.clone(),
        user: exec.user.clone(),
        tty: exec.tty.is_some(),
    };
    match exec.tty {
        Some(size) => begin_terminal(runtime, container, &config, size),
        None => begin_pipes(runtime, container, &config, exec.stdin),
    }
}

fn begin_terminal(
    runtime: &dyn runtime::Runtime,
    container: &ContainerId,
    config: &ExecConfig,
    (rows, columns): (u16, u16),
) -> runtime::Result<Begun> {
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(|e| runtime::Error::io("copy a terminal", e));
    let mut session = runtime.exec(container, config, ExecStdio::Terminal)?;
    let Some(master) = session.terminal() else {
        return Err(runtime::Error::Unsupported("the exec came without its terminal".to_owned()));
    };
    // A size that cannot be set is no reason not to run.
    let _ = runtime::sys::terminal::set_window_size(&master, rows, columns);
    let kill = session.killer();
    Ok(Begun {
        session,
        kill,
        stdin: Some(copy(&master)?),
        stdout: copy(&master)?,
        stderr: None,
        terminal: Some(master),
        ends_with_output: false,
    })
}

fn begin_pipes(
    runtime: &dyn runtime::Runtime,
    container: &ContainerId,
    config: &ExecConfig,
    wants_stdin: bool,
) -> runtime::Result<Begun> {
    let pipe = || std::io::pipe().map_err(|e| runtime::Error::io("make a pipe", e));
    let (out, out_end) = pipe()?;
    let (err, err_end) = pipe()?;
    let (stdin_end, stdin) = if wants_stdin {
        let (end, stdin) = pipe()?;
        (OwnedFd::from(end), Some(OwnedFd::from(stdin)))
    } else {
        let null = std::fs::File::open("/dev/null").map_err(|e| runtime::Error::io("open /dev/null", e))?;
        (OwnedFd::from(null), None)
    };
    let stdio = ExecStdio::Fds([stdin_end, out_end.into(), err_end.into()]);
    let session = runtime.exec(container, config, stdio)?;
    let kill = session.killer();
    let (stdout, stderr) = (out.into(), Some(err.into()));
    Ok(Begun { session, kill, stdin, stdout, stderr, terminal: None, ends_with_output: false })
}

/// Carries frames until the program ends or the client goes away, which kills the program.
pub(crate) async fn carry(
    begun: Begun,
    from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin,
) {
    let Begun { mut session, kill, stdin, stdout, stderr, terminal, ends_with_output } = begun;
    let (frames, mut outgoing) = mpsc::channel::<Frame>(FRAMES_MAX);
    let mut outputs = vec![send_output(ExecFrame::Stdout, stdout, frames.clone())];
    outputs.extend(stderr.map(|fd| send_output(ExecFrame::Stderr, fd, frames.clone())));
    drop(frames);
    let mut waiting = tokio::task::spawn_blocking(move || session.wait());
    let mut input = tokio::spawn(receive(from, stdin, terminal));
    let mut ended = None;
    // Until the program has ended and what it wrote is out.
    loop {
        tokio::select! {
            frame = outgoing.recv() => match frame {
                Some(frame) if write(&mut to, &frame).await.is_ok() => {}
                Some(_) => return kill(),
                None => break,
            },
            exit = &mut waiting, if ended.is_none() => {
                ended = Some(exit);
                if ends_with_output {
                    continue;
                }
                let outputs = std::mem::take(&mut outputs);
                tokio::spawn(async move {
                    tokio::time::sleep(OUTPUT_GRACE).await;
                    outputs.iter().for_each(tokio::task::JoinHandle::abort);
                });
            }
            gone = &mut input, if !input.is_finished() => {
                // The end of input is a frame; the end of the connection is a client that left.
                if gone.is_ok_and(|left| left) && ended.is_none() {
                    kill();
                }
            }
        }
    }
    let exit = match ended {
        Some(exit) => exit,
        None => (&mut waiting).await,
    };
    input.abort();
    let payload = match exit {
        Ok(Ok(status)) => serde_json::to_vec::<ExitStatus>(&status),
        Ok(Err(error)) => serde_json::to_vec(&ApiError::from(&error)),
        Err(_) => serde_json::to_vec(&ExitStatus::Unknown),
    };
    let _ = write(&mut to, &(ExecFrame::Exit, payload.unwrap_or_default())).await;
    let _ = to.shutdown().await;
}

pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), (kind, payload): &Frame) -> std::io::Result<()> {
    to.write_u8(*kind as u8).await?;
    to.write_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX)).await?;
    to.write_all(payload).await?;
    to.flush().await
}

/// Sends what the program writes.
fn send_output(kind: ExecFrame, fd: OwnedFd, frames: mpsc::Sender<Frame>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        // A terminal is no pipe to the kernel, so reads go through threads for it.
        let mut reader: Box<dyn AsyncRead + Unpin + Send> = match fd.try_clone().map(pipe::Receiver::from_owned_fd) {
            Ok(Ok(pipe)) => Box::new(pipe),
            _ => Box::new(tokio::fs::File::from_std(fd.into())),
        };
        let mut buffer = vec![0; EXEC_FRAME_BYTES_MAX];
        // A terminal whose program is gone reads as an error (EIO): the same as its end.
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            if frames.send((kind, buffer[..read].to_vec())).await.is_err() {
                return;
            }
        }
    })
}

/// Takes the client's frames; true when the connection ended rather than the input.
pub(super) async fn receive(
    mut from: impl AsyncRead + Unpin,
    mut stdin: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
) -> bool {
    loop {
        let (Ok(kind), Ok(len)) = (from.read_u8().await, from.read_u32().await) else { return true };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > EXEC_FRAME_BYTES_MAX {
            return true;
        }
        let mut payload = vec![0; len];
        if from.read_exact(&mut payload).await.is_err() {
            return true;
        }
        match ExecFrame::from_byte(kind) {
            Some(ExecFrame::Stdin) if payload.is_empty() => stdin = None,
            Some(ExecFrame::Stdin) => {
                if let Some(fd) = stdin.take() {
                    stdin = tokio::task::spawn_blocking(move || write_all(&fd, &payload).then_some(fd))
                        .await
                        .ok()
                        .flatten();
                }
            }
            Some(ExecFrame::Resize) => {
                if let (Some(terminal), [a, b, c, d]) = (&terminal, payload.as_slice()) {
                    let (rows, columns) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
                    let _ = runtime::sys::terminal::set_window_size(terminal, rows, columns);
                }
            }
            Some(ExecFrame::Stdout | ExecFrame::Stderr | ExecFrame::Exit) | None => return true,
        }
    }
}

/// Writes everything, waiting for room where the other side of a terminal does not block; false when nobody reads.
fn write_all(fd: &OwnedFd, bytes: &[u8]) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut at = 0;
    while at < bytes.len() {
        match rustix::io::write(fd, &bytes[at..]) {
            Ok(written) => at += written,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let mut fds = [PollFd::new(fd, PollFlags::OUT)];
                let waited = poll(&mut fds, None);
                if waited.is_err() || fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}
