//! Known ways out of containers (docs/security.md), each tried on a canary that may not change: what an image holds, what
//! its configuration asks for and what a program inside does are the attacker's.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use runtime::runtime::{ContainerConfig, MountConfig, MountSource};

use super::Case;
use super::lab::{HOST_START, Lab};

pub(crate) const CASES: &[Case] = &[
    ("the_runtimes_own_program_stays_as_it_is", the_runtimes_own_program_stays_as_it_is),
    ("links_in_the_place_of_mounts_lead_nowhere", links_in_the_place_of_mounts_lead_nowhere),
    ("a_descriptor_is_no_way_out", a_descriptor_is_no_way_out),
    ("devices_of_an_image_are_not_used", devices_of_an_image_are_not_used),
    ("kernel_files_behind_a_link_are_not_written", kernel_files_behind_a_link_are_not_written),
    ("release_agents_are_out_of_reach", release_agents_are_out_of_reach),
    ("a_group_that_is_shut_out_stays_out", a_group_that_is_shut_out_stays_out),
    ("ids_outside_the_range_are_refused", ids_outside_the_range_are_refused),
    ("paths_of_an_image_stay_inside", paths_of_an_image_stay_inside),
    ("variables_of_an_image_reach_no_helper", variables_of_an_image_reach_no_helper),
    ("a_content_file_is_not_written_through_a_link", a_content_file_is_not_written_through_a_link),
];

/// A directory of the host that nothing may touch.
struct Canary(PathBuf);

impl Canary {
    fn new(lab: &Lab, name: &str) -> Self {
        let path = lab.host_dir(name);
        fs::write(path.join("canary"), "sings").unwrap();
        Self(path)
    }

    fn assert_untouched(&self) {
        assert_eq!(fs::read_to_string(self.0.join("canary")).unwrap(), "sings");
        assert_eq!(fs::read_dir(&self.0).unwrap().count(), 1, "something was made in {}", self.0.display());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.0.to_str().unwrap()), "something is mounted on the host");
    }
}

/// Puts things into a container's root before it is made, as its own root's.
fn plant(lab: &Lab, config: &ContainerConfig, put: impl FnOnce(&Path)) {
    let upper = lab.upper(config);
    fs::create_dir_all(&upper).unwrap();
    put(&upper);
    own(&upper);
}

fn own(path: &Path) {
    lchown(path, Some(HOST_START), Some(HOST_START)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| own(&entry.unwrap().path()));
    }
}

/// Host path that a link inside leads to when it is followed from the wrong root.
fn out(path: &Path) -> PathBuf {
    Path::new("../../../../../../../..").join(path.strip_prefix("/").unwrap())
}

