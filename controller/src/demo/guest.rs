//! What runs in the demo's containers: this same binary. A web server that says its version and host name, a job that
//! writes a file, and a program that ends too early.

use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::args::GuestArgs;

/// Where the web server listens in its container.
pub(super) const WEB_PORT: u16 = 8080;

/// How long the broken program lives: long enough to be seen in /proc, too short to become ready.
const BROKEN_LIFE: Duration = Duration::from_millis(300);

/// Runs one of the guests.
pub(crate) fn run(args: &GuestArgs) -> ExitCode {
    let words: Vec<&str> = args.args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["web", version] => block_on(web(version)),
        ["job", path] => std::fs::write(path, "seeded\n"),
        ["broken"] => block_on(async {
            tokio::time::sleep(BROKEN_LIFE).await;
            Err(std::io::Error::other("this image is broken on purpose"))
        }),
        ["linger"] => block_on(std::future::pending()),
        _ => Err(std::io::Error::other("web VERSION | job FILE | broken | linger")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("demo guest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn block_on(task: impl Future<Output = std::io::Result<()>>) -> std::io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}

/// Serves until SIGTERM; then the requests under way are answered and no further one is taken.
async fn web(version: &str) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(("0.0.0.0", WEB_PORT)).await?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let answer = format!("{version} {}\n", host.trim());
    anstream::println!("serving version {version} on port {WEB_PORT}");
    let mut serving = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                serving.spawn(serve(stream, answer.clone()));
            },
            Some(_) = serving.join_next() => {}
            _ = terminate.recv() => break,
        }
    }
    drop(listener);
    while serving.join_next().await.is_some() {}
    Ok(())
}

/// One request, one answer; a client that goes away is no error.
async fn serve(mut stream: TcpStream, answer: String) {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.is_empty() {
            break;
        }
    }
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len());
    let _ = writer.write_all((head + &answer).as_bytes()).await;
}
