//! What people do by hand with containers that run, whoever made them: look inside, and save what they wrote.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::on_images;
use crate::lab::Lab;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[
    on_images("row_6_containers_of_one_image_share_its_layers_and_have_their_own_data", 120, own_data),
    on_images("row_11_row_17_a_reference_is_resolved_when_a_container_is_made", 120, resolved_once),
    on_images("row_35_files_are_copied_into_a_container_and_back", 120, copied),
    on_images("containers_are_looked_into_with_a_controller_and_without", 120, looked_into),
    on_images("attach_shows_a_running_container_and_leaves_it_running", 120, attached),
    on_images("a_container_does_not_start_while_files_are_copied_into_it", 120, copies_and_starts),
    on_images("row_21_a_running_container_is_saved_and_runs_again_the_same", 120, saved),
];

const LIMIT: Duration = Duration::from_secs(60);

/// An App of busybox that does nothing.
pub(super) fn idle(name: &str, image: &str, replicas: u32) -> String {
    format!(
        "apiVersion: boxship/v1\nkind: App\nname: {name}\nreplicas: {replicas}\nimage: {image}\n\
         entrypoint: [/bin/busybox, sleep, \"1000000\"]\n"
    )
}

fn sh(lab: &Lab, container: &str, script: &str) -> Result<String> {
    lab.ok(&["exec", container, "--", "/bin/busybox", "sh", "-c", script])
}

fn own_data(lab: &mut Lab) -> Result {
    lab.write("many.yaml", &idle("many", &lab.image("busybox:1"), 3))?;
    lab.up()?;
    lab.ready("app/many", 3, LIMIT)?;
    let layers = || std::fs::read_dir(lab.data_root.join("images/layers")).map_or(0, Iterator::count);
    let seen: Value = serde_json::from_str(&lab.ok(&["image", "inspect", &lab.image("busybox:1")])?)
        .map_err(|error| error.to_string())?;
    let of_image: BTreeSet<String> =
        seen[0]["RootFS"]["Layers"].as_array().into_iter().flatten().map(Value::to_string).collect();
    ensure!(layers() == of_image.len(), "{} layers on the disk for {} of the image", layers(), of_image.len());
    for number in 1..=3 {
        sh(lab, &format!("many-{number}"), &format!("echo {number} > /own; echo x > /own-{number}"))?;
    }
    for number in 1..=3 {
        let name = format!("many-{number}");
        let read = sh(lab, &name, "cat /own")?;
        ensure!(read.trim() == number.to_string(), "{name} reads {read:?}");
        let changes = lab.ok(&["diff", &name])?;
        ensure!(changes == format!("A /own\nA /own-{number}\n"), "{name} changed:\n{changes}");
    }
    Ok(())
}

/// The image a container was made from; `None` once it is gone.
fn made_from(lab: &Lab, container: &str) -> Result<Option<String>> {
    let path = lab.data_root.join("containers").join(container).join("config.json");
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| format!("{}: {error}", path.display()))?,
    };
    let config: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    Ok(config["image"].as_str().map(str::to_owned))
}

fn image_of(lab: &Lab, app: &str) -> Result<(String, String)> {
    let (container, _) = lab.started(&format!("app/{app}"))?;
    let image = made_from(lab, &container)?.ok_or_else(|| format!("{container} is gone"))?;
    Ok((container, image))
}

fn resolved_once(lab: &mut Lab) -> Result {
    let busybox = lab.image("busybox:1");
    lab.ok(&["image", "pull", &busybox])?;
    lab.ok(&["image", "tag", &busybox, "mine:1"])?;
    // row 17: what is in the store is not asked for, what is missing is pulled
    lab.registry().retag("busybox", "1", "fresh")?;
    let fresh = lab.image("busybox:fresh");
    lab.write("local.yaml", &idle("local", "mine:1", 1))?;
    lab.write("fresh.yaml", &idle("fresh", &fresh, 1))?;
    lab.up()?;
    let (container, first) = image_of(lab, "local")?;
    ensure!(image_of(lab, "fresh")?.1 == first, "the tag means the same image");
    ensure!(lab.ok(&["image", "ls", &fresh])?.contains("fresh"), "the missing tag was pulled");
    // row 11: the tag moves on; no container becomes another one by that, what is made from now on is of the new one
    sh(lab, "local", "echo new > /marker")?;
    lab.ok(&["commit", "local-1", "mine:1"])?;
    lab.write("later.yaml", &idle("later", "mine:1", 1))?;
    lab.up()?;
    ensure!(image_of(lab, "later")?.1 != first, "a new container is made of what the tag means now");
    ensure!(sh(lab, "later", "cat /marker")? == "new\n", "its files are those that were saved");
    let still = made_from(lab, &container)?;
    ensure!(still.is_none_or(|image| image == first), "the running one became another");
    Ok(())
}

