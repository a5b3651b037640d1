//! Whoever dies, containers go on: controller, supervisor, switchboard, state database, the whole host.

use std::time::Duration;

use super::converge::{EXTRA_CONF, shop, web};
use super::{alone, on_images};
use crate::http::{self, Load};
use crate::lab::{Lab, kill};
use crate::wait::{holds_for, wait_for};
use crate::{Result, Scenario, audit, ensure};

pub(super) const ALL: &[Scenario] = &[
    alone(on_images("killing_the_controller_disturbs_nothing", 120, |lab| killing(lab, "controller"))),
    alone(on_images("killing_the_supervisor_disturbs_nothing", 120, |lab| killing(lab, "supervisor"))),
    alone(on_images("killing_the_switchboard_refuses_no_connection", 120, killing_the_switchboard)),
    on_images("an_exit_during_the_supervisors_death_is_known", 120, an_exit_is_known),
    on_images("a_lost_state_database_restarts_no_container", 120, a_lost_database),
    on_images("after_a_reboot_everything_comes_back_by_itself", 150, after_a_reboot),
    on_images("cycles_of_up_kill_and_down_leave_nothing", 240, cycles_leave_nothing),
];

/// How fast everything has to be whole again.
const WHOLE: Duration = Duration::from_secs(2);

/// Kills one of the processes and waits until another one is there.
fn kill_daemon(lab: &Lab, role: &str) -> Result<Duration> {
    let before = lab.daemon(role)?;
    kill(before)?;
    let ((), took) = wait_for(&format!("another {role}"), Duration::from_secs(10), || {
        let now = lab.daemon(role)?;
        ensure!(now != before, "still pid {before}");
        // the first answer of a new controller may come before its first look
        ensure!(lab.status()?["objects"].as_array().is_some_and(|objects| !objects.is_empty()), "no objects yet");
        Ok(())
    })?;
    Ok(took)
}

fn killing(lab: &mut Lab, role: &str) -> Result {
    shop(lab)?;
    let (web, cache) = (lab.pids("app/web")?, lab.pids("app/cache")?);
    let load = Load::start(4, 8080, "/");
    let mut slowest = Duration::ZERO;
    let mut outcome = Ok(());
    for _ in 0..3 {
        match kill_daemon(lab, role) {
            Ok(took) => slowest = slowest.max(took),
            Err(why) => outcome = Err(why),
        }
    }
    let seen = load.stop();
    outcome?;
    println!("measured: whole again within {slowest:?}; {} requests, slowest {:?}", seen.requests, seen.slowest);
    ensure!(seen.failed() == 0, "{} of {} requests failed: {:?}", seen.failed(), seen.requests, seen.failures);
    ensure!(slowest < WHOLE, "whole again only after {slowest:?}");
    ensure!(lab.pids("app/web")? == web && lab.pids("app/cache")? == cache, "containers were touched");
    // and it still does its work
    let (_, pid) = web[0].clone();
    kill(pid)?;
    lab.ready("app/web", 3, Duration::from_secs(15))?;
    let logs = lab.ok(&["logs", "web", "--tail", "5"])?;
    ensure!(logs.contains("GET /"), "logs go on: {logs}");
    Ok(())
}

fn killing_the_switchboard(lab: &mut Lab) -> Result {
    shop(lab)?;
    let web = lab.pids("app/web")?;
    let load = Load::start(4, 8080, "/");
    let mut slowest = Duration::ZERO;
    let mut outcome = Ok(());
    for _ in 0..5 {
        match kill_daemon(lab, "switchboard") {
            Ok(took) => slowest = slowest.max(took),
            Err(why) => outcome = Err(why),
        }
        holds_for(Duration::from_millis(300), || Ok(()))?;
    }
    let seen = load.stop();
    outcome?;
    println!("measured: whole again within {slowest:?}; {} requests, failures {:?}", seen.requests, seen.failures);
    ensure!(slowest < WHOLE, "whole again only after {slowest:?}");
    let refused: usize = seen.failures.iter().filter(|(why, _)| why.contains("connect")).map(|(_, count)| count).sum();
    ensure!(refused == 0, "{refused} connections refused: {:?}", seen.failures);
    // a connection that was open resets once: at most one for each client and kill
    ensure!(seen.failed() <= 4 * 5, "{} open connections broke in 5 kills: {:?}", seen.failed(), seen.failures);
    ensure!(lab.pids("app/web")? == web, "containers were touched");
    // names are still answered
    lab.ok(&["exec", "web", "--", "getent", "hosts", "cache"])?;
    Ok(())
}

