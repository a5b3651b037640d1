//! The binary on a data root of its own, and who holds that root.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use runtime::linux::Alone;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::Case;
use crate::fake::{Answer, Fake};
use crate::lab::{Archive, Image, Lab, gzip, names, wait_until};

pub(crate) const CASES: &[Case] = &[
    ("login_by_stdin_is_private_and_never_in_an_argument", login),
    ("with_a_controller_the_same_verbs_go_over_its_socket", through_a_controller),
    ("a_second_command_says_who_holds_the_data_root", held),
    ("a_killed_command_leaves_the_data_root_free", killed),
];

/// A data root and the binary that works on it.
pub(crate) struct Desk {
    pub(crate) lab: Lab,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self { lab: Lab::new() }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boxship"));
        let layout = self.lab.layout();
        command.arg("image").args(args);
        command.arg("--data-root").arg(&layout.data_root).arg("--run-dir").arg(&layout.run_dir);
        command.arg("--boot-id-path").arg(&layout.boot_id_path);
        command.env_remove("REGISTRY_AUTH_FILE").env("HOME", self.lab.dir.path()).stdin(Stdio::null());
        command
    }

    /// What it printed; it must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("start boxship");
        let (out, err) = texts(&output);
        assert!(output.status.success(), "boxship image {args:?}: {out}{err}");
        out
    }

    /// What it said; it must fail.
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("start boxship");
        let (out, err) = texts(&output);
        assert!(!output.status.success(), "boxship image {args:?} must fail: {out}");
        err
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        serde_json::from_str(&self.ok(&all)).expect("JSON")
    }

    /// Rows of `image ls` without its head, split at two spaces.
    pub(crate) fn rows(&self, args: &[&str]) -> Vec<Vec<String>> {
        let mut all = vec!["ls"];
        all.extend(args);
        let text = self.ok(&all);
        let cells = |line: &str| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect();
        text.lines().skip(1).map(cells).collect()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.lab.dir.path().join(name)
    }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// An image of one file.
pub(crate) fn image(name: &str, len: usize) -> Image {
    let tar = Archive::new().file(name, &crate::lab::noise(len, len as u64 + 7)).bytes();
    Image::new(&[(&tar, gzip)])
}

fn with_stdin(mut command: Command, input: &str) -> Output {
    use std::io::Write as _;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("write the password");
    child.wait_with_output().expect("wait")
}

fn login() -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    // base64 of ci:secret
    let fake = Fake::with(|asked, good| match asked.header("authorization") {
        "Basic Y2k6c2VjcmV0" => good,
        _ => Answer::new(401, "").with("www-authenticate", r#"Basic realm="x""#),
    });
    fake.push("a", "1", &image("x", 10));
    let desk = Desk::new();
    let args = ["login", fake.address.as_str(), "--username", "ci", "--password-stdin"];
    let refused = with_stdin(desk.command(&args), "wrong\n");
    let (out, err) = texts(&refused);
    assert!(!refused.status.success() && err.contains("BX0304") && !err.contains("wrong"), "{out}{err}");
    let taken = with_stdin(desk.command(&args), "secret\n");
    assert!(taken.status.success(), "{}", texts(&taken).1);
    let file = desk.lab.layout().auth_file();
    assert_eq!(std::fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
    desk.ok(&["pull", &fake.name("a:1")]);
    desk.ok(&["logout", &fake.address]);
    assert!(desk.refused(&["pull", &fake.name("a:2")]).contains("BX0303"), "without the login there is no way in");
    assert!(desk.refused(&["logout", &fake.address]).contains("no login"));
    Ok(())
}

/// A controller in the foreground, told to end at the end.
struct Controller(Child);

impl Controller {
    fn start(desk: &Desk) -> Self {
        let layout = desk.lab.layout();
        std::fs::create_dir_all(desk.path("manifests")).expect("make a directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_boxship"));
        command.arg("controller").arg("--manifests").arg(desk.path("manifests"));
        command.arg("--data-root").arg(&layout.data_root).arg("--run-dir").arg(&layout.run_dir);
        command.arg("--boot-id-path").arg(&layout.boot_id_path).env("HOME", desk.lab.dir.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start");
        let started = Self(child);
        wait_until("the controller answers", || UnixStream::connect(layout.socket("controller")).is_ok());
        started
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, Signal::TERM);
        let _ = self.0.wait();
    }
}

