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
    let dead_registry = "127.0.0.1:1/shop/web:1";
    let cases: &[(&str, String, &[&str])] = &[
        ("unknown field", good.replace("image:", "imgae:"), &["unknown field", "imgae", "image", "web.yaml:5"]),
        ("wrong type", good.replace("replicas: 2", "replicas: many"), &["replicas", "many", "web.yaml:4"]),
        ("half a file", good[..good.len() / 2].to_owned() + "\n  - {", &["web.yaml"]),
    ];
    for (what, text, expected) in cases {
        lab.write("web.yaml", text)?;
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
    }
    lab.write("web.yaml", &good)?;
    // two objects of one name are named at both places
    lab.write("twin.yaml", &good)?;
    let path = lab.manifests.to_string_lossy().into_owned();
    let said = refused(lab, &["check", &path])?;
    ensure!(said.contains("web.yaml") && said.contains("twin.yaml"), "both places of a double name: {said}");
    std::fs::remove_file(lab.manifests.join("twin.yaml")).map_err(|error| error.to_string())?;
    // images that cannot be had: the old revision serves, and the cause is told
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
        ("unreachable registry", dead_registry.to_owned(), &["error[BX0301]", "127.0.0.1:1", "--> web.yaml:5:8"]),
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
