//! A small HTTP client that opens a new connection for each request, and a load of several of them that counts failures.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Result, ensure};

/// A request that takes longer has failed.
const TIME_OUT: Duration = Duration::from_secs(15);

/// One answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// GET over a new connection.
pub(crate) fn get(port: u16, path: &str) -> Result<Answer> {
    get_from(SocketAddr::from(([127, 0, 0, 1], port)), path, TIME_OUT)
}

/// GET from any address.
pub(crate) fn get_from(address: SocketAddr, path: &str, limit: Duration) -> Result<Answer> {
    let mut stream =
        TcpStream::connect_timeout(&address, limit).map_err(|error| format!("connect: {:?}", error.kind()))?;
    stream.set_read_timeout(Some(limit)).map_err(|error| error.to_string())?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes())
        .map_err(|error| format!("send: {:?}", error.kind()))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(|error| format!("receive: {:?}", error.kind()))?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("cut off after {} bytes", bytes.len()))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no status line")?;
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    if let Some(length) = length {
        ensure!(length.trim().parse() == Ok(body.len()), "body of {} bytes instead of {length}", body.len());
    }
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// What a load saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: usize,
    /// Why, and how often.
    pub(crate) failures: BTreeMap<String, usize>,
    /// When each successful request ended, and what it answered.
    pub(crate) answers: Vec<(Instant, String)>,
    /// The longest one.
    pub(crate) slowest: Duration,
}

impl Seen {
    pub(crate) fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// Requests between the first answer that contains `new` and the last that contains `old`.
    pub(crate) fn while_both(&self, old: &str, new: &str) -> usize {
        let first_new = self.answers.iter().filter(|(_, body)| body.contains(new)).map(|(at, _)| *at).min();
        let last_old = self.answers.iter().filter(|(_, body)| body.contains(old)).map(|(at, _)| *at).max();
        match (first_new, last_old) {
            (Some(from), Some(to)) => self.answers.iter().filter(|(at, _)| *at >= from && *at <= to).count(),
            _ => 0,
        }
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.answers.extend(other.answers);
        self.slowest = self.slowest.max(other.slowest);
        for (why, count) in other.failures {
            *self.failures.entry(why).or_default() += count;
        }
    }
}

/// Clients that ask as fast as they are answered, until told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Seen>>,
}

impl Load {
    pub(crate) fn start(clients: usize, port: u16, path: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = || {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || client(&stop, port, path))
        };
        Self { clients: (0..clients).map(|_| client()).collect(), stop }
    }

    /// Ends it and adds up.
    pub(crate) fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = Seen::default();
        for client in self.clients {
            seen.add(client.join().expect("a client never panics"));
        }
        seen
    }
}

fn client(stop: &AtomicBool, port: u16, path: &str) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        seen.requests += 1;
        let begin = Instant::now();
        match get(port, path) {
            Ok(answer) if answer.status == 200 => seen.answers.push((Instant::now(), answer.body)),
            Ok(answer) => *seen.failures.entry(format!("status {}", answer.status)).or_default() += 1,
            Err(why) => *seen.failures.entry(why).or_default() += 1,
        }
        seen.slowest = seen.slowest.max(begin.elapsed());
    }
    seen
}
