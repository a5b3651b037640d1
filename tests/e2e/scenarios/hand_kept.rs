//! Containers made by hand beside a controller: it leaves them alone, does for them what only it can, and takes over from
//! where nobody was.

use std::time::Duration;

use super::hand::container_dir;
use super::on_images;
use crate::lab::{Lab, kill};
use crate::wait::{holds_for, wait_for};
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[
    on_images("row_33_a_controller_comes_and_goes_and_containers_by_hand_stay", 150, a_controller_comes_and_goes),
    on_images("by_hand_containers_are_never_reconciled", 150, never_reconciled),
];

/// How long a state may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);

fn pid_of(lab: &Lab, name: &str) -> Result<i64> {
    let listed = lab.ok(&["ps", "-a", "--filter", &format!("name={name}"), "-o", "json"])?;
    let listed: serde_json::Value = serde_json::from_str(&listed).map_err(|error| format!("{error}: {listed}"))?;
    listed[0]["pid"].as_i64().ok_or_else(|| format!("{name} does not run: {listed}"))
}

fn status(lab: &Lab, name: &str, wanted: &str) -> Result {
    let listed = lab.ok(&["ps", "-a", "--filter", &format!("name={name}")])?;
    ensure!(listed.contains(wanted), "{listed}");
    Ok(())
}

fn app(lab: &Lab) -> String {
    let image = lab.image("busybox:1");
    format!("apiVersion: boxship/v1\nkind: App\nname: a\nimage: {image}\nargs: [sleep, \"1000\"]\n")
}

fn a_controller_comes_and_goes(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    // nobody but a keeper, a supervisor and a switchboard
    lab.ok(&["run", "-d", "--name", "first", &image, "sh", "-c", "sleep 1000"])?;
    let pid = pid_of(lab, "first")?;
    let keeper = lab.daemon("keeper")?;
    ensure!(lab.daemon("controller").is_err(), "a controller was started");
    let noted = lab.boxship(&["run", "-d", "--name", "later", "--restart", "always", &image, "sh", "-c", "sleep 1000"]);
    ensure!(String::from_utf8_lossy(&noted.stderr).contains("no controller runs: --restart"), "{noted:?}");
    // a controller is started by the keeper that is there
    lab.write("a.yaml", &app(lab))?;
    lab.up()?;
    ensure!(lab.daemon("keeper")? == keeper, "another keeper");
    ensure!(pid_of(lab, "first")? == pid, "the container was touched");
    // what only a controller does: a policy acts, --rm removes without anybody looking
    let died = pid_of(lab, "later")?;
    kill(i32::try_from(died).unwrap_or(0))?;
    wait_for("it is started again", PATIENCE, || {
        ensure!(pid_of(lab, "later")? != died, "not yet");
        Ok(())
    })?;
    lab.ok(&["stop", "-t", "0", "later"])?;
    lab.ok(&["run", "-d", "--rm", "--name", "brief", "--network", "none", &image, "true"])?;
    wait_for("it is removed", PATIENCE, || {
        ensure!(lab.ok(&["ps", "-a", "-q", "--filter", "name=brief"])?.is_empty(), "it is there");
        Ok(())
    })?;
    let crash = [
        "run",
        "-d",
        "--name",
        "crash",
        "--restart",
        "on-failure:2",
        "--network",
        "none",
        &image,
        "sh",
        "-c",
        "echo x >> /n; exit 3",
    ];
    lab.ok(&crash)?;
    wait_for("three lives", PATIENCE, || {
        let lives = std::fs::read_to_string(container_dir(lab, "crash")?.join("upper/n")).map_err(|e| e.to_string())?;
        ensure!(lives.lines().count() == 3, "{lives}");
        status(lab, "crash", "Exited (3)")
    })?;
    holds_for(Duration::from_millis(500), || status(lab, "later", "Exited"))?;
    // the foreground works the same through the controller
    let output = lab.boxship(&["run", "--rm", &image, "sh", "-c", "echo through; exit 8"]);
    ensure!(output.status.code() == Some(8) && output.stdout == b"through\n", "{output:?}");
    ensure!(lab.ok(&["exec", "first", "echo", "in"])? == "in\n", "exec by name");
    // its controller dies and comes back, then everybody else goes, too
    kill(lab.daemon("controller")?)?;
    wait_for("another controller", PATIENCE, || lab.status())?;
    ensure!(pid_of(lab, "first")? == pid, "the container was touched");
    lab.ok(&["down"])?;
    ensure!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "it went with the controller");
    ensure!(lab.daemon("keeper")? == keeper && lab.daemon("controller").is_err(), "the keeper of what is left went");
    status(lab, "first", "Up ")?;
    ensure!(pid_of(lab, "first")? == pid, "the container was touched");
    lab.up()?;
    ensure!(lab.daemon("keeper")? == keeper, "another keeper");
    lab.ok(&["down"])?;
    kill(i32::try_from(pid).unwrap_or(0))?;
    wait_for("its end is known", PATIENCE, || status(lab, "first", "Exited (137)"))?;
    lab.ok(&["rm", "-f", "first", "later", "crash"])?;
    lab.nothing_is_left()
}

