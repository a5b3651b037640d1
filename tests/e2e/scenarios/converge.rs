//! Manifests become running containers: the stack of the README on real nginx and redis, and images without Apps.

use std::time::Duration;

use super::{alone, on_images};
use crate::http;
use crate::lab::{Lab, kill};
use crate::wait::wait_for;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[
    on_images("nginx_and_redis_converge_from_a_directory", 120, nginx_and_redis_converge),
    alone(on_images("a_killed_replica_is_back_within_a_second", 120, a_killed_replica_is_back)),
    on_images("an_image_alone_is_held_and_starts_with_the_registry_off", 120, an_image_alone_is_held),
    on_images("postgres_makes_its_cluster_as_its_own_user", 120, postgres_makes_its_cluster),
    on_images("a_removed_manifest_removes_its_app_and_keeps_its_volume", 120, a_removed_manifest),
    on_images("limits_and_hardening_hold", 120, limits_and_hardening),
    on_images("down_leaves_nothing_behind", 120, down_leaves_nothing),
];

/// Long enough for a first pull of 50 MB on a busy machine.
const CONVERGE: Duration = Duration::from_secs(60);

/// nginx ×3 on one published port with a mounted config.
pub(super) fn web(lab: &Lab, tag: &str, replicas: usize, extra: &str) -> String {
    format!(
        "apiVersion: boxship/v1\nkind: App\nname: web\nreplicas: {replicas}\nimage: {}\n\
         ports: [{{containerPort: 80, publish: \"127.0.0.1:8080\"}}]\n\
         mounts:\n- {{path: /etc/nginx/site.d/extra.conf, file: ./extra.conf, onChange: roll}}\n\
         healthcheck: {{http: \":80/healthz\", interval: 200ms, retries: 3}}\n{extra}",
        lab.image(&format!("nginx:{tag}"))
    )
}

/// redis with a named volume.
pub(super) fn cache(lab: &Lab, extra: &str) -> String {
    format!(
        "apiVersion: boxship/v1\nkind: Volume\nname: cache-data\n---\n\
         apiVersion: boxship/v1\nkind: App\nname: cache\nimage: {}\n\
         mounts: [{{path: /data, volume: cache-data}}]\n{extra}",
        lab.image("redis:7")
    )
}

pub(super) const EXTRA_CONF: &str = "location = /extra { return 200 \"one\\n\"; }\n";

/// Both, ready.
pub(super) fn shop(lab: &Lab) -> Result {
    lab.write("extra.conf", EXTRA_CONF)?;
    lab.write("web.yaml", &web(lab, "1", 3, ""))?;
    lab.write("cache.yaml", &cache(lab, ""))?;
    lab.start_controller()?;
    lab.ready("app/web", 3, CONVERGE)?;
    lab.ready("app/cache", 1, CONVERGE)?;
    Ok(())
}

fn nginx_and_redis_converge(lab: &mut Lab) -> Result {
    shop(lab)?;
    let page = http::get(8080, "/")?;
    ensure!(page.status == 200 && page.body == "nginx 1\n", "GET /: {} {:?}", page.status, page.body);
    let extra = http::get(8080, "/extra")?;
    ensure!(extra.body == "one\n", "the mounted config is not in force: {} {:?}", extra.status, extra.body);
    // every replica answers behind the one port
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..60 {
        let head = http::get(8080, "/")?.head;
        names.extend(head.lines().filter_map(|line| line.strip_prefix("X-Replica: ").map(str::to_owned)));
    }
    ensure!(names.len() == 3, "3 replicas answer behind the port, seen: {names:?}");
    // one stack: the other App is reached by its name
    let pong =
        lab.ok(&["exec", "web", "--", "bash", "-c", "exec 3<>/dev/tcp/cache/6379; echo PING >&3; head -n1 <&3"])?;
    ensure!(pong.trim() == "+PONG", "PING to `cache` by name: {pong:?}");
    // a container sees itself as root, the host sees a range of its own
    let id = lab.ok(&["exec", "web", "--", "id", "-u"])?;
    ensure!(id.trim() == "0", "id -u inside: {id:?}");
    for (name, pid) in lab.pids("app/web")? {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
        let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap_or_default();
        ensure!(!uid.contains("\t0\t"), "{name} runs as the host's root: {uid}");
    }
    let logs = lab.ok(&["logs", "web"])?;
    ensure!(logs.contains("GET /extra"), "the access log is not in `logs`: {logs}");
    // nothing to do is nothing done
    let plan = lab.ok(&["plan", "-o", "json"])?;
    let plan: serde_json::Value = serde_json::from_str(&plan).map_err(|error| error.to_string())?;
    ensure!(plan["plan"]["steps"].as_array().is_some_and(Vec::is_empty), "a converged stack plans {plan}");
    Ok(())
}

