//! Containers made by hand where no controller runs: each scenario is one row of what the users' stories name, so called.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use super::on_images;
use crate::lab::Lab;
use crate::wait::wait_for;
use crate::{Result, Scenario, ensure, http};

pub(super) const ALL: &[Scenario] = &[
    on_images("row_02_03_a_change_is_copied_up_and_a_deletion_recorded", 90, changes_are_copied_up),
    on_images("row_04_05_a_container_is_an_image_a_layer_and_settings", 90, a_layer_and_settings),
    on_images("row_06_many_containers_share_one_image", 120, many_share_one_image),
    on_images("row_07_a_stopped_container_keeps_its_changes", 120, a_stopped_one_keeps_its_changes),
    on_images("row_14_15_16_ps_shows_what_people_know", 120, ps_shows_what_people_know),
    on_images("row_17_24_run_pulls_only_what_is_missing_and_leaves_nothing", 120, run_pulls_only_what_is_missing),
    on_images("row_23_a_shell_in_a_terminal", 120, a_shell_in_a_terminal),
    on_images("row_28_34_35_ports_volumes_and_the_host", 120, ports_volumes_and_the_host),
    on_images("row_29_30_31_a_process_under_limits_in_namespaces", 90, a_process_under_limits),
    on_images("row_36_errors_say_what_people_search_for", 120, errors_say_what_is_wrong),
];

/// How long a state may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// What a command said on stderr, and its exit code.
fn refused(output: &Output) -> (i32, String) {
    (output.status.code().unwrap_or(-1), text(&output.stderr))
}

/// The only directory of a container that is not called so.
pub(super) fn container_dir(lab: &Lab, name: &str) -> Result<PathBuf> {
    let id = lab.ok(&["ps", "-a", "-q", "--no-trunc", "--filter", &format!("name={name}")])?;
    Ok(lab.data_root.join("containers").join(id.trim()))
}

fn changes_are_copied_up(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    let change = "echo mine > /www/index.html; rm /etc/group; cat /etc/passwd > /dev/null";
    lab.ok(&["run", "--name", "changed", "--network", "none", &image, "sh", "-c", change])?;
    let upper = container_dir(lab, "changed")?.join("upper");
    let own = std::fs::read_to_string(upper.join("www/index.html")).map_err(|error| error.to_string())?;
    ensure!(own == "mine\n", "the container's own layer has `{own}`");
    let gone = std::fs::symlink_metadata(upper.join("etc/group")).map_err(|error| error.to_string())?;
    ensure!(gone.file_type().is_char_device() && gone.rdev() == 0, "a deletion is not recorded as one");
    ensure!(!upper.join("etc/passwd").exists(), "what was only read was copied");
    let other = lab.ok(&["run", "--rm", "--network", "none", &image, "sh", "-c", "cat /www/index.html; ls /etc"])?;
    ensure!(other.starts_with("busybox 1\n") && other.contains("group"), "another container sees {other}");
    lab.ok(&["rm", "changed"])?;
    lab.nothing_is_left()
}

fn a_layer_and_settings(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    let settings = ["--name", "thin", "--memory", "64m", "--hostname", "thin-host", "-e", "COLOUR=green", "-w", "/tmp"];
    let made = lab.ok(&[&["run", "-d", "--network", "none"][..], &settings, &[&image, "sleep", "1000"]].concat())?;
    let inside = lab.ok(&[
        "exec",
        "thin",
        "sh",
        "-c",
        "hostname; pwd; echo $COLOUR; dd if=/dev/zero of=/big bs=1k count=300 2>&1",
    ])?;
    ensure!(inside.starts_with("thin-host\n/tmp\ngreen\n"), "settings inside: {inside}");
    let sizes = lab.ok(&["ps", "-s"])?;
    ensure!(sizes.contains("300.0Ki (virtual"), "the writable layer is not told: {sizes}");
    let before = lab.ok(&["image", "ls", "--no-trunc"])?;
    let dir = lab.data_root.join("containers").join(made.trim());
    ensure!(dir.join("upper/big").exists(), "{} has no layer of its own", dir.display());
    let busy = lab.boxship(&["rm", "thin"]);
    ensure!(refused(&busy).1.contains("is running: boxship stop thin"), "{}", text(&busy.stderr));
    lab.ok(&["rm", "--force", "thin"])?;
    ensure!(!dir.exists(), "its writable layer stays");
    let after = lab.ok(&["image", "ls", "--no-trunc"])?;
    let ids = |text: &str| {
        text.lines().filter_map(|line| line.split_whitespace().nth(2).map(str::to_owned)).collect::<Vec<_>>()
    };
    ensure!(ids(&before) == ids(&after), "the image changed: {before}{after}");
    lab.nothing_is_left()
}

