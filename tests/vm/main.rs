//! The binary on another kernel: Debian's 6.1 with cgroup v2 only, in a virtual machine, without KVM.
//!
//! One machine plays the whole demo. Another is cut off while three replicas serve, and must bring everything back by
//! itself at its next boot. Skipped, with the reason, where qemu or the kernel's package is not to be had.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Emulated on two busy cores, a boot takes 3 s and the demo under a minute.
const STAGE_DEADLINE: Duration = Duration::from_secs(240);

#[test]
fn the_demo_passes_on_debians_kernel_with_cgroup_v2_only() {
    let Some(machine) = Machine::build("demo") else { return };
    let console = machine.boot(0);
    assert!(console.contains("tester: demo exit 0"), "{console}");
}

#[test]
fn a_power_cut_is_a_non_event() {
    let Some(machine) = Machine::build("cut") else { return };
    let first = machine.boot(1);
    assert!(first.contains("tester: ok serves before the cut"), "{first}");
    let second = machine.boot(2);
    assert!(!second.contains("FAILED") && second.contains("end of stage 2"), "{second}");
}

/// A kernel, an initrd with the binary, and a disk.
struct Machine {
    dir: PathBuf,
    disk: PathBuf,
}

impl Machine {
    fn build(name: &str) -> Option<Self> {
        for tool in ["qemu-system-x86_64", "mkfs.ext4", "cpio", "depmod", "busybox", "dpkg"] {
            if !runs(tool) {
                println!("skipped: {tool} is not installed");
                return None;
            }
        }
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vm");
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("vm-{name}"));
        let made = Command::new(here.join("make.sh")).arg(&dir).arg(env!("CARGO_BIN_EXE_boxship")).output();
        let made = made.expect("bash runs");
        if !made.status.success() {
            println!("skipped: the machine cannot be built: {}", String::from_utf8_lossy(&made.stderr).trim());
            return None;
        }
        let disk = dir.join("disk.img");
        let _ = std::fs::remove_file(&disk);
        let file = std::fs::File::create(&disk).expect("the target directory takes files");
        file.set_len(4 << 30).expect("a sparse file");
        drop(file);
        let formatted = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk).status().expect("mkfs.ext4 runs");
        assert!(formatted.success());
        Some(Self { dir, disk })
    }

    /// Boots, plays the stage until the machine powers itself off, and returns what the console showed.
    fn boot(&self, stage: u8) -> String {
        let console = self.dir.join(format!("console-{stage}.txt"));
        let out = std::fs::File::create(&console).expect("the target directory takes files");
        let mut machine = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "2048", "-smp", "2"])
            .args(["-nographic", "-no-reboot", "-nic", "none"])
            .args(["-append", &format!("console=ttyS0 panic=-1 quiet stage={stage}")])
            .arg("-kernel")
            .arg(self.dir.join("vmlinuz"))
            .arg("-initrd")
            .arg(self.dir.join("initrd"))
            .arg("-drive")
            .arg(format!("file={},format=raw,if=virtio,cache=writeback", self.disk.display()))
            .stdin(Stdio::null())
            .stdout(out)
            .spawn()
            .expect("qemu runs");
        let began = Instant::now();
        while machine.try_wait().expect("a child of ours").is_none() {
            if began.elapsed() > STAGE_DEADLINE {
                machine.kill().and_then(|()| machine.wait()).expect("a child of ours");
                break;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        String::from_utf8_lossy(&std::fs::read(&console).expect("the console was written")).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // 4 GiB, sparse; the kernel stays for the next run.
        let _ = std::fs::remove_file(&self.disk);
    }
}

fn runs(tool: &str) -> bool {
    Command::new("sh")
        .arg("-c")
        .arg(format!("command -v {tool}"))
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}