fn a_killed_replica_is_back(lab: &mut Lab) -> Result {
    shop(lab)?;
    // long enough ready that the first restart is immediate
    crate::wait::holds_for(Duration::from_secs(10), || lab.pids("app/web").map(|_| ()))?;
    let pids = lab.pids("app/web")?;
    let (name, pid) = pids[1].clone();
    kill(pid)?;
    let (_, took) = wait_for("three live replicas again", Duration::from_secs(5), || {
        let object = lab.object("app/web")?;
        let now = lab.pids("app/web")?;
        ensure!(now.len() == 3 && now.iter().all(|(_, other)| *other != pid) && object["ready"] == 3, "{object}");
        Ok(())
    })?;
    ensure!(took < Duration::from_secs(1), "{name} was ready again after {took:?}");
    println!("measured: {name} ready again after {took:?}");
    let others = lab.pids("app/web")?.iter().filter(|(_, now)| pids.iter().any(|(_, before)| before == now)).count();
    ensure!(others == 2, "only the killed one was replaced: {others} of 2 others kept");
    Ok(())
}

fn an_image_alone_is_held(lab: &mut Lab) -> Result {
    lab.write(
        "image.yaml",
        &format!("apiVersion: boxship/v1\nkind: Image\nname: web-image\nref: {}\n", lab.image("nginx:1")),
    )?;
    lab.scrub_every = "4s";
    lab.start_controller()?;
    wait_for("the image is held", CONVERGE, || {
        let object = lab.object("image/web-image")?;
        ensure!(object["phase"] == "ready", "{object}");
        Ok(())
    })?;
    let listed = lab.ok(&["image", "ls", "-o", "json"])?;
    ensure!(listed.contains("debian/nginx"), "image ls: {listed}");
    lab.registry().stop();
    a_damaged_layer_heals(lab)?;
    lab.write("extra.conf", EXTRA_CONF)?;
    let app = web(lab, "1", 1, "").replace(&format!("image: {}", lab.image("nginx:1")), "imageFrom: web-image");
    lab.write("web.yaml", &app)?;
    lab.ready("app/web", 1, Duration::from_secs(15))?;
    ensure!(http::get(8080, "/")?.body == "nginx 1\n", "it answers");
    Ok(())
}

/// Rot in a layer that nothing stands on is found by the slow scrub and made good from the layer's blob.
fn a_damaged_layer_heals(lab: &Lab) -> Result {
    let found = lab.ok(&["image", "inspect", &lab.image("nginx:1")])?;
    let found: serde_json::Value = serde_json::from_str(&found).map_err(|error| format!("image inspect: {error}"))?;
    let layers = found[0]["RootFS"]["Layers"].as_array().ok_or("no layers")?;
    let top = layers.last().and_then(|layer| layer.as_str()?.strip_prefix("sha256:")).ok_or("no layer")?;
    let rot = lab.data_root.join("images/layers").join(top).join("fs/rot");
    std::fs::write(&rot, "what nobody unpacked").map_err(|error| format!("damage a layer: {error}"))?;
    wait_for("the layer is healed", CONVERGE, || {
        let events = lab.ok(&["events"])?;
        ensure!(!rot.exists() && events.contains("ImageHealed"), "{events}");
        Ok(())
    })?;
    Ok(())
}

fn postgres_makes_its_cluster(lab: &mut Lab) -> Result {
    lab.write(
        "db.yaml",
        &format!("apiVersion: boxship/v1\nkind: App\nname: db\nimage: {}\n", lab.image("postgres:15")),
    )?;
    lab.up()?;
    lab.ready("app/db", 1, CONVERGE)?;
    let psql = |sql: &str| lab.ok(&["exec", "db", "--", "psql", "-U", "postgres", "-Atc", sql]);
    psql("create table t (x int); insert into t values (42)")?;
    let owner = lab.ok(&["exec", "db", "--", "stat", "-c", "%U %a", "/var/lib/postgresql/data"])?;
    ensure!(owner.trim() == "postgres 700", "the anonymous volume belongs to {owner:?}");
    // it survives the program's death: the anonymous volume is the replica's
    let (_, pid) = lab.pids("app/db")?[0].clone();
    kill(pid)?;
    wait_for("the row is still there", Duration::from_secs(30), || {
        let rows = psql("select x from t")?;
        ensure!(rows.trim() == "42", "select: {rows:?}");
        Ok(())
    })?;
    Ok(())
}

fn a_removed_manifest(lab: &mut Lab) -> Result {
    shop(lab)?;
    lab.ok(&["exec", "cache", "--", "redis-cli", "set", "key", "kept"])?;
    std::fs::remove_file(lab.manifests.join("cache.yaml")).map_err(|error| error.to_string())?;
    wait_for("the App is gone", Duration::from_secs(20), || match lab.object("app/cache") {
        Ok(object) => Err(object.to_string()),
        Err(_) => Ok(()),
    })?;
    ensure!(lab.object("app/web")?["ready"] == 3, "the other App is untouched");
    let shown = lab.ok(&["prune", "--volumes", "--dry-run"])?;
    ensure!(shown.contains("volume/cache-data"), "the kept volume is shown: {shown}");
    let refused = lab.boxship(&["prune", "--volumes"]);
    ensure!(refused.status.code() == Some(64), "removed without a word of consent: {refused:?}");
    lab.write("cache.yaml", &cache(lab, ""))?;
    lab.ready("app/cache", 1, CONVERGE)?;
    let kept = lab.ok(&["exec", "cache", "--", "redis-cli", "get", "key"])?;
    ensure!(kept.trim() == "kept", "the named volume's data after removal and return: {kept:?}");
    let shown = lab.ok(&["prune", "--volumes", "--yes"])?;
    ensure!(!shown.contains("cache-data"), "a declared volume is no candidate: {shown}");
    std::fs::remove_file(lab.manifests.join("cache.yaml")).map_err(|error| error.to_string())?;
    wait_for("the volume is all that is left", Duration::from_secs(20), || {
        ensure!(lab.object("app/cache").is_err(), "the App is still there");
        let kept = lab.object("volume/cache-data")?;
        ensure!(kept["message"] == "unused, kept: no manifest names it", "{kept}");
        Ok(())
    })?;
    lab.ok(&["prune", "--volumes", "--yes"])?;
    wait_for("it is gone, as asked", Duration::from_secs(10), || {
        ensure!(lab.object("volume/cache-data").is_err(), "still there");
        Ok(())
    })?;
    Ok(())
}