fn many_share_one_image(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    lab.ok(&["image", "pull", &image])?;
    let layers = |lab: &Lab| tree_files(&lab.data_root.join("images"));
    let before = layers(lab);
    for number in 0..8 {
        let name = format!("m{number}");
        let program = format!("echo {number} > /own; sleep 1000");
        lab.ok(&["run", "-d", "--name", &name, "--network", "none", &image, "sh", "-c", &program])?;
    }
    ensure!(layers(lab) == before, "eight containers made {} files in the store of images", layers(lab) - before);
    for number in 0..8 {
        let look = || {
            let own = lab.ok(&["exec", &format!("m{number}"), "cat", "/own"])?;
            ensure!(own == format!("{number}\n"), "container {number} has `{own}`");
            Ok(())
        };
        wait_for("each has its own data", PATIENCE, look)?;
    }
    let names = lab.ok(&["ps", "-q"])?;
    let mut all = vec!["rm", "-f"];
    all.extend(names.split_whitespace());
    ensure!(all.len() == 10, "eight run: {names}");
    lab.ok(&all)?;
    lab.nothing_is_left()
}

/// Files below a directory.
fn tree_files(dir: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { tree_files(&entry.path()) } else { 1 }).sum()
}

fn a_stopped_one_keeps_its_changes(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    let program =
        "trap 'exit 5' TERM; echo begun >> /lives; echo run $(wc -l < /lives); while :; do sleep 1 & wait $!; done";
    lab.ok(&["run", "-d", "--name", "keeps", "--network", "none", "-e", "A=b", &image, "sh", "-c", program])?;
    wait_for("it runs", PATIENCE, || said(lab, "run 1"))?;
    lab.ok(&["exec", "keeps", "touch", "/dev/shm/memory"])?;
    lab.ok(&["stop", "keeps"])?;
    let listed = lab.ok(&["ps", "-a"])?;
    ensure!(listed.contains("Exited (5)"), "{listed}");
    ensure!(!lab.ok(&["ps"])?.contains("keeps"), "it runs on");
    // memory and processes are gone; files and settings are there
    lab.ok(&["start", "keeps"])?;
    wait_for("it runs again", PATIENCE, || said(lab, "run 2"))?;
    let inside = lab.ok(&["exec", "keeps", "sh", "-c", "cat /lives | wc -l; echo $A; ls /dev/shm | wc -l"])?;
    ensure!(inside == "2\nb\n0\n", "{inside}");
    lab.ok(&["restart", "keeps"])?;
    wait_for("and again", PATIENCE, || said(lab, "run 3"))?;
    // a pause keeps everything, a rename changes only the name
    lab.ok(&["pause", "keeps"])?;
    ensure!(lab.ok(&["ps"])?.contains("(Paused)"), "a pause is not told");
    lab.ok(&["unpause", "keeps"])?;
    lab.ok(&["rename", "keeps", "kept"])?;
    lab.ok(&["kill", "--signal", "TERM", "kept"])?;
    ensure!(lab.ok(&["wait", "kept"])? == "5\n", "the exit code is not told");
    // the machine loses power: the layer is there, how it ended is not known
    lab.ok(&["start", "kept"])?;
    wait_for("it has begun once more", PATIENCE, || {
        let log = lab.ok(&["logs", "kept"])?;
        ensure!(log.lines().any(|line| line == "run 4"), "{log}");
        Ok(())
    })?;
    lab.reboot(2)?;
    let listed = lab.ok(&["ps", "-a"])?;
    ensure!(listed.contains("Exited (unknown)") && listed.contains("kept"), "{listed}");
    lab.ok(&["start", "kept"])?;
    wait_for("after a reboot", PATIENCE, || {
        let lives = lab.ok(&["exec", "kept", "cat", "/lives"])?;
        ensure!(lives.lines().count() == 5, "{lives}");
        Ok(())
    })?;
    lab.ok(&["rm", "-f", "kept"])?;
    Ok(())
}

fn said(lab: &Lab, line: &str) -> Result {
    let log = lab.ok(&["logs", "keeps"])?;
    ensure!(log.lines().any(|said| said == line), "{log}");
    Ok(())
}

