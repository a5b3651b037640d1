//! Credential helpers (docker-credential-helpers' protocol): programs `docker-credential-NAME get|store|erase` that
//! read a request on stdin and answer on stdout. Bounded in time and bytes; what they print is never shown.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::Login;
use crate::clock;
use crate::error::{Doing, Error, Result};

/// How long a helper may take: some ask a cloud's service.
const ANSWER_MS_MAX: u64 = 30_000;
/// Largest answer read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// What `docker login` files Docker Hub under.
const HUB: &str = "https://index.docker.io/v1/";

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the helper `name` for the login to `host`; `None` when it knows none.
pub(super) fn get(name: &str, host: &str) -> Result<Option<Login>> {
    let (succeeded, answer) = run(name, "get", key(host).as_bytes())?;
    if !succeeded {
        // the protocol's own words for "no such entry"; anything else is a helper that does not work
        let said = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let is_unknown = said.contains("credentials not found") || said.contains("no credentials");
        return if is_unknown { Ok(None) } else { Err(failed(name, "it says no more than that it failed")) };
    }
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| failed(name, "its answer is not a login"))?;
    if answer.username == "<token>" {
        return Err(failed(name, "it holds an identity token, which boxship cannot use; sign in with a password"));
    }
    let origin = format!("docker-credential-{name}");
    Ok(Some(Login { user: answer.username, password: answer.secret, origin }))
}

/// Hands a login to the helper.
pub(super) fn store(name: &str, host: &str, login: &Login) -> Result<()> {
    let entry = serde_json::json!({"ServerURL": key(host), "Username": login.user, "Secret": login.password});
    let (succeeded, _) = run(name, "store", entry.to_string().as_bytes())?;
    if succeeded { Ok(()) } else { Err(failed(name, "it did not keep the login")) }
}

/// Makes the helper forget a host; one it does not know is fine.
pub(super) fn erase(name: &str, host: &str) -> Result<()> {
    run(name, "erase", key(host).as_bytes()).map(|_| ())
}

fn key(host: &str) -> &str {
    if host == "docker.io" { HUB } else { host }
}

fn failed(name: &str, why: &str) -> Error {
    let message = format!("the credential helper docker-credential-{name} gave no login: {why}");
    Error::Registry { code: "BX0304", message, retry: false }
}

/// A helper, killed and reaped when it goes out of scope.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(name: &str, verb: &str, input: &[u8]) -> Result<(bool, Vec<u8>)> {
    let is_plain = !name.starts_with('-') && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !is_plain {
        return Err(failed("?", "its name in the credentials file has other characters than A-Z a-z 0-9 - _ ."));
    }
    let program = format!("docker-credential-{name}");
    let child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed(name, &format!("it cannot be started ({e})")))?;
    let mut child = Running(child);
    if let Some(mut stdin) = child.0.stdin.take() {
        // one that does not want to read has its reasons: its answer tells
        let _ = stdin.write_all(input);
    }
    let answer = answer(&mut child, name)?;
    let status = child.0.wait().doing(|| format!("wait for {program}"))?;
    Ok((status.success(), answer))
}

fn answer(child: &mut Running, name: &str) -> Result<Vec<u8>> {
    let Some(mut stdout) = child.0.stdout.take() else { return Ok(Vec::new()) };
    let deadline = clock::boot_ms() + ANSWER_MS_MAX;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_sub(clock::boot_ms());
        let timeout =
            Timespec { tv_sec: i64::try_from(left / 1_000).unwrap_or(0), tv_nsec: (left % 1_000 * 1_000_000) as _ };
        let mut fds = [PollFd::new(&stdout, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Err(failed(name, &format!("it did not answer within {} s", ANSWER_MS_MAX / 1_000))),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(Error::io(format!("wait for docker-credential-{name}"), e)),
        }
        let n = stdout.read(&mut buffer).doing(|| format!("read from docker-credential-{name}"))?;
        if n == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&buffer[..n]);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(failed(name, "its answer is too long"));
        }
    }
}
