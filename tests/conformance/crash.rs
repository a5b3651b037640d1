//! Kills in the middle of everything, and what must be true afterwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::Runtime as _;
use runtime::runtime::{ContainerState, ExitStatus, LogConfig};

use crate::lab::{DEADLINE, Lab, end_keeper, ok, open, start_keeper, wait_for};

/// Kills of the supervisor while lines come.
const KILLS: usize = 25;

/// Pid of one of the keeper's children.
pub(crate) fn child_pid(lab: &Lab, name: &str) -> Pid {
    let keeper = lab.own().keeper.id();
    wait_for(name, || {
        let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).ok()?;
        children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()).find_map(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let mut words = command.split(|byte| *byte == 0);
            (words.nth(1)? == name.as_bytes()).then(|| Pid::from_raw(pid))
        })
    })
}

/// Kills the supervisor and returns when the next one answers; how long that took.
pub(crate) fn kill_supervisor(lab: &Lab) -> Duration {
    let pid = child_pid(lab, "supervisor");
    let begun = Instant::now();
    kill(pid, Signal::SIGKILL).unwrap();
    wait_for("the next supervisor", || {
        lab.runtime().list_containers().ok().filter(|_| child_pid(lab, "supervisor") != pid)
    });
    begun.elapsed()
}

pub(crate) fn a_killed_supervisor_loses_no_line_and_no_exit(lab: &Lab) {
    let count = 3_000_000_u32;
    let mut config = lab.config("chatty", &["/bin/lines", &count.to_string(), "7"]);
    config.log = LogConfig { file_bytes_max: 1 << 30, files_max: 2, lossy: false };
    let id = lab.run(&config);
    let mut slowest = Duration::ZERO;
    let mut kills = 0;
    let log = lab.runtime().log_dir(&id).join("current");
    while kills < KILLS && lab.find(&id).unwrap().state == ContainerState::Running {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let before = size(&log);
        let begun = Instant::now();
        while size(&log) < before + 100_000 && begun.elapsed() < Duration::from_secs(1) {
            std::thread::yield_now();
        }
        slowest = slowest.max(kill_supervisor(lab));
        kills += 1;
    }
    let end = {
        let begun = Instant::now();
        loop {
            let info = lab.find(&id).unwrap();
            if info.state == ContainerState::Stopped {
                break info.exit;
            }
            assert!(begun.elapsed() < 6 * DEADLINE, "it does not end");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    };
    assert_eq!(end, Some(ExitStatus::Code(7)));
    let (missing, repeated_bytes) = examine(&lab.log(&id), count);
    println!("  {kills} kills, slowest {} ms, {repeated_bytes} bytes repeated", slowest.as_millis());
    assert_eq!(missing, 0, "lines are missing");
    assert!(repeated_bytes <= kills * (64 << 10), "{repeated_bytes} bytes repeated in {kills} kills");
    assert!(kills >= 5, "only {kills} kills while it ran");
}

/// How many of the numbers are missing, and how many bytes of lines came again.
fn examine(log: &str, count: u32) -> (usize, usize) {
    let mut seen = vec![false; count as usize];
    let mut repeated = 0;
    for record in log.lines() {
        let line = record.splitn(4, ' ').nth(3).unwrap_or_else(|| panic!("not a record: {record}"));
        let number = line.strip_prefix("line ").and_then(|n| n.parse::<usize>().ok());
        let number = number.unwrap_or_else(|| panic!("not a line: {record}"));
        if std::mem::replace(&mut seen[number], true) {
            repeated += line.len() + 1;
        }
    }
    (seen.iter().filter(|seen| !**seen).count(), repeated)
}

pub(crate) fn an_exit_nobody_was_there_for_is_true(lab: &Lab) {
    for round in 0..10_u8 {
        let id = lab.run(&lab.config(&format!("unseen-{round}"), &["/bin/graceful"]));
        wait_for("it to be ready", || lab.log(&id).contains("ready").then_some(()));
        let first = lab.find(&id).unwrap().pid.unwrap();
        let supervisor = child_pid(lab, "supervisor");
        // stopped, it sees nothing; then it dies without having seen anything
        kill(supervisor, Signal::SIGSTOP).unwrap();
        kill(Pid::from_raw(first), Signal::SIGTERM).unwrap();
        wait_for("it to end", || is_zombie(first).then_some(()));
        kill(supervisor, Signal::SIGKILL).unwrap();
        let info = lab.reaches(&id, ContainerState::Stopped);
        assert_eq!(info.exit, Some(ExitStatus::Code(0)), "round {round}");
        assert!(info.times.finished_unix_ms > 0);
        assert!(lab.log(&id).ends_with("goodbye\n"), "round {round}: {}", lab.log(&id));
    }
}

/// The keeper is the parent of what a dead supervisor started; it may be busy for longer than anybody likes to wait.
pub(crate) fn an_exit_waits_for_a_busy_keeper(lab: &Lab) {
    let id = lab.run(&lab.config("adopted", &["/bin/graceful"]));
    wait_for("it to be ready", || lab.log(&id).contains("ready").then_some(()));
    let first = lab.find(&id).unwrap().pid.unwrap();
    kill_supervisor(lab);
    let keeper = Pid::from_raw(i32::try_from(lab.own().keeper.id()).unwrap());
    kill(keeper, Signal::SIGSTOP).unwrap();
    kill(Pid::from_raw(first), Signal::SIGTERM).unwrap();
    wait_for("it to end", || is_zombie(first).then_some(()));
    let begun = Instant::now();
    // longer than the supervisor waits before it looks whose child it was
    while begun.elapsed() < Duration::from_millis(1_500) {
        assert_eq!(lab.find(&id).unwrap().exit, None, "nobody can know yet");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    kill(keeper, Signal::SIGCONT).unwrap();
    assert_eq!(lab.reaches(&id, ContainerState::Stopped).exit, Some(ExitStatus::Code(0)));
}

fn is_zombie(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

pub(crate) fn a_created_container_survives_its_supervisor(lab: &Lab) {
    let config = lab.config("patient", &["/bin/sh", "-c", "exit 9"]);
    ok("create", lab.runtime().create_container(&config));
    kill_supervisor(lab);
    assert_eq!(lab.find(&config.id).unwrap().state, ContainerState::Created);
    ok("start", lab.runtime().start_container(&config.id));
    assert_eq!(lab.reaches(&config.id, ContainerState::Stopped).exit, Some(ExitStatus::Code(9)));
}

pub(crate) fn a_killed_keeper_leaves_containers_running(lab: &Lab) {
    let id = lab.run(&lab.config("orphan", &["/bin/graceful"]));
    wait_for("it to be ready", || lab.log(&id).contains("ready").then_some(()));
    let before = lab.find(&id).unwrap();
    let supervisor = child_pid(lab, "supervisor");
    kill(Pid::from_raw(i32::try_from(lab.own().keeper.id()).unwrap()), Signal::SIGKILL).unwrap();
    wait_for("its children to follow", || {
        (!Path::new(&format!("/proc/{supervisor}")).exists() || is_zombie(supervisor.as_raw())).then_some(())
    });
    let mut second = start_keeper(&lab.own().layout);
    let after = wait_for("the next supervisor", || lab.runtime().list_containers().ok());
    assert_eq!(after.into_iter().find(|info| info.config.id == id), Some(before));
    ok("stop", lab.runtime().stop_container(&id, Duration::from_secs(10)));
    // nobody of ours is its parent: the kernel tells by pidfd (Linux 6.15), or nobody does
    let exit = lab.find(&id).unwrap().exit;
    println!("  told as {exit:?}");
    assert!(matches!(exit, Some(ExitStatus::Code(0) | ExitStatus::Unknown)), "{exit:?}");
    assert!(lab.log(&id).ends_with("goodbye\n"));
    ok("remove", lab.runtime().remove_container(&id));
    end_keeper(&mut second);
    // the lab ends the first one, which is gone: give it one to talk to
    let third = start_keeper(&lab.own().layout);
    wait_for("the supervisor", || lab.runtime().list_containers().ok());
    lab.adopt_keeper(third);
}

pub(crate) fn an_upgrade_loses_nothing(lab: &Lab) {
    let id = lab.run(&lab.config("steady", &["/bin/graceful"]));
    wait_for("it to be ready", || lab.log(&id).contains("ready").then_some(()));
    let before = lab.find(&id).unwrap();
    let supervisor = child_pid(lab, "supervisor");
    kill(Pid::from_raw(i32::try_from(lab.own().keeper.id()).unwrap()), Signal::SIGHUP).unwrap();
    wait_for("the next supervisor", || {
        // not one call may fail meanwhile
        ok("list", lab.runtime().list_containers());
        (child_pid(lab, "supervisor") != supervisor).then_some(())
    });
    assert_eq!(lab.find(&id), Some(before));
    ok("stop", lab.runtime().stop_container(&id, Duration::from_secs(10)));
    assert_eq!(lab.find(&id).unwrap().exit, Some(ExitStatus::Code(0)));
}

pub(crate) fn after_a_reboot_ends_are_unknown(lab: &Lab) {
    let id = lab.run(&lab.config("rebooted", &["/bin/sleep"]));
    let created = lab.config("only-created", &["/bin/sleep"]);
    ok("create", lab.runtime().create_container(&created));
    let layout = &lab.own().layout;
    // a reboot: every process gone, the run directory empty, another boot id; cgroups would be gone as well
    let pids: Vec<i32> = [&id, &created.id].iter().filter_map(|id| lab.find(id)?.pid).collect();
    kill(Pid::from_raw(i32::try_from(lab.own().keeper.id()).unwrap()), Signal::SIGKILL).unwrap();
    for pid in &pids {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    wait_for("all to end", || pids.iter().all(|pid| is_zombie(*pid)).then_some(()));
    remove_cgroups(lab, &[id.as_str(), created.id.as_str()]);
    std::fs::remove_dir_all(&layout.run_dir).unwrap();
    std::fs::write(&layout.boot_id_path, "second boot").unwrap();
    let keeper = start_keeper(layout);
    lab.adopt_keeper(keeper);
    let again = open(layout);
    let all = wait_for("the supervisor", || again.list_containers().ok());
    for info in all {
        assert_eq!((info.state, info.exit), (ContainerState::Stopped, Some(ExitStatus::Unknown)), "{info:?}");
        assert!(info.times.created_unix_ms > 0 && info.times.started_boot_ms == 0);
        assert!(again.start_container(&info.config.id).is_err());
        ok("stop", again.stop_container(&info.config.id, Duration::ZERO));
        ok("remove", again.remove_container(&info.config.id));
    }
    lab.reaches(&lab.run(&lab.config("after", &["/bin/true"])), ContainerState::Stopped);
}

fn remove_cgroups(lab: &Lab, names: &[&str]) {
    let parent = runtime::linux::cgroup_parent(&lab.own().layout);
    let hierarchies = runtime::cgroup::Hierarchies::of_host().unwrap();
    for name in names {
        let path = format!("{parent}/{name}");
        wait_for("a cgroup to go", || runtime::cgroup::Cgroup::new(hierarchies, &path).remove().ok());
    }
}

/// What must not grow: descriptors and children of our processes, links and cgroups.
pub(crate) fn counts(lab: &Lab) -> BTreeMap<&'static str, usize> {
    let entries = |path: String| std::fs::read_dir(path).map_or(0, Iterator::count);
    let supervisor = child_pid(lab, "supervisor");
    let switchboard = child_pid(lab, "switchboard");
    let keeper = lab.own().keeper.id();
    let links = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default().lines().count();
    let children = std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"));
    let run_dir = &lab.own().layout.run_dir;
    BTreeMap::from([
        ("supervisor's descriptors", entries(format!("/proc/{supervisor}/fd"))),
        ("switchboard's descriptors", entries(format!("/proc/{switchboard}/fd"))),
        ("keeper's descriptors", entries(format!("/proc/{keeper}/fd"))),
        ("supervisor's children", children.unwrap_or_default().split_ascii_whitespace().count()),
        ("links", links),
        ("exits", entries(run_dir.join("exits").display().to_string())),
        ("run directories", entries(run_dir.join("containers").display().to_string())),
        ("containers", entries(lab.own().layout.containers_dir().display().to_string())),
    ])
}

/// Processor time one of the keeper's children has used.
pub(crate) fn cpu_ms(lab: &Lab, name: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child_pid(lab, name))).expect("it lives");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    // utime and stime, in hundredths of a second (USER_HZ)
    [fields[11], fields[12]].iter().map(|ticks| ticks.parse::<u64>().unwrap_or(0) * 10).sum()
}
