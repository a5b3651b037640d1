//! Replacing what runs: roll-outs under load, tags that do not work, data that stays.

use std::time::Duration;

use super::converge::{EXTRA_CONF, cache, shop, web};
use super::{alone, on_images};
use crate::http::{self, Load};
use crate::lab::{Lab, replicas};
use crate::wait::{holds_for, wait_for};
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[
    alone(on_images("a_new_tag_rolls_under_load_without_a_failed_request", 180, a_new_tag_rolls)),
    on_images("a_udp_port_answers_through_a_roll", 120, a_udp_port_answers),
    on_images("a_bad_tag_leaves_the_old_revision_serving", 150, a_bad_tag),
    on_images("redis_data_survives_replacement", 120, redis_data_survives),
    on_images("a_changed_config_file_rolls_once", 120, a_changed_config_rolls),
    on_images("a_followed_tag_rolls_when_it_is_pushed", 120, a_followed_tag_rolls),
];

const ROLL: Duration = Duration::from_secs(60);

/// All replicas answer with this page and are ready.
fn rolled(lab: &Lab, page: &str, count: usize) -> Result {
    wait_for(&format!("{count} replicas with {page:?}"), ROLL, || {
        let object = lab.object("app/web")?;
        let good = replicas(&object).filter(|replica| replica["ready"] == true).count();
        let all = replicas(&object).filter(|replica| replica["state"] != "stopped").count();
        ensure!(good == count && all == count && object["phase"] == "ready", "{object}");
        let body = http::get(8080, "/")?.body;
        ensure!(body == page, "answers {body:?}");
        Ok(())
    })?;
    Ok(())
}

/// Each question gets its answer while the one replica is replaced, twice.
fn a_udp_port_answers(lab: &mut Lab) -> Result {
    let app = |name: &str| {
        format!(
            "apiVersion: boxship/v1\nkind: App\nname: echo\nimage: {}\nenv: {{NAME: {name}}}\n\
             entrypoint: [/usr/bin/perl, -MSocket, -e]\n\
             args: ['socket(S, PF_INET, SOCK_DGRAM, 17); bind(S, sockaddr_in(5300, INADDR_ANY)); \
             while (1) {{ $$p = recv(S, $$m, 2000, 0) or next; send(S, \"$$ENV{{NAME}} $$m\", 0, $$p) }}']\n\
             ports: [\"127.0.0.1:5353:5300/udp\"]\nhealthcheck: {{exec: [/bin/grep, -q, \":14B4 \", /proc/net/udp], interval: 1s}}\n",
            lab.image("nginx:1")
        )
    };
    lab.write("echo.yaml", &app("one"))?;
    lab.start_controller()?;
    lab.ready("app/echo", 1, ROLL)?;
    let told = |error: std::io::Error| error.to_string();
    let client = std::net::UdpSocket::bind("127.0.0.1:0").map_err(told)?;
    client
        .connect("127.0.0.1:5353")
        .and_then(|()| client.set_read_timeout(Some(Duration::from_secs(10))))
        .map_err(told)?;
    let ask = |number: u32| -> Result<String> {
        let mut buffer = [0; 100];
        client.send(number.to_string().as_bytes()).map_err(told)?;
        let len = client.recv(&mut buffer).map_err(|error| format!("question {number} has no answer: {error}"))?;
        let answer = String::from_utf8_lossy(&buffer[..len]).into_owned();
        let (name, echoed) = answer.split_once(' ').ok_or("no answer of ours")?;
        ensure!(echoed == number.to_string(), "{number} is answered by {answer:?}");
        Ok(name.to_owned())
    };
    ensure!(ask(0)? == "one", "the first answers");
    let mut number = 0;
    for name in ["two", "three"] {
        lab.write("echo.yaml", &app(name))?;
        wait_for(&format!("{name} answers"), ROLL, || {
            number += 1;
            // an answer that does not come at all ends the scenario, one of the old replica is asked for again
            let answer = ask(number);
            ensure!(answer.is_err() || answer.as_deref() == Ok(name), "{answer:?}");
            Ok(answer)
        })?
        .0?;
    }
    println!("measured: {number} questions");
    Ok(())
}

fn a_new_tag_rolls(lab: &mut Lab) -> Result {
    let strategy = "strategy: {maxSurge: 1, maxUnavailable: 0}\nstopGracePeriod: 60s\n";
    lab.write("extra.conf", EXTRA_CONF)?;
    lab.write("web.yaml", &web(lab, "1", 3, strategy))?;
    lab.start_controller()?;
    lab.ready("app/web", 3, ROLL)?;
    // one request that lasts through the roll: 1 MiB at 64 kB/s
    let slow = std::thread::spawn(|| {
        http::get_from(([127, 0, 0, 1], 8080).into(), "/slow", Duration::from_secs(90)).map(|answer| answer.body.len())
    });
    let load = Load::start(4, 8080, "/");
    holds_for(Duration::from_millis(500), || Ok(()))?;
    lab.write("web.yaml", &web(lab, "2", 3, strategy))?;
    let rolled_over = wait_for("the new tag answers alone", ROLL, || {
        let object = lab.object("app/web")?;
        let new = (0..6).filter(|_| http::get(8080, "/").is_ok_and(|answer| answer.body == "nginx 2\n")).count();
        ensure!(new == 6 && object["ready"] == 3, "{object}");
        Ok(())
    });
    holds_for(Duration::from_millis(500), || Ok(()))?;
    let seen = load.stop();
    println!("measured: {} requests, slowest {:?}, failures {:?}", seen.requests, seen.slowest, seen.failures);
    rolled_over?;
    ensure!(seen.requests >= 2_000, "only {} requests", seen.requests);
    ensure!(seen.failed() == 0, "{} of {} requests failed: {:?}", seen.failed(), seen.requests, seen.failures);
    let both = seen.while_both("nginx 1", "nginx 2");
    ensure!(both >= 200, "only {both} requests while old and new were both live");
    let slow = slow.join().map_err(|_| "the slow request panicked")?;
    ensure!(slow == Ok(1 << 20), "the request that lasted through the roll: {slow:?}");
    rolled(lab, "nginx 2\n", 3)
}

