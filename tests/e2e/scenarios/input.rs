//! Bad input: each mistake has a message with its place and its remedy, and nothing that ran is lost.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::converge::{EXTRA_CONF, web};
use super::on_images;
use crate::http;
use crate::lab::Lab;
use crate::wait::wait_for;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[
    unprivileged("the_readme_names_every_command", the_readme_names_every_command),
    unprivileged("examples_are_understood", examples_are_understood),
    unprivileged("every_mistake_is_reported_at_its_place", every_mistake_is_reported),
    unprivileged("starting_without_root_says_what_is_needed", starting_without_root),
    on_images("bad_input_changes_nothing_that_runs", 150, bad_input_changes_nothing),
    on_images("a_missing_capability_is_named", 120, a_missing_capability),
    on_images("a_port_in_use_names_its_holder", 120, a_port_in_use),
    on_images("one_failing_app_does_not_delay_another", 120, one_failing_app),
];

/// A scenario that needs neither root nor images.
const fn unprivileged(name: &'static str, run: fn(&mut Lab) -> Result) -> Scenario {
    Scenario { name, run, images: false, root: false, alone: false, limit_secs: 60 }
}

/// `check` and expect it to refuse; returns what it said.
fn refused(lab: &Lab, args: &[&str]) -> Result<String> {
    let output = lab.boxship(args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "`{}` succeeded: {text}", args.join(" "));
    Ok(text)
}

fn the_readme_names_every_command(lab: &mut Lab) -> Result {
    let help = lab.ok(&["--help"])?;
    let readme = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).map_err(|error| error.to_string())?;
    let listed =
        help.split("Commands:").nth(1).and_then(|rest| rest.split("Options:").next()).ok_or("no list of commands")?;
    let verbs: Vec<&str> = listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    ensure!(verbs.len() > 10, "too few commands in {help}");
    let table: String = readme.lines().filter(|line| line.starts_with("| `")).collect();
    let absent: Vec<&&str> = verbs.iter().filter(|verb| !table.contains(&format!("`{verb}"))).collect();
    ensure!(absent.is_empty(), "not in README.md's table of commands: {absent:?}");
    Ok(())
}

fn examples_are_understood(lab: &mut Lab) -> Result {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut count = 0;
    for entry in std::fs::read_dir(&examples).map_err(|error| error.to_string())?.flatten() {
        if !entry.path().is_dir() || entry.file_name() == "broken" {
            continue;
        }
        lab.ok(&["check", &entry.path().to_string_lossy()])?;
        lab.ok(&["fmt", "--check", &entry.path().to_string_lossy()])?;
        count += 1;
    }
    ensure!(count >= 4, "only {count} examples in {}", examples.display());
    Ok(())
}

