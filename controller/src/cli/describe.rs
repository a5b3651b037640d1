//! `describe` (everything about one object) and `why` (how it came to be as it is).

use std::process::ExitCode;

use runtime::clock::unix_ms;

use super::args::ObjectArgs;
use super::context::{Context, Failure};
use super::format::{BOLD, GREEN, RED, YELLOW, age, clock};
use super::get::say_notices;
use super::up::short;
use crate::api::types::{Description, MemberStatus, Phase, Problem};

async fn fetch(context: &Context, what: &str) -> Result<Description, Failure> {
    let status = context.status().await?;
    let key = &context.find(&status, what)?.0.key;
    Ok(context.client.get(&format!("/v1/objects/{key}")).await?)
}

pub(super) async fn run(context: &Context, args: &ObjectArgs) -> Result<ExitCode, Failure> {
    let described = fetch(context, &args.what).await?;
    if context.json() {
        context.print_json(&described);
        return Ok(ExitCode::SUCCESS);
    }
    head(&described);
    let status = &described.status;
    if let Some(image) = &status.image {
        anstream::println!("   Image:    {image}");
    }
    if !status.ports.is_empty() {
        anstream::println!("   Ports:    {}", status.ports.join(", "));
    }
    let now = unix_ms();
    for replica in &status.replicas {
        let address = replica.address.map(|a| a.to_string()).unwrap_or_default();
        let pid = replica.pid.map(|p| format!("pid {p}")).unwrap_or_default();
        let ready = if replica.ready { "ready" } else { "unready" };
        let up = age(now, replica.started_unix_ms);
        anstream::println!("   Replica:  {:10} {ready:8} up {up:5} {address:15} {pid}", replica.name);
        for member in &replica.members {
            anstream::println!("             {}", member_line(member, now));
        }
        if let Some(probe) = &replica.probe {
            anstream::println!("             probe: {probe}");
        }
    }
    by_hand(&described, now);
    for revision in &described.revisions {
        let when = age(now, revision.created_unix_ms);
        anstream::println!("   Revision: {:3} {} {} ({when} ago)", revision.number, revision.image, revision.result);
    }
    timeline(&described);
    logs(&described);
    Ok(ExitCode::SUCCESS)
}

/// What people asked of it.
fn by_hand(described: &Description, now: u64) {
    let asked = &described.orders;
    if let Some(hold) = &asked.hold {
        anstream::println!("   Held:     {} ({} ago)", hold.why, age(now, hold.since_unix_ms));
    }
    if let Some(replicas) = asked.replicas {
        anstream::println!("   Scaled:   to {replicas} by hand");
    }
    if asked.paused {
        anstream::println!("   Paused:   roll-outs go no further");
    }
}

pub(super) async fn why(context: &Context, args: &ObjectArgs) -> Result<ExitCode, Failure> {
    let described = fetch(context, &args.what).await?;
    if context.json() {
        context.print_json(&described);
        return Ok(ExitCode::SUCCESS);
    }
    head(&described);
    for waiting in &described.waiting {
        anstream::println!("   {YELLOW}waits{YELLOW:#}    {waiting}");
    }
    for replica in described.status.replicas.iter().filter(|r| !r.ready) {
        if let Some(probe) = &replica.probe {
            anstream::println!("   {YELLOW}probe{YELLOW:#}    {}: {probe}", replica.name);
        }
    }
    timeline(&described);
    logs(&described);
    Ok(ExitCode::SUCCESS)
}

/// One container of a replica that has several.
fn member_line(member: &MemberStatus, now: u64) -> String {
    let state = match member.exit {
        Some(exit) => exit.to_string(),
        None if member.ready => "ready".to_owned(),
        None => format!("{:?}", member.state).to_lowercase(),
    };
    let up = age(now, member.started_unix_ms);
    let pid = member.pid.map(|pid| format!("pid {pid}")).unwrap_or_default();
    let role = member.role.as_str();
    format!("{role:8} {:16} {state:12} restarts {} {up:5} {pid}", member.name, member.attempt).trim_end().to_owned()
}

fn head(described: &Description) {
    let status = &described.status;
    let colour = match status.phase {
        Phase::Ready | Phase::Completed => GREEN,
        Phase::Failed => RED,
        Phase::Pending | Phase::Progressing | Phase::Held | Phase::Removing => YELLOW,
    };
    let revision = status.revision.map(|n| format!(", rev {n}")).unwrap_or_default();
    let source = status.source.as_ref().map_or_else(|| "no manifest".to_owned(), ToString::to_string);
    anstream::println!(
        "{colour}●{colour:#} {BOLD}{}{BOLD:#} (stack {}{revision}, {source})",
        short(&status.key),
        status.key.stack
    );
    let ready =
        if status.desired == 0 { String::new() } else { format!(", ready {}/{}", status.ready, status.desired) };
    anstream::println!("   Status:   {}{ready}", status.message);
    if let Some(problem) = &status.problem {
        anstream::println!("{}", problem_text(problem));
    }
    // On stderr, as in `get`: they are about the host, not about what was asked.
    say_notices(&described.notices);
}

/// Ours like all errors: code, what, `--> file:line:column`, one command.
pub(super) fn problem_text(problem: &Problem) -> String {
    let place = problem.place.as_ref().map(|place| format!("\n  --> {place}")).unwrap_or_default();
    let help = problem.help.as_ref().map(|help| format!("\n  help: {help}")).unwrap_or_default();
    format!("{RED}error[{}]{RED:#}: {}{place}{help}", problem.code, problem.message)
}

fn timeline(described: &Description) {
    for (replica, exit) in &described.exits {
        let asked = match (exit.asked, exit.unhealthy) {
            (true, _) => ", asked for",
            (false, true) => ", stopped as unhealthy",
            (false, false) => "",
        };
        anstream::println!(
            "   {} {:10} run {} ended: {}{asked}",
            clock(exit.finished_unix_ms),
            replica,
            exit.attempt + 1,
            exit.exit
        );
    }
    for event in &described.events {
        let mark = if event.warning { "!" } else { " " };
        anstream::println!("   {}{mark}{:10} {}", clock(event.unix_ms), event.reason, event.message);
    }
}

fn logs(described: &Description) {
    for line in &described.log_tail {
        anstream::println!("   {:10} | {}", line.replica, line.line);
    }
}