/// Everything on the root file system itself: directories without their times, which mounts change.
const TREE: &str = "find / -xdev -type d -exec stat -c '%n %a %u %g' {} + | grep -v -e ^/dev -e ^/proc -e ^/sys; \
    find / -xdev ! -type d ! -name hosts ! -name hostname ! -name resolv.conf \
    -exec stat -c '%n %F %a %u %g %s %Y %h' {} +";

fn saved(lab: &mut Lab) -> Result {
    lab.write("shop.yaml", &idle("shop", &lab.image("busybox:1"), 1))?;
    lab.up()?;
    ensure!(
        lab.ok(&["diff", "shop-1"])?.is_empty(),
        "a fresh container changed something: {}",
        lab.ok(&["diff", "shop-1"])?
    );
    let script = "mkdir -p /srv/a/b; echo hi > /srv/a/f; chown 5:6 /srv/a/f; chmod 4751 /srv/a/f; ln /srv/a/f /srv/a/twin; \
        ln -s ../../../x /srv/l; mkfifo /srv/fifo; touch -d '2001-02-03 04:05:06' /srv/a/b; rm /www/index.html; \
        mv /www /www2; echo x > /root-file; rm -rf /tmp; mkdir -m 700 /tmp; echo t > /tmp/t";
    sh(lab, "shop", script)?;
    let changes = lab.ok(&["diff", "shop-1"])?;
    for line in ["A /srv/a/twin", "D /www", "A /www2", "A /root-file", "A /tmp/t"] {
        ensure!(changes.lines().any(|found| found == line), "no `{line}` in:\n{changes}");
    }
    ensure!(
        !changes.contains("/etc/hosts") && !changes.contains("/proc"),
        "mount points are called changes:\n{changes}"
    );
    let before = sh(lab, "shop", TREE)?;
    let id = lab.ok(&["commit", "-m", "as it ran", "--change", "ENV SAVED=yes", "shop-1", "shop:saved"])?;
    ensure!(
        id == lab.ok(&["image", "commit", "-m", "as it ran", "-c", "ENV SAVED=yes", "shop-1"])?,
        "not stable: {id}"
    );
    lab.write("again.yaml", &idle("again", "shop:saved", 1))?;
    lab.up()?;
    let after = sh(lab, "again", TREE)?;
    ensure!(before == after, "another tree:\n--- before\n{before}\n--- after\n{after}");
    ensure!(sh(lab, "again", "echo $SAVED")? == "yes\n", "the changed setting is not there");
    ensure!(lab.ok(&["diff", "again-1"])?.is_empty(), "it begins with an empty layer");
    // it ran on all the while
    ensure!(sh(lab, "shop", "cat /tmp/t")? == "t\n", "the container was harmed");
    Ok(())
}

/// `boxship cp`, with what goes through a pipe.
fn piped(lab: &Lab, args: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut command = lab.command(args);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| error.to_string())?;
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    writer.join().map_err(|_| "the writer panicked")?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn refused(lab: &Lab, args: &[&str], why: &str) -> Result {
    let output = lab.boxship(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains(why), "{args:?} is refused with {why:?}, not: {said}");
    Ok(())
}