/// Each file of `examples/broken` says in its first lines what has to be reported: `# expect: TEXT`.
fn every_mistake_is_reported(lab: &mut Lab) -> Result {
    let broken = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/broken");
    let mut complaints = Vec::new();
    let mut files: Vec<_> =
        std::fs::read_dir(&broken).map_err(|error| error.to_string())?.flatten().map(|e| e.path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
        let output = lab.boxship(&["check", &file.to_string_lossy()]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let before = std::fs::read(file).map_err(|error| error.to_string())?;
        lab.boxship(&["fmt", "--check", &file.to_string_lossy()]);
        ensure!(std::fs::read(file).ok() == Some(before), "`fmt --check` changed {name}");
        if output.status.code() != Some(65) {
            complaints.push(format!("{name}: exit code {:?} instead of 65\n{said}", output.status.code()));
        }
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# expect: ")).collect();
        if expected.is_empty() {
            complaints.push(format!("{name}: has no `# expect:` line"));
        }
        for line in expected {
            if !said.contains(line) {
                complaints.push(format!("{name}: does not say `{line}`:\n{said}"));
            }
        }
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

/// As somebody else than root: `demo` and `up` say in one line what they need, and make nothing.
fn starting_without_root(lab: &mut Lab) -> Result {
    // `nobody` may not reach the build directory: the binary and the manifest go where everybody may
    let place = std::env::temp_dir().join(format!("boxship-e2e-{}", std::process::id()));
    let outcome = without_root(lab, &place);
    let _ = std::fs::remove_dir_all(&place);
    outcome
}

fn without_root(lab: &Lab, place: &Path) -> Result {
    let failed = |error: std::io::Error| format!("{}: {error}", place.display());
    let binary = place.join("boxship");
    std::fs::create_dir(place).map_err(failed)?;
    std::fs::set_permissions(place, PermissionsExt::from_mode(0o755)).map_err(failed)?;
    std::fs::copy(env!("CARGO_BIN_EXE_boxship"), &binary).map_err(failed)?;
    let manifest = place.join("web.yaml");
    std::fs::write(&manifest, "apiVersion: boxship/v1\nkind: App\nname: web\nimage: localhost/none:1\n")
        .map_err(failed)?;
    for args in [vec!["demo"], vec!["up", manifest.to_str().unwrap_or_default()]] {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary).args(&args);
        command
            .env("BOXSHIP_DATA_ROOT", lab.dir.join("data"))
            .env("BOXSHIP_RUN_DIR", lab.dir.join("run"))
            .current_dir("/");
        let output = command.output().map_err(|error| format!("setpriv: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "`{}` succeeded without root", args.join(" "));
        ensure!(said.contains("needs root"), "`{}` does not say that it needs root: {said}", args.join(" "));
    }
    Ok(())
}

fn bad_input_changes_nothing(lab: &mut Lab) -> Result {
    lab.write("extra.conf", EXTRA_CONF)?;
    let good = web(lab, "1", 2, "");
    lab.write("web.yaml", &good)?;
    lab.start_controller()?;
    lab.ready("app/web", 2, Duration::from_secs(60))?;
    let before = lab.pids("app/web")?;
    broken_files(lab, &good, &before)?;
    images_nobody_has(lab, &good, &before)?;
    // a source that is suddenly empty holds
    std::fs::rename(&lab.manifests, lab.dir.join("away")).map_err(|error| error.to_string())?;
    std::fs::create_dir(&lab.manifests).map_err(|error| error.to_string())?;
    crate::wait::holds_for(Duration::from_secs(3), || {
        ensure!(lab.pids("app/web")? == before, "an empty directory removed containers");
        Ok(())
    })?;
    let status = lab.status()?.to_string();
    ensure!(status.contains("confirm") || status.contains("held"), "the hold is not told: {status}");
    Ok(())
}

/// Each is told at its place, noticed by the controller, changes nothing, and is forgotten once it is mended.
fn broken_files(lab: &Lab, good: &str, before: &[(String, i32)]) -> Result {
    let cycle = format!("{good}dependsOn: {{other: ready}}\n---\n{}dependsOn: {{web: ready}}\n", other_app(good));
    let cases: &[(&str, &str, String, &[&str])] = &[
        (
            "unknown field",
            "web.yaml",
            good.replace("image:", "imgae:"),
            &["unknown field", "imgae", "image", "web.yaml:5"],
        ),
        ("wrong type", "web.yaml", good.replace("replicas: 2", "replicas: many"), &["replicas", "many", "web.yaml:4"]),
        ("half a file", "web.yaml", good[..good.len() / 2].to_owned() + "\n  - {", &["web.yaml"]),
        ("cyclic dependency", "web.yaml", cycle, &["error[BX0124]", "web.yaml:", "`other`", "`web`"]),
        (
            "two objects of one name",
            "web2.yaml",
            good.to_owned(),
            &["error[BX0122]", "web.yaml:3", "web2.yaml:3", "the first one is here"],
        ),
    ];
    for (what, file, text, expected) in cases {
        lab.write(file, text)?;
        let path = lab.manifests.to_string_lossy().into_owned();
        let said = refused(lab, &["check", &path])?;
        for word in *expected {
            ensure!(said.contains(word), "{what}: `{word}` is not in: {said}");
        }
        wait_for(&format!("{what} is a notice"), Duration::from_secs(10), || {
            let status = lab.status()?;
            ensure!(!status["notices"].as_array().is_none_or(Vec::is_empty), "no notice in {status}");
            Ok(())
        })?;
        ensure!(lab.pids("app/web")? == before, "{what}: containers were touched");
        if *file != "web.yaml" {
            std::fs::remove_file(lab.manifests.join(file)).map_err(|error| error.to_string())?;
        }
        lab.write("web.yaml", good)?;
        wait_for(&format!("{what} is forgotten"), Duration::from_secs(10), || {
            let status = lab.status()?;
            ensure!(status["notices"].as_array().is_none_or(Vec::is_empty), "still a notice in {status}");
            Ok(())
        })?;
    }
    Ok(())
}

/// The old revision serves, and the cause is told.
fn images_nobody_has(lab: &Lab, good: &str, before: &[(String, i32)]) -> Result {
    let image_cases: &[(&str, String, &[&str])] = &[
        ("unknown tag", lab.image("nginx:none"), &["error[BX0302]", "no tag `none`", "nearest", "help: "]),
        (
            "unknown repository",
            lab.image("nothing:1"),
            &["error[BX0303]", "no repository", "help: boxship image login"],
        ),
        (
            "wrong digest",
            format!("{}@sha256:{}", lab.image("nginx"), "0".repeat(64)),
            &["error[BX0302]", "no manifest", "--> web.yaml:5:8"],
        ),
        (
            "unreachable registry",
            "127.0.0.1:1/shop/web:1".to_owned(),
            &["error[BX0301]", "127.0.0.1:1", "--> web.yaml:5:8"],
        ),
    ];
    for (what, image, words) in image_cases {
        lab.write("web.yaml", &good.replace(&lab.image("nginx:1"), image))?;
        wait_for(&format!("{what} is told"), Duration::from_secs(15), || {
            let said = lab.ok(&["why", "app/web"])? + &lab.ok(&["describe", "app/web"])?;
            ensure!(words.iter().all(|word| said.contains(word)), "not all of {words:?} in {said}");
            Ok(())
        })?;
        ensure!(lab.pids("app/web")? == before, "{what}: containers were touched");
        ensure!(http::get(8080, "/")?.status == 200, "{what}: it still answers");
    }
    Ok(())
}

/// The same App under another name, without what only one may have.
fn other_app(app: &str) -> String {
    app.lines()
        .filter(|line| !line.starts_with("ports:"))
        .map(|line| line.replace("name: web", "name: other") + "\n")
        .collect()
}

/// Without the right to make networks the App says so and starts once there is the right; without the right to raise limits
/// the limit is lower, the log says so and the App runs.
fn a_missing_capability(lab: &mut Lab) -> Result {
    lab.write(
        "small.yaml",
        &format!(
            "apiVersion: boxship/v1\nkind: App\nname: small\nimage: {}\nentrypoint: [/bin/sleep, \"1000000\"]\n\
             mounts: [{{path: /data, volume: kept}}]\n---\napiVersion: boxship/v1\nkind: Volume\nname: kept\n",
            lab.image("busybox:1")
        ),
    )?;
    let path = lab.manifests.to_string_lossy().into_owned();
    let up_with = |wrapper: &[&str], seconds: &str| {
        let up = lab.command(&["up", &path, "--timeout", seconds]);
        let mut command = std::process::Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(&lab.binary).args(up.get_args());
        command.envs(up.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(&lab.dir);
        command.output().map_err(|error| format!("{}: {error}", wrapper[0]))
    };
    let limited = ["setpriv", "--bounding-set=-sys_resource", "prlimit", "--nofile=4096:4096"];
    let output = up_with(&limited, "30s")?;
    ensure!(output.status.success(), "up without CAP_SYS_RESOURCE: {}", String::from_utf8_lossy(&output.stderr));
    let most = lab.ok(&["exec", "small", "--", "sh", "-c", "ulimit -Hn; echo kept > /data/file"])?;
    ensure!(most.trim() == "4096", "open files: {most}");
    let log = std::fs::read_to_string(lab.run_dir.join("boxship.log")).map_err(|error| error.to_string())?;
    let expected = "CAP_SYS_RESOURCE is missing: containers may open 4096 files instead of 524288";
    ensure!(log.contains(expected), "not told in the log: {log}");
    lab.ok(&["down", &path])?;

    let output = up_with(&["setpriv", "--bounding-set=-net_admin"], "5s")?;
    ensure!(!output.status.success(), "up succeeded without CAP_NET_ADMIN");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &lab.ok(&["why", "app/small"])?;
    let expected = "CAP_NET_ADMIN is missing: bridge networks cannot be made; run as root";
    ensure!(said.contains(expected), "the capability is not named: {said}");
    // what a person does next: end it and start it with all rights
    let keeper = nix::unistd::Pid::from_raw(lab.daemon("keeper")?);
    nix::sys::signal::kill(keeper, nix::sys::signal::Signal::SIGTERM).map_err(|error| error.to_string())?;
    wait_for("all processes have ended", Duration::from_secs(15), || {
        let left = ["keeper", "controller", "supervisor", "switchboard"].map(|role| lab.daemon(role).is_ok());
        ensure!(left == [false; 4], "still there: {left:?}");
        Ok(())
    })?;

    // its first answer may be the last failure, from before
    let _ = lab.boxship(&["up", &path, "--timeout", "30s"]);
    lab.ready("app/small", 1, Duration::from_secs(20))?;
    let kept = lab.ok(&["exec", "small", "--", "cat", "/data/file"])?;
    ensure!(kept.trim() == "kept", "the volume's data: {kept}");
    Ok(())
}

fn a_port_in_use(lab: &mut Lab) -> Result {
    let _holder = std::net::TcpListener::bind("127.0.0.1:8080").map_err(|error| error.to_string())?;
    lab.write("extra.conf", EXTRA_CONF)?;
    lab.write("web.yaml", &web(lab, "1", 1, ""))?;
    let path = lab.manifests.to_string_lossy().into_owned();
    let output = lab.boxship(&["up", &path, "--timeout", "20s"]);
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "up succeeded: {said}");
    said += &lab.ok(&["describe", "app/web"])?;
    said += &lab.status()?.to_string();
    ensure!(said.contains("8080") && said.contains("in use"), "the port is not named: {said}");
    let me = format!("pid {}", std::process::id());
    ensure!(said.contains(&me), "the holder ({me}) is not named: {said}");
    Ok(())
}

fn one_failing_app(lab: &mut Lab) -> Result {
    lab.write("extra.conf", EXTRA_CONF)?;
    lab.write("web.yaml", &web(lab, "1", 2, ""))?;
    lab.write(
        "sick.yaml",
        &format!(
            "apiVersion: boxship/v1\nkind: App\nname: sick\nreplicas: 3\nimage: {}\n---\n\
             apiVersion: boxship/v1\nkind: App\nname: lost\nimage: 127.0.0.1:1/shop/none:1\n",
            lab.image("nginx:bad")
        ),
    )?;
    lab.start_controller()?;
    lab.ready("app/web", 2, Duration::from_secs(60))?;
    let why = lab.ok(&["why", "sick"])?;
    ensure!(why.contains("exit") || why.contains("this tag is broken"), "the cause is not told: {why}");
    Ok(())
}