fn ps_shows_what_people_know(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    let id = lab.ok(&["run", "-d", "--network", "none", &image, "sleep", "1000"])?;
    let id = id.trim();
    ensure!(id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit()), "an id: {id}");
    lab.ok(&["create", "--name", "waits", "--network", "none", &image])?;
    let ended =
        lab.boxship(&["run", "--name", "ended", "--network", "none", "-l", "tier=db", &image, "sh", "-c", "exit 4"]);
    ensure!(ended.status.code() == Some(4), "{ended:?}");
    let running = lab.ok(&["ps"])?;
    let lines: Vec<&str> = running.lines().collect();
    let head: Vec<&str> = lines[0].split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    ensure!(head == ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"], "{head:?}");
    ensure!(lines.len() == 2 && lines[1].starts_with(&id[..12]), "only what runs: {running}");
    ensure!(lines[1].contains("Up ") && lines[1].contains("\"sleep 1000\"") && lines[1].contains(" ago"), "{running}");
    let name = lines[1].split_whitespace().last().unwrap_or_default();
    ensure!(
        name.contains('_') && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
        "a generated name: {name}"
    );
    let all = lab.ok(&["ps", "-a"])?;
    ensure!(all.lines().count() == 4 && all.contains("Exited (4)") && all.contains("Created"), "{all}");
    let last = lab.ok(&["ps", "-l"])?;
    ensure!(last.lines().count() == 2 && last.contains("ended"), "{last}");
    ensure!(lab.ok(&["ps", "-n", "2", "-q"])?.lines().count() == 2, "the last two");
    ensure!(lab.ok(&["ps", "--no-trunc", "-q"])?.trim() == id, "a whole id");
    for (filter, wanted) in
        [("status=exited", "ended"), ("label=tier=db", "ended"), ("exited=4", "ended"), ("name=wait", "waits")]
    {
        let found = lab.ok(&["ps", "-a", "--filter", filter, "-o", "json"])?;
        let found: serde_json::Value = serde_json::from_str(&found).map_err(|error| format!("{error}: {found}"))?;
        ensure!(found.as_array().map(Vec::len) == Some(1) && found[0]["name"] == wanted, "{filter}: {found}");
    }
    // ids of images and containers never meet, names belong to one
    ensure!(!lab.ok(&["image", "ls", "-q"])?.contains(&id[..12]), "an image has the id of a container");
    let taken = lab.boxship(&["create", "--name", "waits", "--network", "none", &image]);
    ensure!(refused(&taken).1.contains("the name `waits` is in use by container"), "{}", text(&taken.stderr));
    lab.ok(&["rm", "-f", &id[..6], "waits", "ended"])?;
    lab.nothing_is_left()
}

fn run_pulls_only_what_is_missing(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    let never = lab.boxship(&["run", "--rm", "--pull", "never", "--network", "none", &image, "true"]);
    let (code, said) = refused(&never);
    ensure!(code == 125 && said.contains("does not exist"), "{code} {said}");
    let run =
        |lab: &Lab, args: &[&str]| lab.boxship(&[&["run", "--rm", "--network", "none", &image][..], args].concat());
    let first = run(lab, &["echo", "pulled"]);
    ensure!(text(&first.stdout) == "pulled" && text(&first.stderr).contains("is not here: pulling it"), "{first:?}");
    lab.registry().stop();
    let second = run(lab, &["sh", "-c", "echo out; echo err >&2; printf half; exit 3"]);
    ensure!(second.status.code() == Some(3), "the program's code: {second:?}");
    ensure!(text(&second.stdout) == "out\nhalf" && text(&second.stderr) == "err", "{second:?}");
    // each run sees the untouched directory, also those that run at once
    let at_once: Vec<_> = (0..3)
        .map(|_| {
            lab.command(&["run", "--rm", "--network", "none", &image, "sh", "-c", "ls /tmp; touch /tmp/mine; ls /tmp"])
        })
        .map(|mut command| command.stdout(std::process::Stdio::piped()).spawn().expect("the binary runs"))
        .collect();
    for child in at_once {
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        ensure!(output.status.success() && text(&output.stdout) == "mine", "{output:?}");
    }
    // stdin reaches the program, and its end too
    let mut piped = lab.command(&["run", "-i", "--rm", "--network", "none", &image, "sh", "-c", "wc -c; echo over"]);
    let mut child = piped
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    std::io::Write::write_all(&mut stdin, &vec![b'x'; 300_000]).map_err(|error| error.to_string())?;
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    ensure!(text(&output.stdout) == "300000\nover", "{output:?}");
    // much output is all there
    let much = run(lab, &["sh", "-c", "seq 1 200000"]);
    ensure!(much.stdout.len() == 1_288_895, "{} bytes of 1288895", much.stdout.len());
    ensure!(lab.ok(&["ps", "-aq"])?.is_empty(), "something stays");
    let made = std::fs::read_dir(lab.data_root.join("containers")).map_or(0, Iterator::count);
    ensure!(made == 0, "{made} directories of containers stay");
    lab.nothing_is_left()
}

