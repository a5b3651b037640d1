//! `kind: Job`.

use super::{Lower, template, wire};
use crate::manifest::tree::Path;
use crate::model::object::JobSpec;
use crate::model::{ConcurrencyPolicy, RunPolicy, Schedule, codes};

/// Kubernetes' default.
const BACKOFF_LIMIT: u32 = 6;

pub(super) fn lower(lower: &mut Lower<'_>, mut job: wire::Job) -> Option<JobSpec> {
    let mut template = template::lower(lower, job.take_template());
    if let Some((template, _)) = &mut template {
        template::default_http_port(lower, template);
    }
    let of_schedules = [
        ("timeZone", job.time_zone.is_some()),
        ("concurrencyPolicy", job.concurrency_policy.is_some()),
        ("startingDeadline", job.starting_deadline.is_some()),
        ("successfulRunsHistoryLimit", job.successful_runs_history_limit.is_some()),
        ("failedRunsHistoryLimit", job.failed_runs_history_limit.is_some()),
    ];
    for (field, set) in of_schedules {
        if set && job.schedule.is_none() {
            let what = format!("`{field}` says nothing without `schedule`");
            let diagnostic = lower.error(codes::CONFLICT, &Path::default().key(field), what);
            lower.push(diagnostic.help(format!("add `schedule`, or remove `{field}`")));
        }
    }
    let schedule = job.schedule.map(|cron| Schedule {
        cron: cron.0,
        time_zone: job.time_zone.map_or_else(|| "UTC".to_owned(), |zone| zone.0),
        concurrency: match job.concurrency_policy.unwrap_or(wire::ConcurrencyPolicy::Forbid) {
            wire::ConcurrencyPolicy::Allow => ConcurrencyPolicy::Allow,
            wire::ConcurrencyPolicy::Forbid => ConcurrencyPolicy::Forbid,
            wire::ConcurrencyPolicy::Replace => ConcurrencyPolicy::Replace,
        },
    });
    let otherwise = RunPolicy::default();
    let completions = job.completions.unwrap_or(otherwise.completions);
    let runs = RunPolicy {
        completions,
        parallelism: job.parallelism.unwrap_or(otherwise.parallelism),
        indexed: matches!(job.completion_mode, Some(wire::CompletionMode::Indexed)),
        deadline_ms: job.active_deadline.map(|duration| duration.ms),
        ttl_ms: job.ttl_after_finished.map(|duration| duration.ms),
        late_ms: job.starting_deadline.map(|duration| duration.ms),
        suspend: job.suspend.unwrap_or_default(),
        keep_succeeded: job.successful_runs_history_limit.unwrap_or(otherwise.keep_succeeded),
        keep_failed: job.failed_runs_history_limit.unwrap_or(otherwise.keep_failed),
    };
    let (template, depends_on) = template?;
    Some(JobSpec {
        template,
        env_from: Vec::new(),
        schedule,
        backoff_limit: job.backoff_limit.unwrap_or(BACKOFF_LIMIT),
        runs,
        depends_on,
    })
}