/// Files on the host to copy, and where they come back to.
fn host_files(lab: &Lab) -> Result<(String, String)> {
    use std::os::unix::fs::PermissionsExt;
    let (site, back) = (lab.dir.join("site"), lab.dir.join("back"));
    let make = || {
        std::fs::create_dir_all(site.join("sub"))?;
        std::fs::create_dir_all(&back)?;
        std::fs::write(site.join("index.html"), "hello\n")?;
        std::fs::write(site.join("sub/tool"), "#!/bin/sh\n")?;
        std::fs::set_permissions(site.join("sub/tool"), PermissionsExt::from_mode(0o4755))?;
        std::os::unix::fs::symlink("tool", site.join("sub/near"))?;
        std::os::unix::fs::symlink(&back, site.join("hole"))?;
        std::os::unix::fs::symlink(site.join("index.html"), site.join("link"))
    };
    make().map_err(|error: std::io::Error| error.to_string())?;
    Ok((site.display().to_string(), back.display().to_string()))
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

/// A file goes in, into a directory and under a name; a tree goes in and comes back; links lead nowhere else.
fn copies(lab: &Lab, container: &str, site: &str, back: &str) -> Result {
    let inside = |path: &str| format!("{container}:{path}");
    lab.ok(&["cp", &format!("{site}/index.html"), &inside("/www/")])?;
    lab.ok(&["cp", &format!("{site}/index.html"), &inside("/www/other.html")])?;
    lab.ok(&["cp", site, &inside("/srv-new")])?;
    lab.ok(&["cp", &format!("{site}/."), &inside("www")])?;
    lab.ok(&["cp", site, &inside("/data")])?;
    let to = |name: &str| format!("{back}/{container}-{name}");
    lab.ok(&["cp", &inside("/www/other.html"), &to("file")])?;
    ensure!(read(&to("file"))? == "hello\n", "a file comes back as it was");
    lab.ok(&["cp", &inside("/srv-new"), &to("tree")])?;
    ensure!(read(&to("tree/index.html"))? == "hello\n", "a tree comes back as it was");
    let link = std::fs::read_link(to("tree/link")).map_err(|error| error.to_string())?;
    ensure!(link == std::path::Path::new(site).join("index.html"), "a link stays a link: {}", link.display());
    let mode = |path: String| {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(path).map(|meta| (meta.mode() & 0o7777, meta.uid())).map_err(|error| error.to_string())
    };
    ensure!(mode(to("tree/sub/tool"))? == (0o755, 0), "no program becomes set-id by a copy");
    lab.ok(&["cp", &inside("/data/site/index.html"), &to("volume")])?;
    ensure!(read(&to("volume"))? == "hello\n", "what is in a volume is there");
    lab.ok(&["cp", "-L", &inside("/srv-new/sub/near"), &to("near")])?;
    let near = std::fs::symlink_metadata(to("near")).map_err(|error| error.to_string())?;
    ensure!(near.is_file() && read(&to("near"))? == "#!/bin/sh\n", "a link is followed where that is asked for");
    // a link inside leads inside: what this one names is on the host only
    refused(lab, &["cp", "-L", &inside("/srv-new/link"), &to("passwd")], "there is no /srv-new/link")?;
    // nor does one that others left in the container take a file out on its way in
    refused(lab, &["cp", &format!("{site}/index.html"), &inside("/srv-new/hole/through")], "does not exist")?;
    ensure!(std::fs::symlink_metadata(format!("{back}/through")).is_err(), "a file came out through a link");
    refused(lab, &["cp", &inside("/no/such"), back], "there is no /no/such")?;
    refused(lab, &["cp", site, &inside("/www/other.html")], "no directory")?;
    refused(lab, &["cp", site, &inside("/no/where/at/all")], "does not exist")?;
    let tar = piped(lab, &["cp", &inside("/srv-new"), "-"], b"")?;
    ensure!(tar.windows(8).any(|name| name == b"srv-new/"), "a tar with {} bytes", tar.len());
    piped(lab, &["cp", "-", &inside("/www")], &tar)?;
    lab.ok(&["cp", &inside("/www/srv-new/sub/."), &to("sub")])?;
    ensure!(read(&to("sub/tool"))? == "#!/bin/sh\n", "a tar goes in");
    Ok(())
}

fn copied(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    let mounts = "mounts: [{path: /data, volume: data}]\n";
    lab.write("data.yaml", "apiVersion: boxship/v1\nkind: Volume\nname: data\naccess: shared\n")?;
    lab.write("run.yaml", &format!("{}{mounts}", idle("run", &image, 1)))?;
    lab.write(
        "done.yaml",
        &format!("apiVersion: boxship/v1\nkind: Job\nname: done\nimage: {image}\nargs: [/bin/true]\n{mounts}"),
    )?;
    lab.up()?;
    let (site, back) = host_files(lab)?;
    copies(lab, "run-1", &site, &back)?;
    let owner = sh(lab, "run", "stat -c '%u %g %a' /www/index.html /srv-new/sub/tool")?;
    ensure!(owner == "0 0 644\n0 0 755\n", "inside, files are root's: {owner}");
    lab.ok(&["cp", "-a", &format!("{site}/sub"), "run-1:/kept"])?;
    ensure!(sh(lab, "run", "stat -c %a /kept/tool")? == "4755\n", "--archive keeps set-id bits");
    // one that has ended, put together for the copy
    let job = lab.object("job/done")?;
    let ended = crate::lab::replicas(&job).next().and_then(|replica| replica["container"].as_str().map(str::to_owned));
    let ended = ended.ok_or_else(|| format!("no container of the Job: {job}"))?;
    copies(lab, &ended, &site, &back)?;
    let changes = lab.ok(&["diff", &ended])?;
    ensure!(changes.contains("A /srv-new/sub/tool"), "it is in its own layer:\n{changes}");
    Ok(())
}

/// Everything that looks, at one running container.
fn looks(lab: &Lab, container: &str, pid: i32) -> Result {
    let state = lab.ok(&["inspect", "-f", "{{.State.Status}} {{.State.Pid}} {{.Name}} {{len .Mounts}}", container])?;
    ensure!(state.starts_with("running ") && state.ends_with(" app-1 0\n"), "inspect says: {state}");
    let all: Value = serde_json::from_str(&lab.ok(&["inspect", container])?).map_err(|error| error.to_string())?;
    let config = &all[0]["HostConfig"];
    ensure!(
        (config["Memory"].as_u64(), config["NanoCpus"].as_u64()) == (Some(64 << 20), Some(500_000_000)),
        "{config}"
    );
    ensure!(
        all[0]["Config"]["Env"].as_array().is_some_and(|env| env.contains(&"COLOUR=red".into())),
        "{}",
        all[0]["Config"]
    );
    ensure!(all[0]["Path"] == "/bin/busybox", "{}", all[0]["Path"]);
    let top: Value =
        serde_json::from_str(&lab.ok(&["top", container, "-o", "json"])?).map_err(|error| error.to_string())?;
    let first = top.as_array().and_then(|list| list.iter().find(|process| process["pid"] == pid)).cloned();
    let first = first.ok_or_else(|| format!("no process {pid} in {top}"))?;
    ensure!(first["inside_pid"] == 1 && first["command"] == "/bin/busybox sleep 1000000", "{first}");
    ensure!(lab.ok(&["top", container])?.starts_with("PID "), "the table has its head");
    let stats = lab.ok(&["stats", "--no-stream", "-o", "json", container])?;
    let stats: Value = serde_json::from_str(&stats).map_err(|error| error.to_string())?;
    let one = &stats[0];
    ensure!(one["memoryLimitBytes"] == 64 << 20 && one["pids"].as_u64() >= Some(1), "stats says: {stats}");
    ensure!(one["memoryBytes"].as_u64().is_some_and(|bytes| bytes > 0 && bytes < 64 << 20), "stats says: {stats}");
    ensure!(lab.ok(&["stats", "--no-stream"])?.contains("app-1"), "without a name, all are shown");
    Ok(())
}

fn looked_into(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    let more = "env: {COLOUR: red}\nresources: {memory: 64Mi, cpu: 500m}\n";
    lab.write("app.yaml", &format!("{}{more}", idle("app", &image, 1)))?;
    lab.up()?;
    let (container, pid) = lab.started("app/app")?;
    looks(lab, "app-1", pid)?;
    let seen = lab.ok(&["inspect", "-f", "{{.Id}}", &image])?;
    ensure!(seen.starts_with("sha256:"), "an image is looked into by the same verb: {seen}");
    refused(lab, &["inspect", "nothing"], "container or image `nothing` does not exist")?;
    refused(lab, &["inspect", "-f", "{{.State.Statsu}}", "app-1"], "`Status`")?;
    refused(lab, &["top", "nothing"], "container `nothing` does not exist")?;
    // everything of ours is gone, and the container runs on: the same, done by the command itself
    for role in ["keeper", "controller", "supervisor", "switchboard"] {
        if let Ok(pid) = lab.daemon(role) {
            crate::lab::kill(pid)?;
        }
    }
    crate::wait::wait_for("no controller answers", LIMIT, || {
        let code = lab.boxship(&["get"]).status.code();
        ensure!(code == Some(69), "get exits with {code:?}");
        Ok(())
    })?;
    looks(lab, &container, pid)?;
    let (site, back) = host_files(lab)?;
    lab.ok(&["cp", &format!("{site}/index.html"), "app-1:/www/"])?;
    lab.ok(&["cp", "app-1:/www/index.html", &format!("{back}/alone")])?;
    ensure!(read(&format!("{back}/alone"))? == "hello\n", "a file comes back as it was");
    ensure!(lab.ok(&["diff", "app-1"])? == "C /www\nC /www/index.html\n", "the copy is in its layer");
    lab.ok(&["commit", "app-1", "alone:1"])?;
    ensure!(lab.ok(&["image", "diff", "alone:1"])? == "C /www\nC /www/index.html\n", "and in the image");
    Ok(())
}

fn attached(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    lab.ok(&["image", "pull", &image])?;
    let script = "echo begun; while read line; do echo got $line; [ $line = end ] && exit 7; done";
    lab.ok(&["run", "-d", "-i", "--name", "talker", &image, "/bin/sh", "-c", script])?;
    // left by its keys, then by the end of input: it runs on both times
    let seen = piped(lab, &["attach", "--detach-keys", "ctrl-p,ctrl-q", "talker"], b"one\n\x10\x11never\n")?;
    ensure!(!String::from_utf8_lossy(&seen).contains("never"), "what follows the keys is not passed on");
    crate::wait::wait_for("the line was heard", LIMIT, || {
        let logs = lab.ok(&["logs", "talker"])?;
        ensure!(logs.contains("got one") && !logs.contains("never"), "{logs}");
        Ok(())
    })?;
    ensure!(lab.ok(&["inspect", "-f", "{{.State.Status}}", "talker"])? == "running\n", "it was left running");
    use std::io::Write as _;
    let mut command = lab.command(&["attach", "talker"]);
    let pipe = std::process::Stdio::piped;
    let mut child = command.stdin(pipe()).stdout(pipe()).spawn().map_err(|error| error.to_string())?;
    child.stdin.take().ok_or("no stdin")?.write_all(b"two\nend\n").map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(said.contains("got two") && said.contains("got end"), "its output is shown: {said}");
    ensure!(output.status.code() == Some(7), "its exit code is told: {}", output.status);
    refused(lab, &["attach", "talker"], "is not running")?;
    lab.ok(&["rm", "talker"])?;
    // the same keys leave a `run` that is in front of a terminal
    let run = ["run", "-it", "--name", "left", &image, "/bin/sh", "-c", "read line; echo got $line; sleep 1000"];
    piped(lab, &run, b"one\n\x10\x11")?;
    ensure!(lab.ok(&["ps", "--format", "{{.Names}} {{.State}}"])? == "left running\n", "it was left running");
    lab.ok(&["rm", "-f", "left"])?;
    Ok(())
}

/// Whether the program that unpacks into a container of this data root runs.
fn copies_in(data_root: &std::path::Path) -> bool {
    let root = data_root.to_string_lossy().into_owned();
    let commands = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    commands.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok()).any(|line| {
        let mut words = line.split('\0').skip(1);
        words.next() == Some("copy")
            && words.next().is_some_and(|order| order.contains(&root) && order.contains("\"in\""))
    })
}