fn a_shell_in_a_terminal(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    let typed = "tty; stty size; echo answer $((6 * 7)); exit 9\n";
    let (code, seen) = in_terminal(lab, &["run", "-it", "--rm", "--network", "none", &image, "sh"], typed)?;
    ensure!(code == 9 && seen.contains("/dev/pts/0") && seen.contains("answer 42"), "{code}: {seen}");
    lab.ok(&["run", "-dt", "--name", "box", "--network", "none", &image, "sh"])?;
    let (code, seen) =
        in_terminal(lab, &["exec", "-it", "box", "sh"], "echo inside $((2 + 3)); touch /was-here; exit 4\n")?;
    ensure!(code == 4 && seen.contains("inside 5"), "{code}: {seen}");
    lab.ok(&["exec", "box", "ls", "/was-here"])?;
    // one that has ended is entered again, as it was left
    lab.ok(&["stop", "-t", "0", "box"])?;
    let (code, seen) = in_terminal(lab, &["start", "-ai", "box"], "ls /was-here; exit 3\n")?;
    ensure!(code == 3 && !seen.contains("No such file"), "{code}: {seen}");
    // a signal reaches the program
    let program = "trap 'echo heard; exit 6' TERM; echo up; while :; do sleep 1 & wait $!; done";
    let mut command = lab.command(&["run", "--rm", "--name", "sig", "--network", "none", &image, "sh", "-c", program]);
    let child = command.stdout(std::process::Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    wait_for("it runs", PATIENCE, || {
        ensure!(lab.ok(&["logs", "sig"])?.contains("up"), "not yet");
        Ok(())
    })?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    ensure!(output.status.code() == Some(6) && text(&output.stdout) == "up\nheard", "{output:?}");
    lab.ok(&["rm", "-f", "box"])?;
    lab.nothing_is_left()
}

/// Runs the binary in a terminal of its own, types, and returns its exit code and all that was seen.
fn in_terminal(lab: &Lab, args: &[&str], typed: &str) -> Result<(i32, String)> {
    let quoted = |word: &str| format!("'{}'", word.replace('\'', "'\\''"));
    let words: Vec<String> = std::iter::once(lab.binary.to_string_lossy().into_owned())
        .chain(args.iter().map(|word| (*word).to_owned()))
        .map(|word| quoted(&word))
        .collect();
    let command = lab.command(&[]);
    let mut script = std::process::Command::new("script");
    script.args(["-q", "-e", "-c", &words.join(" "), "/dev/null"]);
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = script
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .map_err(|error| format!("run script: {error}"))?;
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    // a terminal keeps what is typed until somebody reads; it stays open until the end
    std::io::Write::write_all(&mut stdin, typed.as_bytes()).map_err(|error| error.to_string())?;
    let mut seen = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut stdout, &mut bytes).map_err(|error| error.to_string())?;
        seen = String::from_utf8_lossy(&bytes).into_owned();
    }
    drop(stdin);
    let status = child.wait().map_err(|error| error.to_string())?;
    Ok((status.code().unwrap_or(-1), seen))
}

/// Ranges, and what is exposed at free ports.
fn ports_in_ranges(lab: &Lab, image: &str) -> Result {
    let ports = ["-p", "127.0.0.1:18091-18092:91-92", "-P", "--expose", "93/udp"];
    lab.ok(&[&["run", "-d", "--name", "many"][..], &ports[..], &[image, "sleep", "1000"][..]].concat())?;
    let listed = lab.ok(&["ps", "--filter", "name=many", "--format", "{{.Ports}}"])?;
    ensure!(listed.contains("127.0.0.1:18091->91/tcp, 127.0.0.1:18092->92/tcp"), "{listed}");
    ensure!(listed.contains("->93/udp") && listed.matches("->").count() == 3, "{listed}");
    lab.ok(&["rm", "-f", "many"]).map(drop)
}

