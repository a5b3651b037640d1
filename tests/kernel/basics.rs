//! Programs run, end and fail as they should; nothing is left of them.

use runtime::Error;
use std::os::fd::AsFd as _;

use runtime::process::InitEvent;
use runtime::rootfs::layers;
use runtime::spec::launch::RootSource;

use super::Case;
use super::lab::{HOST_START, Lab, read_terminal};

pub(crate) const CASES: &[Case] = &[
    ("a_program_speaks_and_ends", a_program_speaks_and_ends),
    ("exit_codes_and_signals_are_the_programs_own", exit_codes_and_signals_are_the_programs_own),
    ("layers_are_merged", layers_are_merged),
    ("layers_are_merged_on_older_kernels_too", layers_are_merged_on_older_kernels_too),
    ("what_cannot_run_says_why", what_cannot_run_says_why),
    ("a_created_container_waits", a_created_container_waits),
    ("a_created_container_can_be_killed", a_created_container_can_be_killed),
    ("a_caller_that_goes_away_takes_its_created_container_along", a_caller_that_goes_away),
    ("a_terminal_is_a_terminal", a_terminal_is_a_terminal),
    ("our_reaper_is_pid_1", our_reaper_is_pid_1),
    ("nothing_is_left", nothing_is_left),
];

fn a_program_speaks_and_ends(lab: &Lab) {
    assert_eq!(lab.output("echo hello; echo $$"), "hello\n1\n");
}

fn exit_codes_and_signals_are_the_programs_own(lab: &Lab) {
    for code in [0, 1, 42, 255] {
        assert_eq!(lab.run(&lab.script(&format!("exit {code}"))).code, code);
    }
    let running = lab.start(&lab.script("sleep 1000")).unwrap();
    assert_eq!(running.kill().code, 128 + 9);
}

fn layers_are_merged(lab: &Lab) {
    assert_eq!(lab.output("cat /etc/top; ls / | grep -c gone || true"), "top0\n");
    assert_eq!(lab.output("echo x > /seed/file && cat /seed/file"), "x\n");
    assert_eq!(lab.output("cat /seed/file"), "seed");
}

/// In a child, since it leaves the process in another mount namespace.
fn layers_are_merged_on_older_kernels_too(lab: &Lab) {
    let running = lab.start(&lab.script("exec sleep 1000")).unwrap();
    let userns = std::fs::File::open(format!("/proc/{}/ns/user", running.spawned.pid)).unwrap();
    let (_, launch) = lab.lower(&lab.script("true"), None).unwrap();
    let host = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    let look = || {
        let attributes = runtime::sys::mount::Attr::MOUNT_ATTR_NODEV;
        let ids = launch.ids;
        let RootSource::Layers(parts) = &launch.root else { panic!("an image is layers") };
        let root = layers::overlay_for_older_kernels(parts, ids, userns.as_fd(), attributes).unwrap();
        let read = |path: &str| runtime::sys::path::read_in_root(&root, path.as_ref(), 1000).unwrap();
        assert_eq!(read("/etc/top"), Some(b"top".to_vec()));
        assert_eq!(read("/gone"), None);
        let file = runtime::sys::path::open_in_root(&root, "/seed/file".as_ref(), rustix::fs::OFlags::RDWR).unwrap();
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_uid, HOST_START + 1000);
        rustix::io::write(&file, b"changed").unwrap();
        assert_ne!(std::fs::read_link("/proc/self/ns/mnt").unwrap(), host);
    };
    // SAFETY: this program has one thread, and the child ends here.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look));
            runtime::sys::clone::exit_now(i32::from(answer.is_err()));
        }
        nix::unistd::ForkResult::Parent { child } => {
            let status = nix::sys::wait::waitpid(child, None).unwrap();
            assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
        }
    }
    running.kill();
}

fn what_cannot_run_says_why(lab: &Lab) {
    let error = |args: &[&str]| {
        let mut config = lab.script("");
        config.entrypoint = Some(args.iter().map(|arg| (*arg).to_owned()).collect());
        match lab.error(&config) {
            Error::BadContainer(message) => message,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        error(&["nginxx"]),
        "no executable `nginxx` in PATH (/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)"
    );
    assert_eq!(error(&["/bin/not-executable"]), "`/bin/not-executable` is not executable");
    assert_eq!(
        error(&["no-interpreter"]),
        "cannot execute `no-interpreter`: its interpreter `/nowhere/sh` is not in the image"
    );
    let mut config = lab.script("true");
    config.user = Some("nobody".into());
    assert_eq!(lab.error(&config).to_string(), "user `nobody` is not in the container's /etc/passwd");
    let mut config = lab.script("true");
    config.user = Some("70000".into());
    assert_eq!(lab.error(&config).to_string(), "user 70000:0 is outside of the container's range of ids");
}

fn a_created_container_waits(lab: &Lab) {
    let mut running = lab.create(&lab.script("echo ran"), None).unwrap();
    let command = std::fs::read_to_string(format!("/proc/{}/cmdline", running.spawned.pid)).unwrap();
    assert!(!command.contains("echo ran"), "{command}");
    running.spawned.channel.start().unwrap();
    assert!(matches!(running.event(), InitEvent::Started));
    assert_eq!(running.finish().output, "ran\n");
}

fn a_created_container_can_be_killed(lab: &Lab) {
    let running = lab.create(&lab.script("echo ran"), None).unwrap();
    let outcome = running.kill();
    assert_eq!((outcome.code, outcome.output.as_str()), (128 + 9, ""));
}

fn a_caller_that_goes_away(lab: &Lab) {
    let mut running = lab.create(&lab.script("echo ran"), None).unwrap();
    let (ours, theirs) = runtime::sys::fdpass::pair().unwrap();
    drop(theirs);
    drop(std::mem::replace(&mut running.spawned.channel, runtime::process::Channel::resume(ours)));
    assert_eq!(running.finish().output, "");
}

fn a_terminal_is_a_terminal(lab: &Lab) {
    let mut config =
        lab.script("tty; test -c /dev/console && echo console; stat -c %u $(tty); ls /proc/self/fd | wc -l");
    config.tty = true;
    config.user = Some("app".into());
    let mut running = lab.start(&config).unwrap();
    let output = read_terminal(running.terminal.take().unwrap());
    assert_eq!(output, "/dev/pts/0\r\nconsole\r\n1000\r\n4\r\n");
    assert_eq!(running.finish().code, 0);
}

fn our_reaper_is_pid_1(lab: &Lab) {
    let mut config = lab.script("echo $$; (sleep 0 & ); exit 7");
    config.init = true;
    let outcome = lab.run(&config);
    assert_eq!((outcome.code, outcome.output.as_str()), (7, "2\n"));
    let mut config = lab.script("exec sleep 1000");
    config.init = true;
    let running = lab.start(&config).unwrap();
    rustix::process::pidfd_send_signal(&running.spawned.pidfd, rustix::process::Signal::TERM).unwrap();
    assert_eq!(running.finish().code, 128 + 15);
}

fn nothing_is_left(lab: &Lab) {
    let count = |path: &str| std::fs::read_to_string(path).unwrap().lines().count();
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = (count("/proc/self/mountinfo"), fds());
    for _ in 0..3 {
        lab.output("true");
    }
    assert_eq!((count("/proc/self/mountinfo"), fds()), before);
    for path in lab.cgroups() {
        let children = std::fs::read_dir(&path).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir());
        assert_eq!(children.count(), 0, "{}", path.display());
    }
    let children = std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap();
    assert_eq!(children, "");
}
