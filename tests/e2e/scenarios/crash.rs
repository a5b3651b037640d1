//! Whoever dies, containers go on: controller, supervisor, switchboard, state database, the whole host.

use std::time::{Duration, Instant};

use super::converge::shop;
use super::{alone, on_images};
use crate::http::{self, Load};
use crate::lab::{Counts, Lab, kill};
use crate::lines::{self, Reader};
use crate::wait::{holds_for, wait_for};
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[
    alone(on_images("killing_controller_and_supervisor_disturbs_nothing", 900, killing_the_managers)),
    alone(on_images("killing_the_switchboard_refuses_no_connection", 120, killing_the_switchboard)),
    on_images("an_exit_during_the_supervisors_death_is_known", 120, an_exit_is_known),
    on_images("a_lost_state_database_restarts_no_container", 120, a_lost_database),
    on_images("after_a_reboot_everything_comes_back_by_itself", 150, after_a_reboot),
    on_images("cycles_of_crashes_and_reboots_leave_nothing", 400, cycles_leave_nothing),
];

/// Those that may die at any moment.
const DAEMONS: [&str; 3] = ["controller", "supervisor", "switchboard"];
/// Whether the campaigns were asked for, not their slices.
fn long() -> bool {
    std::env::var_os("BOXSHIP_E2E_LONG").is_some()
}

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

/// How long the managers are killed with `BOXSHIP_E2E_LONG=1` (row P1 of the catalogue of features).
const KILLING: Duration = Duration::from_secs(600);
/// Kills without it.
const KILLS: usize = 6;

/// Controller and supervisor in turn, under clients on new and on open connections and with a container that writes as fast
/// as it can.
fn killing_the_managers(lab: &mut Lab) -> Result {
    shop(lab)?;
    lab.write("count.yaml", &lines::counter(lab, 7)?)?;
    let (container, _) = lab.started("job/count")?;
    let (web, cache) = (lab.pids("app/web")?, lab.pids("app/cache")?);
    let reader = Reader::start(lab.logs_of(&container));
    lines::go(lab, "start")?;
    let (anew, kept) = (Load::start(4, 8080, "/"), Load::start_kept(2, 8080, "/"));
    let (mut slowest, mut kills, begun) = (Duration::ZERO, 0, Instant::now());
    let killed = loop {
        match kill_daemon(lab, ["controller", "supervisor"][kills % 2]) {
            Ok(took) => slowest = slowest.max(took),
            Err(why) => break Err(why),
        }
        kills += 1;
        if if long() { begun.elapsed() >= KILLING } else { kills >= KILLS } {
            break Ok(());
        }
    };
    let seen = [anew.stop(), kept.stop()];
    killed?;
    let requests: usize = seen.iter().map(|seen| seen.requests).sum();
    println!("measured: {kills} kills, whole again within {slowest:?}; {requests} requests");
    for seen in seen {
        ensure!(seen.failed() == 0, "{} of {} requests failed: {:?}", seen.failed(), seen.requests, seen.failures);
    }
    ensure!(slowest < WHOLE, "whole again only after {slowest:?}");
    ensure!(lab.pids("app/web")? == web && lab.pids("app/cache")? == cache, "containers were touched");
    lines::go(lab, "stop")?;
    lab.failed_with("job/count", 7)?;
    let (read, written) = (reader.stop()?, lines::counted(lab)?);
    println!("measured: {} lines, {} repeats, the longest {} bytes", read.lines, read.repeats, read.longest);
    ensure!(read.missing.is_empty(), "missing: {:?}", read.missing);
    ensure!(read.next == written, "{written} lines were written, the last one read is number {}", read.next - 1);
    // and it still does its work
    kill(web[0].1)?;
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

/// The least there was of everything in a second in which nothing happens.
fn at_rest(lab: &Lab) -> Result<Counts> {
    let mut least = lab.measure()?;
    holds_for(Duration::from_secs(1), || {
        for (kind, count) in lab.measure()? {
            least.entry(kind).and_modify(|least| *least = count.min(*least));
        }
        Ok(())
    })?;
    Ok(least)
}

/// How often the whole is broken in some way and has to be whole again; the 100 with `BOXSHIP_E2E_LONG=1`.
const CYCLES: usize = 25;
/// Ways to break it.
const WAYS: usize = 5;

/// A roll-out is cut by a kill of one of the three, by a kill of them all with a replica, or by a reboot, again and again.
/// After the first time of each there must never be more of anything, nor less.
fn cycles_leave_nothing(lab: &mut Lab) -> Result {
    let cycles = if long() { 100 } else { CYCLES };
    let image = lab.image("busybox:1");
    let app = |cycle: usize| {
        format!(
            "apiVersion: boxship/v1\nkind: Volume\nname: pages\naccess: shared\n---\n\
             apiVersion: boxship/v1\nkind: App\nname: web\nreplicas: 2\nimage: {image}\nstopSignal: SIGKILL\n\
             entrypoint: [/bin/sh, -c]\nargs: [\"echo $$CYCLE > /www/cycle; exec httpd -f -p 80 -h /www\"]\n\
             env: {{CYCLE: \"{cycle}\"}}\nmounts: [{{path: /pages, volume: pages}}, {{path: /tmp, tmpfs: 1Mi}}]\n\
             ports: [{{containerPort: 80, publish: \"127.0.0.1:8080\"}}]\n\
             strategy: {{maxSurge: 1, maxUnavailable: 0}}\n"
        )
    };
    let whole = |lab: &Lab, cycle: usize| -> Result {
        lab.ready("app/web", 2, Duration::from_secs(20))?;
        wait_for("the new revision answers", Duration::from_secs(20), || {
            let body = http::get(8080, "/cycle")?.body;
            ensure!(body == format!("{cycle}\n"), "{body:?} answers in cycle {cycle}");
            Ok(())
        })?;
        lab.ready("app/web", 2, Duration::from_secs(20))?;
        lab.pids("app/web").map(|_| ())
    };
    lab.write("web.yaml", &app(0))?;
    lab.start_controller()?;
    whole(lab, 0)?;
    let mut first = None;
    for cycle in 1..=cycles {
        lab.write("web.yaml", &app(cycle))?;
        match cycle % WAYS {
            way @ 1..=3 => {
                kill_daemon(lab, DAEMONS[way - 1])?;
            }
            4 => {
                kill(lab.pids("app/web")?[0].1)?;
                DAEMONS.iter().try_for_each(|role| kill_daemon(lab, role).map(|_| ()))?;
            }
            _ => {
                lab.reboot(u32::try_from(cycle).unwrap_or(0) + 1)?;
                lab.start_controller()?;
            }
        }
        whole(lab, cycle)?;
        if cycle % WAYS == 0 {
            let first = match &first {
                Some(first) => first,
                None => first.insert(at_rest(lab)?),
            };
            let what = format!("as much of everything after cycle {cycle} as after the first ones");
            wait_for(&what, Duration::from_secs(10), || {
                let now = lab.measure()?;
                let other = |kind: &&&str| now[**kind] != first[**kind];
                let changed: Vec<String> =
                    now.keys().filter(other).map(|kind| format!("{kind}: {} -> {}", first[kind], now[kind])).collect();
                ensure!(changed.is_empty(), "{}", changed.join(", "));
                Ok(())
            })?;
        }
    }
    println!(
        "measured: {cycles} cycles, each kind of thing as often as in the beginning: {:?}",
        first.unwrap_or_default()
    );
    Ok(())
}