fn ports_volumes_and_the_host(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    let serve = "echo first > /data/index.html; exec httpd -f -p 80 -h /data";
    lab.ok(&["run", "-d", "--name", "web", "-p", "18080:80", "-v", "site:/data", &image, "sh", "-c", serve])?;
    let listed = lab.ok(&["ps"])?;
    ensure!(listed.contains("0.0.0.0:18080->80/tcp"), "{listed}");
    let page = |wanted: &str| {
        let look = || {
            let answer = http::get(18080, "/")?;
            ensure!(answer.body.contains(wanted), "{}", answer.body);
            Ok(())
        };
        wait_for("the published port answers", PATIENCE, look).map(drop)
    };
    page("first")?;
    // by name from another container, whose writes others see through the volume
    let other = [
        "run",
        "--rm",
        "-v",
        "site:/shared",
        &image,
        "sh",
        "-c",
        "wget -qO- http://web/; echo second > /shared/index.html",
    ];
    ensure!(lab.ok(&other)? == "first\n", "names of others");
    page("second")?;
    ports_in_ranges(lab, &image)?;
    let clash = lab.boxship(&["run", "-d", "--name", "late", "-p", "18080:80", &image, "sleep", "9"]);
    let (code, said) = refused(&clash);
    ensure!(code == 125 && said.contains("port 18080 is already in use"), "{code} {said}");
    // the volume outlives its containers
    lab.ok(&["rm", "-f", "web", "late"])?;
    ensure!(http::get(18080, "/").is_err(), "nobody listens any more");
    let kept = lab.ok(&["run", "--rm", "--network", "none", "-v", "site:/d:ro", &image, "cat", "/d/index.html"])?;
    ensure!(kept == "second\n", "{kept}");
    let read_only = lab.boxship(&["run", "--rm", "--network", "none", "-v", "site:/d:ro", &image, "touch", "/d/x"]);
    ensure!(read_only.status.code() == Some(1), "{read_only:?}");
    // a port of the host from inside
    let host = std::net::TcpListener::bind("0.0.0.0:0").map_err(|error| error.to_string())?;
    let port = host.local_addr().map_err(|error| error.to_string())?.port();
    let answering = std::thread::spawn(move || {
        use std::io::Write as _;
        if let Ok((mut stream, _)) = host.accept() {
            let _ = stream.write_all(b"from the host\n");
        }
    });
    let ask = format!("nc the-host {port} < /dev/null");
    let heard = lab.ok(&["run", "--rm", "--add-host", "the-host:host-gateway", &image, "sh", "-c", &ask])?;
    ensure!(heard == "from the host\n", "{heard}");
    drop(answering.join());
    // stop by image
    lab.ok(&["run", "-d", "--name", "one", "--network", "none", &image, "sleep", "1000"])?;
    lab.ok(&["run", "-d", "--name", "two", "--network", "none", &image, "sleep", "1000"])?;
    let stopped = lab.ok(&["stop", "-t", "0", "--image", &image])?;
    ensure!(stopped.contains("one") && stopped.contains("two") && lab.ok(&["ps", "-q"])?.is_empty(), "{stopped}");
    lab.ok(&["rm", "one", "two"])?;
    lab.nothing_is_left()
}

