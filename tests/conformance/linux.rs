//! What only a kernel can show: log files, stops that do not wait in vain, memory, terminals, what stays behind.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use runtime::clock;
use runtime::runtime::{ContainerState, ExecConfig, ExecStdio, ExitStatus, LogConfig, NetworkMode};

use crate::Case;
use crate::campaign;
use crate::crash;
use crate::lab::{DEADLINE, Lab, exec_stdio, ok, wait_for};

/// What a stop may wait; who need not be waited for is gone in less than half of it, on any machine.
const GRACE: Duration = Duration::from_secs(30);

pub(crate) const CASES: &[Case] = &[
    ("logs_are_whole_and_bounded", logs_are_whole_and_bounded),
    ("a_first_process_that_is_deaf_is_not_waited_for", a_first_process_that_is_deaf_is_not_waited_for),
    ("a_graceful_one_ends_itself", a_graceful_one_ends_itself),
    ("an_end_for_memory_is_told_as_such", an_end_for_memory_is_told_as_such),
    ("exec_has_its_own_stdio_and_terminal", exec_has_its_own_stdio_and_terminal),
    ("a_container_with_a_terminal_logs", a_container_with_a_terminal_logs),
    ("a_directory_deleted_by_hand_ends_its_process", a_directory_deleted_by_hand_ends_its_process),
    ("a_sweep_takes_the_cgroups_of_nobody", a_sweep_takes_the_cgroups_of_nobody),
    ("a_hundred_lives_leave_nothing", a_hundred_lives_leave_nothing),
    ("many_at_once", many_at_once),
    ("what_is_ours_is_private", what_is_ours_is_private),
    ("a_killed_supervisor_loses_no_line_and_no_exit", crash::a_killed_supervisor_loses_no_line_and_no_exit),
    ("an_exit_nobody_was_there_for_is_true", crash::an_exit_nobody_was_there_for_is_true),
    ("an_exit_waits_for_a_busy_keeper", crash::an_exit_waits_for_a_busy_keeper),
    ("kills_during_creations_make_no_call_fail", campaign::kills_during_creations_make_no_call_fail),
    ("idle_containers_cost_little", campaign::idle_containers_cost_little),
    ("a_created_container_survives_its_supervisor", crash::a_created_container_survives_its_supervisor),
    ("a_killed_keeper_leaves_containers_running", crash::a_killed_keeper_leaves_containers_running),
    ("an_upgrade_loses_nothing", crash::an_upgrade_loses_nothing),
    ("after_a_reboot_ends_are_unknown", crash::after_a_reboot_ends_are_unknown),
];

fn logs_are_whole_and_bounded(lab: &Lab) {
    let mut config = lab.config("logs", &["/bin/lines", "20000", "0"]);
    config.log = LogConfig { file_bytes_max: 64 << 10, files_max: 3, lossy: false };
    let id = lab.run(&config);
    lab.reaches(&id, ContainerState::Stopped);
    let text = lab.log(&id);
    assert!(text.len() <= 3 * (64 << 10), "{} bytes", text.len());
    let last = text.lines().last().expect("there are lines");
    assert!(last.ends_with(" stdout F line 19999"), "{last}");
    assert!(last.starts_with("20") && last.as_bytes()[10] == b'T', "{last}");
    let id = lab.run(&lab.config("echo", &["/bin/echo", "hello", "there"]));
    lab.reaches(&id, ContainerState::Stopped);
    assert!(lab.log(&id).ends_with(" stdout F hello there\n"), "{}", lab.log(&id));
}

fn a_first_process_that_is_deaf_is_not_waited_for(lab: &Lab) {
    let id = lab.run(&lab.config("deaf", &["/bin/sleep"]));
    let started = lab.find(&id).unwrap().times.started_boot_ms;
    wait_for("it to have run for 2 s", || (clock::boot_ms() > started + 2_000).then_some(()));
    let begun = Instant::now();
    ok("stop", lab.runtime().stop_container(&id, GRACE));
    assert!(begun.elapsed() < GRACE / 2, "{:?}", begun.elapsed());
    assert_eq!(lab.find(&id).unwrap().exit, Some(ExitStatus::Signal(9)));
    // young ones may not have their handlers yet: they get those 2 s
    let id = lab.run(&lab.config("young", &["/bin/sleep"]));
    let begun = Instant::now();
    ok("stop", lab.runtime().stop_container(&id, GRACE));
    assert!(begun.elapsed() >= Duration::from_millis(1_900) && begun.elapsed() < GRACE / 2);
}

