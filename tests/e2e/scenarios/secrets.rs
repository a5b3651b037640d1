//! Secrets: where their values are, and above all where they are not.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;

use super::on_images;
use crate::lab::Lab;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] =
    &[on_images("a_planted_secret_is_found_nowhere_and_its_change_rolls_once", 180, a_planted_secret)];

const LIMIT: Duration = Duration::from_secs(60);
/// In a file beside the manifests, in a native manifest, in a Kubernetes object, and the second value of the first.
const PLANTED: [&str; 4] =
    ["planted-e71f-in-a-file", "planted-b90c-native", "planted-55da-kubernetes", "planted-3a1c-anew"];

fn manifests(lab: &Lab) -> Result {
    let image = lab.image("busybox:1");
    let [_, native, kubernetes, _] = PLANTED;
    let kubernetes = base64::engine::general_purpose::STANDARD.encode(kubernetes);
    lab.write(
        "app.yaml",
        &format!(
            "apiVersion: boxship/v1\nkind: Secret\nname: db\ndata:\n  password: {{file: ../outside/password}}\n  token: {native}\n\
             ---\napiVersion: v1\nkind: Secret\nmetadata: {{name: cloud}}\ndata: {{key: {kubernetes}}}\n\
             ---\napiVersion: boxship/v1\nkind: App\nname: web\nreplicas: 2\nimage: {image}\nuser: \"1000:1000\"\n\
             entrypoint: [sh, -c, \"trap 'exit 0' TERM; echo up; while true; do sleep 0.1; done\"]\n\
             env:\n  TOKEN: {{secret: db, key: token}}\n  CLOUD: {{secret: cloud}}\n\
             mounts:\n- {{path: /run/secrets/password, secret: db, key: password}}\n- {{path: /all, secret: db, mode: \"0440\", uid: 7, gid: 8}}\n"
        ),
    )
}

/// What is said inside the first replica.
fn inside(lab: &Lab, script: &str) -> Result<String> {
    lab.ok(&["exec", "web-1", "--", "sh", "-c", script]).map(|said| said.trim().to_owned())
}

fn a_planted_secret(lab: &mut Lab) -> Result {
    let outside = lab.dir.join("outside");
    std::fs::create_dir_all(&outside).map_err(|error| error.to_string())?;
    std::fs::write(outside.join("password"), PLANTED[0]).map_err(|error| error.to_string())?;
    manifests(lab)?;
    lab.start_controller()?;
    lab.ready("app/web", 2, LIMIT)?;
    // it is where it is wanted: in memory, the user's own
    let seen =
        inside(lab, "cat /run/secrets/password; echo; cat /proc/1/environ | tr '\\0' '\\n' | grep -E 'TOKEN|CLOUD'")?;
    ensure!(PLANTED[..3].iter().all(|value| seen.contains(value)), "a value is missing inside: {seen}");
    let modes = inside(lab, "stat -L -c '%a %u %g' /run/secrets/password; id -u; ls /all | tr '\\n' ' '")?;
    ensure!(modes == "400 1000 1000\n1000\npassword token", "mode and owner inside: {modes}");
    let (_, pid) = lab.pids("app/web")?.remove(0);
    let file = format!("/proc/{pid}/root/dev/.files/..data");
    let kind =
        nix::sys::statfs::statfs(Path::new(&file)).map_err(|error| format!("{file}: {error}"))?.filesystem_type();
    ensure!(kind == nix::sys::statfs::TMPFS_MAGIC, "secret files are on {kind:?}");
    let key = std::fs::metadata(lab.data_root.join("secret.key")).map_err(|error| error.to_string())?;
    ensure!(key.mode() & 0o777 == 0o600, "the key has mode {:o}", key.mode());
    nowhere(lab)?;
    // another value: each replica is replaced once, and the plan tells the field and not the value
    let before = lab.pids("app/web")?;
    std::fs::write(outside.join("password"), PLANTED[3]).map_err(|error| error.to_string())?;
    let dir = lab.manifests.to_string_lossy().into_owned();
    let rolled = || {
        let now = lab.pids("app/web")?;
        ensure!(now.len() == 2 && now.iter().all(|(id, _)| !before.iter().any(|(old, _)| old == id)), "{now:?}");
        Ok(now)
    };
    let (after, _) = crate::wait::wait_for("both replicas are new", LIMIT, rolled)?;
    lab.ready("app/web", 2, LIMIT)?;
    let plan = lab.ok(&["plan", &dir])?;
    ensure!(plan.contains("Plan: ") && !plan.contains("app/web"), "after the roll something is left: {plan}");
    ensure!(lab.pids("app/web")? == after, "it rolled more than once");
    ensure!(inside(lab, "cat /run/secrets/password")? == PLANTED[3], "the old value is still there");
    nowhere(lab)
}

/// Looks for every planted value, and for what base64 makes of it, in all of the data root, the logs and what is said.
fn nowhere(lab: &Lab) -> Result {
    let container = lab.pids("app/web")?.remove(0).0;
    let mut said = String::new();
    let key = &["describe", "app/web"][..];
    for args in
        [key, &["get", "-o", "json"], &["events"], &["plan", "-o", "json"], &["inspect", &container], &["logs", "web"]]
    {
        let output = lab.boxship(args);
        said += &String::from_utf8_lossy(&output.stdout);
        said += &String::from_utf8_lossy(&output.stderr);
    }
    for log in [lab.run_dir.join("boxship.log"), lab.dir.join("controller.log")] {
        said += &std::fs::read_to_string(log).unwrap_or_default();
    }
    for value in PLANTED {
        let coded = base64::engine::general_purpose::STANDARD.encode(value);
        // the end of a code depends on what follows
        let coded = &coded[..coded.len() - 4];
        for text in [value, coded] {
            ensure!(!said.contains(text), "{value} is told: {said}");
            let found = Command::new("grep").args(["-r", "-a", "-l", "-F", text]).arg(&lab.data_root).output();
            let found = found.map_err(|error| format!("grep: {error}"))?;
            let files = String::from_utf8_lossy(&found.stdout);
            ensure!(files.is_empty(), "{value} is on disk: {files}");
        }
    }
    Ok(())
}
