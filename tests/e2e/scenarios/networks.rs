//! Several networks in one stack: services that share none do not reach each other, by name or by address.

use super::on_images;
use crate::lab::Lab;
use crate::{Result, Scenario, ensure, http};

pub(super) const ALL: &[Scenario] =
    &[on_images("services_on_different_networks_are_apart", 120, services_on_different_networks_are_apart)];

const COMPOSE: &str = r#"
services:
  web:
    image: ${REGISTRY}/nginx:1
    ports: ["127.0.0.1:8080:80"]
    networks: [edge]
  api:
    image: ${REGISTRY}/nginx:1
    networks: [back, edge]
  db:
    image: ${REGISTRY}/redis:7
    ports: ["127.0.0.1:6379:6379"]
    networks:
      back: {aliases: [store], ipv4_address: 10.213.0.9}
networks:
  edge:
  back:
    internal: true
    ipam: {config: [{subnet: 10.213.0.0/24}]}
"#;

fn services_on_different_networks_are_apart(lab: &mut Lab) -> Result {
    let image = lab.image("nginx:1");
    lab.write(".env", &format!("REGISTRY={}\n", image.strip_suffix("/nginx:1").unwrap_or(&image)))?;
    lab.write("compose.yaml", COMPOSE)?;
    let said = lab.up()?;
    ensure!(http::get(8080, "/")?.body == "nginx 1\n", "the published port answers; up said {said}");
    let inside = |of: &str, script: &str| lab.ok(&["exec", of, "--", "bash", "-c", script]);
    let ping = |of: &str, name: &str| {
        inside(of, &format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{name}/6379; echo PING >&3; head -n1 <&3' || echo no"))
    };
    for name in ["db", "store", "db.shop", "db-1", "10.213.0.9"] {
        ensure!(ping("api", name)?.trim() == "+PONG", "api asks {name}");
        ensure!(ping("web", name)?.trim().ends_with("no"), "web does not reach {name}");
    }
    let open =
        |of: &str, name: &str| inside(of, &format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{name}/80' && echo open"));
    ensure!(open("web", "api")?.trim() == "open" && open("api", "web")?.trim() == "open", "edge joins web and api");
    let links = |of: &str| inside(of, "grep -o 'eth[0-9]' /proc/net/dev | sort | tr '\\n' ' '");
    ensure!(links("api")?.trim() == "eth0 eth1" && links("web")?.trim() == "eth0", "one interface for each network");
    // One address for the App, which stays, and the replicas' own beside it; on the small network of its own as well.
    let lookup = |of: &str, name: &str| inside(of, &format!("getent ahostsv4 {name} | awk '{{print $1}}' | sort -u"));
    let (service, replica) = (lookup("web", "api")?, lookup("web", "api-1")?);
    ensure!(service != replica && lookup("web", "tasks.api")? == replica, "api is {service}, its replica {replica}");
    // The way out leads through the network that has one, and what is only behind is published all the same.
    let gateway = inside("api", "awk '$2 == \"00000000\" {print $1}' /proc/net/route")?;
    ensure!(gateway.trim() == "eth0", "the way out: {gateway}");
    let pong = std::process::Command::new("bash")
        .args(["-c", "exec 3<>/dev/tcp/127.0.0.1/6379; echo PING >&3; head -n1 <&3"])
        .output()
        .map_err(|error| error.to_string())?;
    ensure!(String::from_utf8_lossy(&pong.stdout).trim() == "+PONG", "published from the internal network: {pong:?}");
    let plan = lab.ok(&["plan", &lab.manifests.to_string_lossy(), "-o", "json"])?;
    let plan: serde_json::Value = serde_json::from_str(&plan).map_err(|error| error.to_string())?;
    ensure!(plan["plan"]["steps"].as_array().is_some_and(Vec::is_empty), "a converged project plans {plan}");
    // The one with an address of its own is replaced with the same address, under its peer's eyes.
    lab.write(
        "compose.yaml",
        &COMPOSE.replace("image: ${REGISTRY}/redis:7", "image: ${REGISTRY}/redis:7\n    hostname: new"),
    )?;
    lab.up()?;
    ensure!(ping("api", "10.213.0.9")?.trim() == "+PONG", "the replaced one has its address again");
    ensure!(lookup("web", "api")? == service, "the App's address stays");
    lab.ok(&["down", &lab.manifests.to_string_lossy()])?;
    lab.nothing_is_left()
}
