//! One virtual machine: a kernel, an initrd with the programs under test, and a disk. Knows qemu, not what is tested.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// For one boot. It takes tens of seconds, emulated on two cores; other work on the machine makes that minutes.
const BOOT_DEADLINE: Duration = Duration::from_secs(900);

/// What `init` prints where the power is to go.
const PLUG: &str = "tester: pull the plug";

/// A disk, and what boots with it.
pub(crate) struct Machine {
    files: &'static Path,
    name: &'static str,
    disk: PathBuf,
}

impl Machine {
    /// With an empty disk; `None` when there can be none, which has been said.
    pub(crate) fn new(name: &'static str) -> Option<Self> {
        static FILES: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let files = match FILES.get_or_init(make) {
            Ok(files) => files,
            Err(why) => {
                println!("skipped: {why}");
                return None;
            }
        };
        let disk = files.join(format!("{name}.img"));
        let file = std::fs::File::create(&disk).expect("the target directory takes files");
        file.set_len(4 << 30).expect("a sparse file");
        drop(file);
        let formatted = tool("mkfs.ext4").args(["-q", "-F"]).arg(&disk).status().expect("mkfs.ext4 runs");
        assert!(formatted.success());
        Some(Self { files, name, disk })
    }

    /// Boots, plays the stage until the machine powers itself off or asks for the plug to be pulled, and returns what
    /// the console showed.
    pub(crate) fn boot(&self, stage: &str) -> String {
        let began = Instant::now();
        let console = self.files.join(format!("{}-{stage}.txt", self.name));
        let out = std::fs::File::create(&console).expect("the target directory takes files");
        let mut machine = tool("qemu-system-x86_64")
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "2048", "-smp", "2"])
            .args(["-nographic", "-no-reboot", "-nic", "none"])
            .args(["-append", &format!("console=ttyS0 panic=-1 quiet stage={stage}")])
            .arg("-kernel")
            .arg(self.files.join("vmlinuz"))
            .arg("-initrd")
            .arg(self.files.join("initrd"))
            // "unsafe" towards a power cut of the host only: what the machine wrote outlives qemu
            .arg("-drive")
            .arg(format!("file={},format=raw,if=virtio,cache=unsafe", self.disk.display()))
            .stdin(Stdio::null())
            .stdout(out)
            .spawn()
            .expect("qemu runs");
        let shown = || String::from_utf8_lossy(&std::fs::read(&console).expect("the console's file")).replace('\r', "");
        while machine.try_wait().expect("a child of ours").is_none() {
            if began.elapsed() > BOOT_DEADLINE || shown().contains(PLUG) {
                machine.kill().and_then(|()| machine.wait()).expect("a child of ours");
                break;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        println!("  stage {stage}: {} s", began.elapsed().as_secs());
        shown()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // 4 GiB, sparse
        let _ = std::fs::remove_file(&self.disk);
    }
}

/// Makes kernel and initrd; the error says why that is impossible here.
fn make() -> Result<PathBuf, String> {
    for name in ["qemu-system-x86_64", "mkfs.ext4", "cpio", "depmod", "strip", "busybox", "dpkg", "apt-get"] {
        let found = tool("sh").args(["-c", "command -v \"$0\"", name]).stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            return Err(format!("{name} is not installed"));
        }
    }
    let files = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("vm");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vm/make.sh");
    let programs = [vec![env!("CARGO_BIN_EXE_boxship").into()], suites()].concat();
    let made = tool(script).arg(&files).args(programs).output().map_err(|e| format!("make.sh: {e}"))?;
    if made.status.success() {
        return Ok(files);
    }
    let why = String::from_utf8_lossy(&made.stderr).trim().replace('\n', "; ");
    Err(format!("the machine cannot be made: {why}"))
}

/// The runtime's two suites, as built for this run: cargo knows their paths, and has them when it built the workspace.
fn suites() -> Vec<OsString> {
    let mut cargo = Command::new(env!("CARGO"));
    // what cargo told this test of its package would look to build scripts (ring's) as if they had to run again
    let told = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|p| name.starts_with(p))
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        cargo.env_remove(name);
    }
    let built = cargo
        .args(["test", "--workspace", "--test", "kernel", "--test", "conformance"])
        .args(["--no-run", "--offline", "--locked", "--message-format=json"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "the suites do not compile");
    let messages = String::from_utf8_lossy(&built.stdout).into_owned();
    let programs = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let suite = ["kernel", "conformance"].contains(&message["target"]["name"].as_str()?);
        Some(OsString::from(message["executable"].as_str().filter(|_| suite)?))
    });
    programs.collect()
}

/// A program that may be where only root looks.
fn tool(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin");
    command
}