fn a_process_under_limits(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    let limits = ["--memory", "48m", "--cpus", "0.5", "--pids-limit", "20", "--ulimit", "nofile=99:100"];
    let start = [&["run", "-d", "--name", "box", "--user", "nobody"][..], &limits, &[&image, "sleep", "1000"]].concat();
    lab.ok(&start)?;
    let listed = lab.ok(&["ps", "-o", "json"])?;
    let listed: serde_json::Value = serde_json::from_str(&listed).map_err(|error| error.to_string())?;
    let pid = listed[0]["pid"].as_i64().ok_or("no pid")?;
    // a process of this host like any other …
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).map_err(|error| error.to_string())?;
    ensure!(command == "sleep\u{0}1000\u{0}", "{command}");
    // … in namespaces of its own …
    for kind in ["user", "pid", "mnt", "ipc", "uts", "cgroup", "net"] {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).map_err(|error| error.to_string());
        ensure!(of(&pid.to_string())? != of("self")?, "it shares its {kind} namespace with the host");
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    let uid: u32 = uid.split_whitespace().next().and_then(|id| id.parse().ok()).unwrap_or(0);
    ensure!(uid > 65_536 && uid % 65_536 == 65_534, "nobody inside is {uid} outside");
    ensure!(lab.ok(&["exec", "box", "id", "-un"])? == "nobody\n", "another user");
    // … under limits
    let files = std::fs::read_to_string(format!("/proc/{pid}/limits")).map_err(|error| error.to_string())?;
    let files = files.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    ensure!(files.split_whitespace().nth(3) == Some("99"), "{files}");
    let fork = lab.boxship(&["exec", "box", "sh", "-c", "for i in $(seq 40); do sleep 5 & done 2>&1; echo over"]);
    ensure!(
        !text(&fork.stdout).contains("over") || text(&fork.stdout).contains("fork"),
        "more than 20 processes: {fork:?}"
    );
    let eater = [
        "run",
        "--rm",
        "--memory",
        "16m",
        "--network",
        "none",
        &image,
        "sh",
        "-c",
        "dd if=/dev/zero of=/dev/null bs=67108864 count=1",
    ];
    let eaten = lab.boxship(&eater);
    ensure!(eaten.status.code() == Some(137), "16 MiB hold 64: {eaten:?}");
    let read_only = lab.boxship(&["run", "--rm", "--read-only", "--network", "none", &image, "touch", "/x"]);
    ensure!(read_only.status.code() == Some(1), "{read_only:?}");
    lab.ok(&["rm", "-f", "box"])?;
    lab.nothing_is_left()
}

fn errors_say_what_is_wrong(lab: &mut Lab) -> Result {
    let image = lab.image("busybox:1");
    lab.ok(&["image", "pull", &image])?;
    let run = |args: &[&str]| refused(&lab.boxship(&[&["run", "--rm", "--network", "none"][..], args].concat()));
    let script = "printf '#!/bin/nosuch\\n' > /s; chmod 755 /s; exec /s";
    let upper = format!("{}/Debian/busybox:1", image.split('/').next().unwrap_or_default());
    let absent = image.replace("busybox", "nobody");
    let cases: &[(&[&str], i32, &str)] = &[
        (&[&image, "nosuch"], 127, "no executable `nosuch` in PATH"),
        (&[&image, "/no/such"], 127, "no executable `/no/such`: no such file or directory"),
        (&[&image, "/etc/passwd"], 126, "`/etc/passwd` is not executable"),
        (&[&image, "sh", "-c", script], 127, "not found"),
        (&[&upper, "true"], 125, "lower case"),
        (&["127.0.0.1:1/x/y:1", "true"], 125, "refused"),
        (&[&absent, "true"], 125, "not"),
        (&["--privileged", &image, "true"], 125, "--cap-add CAP"),
        (&["--platform", "linux/s390x", &image, "true"], 125, "cannot run linux/s390x"),
        (&["-v", "/no/such/dir:/x", &image, "true"], 125, "/no/such/dir is not there to be mounted at /x"),
        (&["--user", "stranger", &image, "true"], 125, "stranger"),
    ];
    for (args, code, wanted) in cases {
        let (seen, said) = run(args);
        ensure!(seen == *code && said.contains(wanted), "{args:?}: {seen} {said}");
    }
    let (code, said) = run(&["--memry", "1g", &image]);
    ensure!(code == 64 && said.contains("--memory"), "a typo gets a suggestion: {code} {said}");
    lab.ok(&["create", "--name", "idle", "--network", "none", &image])?;
    for (args, wanted) in [
        (&["exec", "idle", "true"][..], "is not running"),
        (&["kill", "idle"], "container `idle` is not running"),
        (&["stop", "nobody"], "container `nobody` does not exist"),
        (&["wait", "idle"], "container `idle` was never started"),
        (&["rename", "idle", "a b"], "cannot be a container's name"),
        (&["image", "rm", "-f", &image], "is used by"),
    ] {
        let output = lab.boxship(args);
        let (code, said) = refused(&output);
        ensure!(code == 1 && said.contains(wanted), "{args:?}: {code} {said}");
    }
    lab.ok(&["rm", "idle"])?;
    // somebody who may not
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups"]).arg(&lab.binary).arg("ps");
    command.env("BOXSHIP_DATA_ROOT", &lab.data_root).env("BOXSHIP_RUN_DIR", &lab.run_dir);
    let output = command.output().map_err(|error| error.to_string())?;
    let (code, said) = refused(&output);
    ensure!(code != 0 && (said.contains("needs root") || said.contains("ermission denied")), "{code} {said}");
    lab.nothing_is_left()
}
