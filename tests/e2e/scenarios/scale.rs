//! Many replicas at once.

use std::time::{Duration, Instant};

use super::{alone, on_images};
use crate::http;
use crate::lab::{Lab, replicas};
use crate::wait::holds_for;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[alone(on_images("a_hundred_replicas_in_one_up", 150, a_hundred_replicas))];

/// What the issue asks of an idle machine of two cores. A gate runs beside other work, so the test prints how near it came
/// and asserts facts, not times.
const UP: Duration = Duration::from_millis(3_000);
const DOWN: Duration = Duration::from_millis(1_500);

fn a_hundred_replicas(lab: &mut Lab) -> Result {
    let app = |replicas: usize| {
        format!(
            "apiVersion: boxship/v1\nkind: App\nname: many\nreplicas: {replicas}\nimage: {}\n\
             entrypoint: [/bin/busybox, httpd, -f, -p, \"80\", -h, /www]\n\
             ports: [{{containerPort: 80, publish: \"127.0.0.1:8081\"}}]\n",
            lab.image("busybox:1")
        )
    };
    // the image is there, the processes run: what is measured is one hundred containers
    lab.write("many.yaml", &app(1))?;
    lab.up()?;
    lab.write("many.yaml", &app(100))?;
    let begin = Instant::now();
    lab.up()?;
    let up = begin.elapsed();
    let object = lab.object("app/many")?;
    let addresses: Vec<String> =
        replicas(&object).filter_map(|replica| replica["address"].as_str().map(str::to_owned)).collect();
    ensure!(addresses.len() == 100, "{} addresses", addresses.len());
    for address in &addresses {
        let address = format!("{address}:80").parse().map_err(|error| format!("{address}: {error}"))?;
        let answer = http::get_from(address, "/", Duration::from_secs(5)).map_err(|why| format!("{address}: {why}"))?;
        ensure!(answer.body == "busybox 1\n", "{address}: {:?}", answer.body);
    }
    lab.pids("app/many")?;
    let plan = lab.ok(&["plan", "-o", "json"])?;
    let plan: serde_json::Value = serde_json::from_str(&plan).map_err(|error| error.to_string())?;
    ensure!(plan["plan"]["steps"].as_array().is_some_and(Vec::is_empty), "a no-change pass plans {}", plan["plan"]);
    // a first process without a handler of its own for SIGTERM gets 2 s of life before it may be called deaf (DESIGN, stopping)
    holds_for(Duration::from_secs(2), || Ok(()))?;
    let path = lab.manifests.to_string_lossy().into_owned();
    let begin = Instant::now();
    lab.ok(&["down", &path])?;
    let down = begin.elapsed();
    println!(
        "measured: 100 replicas: up {up:?} ({:.1} of the target), down {down:?} ({:.1})",
        up.as_secs_f32() / UP.as_secs_f32(),
        down.as_secs_f32() / DOWN.as_secs_f32()
    );
    lab.nothing_is_left()
}
