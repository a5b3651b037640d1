//! `get`: objects in kubectl's columns, once or at each change.

use std::process::ExitCode;

use runtime::clock::unix_ms;

use super::args::GetArgs;
use super::context::{Context, Failure};
use super::format::{YELLOW, age};
use super::table::Table;
use super::up::short;
use crate::api::types::{MemberStatus, Notice, ObjectStatus, Phase, ReplicaStatus, Status};
use crate::model::Kind;

pub(super) async fn run(context: &Context, args: &GetArgs) -> Result<ExitCode, Failure> {
    let mut version = 0;
    loop {
        let path =
            if args.watch { format!("/v1/status?after={version}&timeout_ms=30000") } else { "/v1/status".into() };
        let status: Status = context.client.get(&path).await?;
        if status.version != version || !args.watch {
            version = status.version;
            let chosen = choose(context, args, &status)?;
            print(context, args, &status, &chosen);
        }
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn choose<'a>(context: &Context, args: &GetArgs, status: &'a Status) -> Result<Vec<&'a ObjectStatus>, Failure> {
    let in_stack = |o: &&ObjectStatus| args.stack.as_ref().is_none_or(|stack| *stack == o.key.stack);
    let Some(what) = args.what.as_deref() else {
        return Ok(status.objects.iter().filter(in_stack).collect());
    };
    let plural = what.strip_suffix('s').unwrap_or(what);
    if let Some(kind) = Kind::ALL.into_iter().find(|k| k.as_str() == plural) {
        return Ok(status.objects.iter().filter(in_stack).filter(|o| o.key.kind == kind).collect());
    }
    Ok(vec![context.find(status, what)?.0])
}

fn print(context: &Context, args: &GetArgs, status: &Status, chosen: &[&ObjectStatus]) {
    if context.json() {
        let value = serde_json::json!({
            "apiVersion": crate::api::types::API_VERSION,
            "generation": status.generation,
            "convergedGeneration": status.converged_generation,
            "objects": chosen,
            "notices": status.notices,
            "sources": status.sources,
        });
        context.print_json(&value);
        return;
    }
    anstream::println!("{}", table(chosen, args.replicas, unix_ms()));
    say_notices(&status.notices);
    let sick: Vec<&str> = chosen.iter().filter(|o| o.phase == Phase::Failed).map(|o| o.key.name.as_str()).collect();
    if let Some(first) = sick.first() {
        anstream::eprintln!("Problems: {}.  boxship why {first}", sick.len());
    }
}

/// What people should know, on stderr.
pub(super) fn say_notices(notices: &[Notice]) {
    for notice in notices {
        anstream::eprintln!("{YELLOW}note[{}]{YELLOW:#}: {}", notice.code, notice.message);
        if let Some(help) = &notice.help {
            anstream::eprintln!("  help: {help}");
        }
    }
}

fn table(objects: &[&ObjectStatus], replicas: bool, now: u64) -> String {
    let mut table = Table::new(&["STACK", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "PORTS"]);
    for object in objects {
        let ready = if object.desired == 0 { String::new() } else { format!("{}/{}", object.ready, object.desired) };
        let restarts = match (object.restarts, object.last_restart_unix_ms) {
            (0, _) | (_, 0) => object.restarts.to_string(),
            (count, last) => format!("{count} ({} ago)", age(now, last)),
        };
        table.row([
            object.key.stack.clone(),
            short(&object.key),
            ready,
            object.message.clone(),
            restarts,
            age(now, object.since_unix_ms),
            object.ports.join(","),
        ]);
        for replica in object.replicas.iter().filter(|_| replicas) {
            table.row(replica_row(replica, now));
            for member in &replica.members {
                table.row(member_row(replica, member, now));
            }
        }
    }
    table.render()
}

fn replica_row(replica: &ReplicaStatus, now: u64) -> [String; 7] {
    let state = format!("{:?}", replica.state).to_lowercase();
    [
        String::new(),
        format!("  {}", replica.name),
        if replica.ready { "ready".to_owned() } else { "unready".to_owned() },
        replica.exit.map_or_else(|| replica.pod.clone().unwrap_or(state), |exit| format!("exited: {exit:?}")),
        replica.attempt.to_string(),
        age(now, replica.started_unix_ms),
        replica.address.map(|a| a.to_string()).unwrap_or_default(),
    ]
}

fn member_row(replica: &ReplicaStatus, member: &MemberStatus, now: u64) -> [String; 7] {
    let state = format!("{:?}", member.state).to_lowercase();
    [
        String::new(),
        format!("    {}/{}", replica.name, member.name),
        if member.ready { "ready".to_owned() } else { "unready".to_owned() },
        member.exit.map_or(state, |exit| format!("exited: {exit:?}")),
        member.attempt.to_string(),
        age(now, member.started_unix_ms),
        member.role.as_str().to_owned(),
    ]
}