fn down_leaves_nothing(lab: &mut Lab) -> Result {
    lab.write("extra.conf", EXTRA_CONF)?;
    lab.write("web.yaml", &web(lab, "1", 3, ""))?;
    lab.write("cache.yaml", &cache(lab, ""))?;
    lab.up()?;
    lab.pids("app/web")?;
    ensure!(http::get(8080, "/")?.status == 200, "it answers");
    let path = lab.manifests.to_string_lossy().into_owned();
    lab.ok(&["down", &path])?;
    lab.nothing_is_left()?;
    ensure!(http::get(8080, "/").is_err(), "nobody listens on the published port");
    Ok(())
}

/// Docker's 14 capabilities as the kernel prints them.
const CAPABILITIES: &str = "00000000a80425fb";

/// What the kernel says of a container, and what happens to one that wants too much memory.
fn limits_and_hardening(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    lab.write(
        "small.yaml",
        &format!(
            "apiVersion: boxship/v1\nkind: App\nname: small\nimage: {image}\nentrypoint: [/bin/sleep, \"1000000\"]\n\
             resources: {{cpu: 250m, memory: 48Mi}}\n"
        ),
    )?;
    lab.write(
        "greedy.yaml",
        &format!(
            "apiVersion: boxship/v1\nkind: Job\nname: greedy\nimage: {image}\nbackoffLimit: 0\n\
             entrypoint: [/bin/sh, -c]\nargs: [\"x=0123456789abcdef; while :; do x=$x$x; done\"]\n\
             resources: {{memory: 24Mi}}\n"
        ),
    )?;
    lab.start_controller()?;
    lab.ready("app/small", 1, CONVERGE)?;
    let (_, pid) = lab.pids("app/small")?[0].clone();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    ensure!(field("CapEff:") == CAPABILITIES, "capabilities {}", field("CapEff:"));
    ensure!(field("Seccomp:") == "2", "no seccomp filter: {}", field("Seccomp:"));
    ensure!(field("NoNewPrivs:") == "1", "new privileges are possible");
    for kind in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).map_err(|error| error.to_string());
        ensure!(link(&pid.to_string())? != link("self")?, "shares the {kind} namespace");
    }
    let memory = limit(pid, &["memory/{}/memory.limit_in_bytes", "{}/memory.max"])?;
    ensure!(memory == (48 << 20).to_string(), "memory limit {memory}");
    let hidden =
        lab.ok(&["exec", "small", "--", "sh", "-c", "cat /proc/kcore /proc/keys 2>/dev/null | head -c 10 | wc -c"])?;
    ensure!(hidden.trim() == "0", "/proc/kcore can be read: {hidden}");
    let refused = lab.boxship(&["exec", "small", "--", "mount", "-t", "tmpfs", "x", "/tmp"]);
    ensure!(!refused.status.success(), "a container mounts");
    wait_for("the greedy job is killed for memory", Duration::from_secs(20), || {
        let object = lab.object("job/greedy")?;
        ensure!(object["phase"] == "failed", "{object}");
        let why = lab.ok(&["why", "job/greedy"])?;
        ensure!(why.to_lowercase().contains("memory") || why.contains("OOM"), "the cause is not told: {why}");
        Ok(())
    })?;
    Ok(())
}

/// A value of a process's cgroup: the first of the files that exists, `{}` being the cgroup's path in that hierarchy.
fn limit(pid: i32, files: &[&str]) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|error| error.to_string())?;
    let mut tried = Vec::new();
    for file in files {
        let controller = file.split('/').next().unwrap_or_default();
        let path =
            text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).find_map(|(controllers, path)| {
                let fits = controllers.split(',').any(|name| name == controller)
                    || (controllers.is_empty() && controller == "{}");
                fits.then(|| path.trim_start_matches('/').to_owned())
            });
        let Some(path) = path else { continue };
        let full = format!("/sys/fs/cgroup/{}", file.replace("{}", &path));
        match std::fs::read_to_string(&full) {
            Ok(text) => return Ok(text.trim().to_owned()),
            Err(_) => tried.push(full),
        }
    }
    Err(format!("none of {tried:?}"))
}
