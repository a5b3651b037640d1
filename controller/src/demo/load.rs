//! Clients of the demo's web server: each request on a new connection, every failure counted.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Threads that ask at once.
const CLIENTS: usize = 4;
/// One request may take this long; a refused, reset or silent one failed.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// Asks once; the body's words: version and host name.
pub(super) fn ask(port: u16, deadline: Duration) -> std::io::Result<(String, String)> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, deadline)?;
    stream.set_read_timeout(Some(deadline))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.trim()).unwrap_or_default();
    match body.split_once(' ') {
        Some((version, host)) => Ok((version.to_owned(), host.to_owned())),
        None => Err(std::io::Error::other(format!("not an answer of the demo: {text:?}"))),
    }
}

/// Clients at work.
pub(super) struct Load {
    counters: Arc<Counters>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counters {
    stop: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
}

/// What the clients saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    answered: u64,
    failed: u64,
}

impl Load {
    pub(super) fn start(port: u16) -> Self {
        let counters = Arc::new(Counters::default());
        let client = |_| {
            let counters = counters.clone();
            std::thread::spawn(move || {
                while !counters.stop.load(Ordering::Relaxed) {
                    let outcome = ask(port, REQUEST_DEADLINE);
                    let counter = if outcome.is_ok() { &counters.answered } else { &counters.failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = (0..CLIENTS).map(client).collect();
        Self { counters, threads }
    }

    /// Ends the clients after their requests under way.
    pub(super) fn stop(self) -> Count {
        self.counters.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client only counts");
        }
        Count {
            answered: self.counters.answered.load(Ordering::Relaxed),
            failed: self.counters.failed.load(Ordering::Relaxed),
        }
    }
}

impl Count {
    /// Itself when every request was answered and there was at least one.
    pub(super) fn none_failed(self) -> Result<Self, String> {
        if self.failed == 0 && self.answered > 0 { Ok(self) } else { Err(self.to_string()) }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} requests failed", self.failed, self.answered + self.failed)
    }
}