fn through_a_controller() -> Result<(), String> {
    let fake = Fake::start();
    let (one, two) = (image("one", 400_000), image("two", 10));
    fake.push("a", "1", &one);
    fake.push("b", "1", &two);
    let desk = Desk::new();
    let controller = Controller::start(&desk);
    let held = Alone::try_take(&desk.lab.layout(), "the test").expect("look at the lock");
    assert!(held.is_err_and(|who| who.starts_with("the controller, pid ")), "the controller holds the data root");
    let name = fake.name("a:1");
    desk.ok(&["pull", &name]);
    desk.ok(&["pull", &fake.name("b:1")]);
    desk.ok(&["tag", &name, "shop/web:1"]);
    assert_eq!(desk.rows(&[]).len(), 3);
    assert_eq!(desk.json(&["inspect", "shop/web:1"])[0]["Digest"], serde_json::json!(one.digest()));
    let file = desk.path("web.tar");
    let file = file.to_str().expect("UTF-8");
    desk.ok(&["save", "-f", file, "shop/web:1"]);
    assert!(desk.refused(&["save", "-f", file, "shop/absent:1"]).contains("BX0903"));
    desk.ok(&["rm", "shop/web:1", &name]);
    assert!(desk.refused(&["inspect", "shop/web:1"]).contains("BX0903"));
    desk.ok(&["load", file]);
    assert_eq!(desk.json(&["inspect", "shop/web:1"])[0]["Digest"], serde_json::json!(one.digest()), "over the socket");
    assert!(desk.ok(&["history", "shop/web:1"]).starts_with("LAYER"));
    assert!(desk.ok(&["scrub"]).contains("0 healed, 0 damaged"));
    std::fs::write(
        desk.path("manifests/b.yaml"),
        format!("apiVersion: boxship/v1\nkind: Image\nname: b\nref: {}\n", fake.name("b:1")),
    )
    .expect("write a manifest");
    wait_until("the manifest is followed", || desk.ok(&["ls", &fake.name("b")]).contains("image/b"));
    assert!(desk.refused(&["rm", &fake.name("b:1")]).contains("declared in"), "what is declared is not taken away");
    let said = desk.ok(&["prune", "--all"]);
    assert!(said.contains("shop/web:1") && !said.contains(&fake.name("b:1")), "{said}");
    drop(controller);
    assert_eq!(desk.rows(&[]).len(), 1, "and without it all is as it was");
    Ok(())
}

fn held() -> Result<(), String> {
    let desk = Desk::new();
    let alone = Alone::try_take(&desk.lab.layout(), "the test").expect("take the lock").expect("it is free");
    let mut waiting = desk.command(&["ls"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    assert!(waiting.try_wait().expect("look at it").is_none(), "it waits");
    drop(alone);
    assert!(waiting.wait().expect("wait").success(), "it goes on when the root is free");
    let _alone = Alone::try_take(&desk.lab.layout(), "the test").expect("take the lock").expect("it is free");
    let said = desk.refused(&["ls"]);
    assert!(said.contains("BX0904") && said.contains(&format!("the test, pid {}", std::process::id())), "{said}");
    Ok(())
}

fn killed() -> Result<(), String> {
    let fake = Fake::with(|asked, good| {
        let hang = asked.path.contains("/blobs/") && good.body.len() > 10_000;
        Answer { hang, cut: hang.then_some(1_000), ..good }
    });
    fake.push("a", "1", &image("x", 100_000));
    let desk = Desk::new();
    let mut child = desk.command(&["pull", &fake.name("a:1")]).stderr(Stdio::null()).spawn().expect("start");
    let tmp = desk.lab.images().join("tmp");
    let is_partial = |dir: &Path| dir.exists() && names(dir).iter().any(|n| n.ends_with(".partial"));
    wait_until("a layer arrives", || is_partial(&tmp));
    child.kill().expect("kill it");
    child.wait().expect("reap it");
    assert!(desk.rows(&[]).is_empty(), "nothing is visible, and nobody holds the root");
    Ok(())
}