fn a_graceful_one_ends_itself(lab: &Lab) {
    let id = lab.run(&lab.config("graceful", &["/bin/graceful"]));
    wait_for("it to be ready", || lab.log(&id).contains("ready").then_some(()));
    let begun = Instant::now();
    ok("stop", lab.runtime().stop_container(&id, GRACE));
    assert!(begun.elapsed() < GRACE / 2, "{:?}", begun.elapsed());
    assert_eq!(lab.find(&id).unwrap().exit, Some(ExitStatus::Code(0)));
    assert!(lab.log(&id).ends_with("goodbye\n"));
}

fn an_end_for_memory_is_told_as_such(lab: &Lab) {
    let mut config = lab.config("hungry", &["/bin/eat"]);
    config.resources.memory_bytes = Some(64 << 20);
    let id = lab.run(&config);
    assert_eq!(lab.reaches(&id, ContainerState::Stopped).exit, Some(ExitStatus::OutOfMemory));
}

/// A cgroup that bears the id of no container goes within one sweep, with the process in it; others stay.
fn a_sweep_takes_the_cgroups_of_nobody(lab: &Lab) {
    let id = lab.run(&lab.config("owner", &["/bin/sleep"]));
    assert_eq!(ok("sweep", lab.runtime().sweep()), [""; 0]);
    let layout = &lab.linux.as_ref().expect("a Linux case").layout;
    let name = format!("{}/gone-1", runtime::linux::cgroup_parent(layout));
    let hierarchies = runtime::cgroup::Hierarchies::of_host().unwrap();
    let orphan = runtime::cgroup::Cgroup::new(hierarchies, &name);
    drop(orphan.create_unified().unwrap());
    orphan.prepare(None).unwrap();
    let mut left = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(orphan.unified().join("cgroup.procs"), left.id().to_string()).unwrap();
    // Its process may take a moment to die: then the next sweep removes it.
    wait_for("the sweep", || lab.runtime().sweep().ok().filter(|swept| *swept == [name.clone()]));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&left.wait().unwrap()), Some(9));
    assert!(!orphan.unified().exists());
    assert_eq!(ok("sweep", lab.runtime().sweep()), [""; 0]);
    assert_eq!(lab.find(&id).unwrap().state, ContainerState::Running);
}

fn exec_config(args: &[&str], tty: bool) -> ExecConfig {
    ExecConfig {
        args: args.iter().map(ToString::to_string).collect(),
        env: std::collections::BTreeMap::new(),
        working_dir: None,
        user: None,
        tty,
    }
}

fn exec_has_its_own_stdio_and_terminal(lab: &Lab) {
    let id = lab.run(&lab.config("exec-io", &["/bin/sleep"]));
    let (stdio, mut reader) = exec_stdio();
    let mut session = ok("exec", lab.runtime().exec(&id, &exec_config(&["/bin/echo", "piped"], false), stdio));
    assert_eq!(ok("wait", session.wait()), ExitStatus::Code(0));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "piped\n");
    let config = exec_config(&["/bin/echo", "on a terminal"], true);
    let mut session = ok("exec", lab.runtime().exec(&id, &config, ExecStdio::Terminal));
    let terminal = session.terminal().expect("a terminal was asked for");
    assert!(session.terminal().is_none());
    let mut seen = String::new();
    wait_for("the terminal's text", || {
        let mut buffer = [0; 256];
        let len = nix::unistd::read(terminal.as_fd(), &mut buffer).unwrap_or(0);
        seen.push_str(&String::from_utf8_lossy(&buffer[..len]));
        seen.contains("on a terminal\r\n").then_some(())
    });
    assert_eq!(ok("wait", session.wait()), ExitStatus::Code(0));
}

fn a_container_with_a_terminal_logs(lab: &Lab) {
    let mut config = lab.config("tty", &["/bin/graceful"]);
    config.tty = true;
    let id = lab.run(&config);
    wait_for("its log", || lab.log(&id).contains("ready").then_some(()));
    ok("stop", lab.runtime().stop_container(&id, Duration::from_secs(10)));
    assert_eq!(lab.find(&id).unwrap().exit, Some(ExitStatus::Code(0)));
    assert!(lab.log(&id).contains("goodbye"), "{}", lab.log(&id));
}

