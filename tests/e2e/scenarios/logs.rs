//! No line a container writes is lost, whoever dies while it writes.

use std::time::Duration;

use super::{alone, on_images};
use crate::lab::{Lab, kill};
use crate::lines::{self, Reader};
use crate::wait::{holds_for, wait_for};
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] =
    &[alone(on_images("no_line_is_lost_when_the_supervisor_is_killed_again_and_again", 240, no_line_is_lost))];

/// Kills of the supervisor.
const KILLS: usize = 300;
/// After a kill this much may be there twice: the pump writes the file before it takes bytes out of the pipe.
const REPEAT_BYTES_MAX: u64 = 64 << 10;

fn no_line_is_lost(lab: &mut Lab) -> Result {
    lab.write("count.yaml", &lines::counter(lab, 7)?)?;
    lab.start_controller()?;
    let (container, pid) = lab.started("job/count")?;
    let reader = Reader::start(lab.logs_of(&container));
    lines::go(lab, "start")?;
    for round in 0..KILLS {
        let supervisor = lab.daemon("supervisor")?;
        kill(supervisor)?;
        wait_for("another supervisor", Duration::from_secs(10), || {
            ensure!(lab.daemon("supervisor")? != supervisor, "kill {round}: none yet");
            Ok(())
        })?;
        holds_for(Duration::from_millis(u64::try_from(round % 5).unwrap_or(0) * 10), || Ok(()))?;
    }
    let seen_until_now = reader.lines();
    wait_for("lines go on", Duration::from_secs(10), || {
        ensure!(reader.lines() > seen_until_now + 100, "{} lines, then nothing", reader.lines());
        Ok(())
    })?;
    ensure!(lab.pids("job/count")? == [(container, pid)], "the container was touched");
    lines::go(lab, "stop")?;
    lab.failed_with("job/count", 7)?;
    let read = reader.stop()?;
    println!(
        "measured: {} lines, {KILLS} kills, {} repeats, the longest {} bytes",
        read.lines, read.repeats, read.longest
    );
    ensure!(read.missing.is_empty(), "missing: {:?}", read.missing);
    let written = lines::counted(lab)?;
    ensure!(read.next == written, "{written} lines were written, the last one read is number {}", read.next - 1);
    ensure!(read.repeats <= KILLS, "{} repeats in {KILLS} kills", read.repeats);
    ensure!(read.longest <= REPEAT_BYTES_MAX, "{} bytes were there twice", read.longest);
    Ok(())
}
