//! `kill -9` of the writer after a random time, many times over one database that lives on.

use std::io::BufRead as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::model::{Content, Random, verify};
use crate::{Outcome, Result, writer};

/// Kills; a third of them within the first milliseconds, while the database is being opened.
const ROUNDS: u64 = 200;

pub(crate) fn loop_of_kills(dir: &Path) -> Result<Outcome> {
    let seed = 20_261_121;
    let mut random = Random::new(seed);
    let mut content = Content::default();
    let mut repaired = 0;
    for round in 0..ROUNDS {
        let millis = if random.below(3) == 0 { random.below(8) } else { random.below(60) };
        let acknowledged = run_and_kill(dir, seed, content.n + 1, Duration::from_millis(millis))?;
        content.advance_to(seed, acknowledged.unwrap_or(content.n));
        let last = content.n + 1;
        let opened =
            verify(dir, seed, &mut content, last).map_err(|why| format!("kill {round} (seed {seed}): {why}"))?;
        repaired +=
            u64::from(!matches!(opened, controller::store::Opened::Existing | controller::store::Opened::Fresh));
    }
    Ok(Outcome::Passed(format!("{ROUNDS} kills, {} batches, {repaired} repaired", content.n)))
}

/// Runs the writer for a time; returns the last batch it said was acknowledged.
fn run_and_kill(dir: &Path, seed: u64, first: u64, time: Duration) -> Result<Option<u64>> {
    let mut child = writer(dir, seed, first, 0).spawn().map_err(|error| format!("start the writer: {error}"))?;
    let out = child.stdout.take().ok_or("no pipe")?;
    let (said, heard) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in std::io::BufReader::new(out).lines().map_while(|line| line.ok()) {
            let _ = said.send(line);
        }
    });
    let end = Instant::now() + time;
    let mut last = None;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        match heard.recv_timeout(left) {
            Ok(line) => last = Some(line),
            Err(mpsc::RecvTimeoutError::Timeout) => break,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(format!("the writer ended by itself: {:?}", child.wait()));
            }
        }
    }
    child.kill().and_then(|()| child.wait().map(drop)).map_err(|error| format!("kill: {error}"))?;
    reader.join().map_err(|_| "the reader panicked")?;
    last = heard.try_iter().last().or(last);
    // the last line may be cut off
    Ok(last.and_then(|line| line.parse().ok()))
}
