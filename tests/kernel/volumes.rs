//! Volumes, host paths, content files, memory: who owns what on both sides.

use std::fs;
use std::path::PathBuf;

use runtime::Error;
use runtime::runtime::{MountConfig, MountSource};

use super::Case;
use super::lab::{Lab, NET_RAW, owner};

pub(crate) const CASES: &[Case] = &[
    ("ids_on_disk_are_the_containers_own", ids_on_disk_are_the_containers_own),
    ("a_volume_is_filled_once_with_owner_and_mode", a_volume_is_filled_once_with_owner_and_mode),
    ("a_volume_is_filled_with_file_capabilities", a_volume_is_filled_with_file_capabilities),
    ("volumes_are_nosuid_and_nodev", volumes_are_nosuid_and_nodev),
    ("read_only_mounts_refuse_writes", read_only_mounts_refuse_writes),
    ("content_files_are_links_that_can_be_swapped", content_files_are_links_that_can_be_swapped),
    ("a_content_file_in_a_volume_is_mounted", a_content_file_in_a_volume_is_mounted),
    ("memory_file_systems_have_their_size", memory_file_systems_have_their_size),
    ("missing_host_paths_are_named", missing_host_paths_are_named),
    ("a_file_system_that_cannot_show_other_ids_is_named", a_file_system_that_cannot_show_other_ids_is_named),
    ("the_matrix_of_users_and_mounts", the_matrix_of_users_and_mounts),
    ("targets_stay_inside", targets_stay_inside),
];

fn volume(lab: &Lab, name: &str, target: &str) -> (MountConfig, PathBuf) {
    let name = name.parse().unwrap();
    let dir = lab.layout.volume_dir(&name);
    fs::create_dir_all(dir.join("data")).unwrap();
    (mount(target, MountSource::Volume { name }), dir.join("data"))
}

fn mount(target: &str, source: MountSource) -> MountConfig {
    MountConfig { target: target.into(), source, read_only: false }
}

fn file(target: &str, text: &str) -> MountConfig {
    mount(target, MountSource::File { content: text.into(), mode: 0o640 })
}

fn ids_on_disk_are_the_containers_own(lab: &Lab) {
    let (mounted, data) = volume(lab, "ids", "/data");
    let host = lab.host_dir("ids-bind");
    let mut config = lab.script("touch /data/root /host/root && touch /data/app && chown 1000:1001 /data/app");
    config.mounts = vec![mounted, mount("/host", MountSource::Bind { path: host.clone() })];
    assert_eq!(lab.run(&config).code, 0);
    assert_eq!(owner(&data.join("root")), (0, 0));
    assert_eq!(owner(&data.join("app")), (1000, 1001));
    assert_eq!(owner(&host.join("root")), (0, 0));
}

fn a_volume_is_filled_once_with_owner_and_mode(lab: &Lab) {
    let (mounted, data) = volume(lab, "seed", "/seed");
    let mut config = lab.script("cat /seed/file; stat -c %u:%g:%a /seed /seed/file /seed/sub; rm() { busybox rm -r \"$@\"; }; rm /seed/file /seed/sub");
    config.mounts = vec![mounted.clone()];
    let outcome = lab.run(&config);
    assert_eq!(outcome.output, "seed1000:1001:750\n1000:1001:640\n0:0:755\n");
    assert_eq!(owner(&data), (1000, 1001));
    let mut config = lab.script("ls /seed | wc -l");
    config.mounts = vec![mounted];
    assert_eq!(lab.run(&config).output, "0\n");
}

/// As the image has them: on the volume's disk ids are the container's own, so no range shows in them.
fn a_volume_is_filled_with_file_capabilities(lab: &Lab) {
    let (mounted, data) = volume(lab, "caps", "/caps");
    let mut config = lab.script("true");
    config.mounts = vec![mounted];
    assert_eq!(lab.run(&config).code, 0);
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(data.join("ping"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..length], NET_RAW);
}

fn volumes_are_nosuid_and_nodev(lab: &Lab) {
    let (mounted, _) = volume(lab, "flags", "/data");
    let mut config = lab.script("grep ' /data ' /proc/self/mounts");
    config.mounts = vec![mounted];
    let output = lab.run(&config).output;
    assert!(output.contains("nosuid,nodev"), "{output}");
}

fn read_only_mounts_refuse_writes(lab: &Lab) {
    let (mut mounted, _) = volume(lab, "read-only", "/data");
    mounted.read_only = true;
    let mut config = lab.script("(echo x > /data/x) 2>&1 | grep -o 'Read-only file system'");
    config.mounts = vec![mounted];
    assert_eq!(lab.run(&config).output, "Read-only file system\n");
}

fn content_files_are_links_that_can_be_swapped(lab: &Lab) {
    let mut config = lab.script(
        "cat /etc/app/app.toml; stat -L -c %u:%a /etc/app/app.toml; cat /etc/top
         (echo x > /etc/app/app.toml) 2>&1 | grep -o 'Read-only file system'
         echo ready > /ready; while test -e /ready; do sleep 0.01; done; cat /etc/app/app.toml",
    );
    config.mounts = vec![file("/etc/app/app.toml", "one\n"), file("/etc/top", "covered\n")];
    let running = lab.start(&config).unwrap();
    let ready = running.upper().join("ready");
    super::lab::wait_until("the first half", || ready.exists());
    let two = runtime::rootfs::files::ContentFile { name: "0/app.toml", content: b"two\n", mode: 0o640, owner: [0, 0] };
    runtime::rootfs::files::publish(&running.launch.files_dir, &[two], None).unwrap();
    running.exec(&super::lab::shell("busybox rm /ready")).unwrap();
    assert_eq!(running.finish().output, "one\n0:640\ncovered\nRead-only file system\ntwo\n");
}

