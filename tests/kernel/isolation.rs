//! What a container may and may not, read from the kernel.

use std::fs;

use super::Case;
use super::lab::{HOST_START, Lab};

pub(crate) const CASES: &[Case] = &[
    ("root_inside_is_not_root_outside", root_inside_is_not_root_outside),
    ("every_namespace_is_its_own", every_namespace_is_its_own),
    ("only_standard_files_are_open", only_standard_files_are_open),
    ("capabilities_seccomp_and_no_new_privs_are_in_force", privileges_are_in_force),
    ("relaxations_are_what_they_say", relaxations_are_what_they_say),
    ("users_come_from_the_images_files", users_come_from_the_images_files),
    ("standard_files_can_be_opened_again", standard_files_can_be_opened_again),
    ("paths_are_masked_and_read_only", paths_are_masked_and_read_only),
    ("dev_is_complete", dev_is_complete),
    ("generated_files_are_there_and_writable", generated_files_are_there_and_writable),
    ("a_read_only_root_refuses_writes", a_read_only_root_refuses_writes),
    ("the_working_directory_is_made", the_working_directory_is_made),
    ("system_calls_are_refused", system_calls_are_refused),
];

fn root_inside_is_not_root_outside(lab: &Lab) {
    let running = lab.start(&lab.script("id -u; touch /made; exec sleep 1000")).unwrap();
    let ids = format!("{HOST_START} {HOST_START} {HOST_START} {HOST_START}");
    assert_eq!(running.status("Uid"), ids);
    assert_eq!(running.status("Gid"), ids);
    assert_eq!(running.status("Groups"), "");
    let made = running.upper().join("made");
    super::lab::wait_until("the file", || made.exists());
    assert_eq!(super::lab::owner(&made), (HOST_START, HOST_START));
    assert_eq!(running.kill().output, "0\n");
    assert_eq!(lab.output("stat -c %u:%g /bin/busybox /seed/file"), "0:0\n1000:1001\n");
}

fn every_namespace_is_its_own(lab: &Lab) {
    let running = lab.start(&lab.script("exec sleep 1000")).unwrap();
    for kind in ["user", "pid", "mnt", "uts", "ipc", "net", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(of("self"), of(&running.spawned.pid.to_string()), "{kind}");
    }
    running.kill();
    assert_eq!(lab.output("cat /proc/self/cgroup | grep -v :/$ | grep -E 'memory|pids|cpu|^0:' || true"), "");
    assert_eq!(lab.output("echo $(ls /proc | grep -E '^[0-9]+$' | head -1)"), "1\n");
}

fn only_standard_files_are_open(lab: &Lab) {
    let running = lab.start(&lab.script("exec sleep 1000")).unwrap();
    let mut fds: Vec<String> = fs::read_dir(format!("/proc/{}/fd", running.spawned.pid))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    fds.sort();
    assert_eq!(fds, ["0", "1", "2"]);
    running.kill();
}

fn privileges_are_in_force(lab: &Lab) {
    let running = lab.start(&lab.script("exec sleep 1000")).unwrap();
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(running.status(set), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(running.status(set), "0000000000000000", "{set}");
    }
    assert_eq!(running.status("Seccomp"), "2");
    assert_eq!(running.status("NoNewPrivs"), "1");
    assert_eq!(running.status("SigBlk"), "0000000000000000");
    assert_eq!(running.status("SigIgn"), "0000000000000000");
    let environ = fs::read_to_string(format!("/proc/{}/limits", running.spawned.pid)).unwrap();
    let files = environ.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert!(files.split_whitespace().nth(3) == Some("1024"), "{files}");
    running.kill();
    assert_eq!(lab.output("umask"), "0022\n");
}

fn relaxations_are_what_they_say(lab: &Lab) {
    let mut config = lab.script("exec sleep 1000");
    config.security.allow_privilege_escalation = true;
    config.security.cap_drop = vec!["ALL".into()];
    config.security.cap_add = vec!["CHOWN".into()];
    let running = lab.start(&config).unwrap();
    assert_eq!(running.status("NoNewPrivs"), "0");
    assert_eq!(running.status("Seccomp"), "2");
    assert_eq!(running.status("CapEff"), "0000000000000001");
    running.kill();
}

