//! Logs over the socket, read from the containers' files in CRI format: `TIME STREAM F|P LINE`.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::Response;
use runtime::runtime::ContainerConfig;
use runtime::{LinuxRuntime, Runtime as _};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::Api;
use super::images::ndjson;
use super::refusal::Refusal;
use crate::api::types::LogLine;
use crate::model::{ObjectKey, by_hand};

/// Lines waiting for a slow reader; then the file is not read on.
const LINES_MAX: usize = 256;

/// How often a followed log and the list of replicas are looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

/// Looks at a followed file of one container for each look whether that still runs.
const LOOKS_PER_STATE: u32 = 5;

/// Longest line handed on in one piece, in bytes. The pump splits at 16 KiB itself.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Older files of one container that are looked for: more than any log configuration keeps.
const OLDER_FILES_MAX: u32 = 100;

#[derive(Debug, Deserialize)]
pub(super) struct Which {
    #[serde(default)]
    stack: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    /// One container, as `find_container` understands it.
    container: Option<String>,
    replica: Option<String>,
    /// Only this container of replicas that have several.
    member: Option<String>,
    tail: Option<usize>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn get(State(api): State<Arc<Api>>, Query(which): Query<Which>) -> Result<Response, Refusal> {
    let (send, lines) = mpsc::channel(LINES_MAX);
    let follow = Following { tail: which.tail, follow: which.follow };
    if let (Some(container), Some(linux)) = (&which.container, api.linux.clone()) {
        let config = by_hand::find_container(&linux.container_configs()?, container)?.clone();
        tokio::task::spawn_blocking(move || one_container(&linux, &config, follow, &send));
        return Ok(ndjson(lines));
    }
    let key: ObjectKey = format!("{}/{}/{}", which.stack, which.kind, which.name)
        .parse()
        .map_err(|e: crate::model::KeyError| Refusal::bad_request(e.to_string()))?;
    tokio::task::spawn_blocking(move || {
        send_all(&|| containers(&api, &key, &which), &|| false, follow, &send);
    });
    Ok(ndjson(lines))
}

/// How a log is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Following {
    /// Only the last lines of each container.
    pub(crate) tail: Option<usize>,
    /// Go on as lines come.
    pub(crate) follow: bool,
}

/// Sends the log of one container; followed, until it has ended. Blocks.
pub(crate) fn one_container(
    linux: &LinuxRuntime,
    config: &ContainerConfig,
    how: Following,
    send: &mpsc::Sender<LogLine>,
) {
    let name = by_hand::name_of(&config.labels).unwrap_or(config.id.as_str()).to_owned();
    let dir = linux.log_dir(&config.id);
    // a look at every container: not each time the file is looked at
    let looks = Cell::new(0_u32);
    let over = || {
        looks.set(looks.get() + 1);
        looks.get() % LOOKS_PER_STATE == 1 && !is_live(linux, config)
    };
    send_all(&|| vec![(name.clone(), dir.clone())], &over, how, send);
}

/// Whether a container may still write. While nobody can tell, it may.
fn is_live(linux: &LinuxRuntime, config: &ContainerConfig) -> bool {
    linux.list_containers().map_or(true, |all| all.iter().any(|info| info.config.id == config.id && info.pid.is_some()))
}

/// The log files of the containers asked for, oldest container first.
fn containers(api: &Api, key: &ObjectKey, which: &Which) -> Vec<(String, PathBuf)> {
    let view = api.views.borrow().clone();
    let containers = view.seen.state.containers.iter().filter(|(_, container)| container.replica.workload == *key);
    let mut found = Vec::new();
    for (id, container) in containers {
        let replica = container.replica.to_string();
        if which.replica.as_ref().is_some_and(|wanted| *wanted != replica) {
            continue;
        }
        let (ordinal, attempt) = (container.replica.ordinal, container.attempt);
        let Some(pod) = &container.pod else {
            found.push((ordinal, attempt, 0, 0, replica, id));
            continue;
        };
        // A pod's in the order of starting, each as often as it was made.
        for (at, (_, name)) in pod.parts.iter().enumerate() {
            let is_wanted = which.member.as_ref().is_none_or(|wanted| wanted == name);
            for (id, member) in pod.members.iter().filter(|(_, member)| is_wanted && member.name == *name) {
                found.push((ordinal, attempt, at, member.attempt, format!("{replica}/{name}"), id));
            }
        }
    }
    found.sort();
    found.into_iter().map(|(.., name, id)| (name, api.runtime.log_dir(id))).collect()
}

/// Sends the logs of what `found` finds, each time anew; followed ones until `over`, which is asked before the last read.
fn send_all(
    found: &dyn Fn() -> Vec<(String, PathBuf)>,
    over: &dyn Fn() -> bool,
    how: Following,
    send: &mpsc::Sender<LogLine>,
) {
    let mut followed: Vec<Follower> = Vec::new();
    let mut first = true;
    loop {
        let is_over = over();
        for (replica, dir) in found() {
            if followed.iter().any(|follower| follower.dir == dir) {
                continue;
            }
            let mut follower = Follower { replica, dir, open: None };
            let tail = if first { how.tail } else { None };
            if !follower.send_backlog(tail, send) {
                return;
            }
            followed.push(follower);
        }
        first = false;
        let listens = !how.follow || followed.iter_mut().all(|follower| follower.send_new(send));
        if !how.follow || is_over || !listens || send.is_closed() {
            return;
        }
        std::thread::sleep(FOLLOW_EVERY);
        followed.retain(|follower| follower.dir.exists());
    }
}

