//! The slow scrub: one layer after another is read again and compared with what it should be, slowly, so that all of them
//! had their turn once in a few weeks. What is bad is made again or told. Keeps its place in memory only: nothing is
//! written while all is well.

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::boot_ms;
use runtime::error::chain;
use runtime::image::{Digest, Scrubbed};
use runtime::runtime::NoProgress;
use runtime::{LinuxRuntime, Result};
use tokio::sync::watch;

use crate::memory::Memory;

/// After a start there is other work.
const FIRST_PAUSE: Duration = Duration::from_secs(600);
/// Between two layers at the least, however many there are.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Between two looks for layers where there are none.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// Bytes read a second while a layer is looked at.
const BYTES_PER_S: u64 = 8 << 20;

/// Goes on until `stop` turns true; each layer has its turn once in `every`. Zero: never.
pub(super) fn scrub(
    linux: Arc<LinuxRuntime>,
    memory: Arc<Memory>,
    every: Duration,
    boot_id: &str,
    mut stop: watch::Receiver<bool>,
) {
    if every.is_zero() {
        return;
    }
    // another place after each start: a host that starts often comes round as well
    let mut at = Digest::of(format!("{boot_id} {}", boot_ms()).as_bytes());
    tokio::spawn(async move {
        let mut pause = FIRST_PAUSE.min(every);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let (store, after) = (Arc::clone(&linux), at.clone());
            let Ok(seen) = tokio::task::spawn_blocking(move || one(&store, &after)).await else { return };
            pause = match seen {
                Ok(Some((next, layers, seen))) => {
                    at = next;
                    tell(&memory, &seen);
                    (every / u32::try_from(layers).unwrap_or(u32::MAX).max(1)).max(PAUSE_MIN)
                }
                Ok(None) => PAUSE_MAX.min(every).max(PAUSE_MIN),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "the image store could not be looked at");
                    PAUSE_MAX
                }
            };
        }
    });
}

fn one(linux: &LinuxRuntime, after: &Digest) -> Result<Option<(Digest, usize, Scrubbed)>> {
    let pace = |bytes: u64| std::thread::sleep(Duration::from_micros(bytes * 1_000_000 / BYTES_PER_S));
    linux.scrub_next(after, &NoProgress, &pace)
}

fn tell(memory: &Memory, seen: &Scrubbed) {
    for digest in &seen.healed {
        tracing::warn!(%digest, "a part of an image was damaged and is made again");
        memory.record_event(None, "ImageHealed", format!("{digest} was damaged and is made again"), true);
    }
    for (digest, why) in &seen.lost {
        tracing::error!(%digest, why, "a part of an image is damaged");
        memory.record_event(
            None,
            "ImageDamaged",
            format!("{digest} is damaged and could not be made again: {why}"),
            true,
        );
    }
}