fn the_runtimes_own_program_stays_as_it_is(lab: &Lab) {
    let program = std::env::current_exe().unwrap();
    let looks = |path: &Path| {
        let seen = fs::metadata(path).unwrap();
        (seen.ino(), seen.size(), seen.mtime(), seen.mtime_nsec())
    };
    let before = looks(&program);
    let mut config = lab.script("");
    plant(lab, &config, |upper| {
        fs::create_dir(upper.join("opt")).unwrap();
        fs::write(upper.join("opt/self"), "#!/proc/self/exe --list\n").unwrap();
        fs::set_permissions(upper.join("opt/self"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    });
    config.entrypoint = Some(vec!["/opt/self".into()]);
    // It starts our program inside or nothing at all: either way as nobody the program belongs to.
    if let Ok(running) = lab.start(&config) {
        running.finish();
    }
    let script = "for exe in /proc/[0-9]*/exe; do (echo x >> $exe) 2>/dev/null && readlink $exe; done; true";
    assert_eq!(lab.output(script), "");
    assert_eq!(looks(&program), before);
}

fn links_in_the_place_of_mounts_lead_nowhere(lab: &Lab) {
    let canary = Canary::new(lab, "mounts");
    for (number, name) in ["proc", "dev", "sys", "dev/pts", "dev/shm", "etc"].into_iter().enumerate() {
        let config = lab.script("test -c /dev/null && test -e /proc/self/status && echo inside");
        plant(lab, &config, |upper| {
            let place = upper.join(name);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            let target = if number % 2 == 0 { canary.0.clone() } else { out(&canary.0) };
            symlink(target, place).unwrap();
        });
        // Refused, or mounted where the link leads inside.
        if let Ok(running) = lab.start(&config) {
            running.finish();
        }
        canary.assert_untouched();
    }
}

fn a_descriptor_is_no_way_out(lab: &Lab) {
    for number in 3..24 {
        for process in ["self", "1"] {
            let mut config = lab.script("readlink /proc/self/cwd; ls -d ../../../../bin/busybox");
            config.working_dir = Some(format!("/proc/{process}/fd/{number}"));
            let Ok(running) = lab.start(&config) else { continue };
            let output = running.finish().output;
            assert!(!output.contains("unreachable"), "fd {number}: {output}");
        }
    }
}

fn devices_of_an_image_are_not_used(lab: &Lab) {
    let config = lab.script(
        "cat /dev/null /proc/kcore /proc/keys 2>/dev/null | wc -c; stat -c %t:%T /dev/null; readlink /dev/console || echo none",
    );
    plant(lab, &config, |upper| {
        fs::create_dir(upper.join("dev")).unwrap();
        fs::write(upper.join("dev/null"), "of the image").unwrap();
        symlink("/proc/sysrq-trigger", upper.join("dev/console")).unwrap();
    });
    assert_eq!(lab.run(&config).output, "0\n1:3\nnone\n");
}

fn kernel_files_behind_a_link_are_not_written(lab: &Lab) {
    let canary = Canary::new(lab, "kernel-files");
    let config = lab.script("cat /proc/sys/net/ipv4/ping_group_range | busybox tr '\\t' ' '");
    plant(lab, &config, |upper| {
        symlink(out(&canary.0), upper.join("proc")).unwrap();
    });
    if let Ok(running) = lab.start(&config) {
        running.finish();
    }
    canary.assert_untouched();
    // The setting itself goes through a procfs of our own, whatever lies at /proc.
    let set = "read low high < /proc/sys/net/ipv4/ping_group_range; echo $low";
    assert_eq!(lab.output(set), "0\n");
}

fn release_agents_are_out_of_reach(lab: &Lab) {
    let script = "for kind in memory pids cpu devices; do mount -t cgroup -o $kind x /tmp 2>/dev/null && echo mounted; done
         mount -t cgroup2 x /tmp 2>/dev/null && echo mounted
         busybox find /sys/fs/cgroup -name release_agent -o -name notify_on_release -o -name cgroup.procs -o -name tasks | while read file; do
            (echo 0 > $file) 2>/dev/null && echo wrote $file
         done; true";
    assert_eq!(lab.output(script), "");
}

fn a_group_that_is_shut_out_stays_out(lab: &Lab) {
    let mut config = lab.script("id -G; cat /shut 2>/dev/null && echo read; true");
    let upper = lab.upper(&config);
    fs::create_dir_all(&upper).unwrap();
    lchown(&upper, Some(HOST_START), Some(HOST_START)).unwrap();
    fs::write(upper.join("shut"), "secret").unwrap();
    // Everybody but group 44, which `app` is in by the image's own /etc/group.
    fs::set_permissions(upper.join("shut"), std::os::unix::fs::PermissionsExt::from_mode(0o604)).unwrap();
    lchown(upper.join("shut"), Some(HOST_START), Some(HOST_START + 44)).unwrap();
    config.user = Some("app".into());
    assert_eq!(lab.run(&config).output, "1001 44\n");
}

fn ids_outside_the_range_are_refused(lab: &Lab) {
    for user in ["65536", "2147483648", "4294967295", "4294967296", "-1", "0:65536", "0:4294967295", "0:4294967296"] {
        let mut config = lab.script("id");
        config.user = Some(user.into());
        let refused = lab.start(&config);
        assert!(refused.is_err(), "{user}");
    }
}

fn paths_of_an_image_stay_inside(lab: &Lab) {
    let canary = Canary::new(lab, "paths");
    let mut config = lab.script("readlink /proc/self/cwd");
    plant(lab, &config, |upper| {
        symlink(out(&canary.0), upper.join("srv")).unwrap();
        symlink(&canary.0, upper.join("var")).unwrap();
    });
    config.working_dir = Some("/srv/made".into());
    config.mounts = vec![mount("/var/cache", MountSource::Tmpfs { size_bytes: None })];
    if let Ok(running) = lab.start(&config) {
        let output = running.finish().output;
        assert!(!output.contains("unreachable"), "{output}");
    }
    canary.assert_untouched();
}

fn variables_of_an_image_reach_no_helper(lab: &Lab) {
    let mut config = lab.script("echo $LD_PRELOAD $GCONV_PATH");
    for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GCONV_PATH", "BASH_ENV"] {
        config.env.insert(name.into(), "/seed/file".into());
    }
    let running = lab.start(&config).unwrap();
    assert_eq!(running.finish().output, "/seed/file /seed/file\n");
    assert!(std::env::var_os("GCONV_PATH").is_none());
}

fn a_content_file_is_not_written_through_a_link(lab: &Lab) {
    let canary = Canary::new(lab, "content");
    for target in ["/etc/app/conf", "/etc/conf"] {
        let mut config = lab.script("cat /etc/app/conf /etc/conf 2>/dev/null");
        plant(lab, &config, |upper| {
            fs::create_dir(upper.join("etc")).unwrap();
            symlink(out(&canary.0), upper.join("etc/app")).unwrap();
            symlink(canary.0.join("canary"), upper.join("etc/conf")).unwrap();
        });
        let source = MountSource::File { content: b"ours".to_vec(), mode: 0o644 };
        config.mounts = vec![mount(target, source)];
        if let Ok(running) = lab.start(&config) {
            running.finish();
        }
        canary.assert_untouched();
    }
}

fn mount(target: &str, source: MountSource) -> MountConfig {
    MountConfig { source, target: target.to_owned(), read_only: false }
}