/// Reads one container's log as it grows, over rotations.
struct Follower {
    replica: String,
    dir: PathBuf,
    open: Option<(u64, BufReader<File>)>,
}

impl Follower {
    /// Sends what is there, the last `tail` lines of it; false when nobody listens any more.
    fn send_backlog(&mut self, tail: Option<usize>, send: &mpsc::Sender<LogLine>) -> bool {
        let mut kept = VecDeque::new();
        let older = (1..=OLDER_FILES_MAX).map(|n| self.dir.join(n.to_string())).take_while(|path| path.exists());
        let mut files: Vec<PathBuf> = older.collect();
        files.reverse();
        files.push(self.dir.join("current"));
        for path in files {
            let Ok(file) = File::open(&path) else { continue };
            let inode = file.metadata().map_or(0, |m| m.ino());
            let mut reader = BufReader::new(file);
            while let Some(line) = next_line(&mut reader, &self.replica) {
                match tail {
                    Some(tail) => {
                        kept.push_back(line);
                        kept.drain(..kept.len().saturating_sub(tail));
                    }
                    None => {
                        if send.blocking_send(line).is_err() {
                            return false;
                        }
                    }
                }
            }
            self.open = Some((inode, reader));
        }
        kept.into_iter().all(|line| send.blocking_send(line).is_ok())
    }

    /// Sends what came since; false when nobody listens any more.
    fn send_new(&mut self, send: &mpsc::Sender<LogLine>) -> bool {
        if !self.drain(send) {
            return false;
        }
        let path = self.dir.join("current");
        let inode = std::fs::metadata(&path).map_or(0, |m| m.ino());
        if self.open.as_ref().map(|(open, _)| *open) == Some(inode) {
            return true;
        }
        // Rotated: what was still written to the old file first.
        if !self.drain(send) {
            return false;
        }
        if let Ok(file) = File::open(&path) {
            self.open = Some((inode, BufReader::new(file)));
        }
        self.drain(send)
    }

    fn drain(&mut self, send: &mpsc::Sender<LogLine>) -> bool {
        let Some((_, reader)) = &mut self.open else { return true };
        while let Some(line) = next_line(reader, &self.replica) {
            if send.blocking_send(line).is_err() {
                return false;
            }
        }
        true
    }
}

/// The next whole line, put together from its parts (CRI tags them `P` but for the last, `F`). A line still being written
/// is left for later.
fn next_line(reader: &mut BufReader<File>, replica: &str) -> Option<LogLine> {
    let mut whole: Option<LogLine> = None;
    let mut read_bytes = 0;
    loop {
        let mut bytes = Vec::new();
        let part_bytes = i64::try_from(reader.read_until(b'\n', &mut bytes).ok()?).ok()?;
        read_bytes += part_bytes;
        if bytes.pop() != Some(b'\n') {
            // Within the buffer this moves no file offset.
            let _ = reader.seek_relative(-read_bytes);
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut parts = text.splitn(4, ' ');
        let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let part = parts.next().unwrap_or_default();
        if whole.as_ref().is_some_and(|line| line.stream != stream) {
            // The other stream came in between: what there is goes out, the other's part is read next.
            let _ = reader.seek_relative(-part_bytes);
            return whole;
        }
        let line = whole.get_or_insert_with(|| LogLine {
            replica: replica.to_owned(),
            time: time.to_owned(),
            stream: stream.to_owned(),
            line: String::new(),
        });
        line.line.push_str(part);
        if tag != "P" || line.line.len() >= LINE_BYTES_MAX {
            return whole;
        }
    }
}

/// The last lines of a container's log.
pub(super) fn tail(dir: &Path, replica: &str, lines: usize) -> Vec<LogLine> {
    let mut kept = VecDeque::new();
    for name in ["1", "current"] {
        let Ok(file) = File::open(dir.join(name)) else { continue };
        let mut reader = BufReader::new(file);
        while let Some(line) = next_line(&mut reader, replica) {
            kept.push_back(line);
            kept.drain(..kept.len().saturating_sub(lines));
        }
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_line_are_put_together_and_an_unfinished_one_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("current");
        let text = "T1 stdout F one\nT2 stderr P two \nT3 stderr F halves\nT4 stdout P begun\n";
        std::fs::write(&path, text).unwrap();
        let mut reader = BufReader::new(File::open(&path).unwrap());
        let mut next = || next_line(&mut reader, "web-1").map(|line| (line.time, line.stream, line.line));
        let line = |time: &str, stream: &str, line: &str| Some((time.to_owned(), stream.to_owned(), line.to_owned()));
        assert_eq!(next(), line("T1", "stdout", "one"));
        assert_eq!(next(), line("T2", "stderr", "two halves"));
        assert_eq!(next(), None);
        std::fs::write(&path, format!("{text}T5 stdout F and ended\n")).unwrap();
        assert_eq!(next(), line("T4", "stdout", "begunand ended"));
        assert_eq!(tail(dir.path(), "web-1", 1).len(), 1);
    }
}
