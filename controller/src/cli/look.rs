//! `inspect`, `top`, `stats`: asked of the controller, or looked up here where none runs.

pub(super) mod template;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use runtime::linux::Sample;
use serde_json::{Value, json};

use super::args::{InspectArgs, StatsArgs, TopArgs};
use super::context::{Context, Failure};
use super::format::bytes;
use super::image::desk::Desk;
use super::table::Table;
use crate::api::look::{LookAnswer, LookRequest};
use crate::api::lookup::name_of;

/// Between two samples: processor time is counted over it.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Home, and everything below it cleared.
const AGAIN: &str = "\x1b[H\x1b[J";

pub(super) async fn inspect(context: &Context, args: &InspectArgs) -> Result<ExitCode, Failure> {
    let format = args.format.as_deref().map(template::parse).transpose().map_err(Failure::Usage)?;
    let desk = Desk::open(context).await?;
    let mut found = Vec::new();
    for name in &args.names {
        if let LookAnswer::Inspected(value) = desk.look(&LookRequest::Inspect(name.clone())).await? {
            found.push(*value);
        }
    }
    let Some(format) = format else {
        context.print_json(&found);
        return Ok(ExitCode::SUCCESS);
    };
    for value in &found {
        let line =
            template::fill(&format, value).map_err(|why| Failure::new("BX0903", why, Some("boxship inspect NAME")))?;
        anstream::println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn top(context: &Context, args: &TopArgs) -> Result<ExitCode, Failure> {
    let answer = Desk::open(context).await?.look(&LookRequest::Top(args.container.clone())).await?;
    let LookAnswer::Processes(processes) = answer else { return Err(another_answer()) };
    if context.json() {
        context.print_json(&processes);
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["PID", "INSIDE", "PARENT", "USER", "STATE", "TIME", "MEMORY", "COMMAND"]);
    for process in processes {
        table.row([
            process.pid.to_string(),
            process.inside_pid.to_string(),
            process.parent_pid.to_string(),
            super::image::tame(&process.user, true),
            process.state.to_string(),
            processor_time(process.cpu_ms),
            bytes(process.memory_bytes),
            super::image::tame(&process.command, true),
        ]);
    }
    anstream::println!("{}", table.render());
    Ok(ExitCode::SUCCESS)
}

/// `1:02.34`: minutes, seconds, hundredths.
fn processor_time(ms: u64) -> String {
    format!("{}:{:02}.{:02}", ms / 60_000, ms / 1_000 % 60, ms / 10 % 100)
}

fn another_answer() -> Failure {
    Failure::new("BX0902", "the controller answered another question", Some("boxship get"))
}

pub(super) async fn stats(context: &Context, args: &StatsArgs) -> Result<ExitCode, Failure> {
    let mut before = samples(context, args).await?;
    let is_screen = !args.no_stream && !context.json() && std::io::stdout().is_terminal();
    loop {
        tokio::time::sleep(SAMPLE_EVERY).await;
        let now = samples(context, args).await?;
        let rows: Vec<Row> = now.values().map(|sample| Row::of(sample, before.get(sample.id.as_str()))).collect();
        let text = if context.json() {
            // one line for each moment while it goes on
            let all: Value = rows.iter().map(Row::json).collect();
            if args.no_stream { serde_json::to_string_pretty(&all) } else { serde_json::to_string(&all) }
                .unwrap_or_default()
        } else {
            table(&rows)
        };
        let shown = if is_screen { format!("{AGAIN}{text}\n") } else { format!("{text}\n") };
        let mut out = std::io::stdout().lock();
        let written = out.write_all(shown.as_bytes()).and_then(|()| out.flush());
        // a reader that went away (`| head`) wants no more
        if args.no_stream || written.is_err() {
            return Ok(ExitCode::SUCCESS);
        }
        before = now;
    }
}

/// One moment, by container. Without a controller the data root is held only as long as it takes.
async fn samples(context: &Context, args: &StatsArgs) -> Result<BTreeMap<String, Sample>, Failure> {
    let answer = Desk::open(context).await?.look(&LookRequest::Stats(args.containers.clone())).await?;
    let LookAnswer::Samples(samples) = answer else { return Err(another_answer()) };
    Ok(samples.into_iter().map(|sample| (sample.id.to_string(), sample)).collect())
}

/// One container between two moments.
struct Row<'a> {
    sample: &'a Sample,
    name: String,
    /// In hundredths of a percent of one processor.
    cpu: u64,
    limit: u64,
}

impl<'a> Row<'a> {
    fn of(sample: &'a Sample, before: Option<&Sample>) -> Self {
        let cpu = before.map_or(0, |before| {
            let wall_ms = sample.at_boot_ms.saturating_sub(before.at_boot_ms).max(1);
            // nanoseconds for each millisecond: a millionth of a processor, a hundredth of which is 1/100 of a percent
            sample.usage.cpu_ns.saturating_sub(before.usage.cpu_ns) / wall_ms / 100
        });
        let limit = sample.usage.memory_max.unwrap_or(sample.host_memory_bytes).min(sample.host_memory_bytes);
        Self { sample, name: name_of(&sample.labels, sample.id.as_str()), cpu, limit }
    }

    /// In hundredths of a percent.
    fn memory(&self) -> u64 {
        self.sample.usage.memory_bytes.saturating_mul(10_000).checked_div(self.limit).unwrap_or(0)
    }

    fn json(&self) -> Value {
        let usage = &self.sample.usage;
        json!({
            "id": self.sample.id, "name": self.name, "cpuPercent": self.cpu as f64 / 100.0, "cpuNs": usage.cpu_ns,
            "memoryBytes": usage.memory_bytes, "memoryLimitBytes": usage.memory_max, "memoryPercent": self.memory() as f64 / 100.0,
            "pids": usage.pids, "pidsLimit": usage.pids_max, "readBytes": usage.read_bytes, "writtenBytes": usage.written_bytes,
            "receivedBytes": self.sample.network.map(|(received, _)| received), "sentBytes": self.sample.network.map(|(_, sent)| sent),
        })
    }
}

fn table(rows: &[Row<'_>]) -> String {
    let mut table = Table::new(&["NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"]);
    let percent = |hundredths: u64| format!("{}.{:02}%", hundredths / 100, hundredths % 100);
    let both = |(a, b): (u64, u64)| format!("{} / {}", bytes(a), bytes(b));
    for row in rows {
        let usage = &row.sample.usage;
        table.row([
            row.name.clone(),
            percent(row.cpu),
            both((usage.memory_bytes, row.limit)),
            percent(row.memory()),
            row.sample.network.map(both).unwrap_or_default(),
            both((usage.read_bytes, usage.written_bytes)),
            usage.pids.to_string(),
        ]);
    }
    table.render()
}
