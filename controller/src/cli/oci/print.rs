//! What the verbs of `boxship oci` print.

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime::error::Doing as _;
use runtime::oci::{self, Container, Runtime, Status};
use runtime::{Error, Result};
use serde_json::{Value, json};

use super::args::Format;

/// One document.
pub(super) fn json(value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    line(&text)
}

fn line(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").doing(|| "print")
}

/// The state document, with what runc adds to it.
pub(super) fn state(container: &Container) -> Result<()> {
    let mut state: Value = serde_json::from_str(&container.state()).unwrap_or_default();
    state["rootfs"] = json!(rootfs(container));
    state["created"] = json!(created(container));
    state["owner"] = json!("");
    json(&state)
}

fn rootfs(container: &Container) -> String {
    let root = container.spec().root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
    container.bundle().join(root).to_string_lossy().into_owned()
}

fn created(container: &Container) -> String {
    time(container.created_unix_ms())
}

/// Milliseconds since 1970 by RFC 3339.
pub(super) fn time(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or_default();
    jiff::Timestamp::from_millisecond(ms).map(|time| time.to_string()).unwrap_or_default()
}

/// All containers.
pub(super) fn list(containers: &[Container], format: Format, quiet: bool) -> Result<()> {
    if quiet {
        return containers.iter().try_for_each(|container| line(container.id()));
    }
    if format == Format::Json {
        let list: Vec<Value> = containers
            .iter()
            .map(|container| {
                let mut state: Value = serde_json::from_str(&container.state()).unwrap_or_default();
                state["created"] = json!(created(container));
                state["owner"] = json!("root");
                state
            })
            .collect();
        return line(&Value::from(list).to_string());
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(containers.iter().map(|container| {
        let pid = container.pid().unwrap_or(0).to_string();
        let bundle = container.bundle().to_string_lossy().into_owned();
        let status = container.status().as_str().to_owned();
        [container.id().to_owned(), pid, status, bundle, created(container), "root".to_owned()]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        line(cells.join("   ").trim_end())?;
    }
    Ok(())
}

/// The lines of ps(1) that are about these processes.
pub(super) fn processes(pids: &[i32], format: Format, args: &[String]) -> Result<()> {
    if format == Format::Json {
        return line(&json!(pids).to_string());
    }
    let default = ["-ef".to_owned()];
    let args = if args.is_empty() { &default[..] } else { args };
    let output = Command::new("ps").args(args).output().doing(|| "run ps")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Unsupported(format!("ps {} failed: {said}", args.join(" "))));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let Some(column) = head.split_whitespace().position(|name| name == "PID") else {
        return Err(Error::Unsupported(format!("ps {} prints no column PID", args.join(" "))));
    };
    line(head)?;
    let is_ours = |text: &&str| {
        let pid = text.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    lines.filter(is_ours).try_for_each(line)
}

/// What a container uses, now or again and again until it ends.
pub(super) fn events(runtime: &Runtime, id: &str, once: bool, interval: Duration) -> Result<()> {
    loop {
        let container = runtime.container(id)?;
        if container.status() == Status::Stopped {
            return Err(Error::Conflict(format!("container `{id}` is stopped")));
        }
        line(&oci::stats(&container)?.to_string())?;
        if once {
            return Ok(());
        }
        let pidfd = container.open_init()?;
        let mut polled = [PollFd::new(std::os::fd::AsFd::as_fd(&pidfd), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(interval).unwrap_or(PollTimeout::MAX);
        if poll(&mut polled, timeout).doing(|| "wait for the next line")? > 0 {
            return Ok(());
        }
    }
}