fn a_directory_deleted_by_hand_ends_its_process(lab: &Lab) {
    let id = lab.run(&lab.config("by-hand", &["/bin/sleep"]));
    let pid = lab.find(&id).unwrap().pid.unwrap();
    std::fs::remove_dir_all(lab.own().layout.container_dir(&id)).unwrap();
    assert_eq!(lab.find(&id), None);
    wait_for("its process to end", || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    // the name is free again
    lab.run(&lab.config("by-hand", &["/bin/sleep"]));
}

fn a_hundred_lives_leave_nothing(lab: &Lab) {
    let live = |n: u8| {
        let mut config = lab.config(&format!("life-{n}"), &["/bin/sh", "-c", "exit 0"]);
        config.network = NetworkMode::on(lab.network.name.clone(), Ipv4Addr::new(10, 79, 0, 10 + n));
        let id = lab.run(&config);
        lab.reaches(&id, ContainerState::Stopped);
        ok("remove", lab.runtime().remove_container(&id));
    };
    (0..5).for_each(live);
    let before = crash::counts(lab);
    let begun = Instant::now();
    (0..100).for_each(live);
    println!("  100 lives: {} ms", begun.elapsed().as_millis());
    // namespaces and their links die a moment after their last process
    let begun = Instant::now();
    let grown = || {
        let after = crash::counts(lab);
        after.iter().filter(|(name, count)| **count > before[**name]).map(|(name, _)| *name).collect::<Vec<_>>()
    };
    while !grown().is_empty() && begun.elapsed() < DEADLINE {
        std::thread::yield_now();
    }
    assert_eq!(grown(), Vec::<&str>::new(), "before {before:?}, after {:?}", crash::counts(lab));
}

/// What one `up` of many replicas does, from many threads.
fn many_at_once(lab: &Lab) {
    const THREADS: u8 = 8;
    const EACH: u8 = 6;
    let replica = |n: u8| {
        let mut config = lab.config(&format!("many-{n}"), &["/bin/graceful"]);
        config.network = NetworkMode::on(lab.network.name.clone(), Ipv4Addr::new(10, 79, 0, 10 + n));
        config
    };
    let in_threads = |act: &(dyn Fn(u8) + Sync)| {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || (0..EACH).for_each(|n| act(thread * EACH + n)));
            }
        });
        begun.elapsed().as_millis()
    };
    let before = crash::cpu_ms(lab, "supervisor");
    let up = in_threads(&|n| drop(lab.run(&replica(n))));
    let running = ok("list", lab.runtime().list_containers());
    assert!(running.iter().all(|info| info.state == ContainerState::Running));
    assert_eq!(running.len(), usize::from(THREADS * EACH));
    let down = in_threads(&|n| {
        let id = replica(n).id;
        ok("stop", lab.runtime().stop_container(&id, Duration::from_secs(10)));
        ok("remove", lab.runtime().remove_container(&id));
    });
    let cpu = crash::cpu_ms(lab, "supervisor") - before;
    println!("  {} up in {up} ms, down in {down} ms; supervisor {cpu} ms of processor", THREADS * EACH);
    assert_eq!(ok("list", lab.runtime().list_containers()), []);
}

/// Nobody but root comes to the data, and no socket is where a container in the host's network could reach it.
fn what_is_ours_is_private(lab: &Lab) {
    use std::os::unix::fs::MetadataExt as _;
    let id = lab.run(&lab.config("private", &["/bin/sleep"]));
    let own = lab.own();
    for dir in [&own.layout.data_root, &own.layout.run_dir, &own.layout.containers_dir()] {
        let seen = std::fs::metadata(dir).expect("it is there");
        assert_eq!((seen.uid(), seen.mode() & 0o077), (0, 0), "{}", dir.display());
    }
    let keeper = own.keeper.id();
    let children =
        std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).expect("procfs shows them");
    let table = std::fs::read_to_string("/proc/net/unix").expect("procfs shows sockets");
    let mut seen = 0;
    for pid in children.split_whitespace().map(str::to_owned).chain([keeper.to_string()]) {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten() {
            let Ok(link) = std::fs::read_link(entry.path()) else { continue };
            let link = link.to_string_lossy().into_owned();
            let Some(inode) = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) else { continue };
            let Some(line) = table.lines().find(|line| line.split_whitespace().nth(6) == Some(inode)) else { continue };
            seen += 1;
            assert!(!line.contains(" @"), "an abstract socket: {line}");
        }
    }
    assert!(seen >= 2, "only {seen} sockets of ours were found");
    ok("stop", lab.runtime().stop_container(&id, Duration::ZERO));
    ok("remove", lab.runtime().remove_container(&id));
}