fn never_reconciled(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    lab.write("a.yaml", &app(lab))?;
    lab.start_controller()?;
    lab.ready("app/a", 1, PATIENCE)?;
    lab.ok(&["run", "-d", "--name", "mine", "-p", "18090:80", &image, "sleep", "1000"])?;
    lab.ok(&["run", "--name", "over", "--network", "none", &image, "true"])?;
    let pid = pid_of(lab, "mine")?;
    let objects = lab.ok(&["get"])?;
    ensure!(!objects.contains("mine"), "an object: {objects}");
    let all = lab.ok(&["ps", "-a"])?;
    let names: Vec<&str> = all.lines().filter_map(|line| line.split_whitespace().last()).collect();
    ensure!(["mine", "over", "default/a-1"].iter().all(|name| names.contains(name)), "{all}");
    // neither a change of everything, nor a controller without memory, nor an empty directory touches them
    lab.write("a.yaml", &app(lab).replace("name: a", "name: b"))?;
    lab.ready("app/b", 1, PATIENCE)?;
    kill(lab.daemon("controller")?)?;
    let _ = std::fs::remove_dir_all(lab.data_root.join("state"));
    wait_for("another controller", PATIENCE, || lab.status())?;
    lab.ready("app/b", 1, PATIENCE)?;
    ensure!(pid_of(lab, "mine")? == pid, "the container was touched");
    status(lab, "over", "Exited (0)")?;
    let plan = lab.ok(&["plan", "-o", "json"])?;
    let plan: serde_json::Value = serde_json::from_str(&plan).map_err(|error| error.to_string())?;
    ensure!(plan["plan"]["steps"].as_array().is_some_and(Vec::is_empty), "it plans {plan}");
    // what belongs to a manifest is not done by hand, and a port has one owner
    let replica = lab.boxship(&["stop", "b-1"]);
    ensure!(String::from_utf8_lossy(&replica.stderr).contains("`b-1` belongs to app/b"), "{replica:?}");
    lab.ok(&["kill", "-s", "CONT", "b-1"])?;
    let ports = "ports: [{containerPort: 80, publish: \"0.0.0.0:18090\"}]\n";
    lab.write("c.yaml", &format!("{}{ports}", app(lab).replace("name: a", "name: c")))?;
    wait_for("the clash is told", PATIENCE, || {
        let events = lab.ok(&["events"])?;
        ensure!(events.contains("18090 is already in use"), "{events}");
        Ok(())
    })?;
    status(lab, "mine", "0.0.0.0:18090->80/tcp")?;
    lab.ok(&["rm", "-f", "mine", "over"])?;
    ensure!(lab.ok(&["ps", "-a"])?.lines().count() == 3, "the replicas stay");
    Ok(())
}
