//! A small HTTP client that opens a new connection for each request, and a load of several of them that counts failures.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
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
    let length = length_of(head).unwrap_or(body.len());
    ensure!(length == body.len(), "body of {} bytes instead of {length}", body.len());
    Ok(Answer { status: status_of(head)?, head: head.to_owned(), body: body.to_owned() })
}

/// One connection that stays open for a request after another.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), TIME_OUT)
            .map_err(|error| format!("connect: {:?}", error.kind()))?;
        stream.set_read_timeout(Some(TIME_OUT)).map_err(|error| error.to_string())?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request and reads the head of the answer.
    pub(crate) fn ask(&mut self, path: &str) -> Result<String> {
        self.0
            .get_mut()
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())
            .map_err(|error| format!("send: {:?}", error.kind()))?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let got = self.0.read_line(&mut head).map_err(|error| format!("receive: {:?}", error.kind()))?;
            ensure!(got > 0, "cut off in the head: {head:?}");
        }
        Ok(head)
    }

    /// Reads this many bytes of the body.
    pub(crate) fn body(&mut self, bytes: usize) -> Result<String> {
        let mut body = vec![0; bytes];
        self.0.read_exact(&mut body).map_err(|error| format!("receive: {:?}", error.kind()))?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// A whole request and its answer; a server that says goodbye in it is dialled again.
    pub(crate) fn get(&mut self, port: u16, path: &str) -> Result<Answer> {
        let head = self.ask(path)?;
        let length = length_of(&head).ok_or_else(|| format!("no length in {head:?}"))?;
        let body = self.body(length)?;
        if head.to_ascii_lowercase().contains("connection: close") {
            *self = Self::open(port)?;
        }
        Ok(Answer { status: status_of(&head)?, head, body })
    }
}

fn status_of(head: &str) -> Result<u16> {
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| format!("no status in {head:?}"))
}

fn length_of(head: &str) -> Option<usize> {
    let line =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
    line?.trim().parse().ok()
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
    /// A new connection for each request.
    pub(crate) fn start(clients: usize, port: u16, path: &'static str) -> Self {
        Self::of(clients, move || Ok(move || get(port, path)))
    }

    /// One connection for all requests of a client.
    pub(crate) fn start_kept(clients: usize, port: u16, path: &'static str) -> Self {
        Self::of(clients, move || Connection::open(port).map(|mut kept| move || kept.get(port, path)))
    }

    /// Each client makes its way of asking, and asks.
    fn of<A: FnMut() -> Result<Answer>>(clients: usize, make: impl Fn() -> Result<A> + Send + Clone + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = || {
            let (stop, make) = (Arc::clone(&stop), make.clone());
            std::thread::spawn(move || client(&stop, make))
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

fn client<A: FnMut() -> Result<Answer>>(stop: &AtomicBool, make: impl Fn() -> Result<A>) -> Seen {
    let mut seen = Seen::default();
    let mut ask = None;
    while !stop.load(Ordering::Relaxed) {
        seen.requests += 1;
        let begin = Instant::now();
        let answer = match ask.take().map_or_else(&make, Ok) {
            Ok(mut way) => {
                let answer = way();
                // what failed once is made anew
                ask = answer.is_ok().then_some(way);
                answer
            }
            Err(why) => Err(why),
        };
        match answer {
            Ok(answer) if answer.status == 200 => seen.answers.push((Instant::now(), answer.body)),
            Ok(answer) => *seen.failures.entry(format!("status {}", answer.status)).or_default() += 1,
            Err(why) => *seen.failures.entry(why).or_default() += 1,
        }
        seen.slowest = seen.slowest.max(begin.elapsed());
    }
    seen
}
