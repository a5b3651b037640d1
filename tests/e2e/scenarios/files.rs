//! Files that change: each way people and programs save is one accepted revision; users, volumes and owners agree.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::on_images;
use crate::lab::Lab;
use crate::wait::{holds_for, wait_for};
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[
    on_images("each_way_to_save_is_one_revision", 120, each_way_to_save),
    on_images("users_volumes_and_image_owners_agree", 180, users_and_volumes),
    on_images("a_full_disk_is_told_and_harms_nobody", 120, a_full_disk),
];

fn config(text: &str) -> String {
    format!("apiVersion: boxship/v1\nkind: Config\nname: settings\ndata:\n  text: {text}\n")
}

/// One way to change the manifest directory.
type Save = fn(&Path) -> std::io::Result<()>;

const SAVES: &[(&str, Save)] = &[
    ("a write in place", |dir| std::fs::write(dir.join("settings.yaml"), config("in-place"))),
    ("a write in two halves", |dir| {
        use std::io::Write as _;
        let text = config("halves");
        let mut file = std::fs::File::create(dir.join("settings.yaml"))?;
        file.write_all(&text.as_bytes()[..text.len() / 2])?;
        file.sync_all()?;
        file.write_all(&text.as_bytes()[text.len() / 2..])
    }),
    ("a new file renamed over the old", |dir| {
        std::fs::write(dir.join(".settings.yaml.swp"), config("renamed"))?;
        std::fs::rename(dir.join(".settings.yaml.swp"), dir.join("settings.yaml"))
    }),
    ("the old moved away, a new one written, a backup left", |dir| {
        std::fs::rename(dir.join("settings.yaml"), dir.join("settings.yaml~"))?;
        std::fs::write(dir.join("settings.yaml"), config("backup"))
    }),
    ("a symlink swapped", |dir| {
        std::fs::create_dir(dir.join(".v2"))?;
        std::fs::write(dir.join(".v2/settings.yaml"), config("symlink"))?;
        std::os::unix::fs::symlink(".v2/settings.yaml", dir.join(".next"))?;
        std::fs::rename(dir.join(".next"), dir.join("settings.yaml"))
    }),
];

fn each_way_to_save(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    lab.write("settings.yaml", &config("first"))?;
    lab.write(
        "app.yaml",
        &format!(
            "apiVersion: boxship/v1\nkind: App\nname: app\nimage: {image}\nentrypoint: [/bin/sleep, \"1000000\"]\n\
             env: {{TEXT: {{config: settings, key: text}}}}\n"
        ),
    )?;
    lab.start_controller()?;
    lab.ready("app/app", 1, Duration::from_secs(30))?;
    let generation = || -> Result<u64> { lab.status()?["generation"].as_u64().ok_or_else(|| "no generation".into()) };
    for (how, save) in SAVES {
        let before = generation()?;
        save(&lab.manifests).map_err(|error| format!("{how}: {error}"))?;
        wait_for(&format!("{how} is accepted"), Duration::from_secs(10), || {
            ensure!(generation()? > before, "generation {before}");
            Ok(())
        })?;
        holds_for(Duration::from_secs(1), || {
            let now = generation()?;
            ensure!(now == before + 1, "{how}: {} revisions instead of one", now - before);
            Ok(())
        })?;
    }
    // git holds its lock while it writes many files: nothing is accepted half-way
    let before = generation()?;
    let failed = |error: std::io::Error| format!("git: {error}");
    std::fs::create_dir(lab.manifests.join(".git")).map_err(failed)?;
    std::fs::write(lab.manifests.join(".git/index.lock"), "").map_err(failed)?;
    lab.write("settings.yaml", &config("pulled"))?;
    holds_for(Duration::from_secs(1), || {
        ensure!(generation()? == before, "accepted while git holds .git/index.lock");
        Ok(())
    })?;
    std::fs::remove_file(lab.manifests.join(".git/index.lock")).map_err(failed)?;
    wait_for("the pulled files are accepted", Duration::from_secs(10), || {
        ensure!(generation()? == before + 1, "generation {}", generation()?);
        Ok(())
    })?;
    Ok(())
}