fn a_bad_tag(lab: &mut Lab) -> Result {
    let strategy = "strategy: {maxSurge: 1, maxUnavailable: 0, progressDeadline: 8s, onFailure: undo}\n";
    lab.write("extra.conf", EXTRA_CONF)?;
    lab.write("web.yaml", &web(lab, "1", 3, strategy))?;
    lab.start_controller()?;
    lab.ready("app/web", 3, ROLL)?;
    let before = lab.pids("app/web")?;
    let load = Load::start(2, 8080, "/");
    lab.write("web.yaml", &web(lab, "bad", 3, strategy))?;
    let failed = wait_for("the bad revision is called failed", Duration::from_secs(40), || {
        let described = lab.ok(&["describe", "app/web"])?;
        ensure!(described.contains("failed"), "{described}");
        Ok(described)
    });
    let seen = load.stop();
    failed?;
    ensure!(seen.failed() == 0, "{} of {} requests failed: {:?}", seen.failed(), seen.requests, seen.failures);
    ensure!(seen.answers.iter().all(|(_, body)| body == "nginx 1\n"), "only the old revision answered");
    // the bad one's last container may stay, stopped, to be looked at
    let after = lab.pids("app/web")?;
    ensure!(before == after, "the good replicas were touched: {before:?} {after:?}");
    let why = lab.ok(&["why", "app/web"])?;
    ensure!(why.contains("this tag is broken") || why.contains("exit"), "why does not name the cause: {why}");
    let events = lab.ok(&["events", "app/web"])?;
    let told: Vec<&str> = events.lines().filter(|line| line.contains("RevisionFailed")).collect();
    ensure!(told.len() == 1, "the failure is told {} times:\n{events}", told.len());
    ensure!(told[0].contains("wrote last:") && told[0].contains("this tag is broken"), "no last words: {}", told[0]);
    ensure!(told[0].contains("back to revision 1"), "no outlook: {}", told[0]);
    Ok(())
}

fn redis_data_survives(lab: &mut Lab) -> Result {
    shop(lab)?;
    let redis = |args: &[&str]| lab.ok(&[&["exec", "cache", "--", "redis-cli"], args].concat());
    redis(&["set", "key", "before"])?;
    let before = lab.pids("app/cache")?;
    // another environment is another template: the replica is replaced, stop-first since its volume is its own
    lab.write("cache.yaml", &cache(lab, "env: {GENERATION: \"2\"}\n"))?;
    wait_for("the replica is replaced", ROLL, || {
        // In this order: a replica that is ready now is the one that was found before.
        let now = lab.pids("app/cache")?;
        let object = lab.object("app/cache")?;
        ensure!(now.len() == 1 && now != before && object["ready"] == 1, "{object}");
        Ok(())
    })?;
    let generation = lab.ok(&["exec", "cache", "--", "printenv", "GENERATION"])?;
    ensure!(generation.trim() == "2", "the new template runs: {generation:?}");
    let value = redis(&["get", "key"])?;
    ensure!(value.trim() == "before", "the data after replacement: {value:?}");
    Ok(())
}

fn a_changed_config_rolls(lab: &mut Lab) -> Result {
    shop(lab)?;
    let before = lab.pids("app/web")?;
    lab.write("extra.conf", &EXTRA_CONF.replace("one", "two"))?;
    wait_for("every replica has the new file", ROLL, || {
        let now = lab.pids("app/web")?;
        let object = lab.object("app/web")?;
        let kept = now.iter().filter(|(_, pid)| before.iter().any(|(_, old)| old == pid)).count();
        ensure!(now.len() == 3 && kept == 0 && object["phase"] == "ready", "{object}");
        ensure!(http::get(8080, "/extra")?.body == "two\n", "the old file answers");
        Ok(())
    })?;
    let after = lab.pids("app/web")?;
    // saving the same bytes again is no change
    lab.write("extra.conf", &EXTRA_CONF.replace("one", "two"))?;
    holds_for(Duration::from_secs(2), || {
        ensure!(lab.pids("app/web")? == after, "the same content rolled again");
        Ok(())
    })
}

fn a_followed_tag_rolls(lab: &mut Lab) -> Result {
    lab.registry().retag("nginx", "1", "live")?;
    let image = lab.image("nginx:live");
    lab.write("image.yaml", &format!("apiVersion: boxship/v1\nkind: Image\nname: live\nref: {image}\nfollow: 10s\n"))?;
    lab.write("extra.conf", EXTRA_CONF)?;
    let app = web(lab, "1", 3, "").replace(&format!("image: {}", lab.image("nginx:1")), "imageFrom: live");
    lab.write("web.yaml", &app)?;
    lab.start_controller()?;
    lab.ready("app/web", 3, ROLL)?;
    ensure!(http::get(8080, "/")?.body == "nginx 1\n", "the first one answers");
    lab.registry().retag("nginx", "2", "live")?;
    rolled(lab, "nginx 2\n", 3)
}
