//! Further programs in a running container: as confined as the first.

use runtime::Error;

use super::Case;
use super::lab::{HOST_START, Lab, shell};

pub(crate) const CASES: &[Case] = &[
    ("an_exec_is_as_confined_as_the_container", an_exec_is_as_confined_as_the_container),
    ("an_exec_has_its_own_user_directory_and_environment", an_exec_has_its_own),
    ("an_exec_can_have_a_terminal", an_exec_can_have_a_terminal),
    ("an_exec_that_cannot_run_says_why", an_exec_that_cannot_run_says_why),
    ("an_exec_dies_with_its_container", an_exec_dies_with_its_container),
];

fn an_exec_is_as_confined_as_the_container(lab: &Lab) {
    let running = lab.start(&lab.script("exec sleep 1000")).unwrap();
    let outcome = running
        .exec(&shell(
            "grep -E '^(CapEff|CapBnd|Seccomp|NoNewPrivs):' /proc/self/status; ls /proc/self/fd | wc -l; hostname
             grep -v -c ':/$' /proc/self/cgroup; cat /proc/self/uid_map | while read a b c; do echo $a $b $c; done
             cat /proc/1/comm; umask; (echo 1 > /proc/sys/kernel/hostname) 2>&1 | grep -o Read-only",
        ))
        .unwrap();
    let name = &running.spec.hostname().clone().unwrap();
    let unmanaged = outcome.output.lines().nth(6).unwrap_or_default().to_owned();
    let expected = format!(
        "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\n4\n\
         {name}\n{unmanaged}\n0 {HOST_START} 65536\nsleep\n0022\nRead-only\n"
    );
    assert_eq!(outcome.output, expected);
    running.kill();
}

fn an_exec_has_its_own(lab: &Lab) {
    let mut config = lab.script("exec sleep 1000");
    config.env.insert("A".into(), "1".into());
    config.env.insert("B".into(), "2".into());
    let running = lab.start(&config).unwrap();
    let mut exec = shell("id -u; id -g; pwd; echo $A $B $HOME");
    exec.user = Some("app".into());
    exec.working_dir = Some("/tmp".into());
    exec.env.insert("B".into(), "3".into());
    assert_eq!(running.exec(&exec).unwrap().output, "1000\n1001\n/tmp\n1 3 /home/app\n");
    assert_eq!(running.exec(&shell("exit 3")).unwrap().code, 3);
    running.kill();
}

fn an_exec_can_have_a_terminal(lab: &Lab) {
    let running = lab.start(&lab.script("exec sleep 1000")).unwrap();
    let mut exec = shell("tty; echo $TERM");
    exec.tty = true;
    let outcome = running.exec(&exec).unwrap();
    assert_eq!((outcome.code, outcome.output.as_str()), (0, "/dev/pts/0\r\nxterm\r\n"));
    running.kill();
}

fn an_exec_that_cannot_run_says_why(lab: &Lab) {
    let running = lab.start(&lab.script("exec sleep 1000")).unwrap();
    let mut exec = shell("");
    exec.args = vec!["nothing-here".into()];
    match running.exec(&exec) {
        Err(Error::BadContainer(message)) => {
            assert!(message.starts_with("no executable `nothing-here` in PATH"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    running.kill();
}

fn an_exec_dies_with_its_container(lab: &Lab) {
    let running = lab.start(&lab.script("sleep 0.2")).unwrap();
    let outcome = running.exec(&shell("exec sleep 1000")).unwrap();
    assert_eq!(outcome.code, 128 + 9);
    running.finish();
}