/// user × kind of volume × owner in the image, on the real redis image: it must run and write, and what is on disk must
/// belong to the container's own ids (volumes are mapped, so that they can move between Apps and be backed up).
fn users_and_volumes(lab: &mut Lab) -> Result {
    let failed = |error: std::io::Error| error.to_string();
    let mut complaints = Vec::new();
    for (tag, starts_as) in [("7", "root"), ("user", "redis")] {
        for kind in ["named", "anonymous", "bind"] {
            let name = format!("{kind}-{starts_as}");
            let bind = lab.manifests.join(format!("data-{name}"));
            let mount = match kind {
                "named" => format!("mounts: [{{path: /data, volume: data-of-{name}}}]\n"),
                "bind" => format!("mounts: [{{path: /data, bind: ./data-{name}}}]\n"),
                _ => String::new(),
            };
            if kind == "bind" {
                // owned by the image's user (Debian's first system account), as people prepare it
                std::fs::create_dir(&bind).map_err(failed)?;
                std::os::unix::fs::chown(&bind, Some(100), Some(101)).map_err(failed)?;
            }
            let volume = if kind == "named" {
                format!("apiVersion: boxship/v1\nkind: Volume\nname: data-of-{name}\n---\n")
            } else {
                String::new()
            };
            let image = lab.image(&format!("redis:{tag}"));
            let app = format!("{volume}apiVersion: boxship/v1\nkind: App\nname: {name}\nimage: {image}\n{mount}");
            lab.write(&format!("{name}.yaml"), &app)?;
        }
    }
    let up = lab.up();
    for starts_as in ["root", "redis"] {
        for kind in ["named", "anonymous", "bind"] {
            let name = format!("{kind}-{starts_as}");
            let seen = one_combination(lab, &name);
            println!("{name}: {seen:?}");
            complaints.extend(seen.err().map(|why| format!("{name}: {why}")));
        }
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("\n  "));
    up.map(|_| ())
}

fn one_combination(lab: &Lab, name: &str) -> Result<String> {
    let set = lab.ok(&["exec", name, "--", "redis-cli", "set", "key", "value"])?;
    ensure!(set.trim() == "OK", "set: {set:?}");
    let inside = lab.ok(&["exec", name, "--", "sh", "-c", "stat -c '%U:%G' /data /data/appendonlydir | sort -u"])?;
    ensure!(inside.trim() == "redis:redis", "/data belongs to {inside:?} inside");
    let numbers = lab.ok(&["exec", name, "--", "sh", "-c", "id -u redis; id -g redis"])?;
    let expected: Vec<u32> = numbers.lines().filter_map(|line| line.trim().parse().ok()).collect();
    let pid = lab.pids(&format!("app/{name}"))?[0].1;
    let on_disk = host_directory(lab, pid, "/data")?;
    let data = std::fs::metadata(&on_disk).map_err(|error| format!("{}: {error}", on_disk.display()))?;
    ensure!(expected == [data.uid(), data.gid()], "on disk {}:{} instead of {expected:?}", data.uid(), data.gid());
    Ok(format!("{}:{}", data.uid(), data.gid()))
}

/// Where the directory that a process sees at `target` lies on the host, from what the kernel says of the mount.
pub(super) fn host_directory(lab: &Lab, pid: i32, target: &str) -> Result<std::path::PathBuf> {
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).map_err(|error| error.to_string())?;
    let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(target));
    let line = line.ok_or_else(|| format!("no mount at {target}"))?;
    // the root of the mount inside its file system; the data root's own mount may begin below it
    let root = line.split(' ').nth(3).unwrap_or_default();
    let tail = ["/shop/", "/data/"]
        .iter()
        .filter_map(|part| root.rfind(part).map(|at| &root[at..]))
        .max_by_key(|tail| tail.len());
    let tail = tail.ok_or_else(|| format!("{target}: unexpected root {root}"))?;
    let found = lab.dir.join(tail.trim_start_matches('/'));
    ensure!(found.exists(), "{target}: {} does not exist (root of the mount: {root})", found.display());
    Ok(found)
}

fn a_full_disk(lab: &mut Lab) -> Result {
    std::fs::create_dir_all(&lab.data_root).map_err(|error| error.to_string())?;
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=160m,mode=0700", "tmpfs"]).arg(&lab.data_root).status();
    ensure!(mounted.is_ok_and(|status| status.success()), "mount a small data root");
    lab.write(
        "small.yaml",
        &format!(
            "apiVersion: boxship/v1\nkind: App\nname: small\nimage: {}\nentrypoint: [/bin/sleep, \"1000000\"]\n",
            lab.image("busybox:1")
        ),
    )?;
    lab.write(
        "large.yaml",
        &format!("apiVersion: boxship/v1\nkind: App\nname: large\nimage: {}\n", lab.image("postgres:15")),
    )?;
    lab.start_controller()?;
    lab.ready("app/small", 1, Duration::from_secs(30))?;
    let before = lab.pids("app/small")?;
    wait_for("the full disk is told", Duration::from_secs(40), || {
        let said = lab.ok(&["why", "large"])? + &lab.ok(&["describe", "large"])?;
        ensure!(said.contains("not enough disk") || said.contains("No space left"), "{said}");
        Ok(())
    })?;
    ensure!(lab.pids("app/small")? == before, "the other App was touched");
    // nothing half-done stays: the space is free again
    let free = nix::sys::statvfs::statvfs(&lab.data_root).map_err(|error| error.to_string())?;
    let free_bytes = free.blocks_available() * free.fragment_size();
    ensure!(free_bytes > 100 << 20, "only {free_bytes} bytes are free after the failed pull");
    // a smaller wish is still granted
    lab.write(
        "large.yaml",
        &format!(
            "apiVersion: boxship/v1\nkind: App\nname: large\nimage: {}\nentrypoint: [/bin/sleep, \"1000000\"]\n",
            lab.image("busybox:1")
        ),
    )?;
    lab.ready("app/large", 1, Duration::from_secs(30))?;
    Ok(())
}