fn a_content_file_in_a_volume_is_mounted(lab: &Lab) {
    let (mounted, data) = volume(lab, "with-file", "/data");
    let mut config = lab.script("cat /data/conf/x; readlink /data/conf/x || echo no link");
    config.mounts = vec![file("/data/conf/x", "content\n"), mounted];
    assert_eq!(lab.run(&config).output, "content\nno link\n");
    assert_eq!(fs::read(data.join("conf/x")).unwrap(), b"");
}

fn memory_file_systems_have_their_size(lab: &Lab) {
    let mut config = lab.script("dd if=/dev/zero of=/cache/x bs=1k count=2000 2>&1 | grep -o 'No space left'; stat -c %a /cache; grep -c 'size=131072k\\|size=128m' /proc/self/mounts");
    config.mounts = vec![mount("/cache", MountSource::Tmpfs { size_bytes: Some(1 << 20) })];
    config.shm_bytes = 128 << 20;
    assert_eq!(lab.run(&config).output, "No space left\n1777\n1\n");
}

fn missing_host_paths_are_named(lab: &Lab) {
    let mut config = lab.script("true");
    config.mounts = vec![mount("/x", MountSource::Bind { path: "/nowhere/at/all".into() })];
    match lab.error(&config) {
        Error::BadContainer(message) => {
            assert_eq!(message, "/nowhere/at/all (mounted at /x) does not exist on the host");
        }
        other => panic!("{other:?}"),
    }
    let mut config = lab.script("true");
    config.mounts = vec![mount("/etc/passwd/x", MountSource::Tmpfs { size_bytes: None })];
    assert!(matches!(lab.error(&config), Error::BadContainer(_)));
}

fn a_file_system_that_cannot_show_other_ids_is_named(lab: &Lab) {
    let mut config = lab.script("true");
    config.mounts = vec![mount("/x", MountSource::Bind { path: "/proc/version".into() })];
    match lab.error(&config) {
        Error::Unsupported(message) => assert!(message.starts_with("/proc/version is on "), "{message}"),
        other => panic!("{other:?}"),
    }
}

fn targets_stay_inside(lab: &Lab) {
    let host = lab.host_dir("inside");
    let mut config = lab.script("ls -d /tmp/escape");
    // A link of the image that points out of it stays in it.
    config.mounts = vec![mount("/proc/self/root/tmp/escape", MountSource::Bind { path: host })];
    assert!(lab.start(&config).is_err());
    assert!(!std::path::Path::new("/tmp/escape").exists());
}

/// Who may write where, and as whom it lands on disk: user × kind of mount, over an image directory of `app` and one
/// that is not there.
fn the_matrix_of_users_and_mounts(lab: &Lab) {
    let mut table = String::new();
    for user in ["root", "app", "12345:6"] {
        for kind in ["volume over /seed", "volume over /new", "bind", "tmpfs"] {
            let number = table.lines().count();
            let (mounted, on_disk) = match kind {
                "volume over /seed" => volume(lab, &format!("matrix-{number}"), "/seed"),
                "volume over /new" => volume(lab, &format!("matrix-{number}"), "/new"),
                "bind" => {
                    let path = lab.host_dir(&format!("matrix-{number}"));
                    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
                    (mount("/bind", MountSource::Bind { path: path.clone() }), path)
                }
                _ => (mount("/tmpfs", MountSource::Tmpfs { size_bytes: None }), PathBuf::from("/nowhere")),
            };
            let target = mounted.target.clone();
            let script =
                format!("touch {target}/x 2>/dev/null && echo wrote || echo refused; stat -c %u:%g:%a {target}");
            let mut config = lab.script(&script);
            config.user = Some(user.into());
            config.mounts = vec![mounted];
            let inside = lab.run(&config).output.trim().replace('\n', ", directory ");
            let file = on_disk.join("x");
            let owner = if file.exists() { format!("{:?} on disk", owner(&file)) } else { "-".into() };
            table.push_str(&format!("{user:8} {kind:18} {inside}, {owner}\n"));
        }
    }
    expect_test::expect![[r#"
        root     volume over /seed  wrote, directory 1000:1001:750, (0, 0) on disk
        root     volume over /new   wrote, directory 0:0:755, (0, 0) on disk
        root     bind               wrote, directory 0:0:777, (0, 0) on disk
        root     tmpfs              wrote, directory 0:0:1777, -
        app      volume over /seed  wrote, directory 1000:1001:750, (1000, 1001) on disk
        app      volume over /new   refused, directory 0:0:755, -
        app      bind               wrote, directory 0:0:777, (1000, 1001) on disk
        app      tmpfs              wrote, directory 0:0:1777, -
        12345:6  volume over /seed  refused, directory 1000:1001:750, -
        12345:6  volume over /new   refused, directory 0:0:755, -
        12345:6  bind               wrote, directory 0:0:777, (12345, 6) on disk
        12345:6  tmpfs              wrote, directory 0:0:1777, -
    "#]]
    .assert_eq(&table);
}
