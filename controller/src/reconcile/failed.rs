//! What is said of a revision that failed: one event with the cause, what the probe of a failing replica said, its last
//! log lines, and what runs from now on. Decides nothing; the planner has decided already.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use runtime::Runtime;
use runtime::id::ContainerId;

use crate::memory::Memory;
use crate::model::{DesiredState, ObjectKey, ObservedState, OnFailure, Revision, RevisionResult};
use crate::plan::{Action, Plan};

/// The event's reason.
const REASON: &str = "RevisionFailed";

/// Log lines told.
const LINES: usize = 5;

/// Bytes read from the end of a log, and characters told of one line.
const TAIL_BYTES: u64 = 4 << 10;
const LINE_CHARS_MAX: usize = 200;

/// All that is looked at.
#[derive(Clone, Copy)]
pub(super) struct Failing<'a> {
    pub(super) desired: &'a DesiredState,
    pub(super) state: &'a ObservedState,
    pub(super) runtime: &'a dyn Runtime,
    pub(super) memory: &'a Memory,
    pub(super) probes: &'a BTreeMap<ContainerId, String>,
}

/// Whether the plan decides that a revision failed, so that there is something to tell.
pub(super) fn any(plan: &Plan) -> bool {
    failures(plan).next().is_some()
}

/// Tells each failed revision once. Blocks while logs are read.
pub(super) fn tell(plan: &Plan, failing: Failing<'_>) {
    for (app, revision, why) in failures(plan) {
        let begins = format!("revision {} failed: ", revision.number);
        // A plan that was superseded decides again.
        let told = failing.memory.events_after(0).into_iter().any(|event| {
            event.object.as_ref() == Some(app) && event.reason == REASON && event.message.starts_with(&begins)
        });
        if !told {
            let message =
                format!("{begins}{why}{}{}", failing.last_words(app, revision), failing.outlook(app, revision));
            failing.memory.record_event(Some(app), REASON, message, true);
        }
    }
}

fn failures(plan: &Plan) -> impl Iterator<Item = (&ObjectKey, &Revision, &str)> {
    plan.steps.iter().filter_map(|step| {
        // A list of all actions here would say nothing more.
        let Action::RecordRevision { app, revision } = &step.action else { return None };
        let RevisionResult::Failed { why } = &revision.result else { return None };
        Some((app, &**revision, why.as_str()))
    })
}

impl Failing<'_> {
    /// Of the replicas that are not ready, the newest that have anything to say.
    fn last_words(self, app: &ObjectKey, revision: &Revision) -> String {
        let of_it = self.state.containers.iter().filter(|(_, container)| {
            container.replica.workload == *app
                && container.template_hash == revision.template_hash
                && container.ready_since_boot_ms.is_none()
        });
        let mut newest_first: Vec<_> = of_it.collect();
        newest_first.sort_by_key(|(_, container)| std::cmp::Reverse(container.started_boot_ms));
        let mut said = String::new();
        if let Some(probe) = newest_first.iter().find_map(|(id, _)| self.probes.get(*id)) {
            said.push_str(&format!("; its probe said: {}", clean(probe)));
        }
        // One that was just started again may not have written anything yet.
        let wrote = newest_first.iter().map(|(id, container)| (container, last_lines(&self.runtime.log_dir(id))));
        if let Some((container, lines)) = wrote.into_iter().find(|(_, lines)| !lines.is_empty()) {
            said.push_str(&format!("; {} wrote last: {}", container.replica, lines.join(" | ")));
        }
        said
    }

    fn outlook(self, app: &ObjectKey, revision: &Revision) -> String {
        let holds = self.desired.workloads.get(app).is_some_and(|app| app.strategy.on_failure == OnFailure::Hold);
        let known = self.state.revisions.get(app).into_iter().flatten();
        let mut good = known.filter(|r| r.result == RevisionResult::Ready && r.template_hash != revision.template_hash);
        match good.next_back().filter(|_| !holds) {
            Some(good) => format!("; back to revision {}", good.number),
            None if holds => "; it stays, as onFailure: hold says".to_owned(),
            None => "; it is tried on: no earlier revision was ready".to_owned(),
        }
    }
}

/// The last lines of a log in CRI's format (`TIME STREAM F|P LINE`). No log, no lines.
fn last_lines(dir: &Path) -> Vec<String> {
    let mut bytes = Vec::new();
    let read = File::open(dir.join("current")).and_then(|mut file| {
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
        file.take(TAIL_BYTES).read_to_end(&mut bytes)
    });
    if read.is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    // Where reading began a line may be cut; it is the oldest of many then.
    let lines: Vec<String> = text.lines().filter_map(|line| Some(clean(line.splitn(4, ' ').nth(3)?))).collect();
    lines[lines.len().saturating_sub(LINES)..].to_vec()
}

/// Text from inside a container, for a terminal: one short line without control characters.
fn clean(text: &str) -> String {
    let line = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(LINE_CHARS_MAX).collect()
}