/// Twenty jobs end while there is no supervisor, five at each of four kills, each with an exit code of its own.
fn an_exit_is_known(lab: &mut Lab) -> Result {
    let job = |code: u8| {
        format!(
            "apiVersion: boxship/v1\nkind: Job\nname: job-with-{code}\nimage: {}\nbackoffLimit: 0\n\
             entrypoint: [/bin/sh, -c]\nargs: [\"while [ ! -e /go/{code} ]; do sleep 0.05; done; exit {code}\"]\n\
             mounts: [{{path: /go, bind: ./go, readOnly: true}}]\n",
            lab.image("busybox:1")
        )
    };
    std::fs::create_dir_all(lab.manifests.join("go")).map_err(|error| error.to_string())?;
    lab.write("jobs.yaml", &(1..=20).map(job).collect::<Vec<_>>().join("---\n"))?;
    lab.start_controller()?;
    for code in 1..=20 {
        wait_for("the jobs run", Duration::from_secs(40), || {
            ensure!(lab.pids(&format!("job/job-with-{code}"))?.len() == 1, "job {code} has no pid");
            Ok(())
        })?;
    }
    for round in 0..4_u8 {
        kill(lab.daemon("supervisor")?)?;
        for code in round * 5 + 1..=round * 5 + 5 {
            std::fs::write(lab.manifests.join(format!("go/{code}")), "").map_err(|error| error.to_string())?;
        }
        for code in round * 5 + 1..=round * 5 + 5 {
            let name = format!("job/job-with-{code}");
            lab.failed_with(&name, code)?;
        }
    }
    Ok(())
}

fn a_lost_database(lab: &mut Lab) -> Result {
    shop(lab)?;
    let (web, cache) = (lab.pids("app/web")?, lab.pids("app/cache")?);
    std::fs::remove_dir_all(lab.data_root.join("state")).map_err(|error| format!("delete the database: {error}"))?;
    kill_daemon(lab, "controller")?;
    lab.ready("app/web", 3, Duration::from_secs(20))?;
    holds_for(Duration::from_secs(2), || {
        ensure!(lab.pids("app/web")? == web && lab.pids("app/cache")? == cache, "containers were restarted");
        Ok(())
    })?;
    ensure!(lab.data_root.join("state").exists(), "the database was not made again");
    Ok(())
}

fn after_a_reboot(lab: &mut Lab) -> Result {
    shop(lab)?;
    lab.ok(&["exec", "cache", "--", "redis-cli", "set", "key", "kept"])?;
    for boot in 2..4 {
        lab.reboot(boot)?;
        lab.start_controller()?;
        lab.ready("app/web", 3, Duration::from_secs(30))?;
        lab.ready("app/cache", 1, Duration::from_secs(30))?;
        ensure!(http::get(8080, "/")?.body == "nginx 1\n", "it answers after boot {boot}");
        let kept = lab.ok(&["exec", "cache", "--", "redis-cli", "get", "key"])?;
        ensure!(kept.trim() == "kept", "data after boot {boot}: {kept:?}");
    }
    Ok(())
}

fn cycles_leave_nothing(lab: &mut Lab) -> Result {
    shop(lab)?;
    let whole = |lab: &Lab| -> Result {
        lab.ready("app/web", 3, Duration::from_secs(20))?;
        lab.ready("app/cache", 1, Duration::from_secs(20))?;
        lab.pids("app/web").map(|_| ())
    };
    let measure = |lab: &Lab| -> Result<_> {
        let mut counts = lab.audit().counts();
        for role in ["keeper", "supervisor", "switchboard", "controller"] {
            counts.insert(role, audit::descriptors(lab.daemon(role)?));
        }
        Ok(counts)
    };
    // the first round warms up what is made once and kept
    let mut first = None;
    for cycle in 0..12 {
        let victims = lab.pids("app/web")?;
        ensure!(!victims.is_empty(), "cycle {cycle}: no live replica");
        kill(victims[cycle % victims.len()].1)?;
        kill_daemon(lab, ["controller", "supervisor", "switchboard"][cycle % 3])?;
        lab.write("extra.conf", &EXTRA_CONF.replace("one", &format!("cycle {cycle}")))?;
        lab.write("web.yaml", &web(lab, if cycle % 2 == 0 { "2" } else { "1" }, 3, ""))?;
        whole(lab)?;
        wait_for("the new file answers", Duration::from_secs(20), || {
            ensure!(http::get(8080, "/extra")?.body == format!("cycle {cycle}\n"), "the old file");
            Ok(())
        })?;
        whole(lab)?;
        if cycle == 2 {
            first = Some(measure(lab)?);
        }
    }
    let first = first.expect("measured in cycle 2");
    wait_for("as many of everything as after the first cycles", Duration::from_secs(10), || {
        let last = measure(lab)?;
        let grown: Vec<String> = last
            .iter()
            .filter(|(kind, count)| **count > first[*kind])
            .map(|(kind, count)| format!("{kind}: {} -> {count}", first[kind]))
            .collect();
        ensure!(grown.is_empty(), "grown over 9 cycles: {}", grown.join(", "));
        Ok(())
    })?;
    Ok(())
}