fn users_come_from_the_images_files(lab: &Lab) {
    let mut config = lab.script("id; echo $HOME; cd; pwd; grep CapEff /proc/self/status");
    config.user = Some("app".into());
    config.working_dir = Some("/home/app".into());
    let outcome = lab.run(&config);
    assert_eq!(
        outcome.output,
        "uid=1000(app) gid=1001(app) groups=44(video)\n/home/app\n/home/app\nCapEff:\t0000000000000000\n"
    );
}

/// As web servers' logs linked to /dev/stdout are.
fn standard_files_can_be_opened_again(lab: &Lab) {
    let mut config = lab.script("echo one > /dev/stdout; echo two > /dev/stderr; exec sleep 1000");
    config.user = Some("app".into());
    let running = lab.start(&config).unwrap();
    let mut exec = super::lab::shell("echo three > /dev/stdout");
    exec.user = Some("app".into());
    assert_eq!(running.exec(&exec).unwrap().output, "three\n");
    assert_eq!(running.kill().output, "one\ntwo\n");
}

fn paths_are_masked_and_read_only(lab: &Lab) {
    let output = lab.output(
        "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c; ls /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v : | wc -w
         for file in /proc/sys/kernel/hostname /sys/new; do
            (echo 1 > $file) 2>&1 | grep -o 'Read-only file system'
         done",
    );
    let refused = "Read-only file system\n";
    assert_eq!(output, format!("0\n0\n{refused}{refused}"));
    assert_eq!(
        lab.output("grep -E ' /(sys|sys/fs/cgroup/[^ ]*|proc/sys) ' /proc/self/mounts | grep -v -c ' ro,' || true"),
        "0\n"
    );
    // Nothing of the host's mount table is left.
    assert_eq!(lab.output("grep -c -E ' / / | ext4 |/run/' /proc/self/mountinfo"), "1\n");
}

fn dev_is_complete(lab: &Lab) {
    let output = lab.output(
        "for node in null zero full random urandom tty; do test -c /dev/$node && stat -c %a /dev/$node; done | grep -c 666
         echo lost > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c
         for link in fd stdin stdout stderr ptmx; do readlink /dev/$link; done
         echo x > /dev/shm/x && test -d /dev/mqueue && stat -c %a /dev/shm /dev/pts/ptmx
         grep -c -E ' /dev/(pts|shm|mqueue) ' /proc/self/mounts
         ls /dev | grep -c -E '^(sda|vda|kvm|mem|kmsg)$' || true",
    );
    assert_eq!(
        output,
        "6\n4\n4\n/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n1777\n666\n3\n0\n"
    );
}

fn generated_files_are_there_and_writable(lab: &Lab) {
    let config = lab.script("hostname; cat /etc/hostname; grep -c $(hostname) /etc/hosts; echo 1.2.3.4 x >> /etc/hosts && grep -c x$ /etc/hosts");
    let name = config.hostname.clone();
    let outcome = lab.run(&config);
    assert_eq!(outcome.output, format!("{name}\n{name}\n1\n1\n"));
}

fn a_read_only_root_refuses_writes(lab: &Lab) {
    let mut config = lab.script(
        "(echo x > /x) 2>&1 | grep -o 'Read-only file system'; echo x > /dev/shm/x && echo y > /etc/hosts && echo ok",
    );
    config.security.read_only_root = true;
    assert_eq!(lab.run(&config).output, "Read-only file system\nok\n");
}

fn the_working_directory_is_made(lab: &Lab) {
    let mut config = lab.script("pwd; stat -c %u:%a .");
    config.working_dir = Some("/srv/deep/er".into());
    assert_eq!(lab.run(&config).output, "/srv/deep/er\n0:755\n");
}

fn system_calls_are_refused(lab: &Lab) {
    let output = lab.output("unshare -U true 2>&1; mount -t tmpfs x /tmp 2>&1; true");
    assert_eq!(
        output.matches("Operation not permitted").count() + output.matches("permission denied").count(),
        2,
        "{output}"
    );
}