/// Overlay over one writable layer at a time: who copies into a container that does not run keeps it from starting.
fn copies_and_starts(lab: &mut Lab) -> Result {
    use std::io::Write as _;
    let image = lab.image("busybox:1");
    lab.write("run.yaml", &idle("run", &image, 1))?;
    lab.up()?;
    lab.ok(&["create", "--name", "still", &image, "sleep", "1000"])?;
    let tar = std::process::Command::new("tar").args(["-c", "-C", "/etc", "hostname"]).output();
    let tar = tar.map_err(|error| error.to_string())?.stdout;
    let pipe = std::process::Stdio::piped;
    let mut command = lab.command(&["cp", "-", "still:/"]);
    let mut child = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().map_err(|error| error.to_string())?;
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    stdin.write_all(&tar[..512]).map_err(|error| error.to_string())?;
    crate::wait::wait_for("the copy has begun", LIMIT, || {
        ensure!(copies_in(&lab.data_root), "nobody unpacks");
        Ok(())
    })?;
    refused(lab, &["start", "still"], "files are being copied into or out of container")?;
    stdin.write_all(&tar[512..]).map_err(|error| error.to_string())?;
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lab.ok(&["start", "still"])?;
    ensure!(lab.ok(&["exec", "still", "ls", "/hostname"])? == "/hostname\n", "the file is there");
    lab.ok(&["rm", "-f", "still"])?;
    Ok(())
}
