//! The seal of a plan: a short hash over what is wanted and over each step that touches an object, so that somebody who
//! read a plan can have exactly that done, or be told what moved meanwhile. Pure.
//!
//! Left out, since they say nothing of the plan: places in files, times, the order of steps, and what all objects share
//! (the table of names and ports follows from the rest, unused images go when their time has come).

use serde::Serialize;

use super::name::hex;
use super::{Action, Plan, Step};
use crate::model::{DesiredState, Revision, accept};

/// Hex digits of a seal.
const DIGITS: usize = 12;

/// What a plan was made of, in comparable form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// 12 hex digits.
    pub hash: String,
    /// Over what is wanted alone.
    pub wanted: String,
    /// One line per step, sorted.
    pub lines: Vec<String>,
}

/// Seals a plan.
#[must_use]
pub fn seal(wanted: &DesiredState, plan: &Plan) -> Seal {
    let content = accept::without_places(wanted);
    let wanted = hex(&[&json(&content)], DIGITS);
    let steps = plan.steps.iter().filter(|step| step.object.is_some());
    let mut sealed: Vec<(String, String)> = steps.map(|step| (line(step), content_of(&step.action))).collect();
    sealed.sort();
    let mut parts = vec![wanted.as_str()];
    for (line, content) in &sealed {
        parts.extend([line.as_str(), content.as_str()]);
    }
    let hash = hex(&parts, DIGITS);
    Seal { hash, lines: sealed.into_iter().map(|(line, _)| line).collect(), wanted }
}

impl Seal {
    /// What a newer plan has and lacks against this one, one line each; empty when both are the same.
    #[must_use]
    pub fn moved(&self, now: &Self) -> Vec<String> {
        let mut moved = Vec::new();
        if self.wanted != now.wanted {
            moved.push("the manifests say something else".to_owned());
        }
        let gone = self.lines.iter().filter(|line| !now.lines.contains(line));
        moved.extend(gone.map(|line| format!("not to be done any more: {line}")));
        let new = now.lines.iter().filter(|line| !self.lines.contains(line));
        moved.extend(new.map(|line| format!("now also to be done: {line}")));
        if moved.is_empty() && self.hash != now.hash {
            moved.push("the same steps with other contents (an address, a digest, a limit)".to_owned());
        }
        moved
    }
}

fn line(step: &Step) -> String {
    let object = step.object.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{object}: {} ({})", step.action.subject(), step.reason.name())
}

/// An action's whole content but for times.
fn content_of(action: &Action) -> String {
    match action {
        Action::RecordRevision { app, revision } => {
            let revision = Revision { progress_boot_ms: 0, created_unix_ms: 0, ..(**revision).clone() };
            json(&Action::RecordRevision { app: app.clone(), revision: Box::new(revision) })
        }
        Action::RecordJob { job, record } => {
            let record = crate::model::JobRecord {
                considered_unix_ms: 0,
                started_boot_ms: 0,
                finished_boot_ms: 0,
                ..record.clone()
            };
            json(&Action::RecordJob { job: job.clone(), record })
        }
        other => json(other),
    }
}

/// Canonical: maps of the model are sorted. What cannot be written counts as its error's text.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| error.to_string())
}
