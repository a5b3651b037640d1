//! A client for names inside a container's network namespace, which asks without pause and never twice for the same answer.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::{Result, ensure};

/// Where every container finds its names.
const SERVER: &str = "127.0.0.11:53";
/// A client of the C library would ask again after this; ours calls it lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a message before the question (RFC 1035 §4.1.1).
const HEADER_BYTES: usize = 12;

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Udp,
    /// A connection for each question.
    Tcp,
    /// One connection for all.
    TcpKept,
}

/// Asks for the addresses of a name until told to stop.
pub(crate) struct Asking {
    way: Way,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize>>,
}

impl Asking {
    /// In the network namespace of a process. Each answer must have `addresses` addresses.
    pub(crate) fn start(pid: i32, way: Way, name: &'static str, addresses: u8) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let namespace = File::open(format!("/proc/{pid}/ns/net")).map_err(|error| error.to_string())?;
            setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|error| format!("enter the namespace: {error}"))?;
            let mut asked = 0;
            let mut kept = if way == Way::TcpKept { Some(connect()?) } else { None };
            while !told.load(Ordering::Relaxed) {
                let id = u16::try_from(asked % 65_536).unwrap_or(0);
                let question = question(name, id);
                let answer = match (&mut kept, way) {
                    (Some(stream), _) => by_tcp(stream, &question),
                    (None, Way::Udp) => by_udp(&question),
                    (None, Way::Tcp | Way::TcpKept) => connect().and_then(|mut stream| by_tcp(&mut stream, &question)),
                };
                let answer = answer.map_err(|why| format!("question {asked}: {why}"))?;
                let fits = answer.len() > HEADER_BYTES && answer[..2] == id.to_be_bytes() && answer[3] & 0xf == 0;
                ensure!(fits && answer[7] == addresses, "question {asked}: {answer:?}");
                asked += 1;
            }
            Ok(asked)
        });
        Self { way, stop, thread }
    }

    /// How many were answered, when all were.
    pub(crate) fn stop(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let asked = self.thread.join().map_err(|_| "the client panicked")?;
        asked.map_err(|why| format!("names by {:?}: {why}", self.way))
    }
}

/// A question for the addresses of a name of one label.
fn question(name: &str, id: u16) -> Vec<u8> {
    // recursion desired, one question
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    bytes.push(u8::try_from(name.len()).expect("a label has at most 63 bytes"));
    bytes.extend(name.bytes());
    // the root, type A, class IN
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

fn by_udp(question: &[u8]) -> Result<Vec<u8>> {
    let ask = || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(SERVER)?;
        socket.send(question)?;
        let mut answer = vec![0; 512];
        let count = socket.recv(&mut answer)?;
        answer.truncate(count);
        Ok(answer)
    };
    ask().map_err(|error: std::io::Error| format!("{:?}", error.kind()))
}

fn connect() -> Result<TcpStream> {
    let stream = TcpStream::connect(SERVER).map_err(|error| format!("connect: {:?}", error.kind()))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    Ok(stream)
}

fn by_tcp(stream: &mut TcpStream, question: &[u8]) -> Result<Vec<u8>> {
    let mut ask = || {
        let length = u16::try_from(question.len()).expect("a short question").to_be_bytes();
        stream.write_all(&[&length, question].concat())?;
        let mut head = [0; 2];
        stream.read_exact(&mut head)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(head))];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    ask().map_err(|error: std::io::Error| format!("{:?}", error.kind()))
}
