//! A wanted Job: what it runs, when, how often and for how long.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ContainerTemplate, DependsOn};
use crate::model::{ObjectKey, SourceRef};

/// A `Job` object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredJob {
    /// Where it is written.
    pub source: SourceRef,
    /// What it runs.
    pub template: ContainerTemplate,
    /// When; `None`: once per template.
    pub schedule: Option<Schedule>,
    /// Failed runs that are tried again before the job counts as failed.
    pub backoff_limit: u32,
    /// How often, how many at once, for how long.
    #[serde(default)]
    pub runs: RunPolicy,
    /// What must hold before it starts.
    pub depends_on: BTreeMap<ObjectKey, DependsOn>,
}

/// How a job's runs go (Kubernetes' batch/v1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPolicy {
    /// Times the program must end well for a run to have succeeded; at least 1.
    pub completions: u32,
    /// Containers at once; 0: none are started.
    pub parallelism: u32,
    /// Each completion is told its number, from 0, in `JOB_COMPLETION_INDEX`.
    pub indexed: bool,
    /// How long a run may take, in milliseconds; `None`: as long as it likes.
    pub deadline_ms: Option<u64>,
    /// How long ended containers of a run stay, in milliseconds; `None`: until the next run.
    pub ttl_ms: Option<u64>,
    /// How late a scheduled run may start, in milliseconds; `None`: an hour.
    pub late_ms: Option<u64>,
    /// Nothing is started; without a schedule, what runs is stopped.
    pub suspend: bool,
    /// Runs that succeeded whose containers stay, with a schedule.
    pub keep_succeeded: u32,
    /// Runs that failed whose containers stay, with a schedule.
    pub keep_failed: u32,
}

impl Default for RunPolicy {
    fn default() -> Self {
        Self {
            completions: 1,
            parallelism: 1,
            indexed: false,
            deadline_ms: None,
            ttl_ms: None,
            late_ms: None,
            suspend: false,
            keep_succeeded: 3,
            keep_failed: 1,
        }
    }
}

/// When a job runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Five fields of cron, checked by the front-end with `plan::cron`.
    pub cron: String,
    /// IANA name; `UTC` when unset.
    pub time_zone: String,
    /// What happens when the last run is not over.
    pub concurrency: ConcurrencyPolicy,
}

/// Kubernetes' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConcurrencyPolicy {
    /// Both run.
    Allow,
    /// The new one is skipped.
    Forbid,
    /// The old one is stopped.
    Replace,
}
