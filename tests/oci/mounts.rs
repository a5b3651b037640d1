//! What the program sees of file systems (OCI config, "Mounts" and "Root").

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use serde_json::json;

use super::Case;
use super::lab::{Peer, add_mount};

pub(crate) const CASES: &[Case] = &[
    // Whether they are fooled depends on luck.
    ("links_swapped_meanwhile_lead_nowhere", &["runc", "crun"], links_swapped_meanwhile_lead_nowhere),
    ("binds_show_files_and_directories", &[], binds_show_files_and_directories),
    ("binds_take_attributes", &[], binds_take_attributes),
    ("recursive_binds_show_what_is_below", &[], recursive_binds_show_what_is_below),
    ("recursive_attributes", &[], recursive_attributes),
    ("a_missing_source_is_refused", &[], a_missing_source_is_refused),
    ("mounts_are_made_in_their_order", &[], mounts_are_made_in_their_order),
    ("a_link_leads_no_mount_outside", &[], a_link_leads_no_mount_outside),
    ("a_read_only_root", &[], a_read_only_root),
    ("masked_and_read_only_paths", &[], masked_and_read_only_paths),
    ("tmpfs_options", &[], tmpfs_options),
    ("a_tmpfs_copies_up", &[], a_tmpfs_copies_up),
    // crun 1.8 shows all of them as private here.
    ("propagation_of_binds", &["crun"], propagation_of_binds),
    // runc leaves `rshared` private, crun takes any word.
    ("propagation_of_the_root", &["runc", "crun"], propagation_of_the_root),
    ("nothing_spreads_to_the_host", &[], nothing_spreads_to_the_host),
    // Newer than runc 1.1; crun 1.8 wants it in words of its own.
    ("a_bind_with_ids_of_its_own", &["runc", "crun"], a_bind_with_ids_of_its_own),
    ("the_standard_devices", &[], the_standard_devices),
    ("further_devices", &[], further_devices),
    ("devices_without_a_mount_at_dev", &[], devices_without_a_mount_at_dev),
    // crun refuses relative sources.
    ("a_relative_source_counts_from_the_bundle", &["crun"], a_relative_source_counts_from_the_bundle),
];

fn binds_show_files_and_directories(peer: &Peer) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "content\n").unwrap();
    let out = peer.output("cat /mnt/d/file /mnt/f; echo new > /mnt/d/made", |spec| {
        add_mount(spec, "/mnt/d", "bind", dir.path(), &["bind"]);
        add_mount(spec, "/mnt/f", "none", &dir.path().join("file"), &["rbind", "ro"]);
    });
    assert_eq!(out, "content\ncontent\n");
    assert_eq!(fs::read_to_string(dir.path().join("made")).unwrap(), "new\n");
}

fn binds_take_attributes(peer: &Peer) {
    let dir = tempfile::tempdir().unwrap();
    let out = peer.output("grep ' /mnt/. ' /proc/self/mountinfo | cut -d' ' -f5,6", |spec| {
        add_mount(spec, "/mnt/a", "bind", dir.path(), &["bind", "ro", "nosuid", "nodev", "noexec", "noatime"]);
        add_mount(spec, "/mnt/b", "bind", dir.path(), &["bind", "rw", "strictatime"]);
    });
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "/mnt/a ro,nosuid,nodev,noexec,noatime");
    assert_eq!(lines[1].split(',').next(), Some("/mnt/b rw"));
    assert!(!lines[1].contains("atime"), "{out}");
}

/// A directory with a tmpfs mounted below it, for as long as it lives.
struct Nested(tempfile::TempDir);

impl Nested {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("below");
        fs::create_dir(&below).unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("t"), &below, Some("tmpfs"), flags, None::<&str>).unwrap();
        fs::write(below.join("deep"), "deep\n").unwrap();
        Self(dir)
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        let _ = nix::mount::umount(&self.0.path().join("below"));
    }
}

fn recursive_binds_show_what_is_below(peer: &Peer) {
    let nested = Nested::new();
    let out = peer.output("ls /mnt/r/below /mnt/b/below; test -w /mnt/r/below && echo writable", |spec| {
        add_mount(spec, "/mnt/r", "bind", nested.0.path(), &["rbind", "ro"]);
        add_mount(spec, "/mnt/b", "bind", nested.0.path(), &["bind"]);
    });
    assert_eq!(out, "/mnt/b/below:\n\n/mnt/r/below:\ndeep\nwritable\n");
}

fn recursive_attributes(peer: &Peer) {
    let nested = Nested::new();
    let bundle = peer.script_bundle("touch /mnt/x || touch /mnt/below/x || echo both refused", |spec| {
        add_mount(spec, "/mnt", "bind", nested.0.path(), &["rbind", "rro"]);
    });
    assert_eq!(bundle.run().out, "both refused\n");
}

fn a_missing_source_is_refused(peer: &Peer) {
    let bundle = peer.bundle(|spec| add_mount(spec, "/mnt", "bind", "/no/such/dir".as_ref(), &["bind"]));
    assert_ne!(bundle.create().code, 0);
    assert_ne!(bundle.call("state").code, 0);
}

fn mounts_are_made_in_their_order(peer: &Peer) {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(one.path().join("one"), "").unwrap();
    fs::write(two.path().join("two"), "").unwrap();
    fs::create_dir(two.path().join("sub")).unwrap();
    let out = peer.output("ls /m; ls /m/sub; ls /n", |spec| {
        add_mount(spec, "/m", "bind", two.path(), &["bind"]);
        add_mount(spec, "/m/sub", "bind", one.path(), &["bind"]);
        add_mount(spec, "/n", "bind", one.path(), &["bind"]);
        add_mount(spec, "/n", "bind", two.path(), &["bind"]);
    });
    assert_eq!(out, "sub\ntwo\none\nsub\ntwo\n");
}

fn a_link_leads_no_mount_outside(peer: &Peer) {
    let victim = tempfile::tempdir().unwrap();
    let bundle = peer.script_bundle("echo x > /escape/file; ls / > /dev/null", |spec| {
        add_mount(spec, "/escape", "tmpfs", "tmpfs".as_ref(), &[]);
    });
    symlink(victim.path(), bundle.dir.join("rootfs/escape")).unwrap();
    bundle.run();
    assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 0);
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounted.contains(victim.path().to_str().unwrap()));
}

fn a_read_only_root(peer: &Peer) {
    let out = peer.output("touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo shm", |spec| {
        spec["root"]["readonly"] = true.into();
        spec["process"]["args"] =
            json!(["sh", "-c", "touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo shm"]);
    });
    assert_eq!(out, "refused\nshm\n");
}

fn masked_and_read_only_paths(peer: &Peer) {
    let script =
        "wc -c < /data/secret; ls /data/dir | wc -l; echo x 2>/dev/null > /proc/sys/kernel/hostname || echo ro";
    let bundle = peer.script_bundle(script, |spec| {
        spec["linux"]["maskedPaths"] = json!(["/data/secret", "/data/dir", "/not/there"]);
        spec["linux"]["readonlyPaths"] = json!(["/proc/sys", "/not/there"]);
    });
    fs::write(bundle.dir.join("rootfs/data/secret"), "secret").unwrap();
    fs::create_dir(bundle.dir.join("rootfs/data/dir")).unwrap();
    fs::write(bundle.dir.join("rootfs/data/dir/x"), "").unwrap();
    let outcome = bundle.run();
    assert_eq!(outcome.out, "0\n0\nro\n", "{outcome:?}");
}

fn tmpfs_options(peer: &Peer) {
    let out = peer.output("stat -c %a:%u /t; grep ' /t ' /proc/self/mountinfo", |spec| {
        add_mount(spec, "/t", "tmpfs", "tmpfs".as_ref(), &["size=64k", "mode=750", "uid=5", "noexec"]);
    });
    assert!(out.starts_with("750:5\n") && out.contains("noexec") && out.contains("size=64k"), "{out}");
}

fn a_tmpfs_copies_up(peer: &Peer) {
    let bundle = peer.script_bundle("cat /data/seed; echo changed > /data/seed; cat /data/seed", |spec| {
        add_mount(spec, "/data", "tmpfs", "tmpfs".as_ref(), &["tmpcopyup"]);
    });
    let outcome = bundle.run();
    assert_eq!(outcome.out, "seed\nchanged\n", "{outcome:?}");
    assert_eq!(fs::read_to_string(bundle.dir.join("rootfs/data/seed")).unwrap(), "seed\n");
}

fn propagation_of_binds(peer: &Peer) {
    let dir = tempfile::tempdir().unwrap();
    let out = peer.output("grep ' /mnt/. ' /proc/self/mountinfo | cut -d' ' -f5,7", |spec| {
        add_mount(spec, "/mnt/p", "bind", dir.path(), &["rbind", "rprivate"]);
        add_mount(spec, "/mnt/s", "bind", dir.path(), &["rbind", "rshared"]);
        add_mount(spec, "/mnt/u", "bind", dir.path(), &["rbind", "unbindable"]);
    });
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "/mnt/p -");
    assert!(lines[1].starts_with("/mnt/s shared:"), "{out}");
    assert!(lines[2].starts_with("/mnt/u unbindable"), "{out}");
}

fn propagation_of_the_root(peer: &Peer) {
    for (wanted, shown) in [("private", "-"), ("rshared", "shared:"), ("unbindable", "unbindable")] {
        let script = "while read a b c d e f g h; do test $e = / && echo $g; done < /proc/self/mountinfo; true";
        let out = peer.output(script, |spec| spec["linux"]["rootfsPropagation"] = wanted.into());
        assert!(out.starts_with(shown), "{wanted}: {out}");
    }
    let bundle = peer.bundle(|spec| spec["linux"]["rootfsPropagation"] = "sideways".into());
    assert_ne!(bundle.create().code, 0);
}

fn nothing_spreads_to_the_host(peer: &Peer) {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let nested = Nested::new();
    let bundle = peer.bundle(|spec| add_mount(spec, "/mnt", "bind", nested.0.path(), &["rbind"]));
    bundle.start();
    let now = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let id = &bundle.id;
    assert!(!now.lines().any(|line| line.contains(id.as_str())), "{now}");
    bundle.kill_and_delete();
    drop(nested);
    let _ = before;
}

fn a_bind_with_ids_of_its_own(peer: &Peer) {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    std::os::unix::fs::chown(dir.path().join("file"), Some(1000), Some(1000)).unwrap();
    let map = json!([{"containerID": 1000, "hostID": 5000, "size": 10}]);
    let out = peer.output("stat -c %u:%g /mnt/file", |spec| {
        add_mount(spec, "/mnt", "bind", dir.path(), &["bind", "idmap"]);
        let mount = spec["mounts"].as_array_mut().unwrap().last_mut().unwrap();
        mount["uidMappings"] = map.clone();
        mount["gidMappings"] = map;
    });
    assert_eq!(out, "5000:5000\n");
}

fn the_standard_devices(peer: &Peer) {
    let script = "for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done
        for d in fd stdin stdout stderr ptmx; do readlink /dev/$d; done; head -c 3 /dev/zero | wc -c; echo x > /dev/null && echo ok";
    let expected = "/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/random 1:8 666\n/dev/urandom 1:9 666\n/dev/tty 5:0 666\n\
        /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n3\nok\n";
    assert_eq!(peer.output(script, |_| {}), expected);
}

fn further_devices(peer: &Peer) {
    let out = peer.output("stat -c '%t:%T %a %u:%g' /dev/more/kmsg; stat -c %F /dev/pipe", |spec| {
        spec["linux"]["devices"] = json!([
            {"path": "/dev/more/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o640, "uid": 3, "gid": 4},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
        ]);
    });
    assert_eq!(out, "1:b 640 3:4\nfifo\n");
}

fn devices_without_a_mount_at_dev(peer: &Peer) {
    let bundle = peer.script_bundle("echo x > /dev/null && stat -c %t:%T /dev/zero && readlink /dev/fd", |spec| {
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    });
    assert_eq!(bundle.run().out, "1:5\n/proc/self/fd\n");
    assert_eq!(fs::symlink_metadata(bundle.dir.join("rootfs/dev/null")).unwrap().rdev(), 0x103);
}

fn a_relative_source_counts_from_the_bundle(peer: &Peer) {
    let bundle =
        peer.script_bundle("cat /mnt/file", |spec| add_mount(spec, "/mnt", "bind", "beside".as_ref(), &["bind"]));
    fs::create_dir(bundle.dir.join("beside")).unwrap();
    fs::write(bundle.dir.join("beside/file"), "beside\n").unwrap();
    assert_eq!(bundle.run().out, "beside\n");
}

/// A neighbour with a hand in the same volume swaps a directory for a link, again and again, while mounts are made
/// below it (CVE-2021-30465, CVE-2023-27561).
fn links_swapped_meanwhile_lead_nowhere(peer: &Peer) {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    const STARTS: usize = 30;
    let outside = tempfile::tempdir().unwrap();
    let bundle = peer.script_bundle("true", |spec| {
        add_mount(spec, "/a/b", "tmpfs", Path::new("tmpfs"), &["size=64k"]);
        add_mount(spec, "/a/c", "bind", Path::new("/etc"), &["rbind", "ro"]);
        spec["linux"]["maskedPaths"] = json!(["/a/d"]);
    });
    let root = bundle.dir.join("rootfs");
    fs::create_dir_all(root.join("a/d")).unwrap();
    symlink(outside.path(), root.join("link")).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        let racer = scope.spawn(|| {
            let mut swaps = 0_u64;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let (a, link) = (root.join("a"), root.join("link"));
                renameat2(AT_FDCWD, &a, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).unwrap();
                swaps += 1;
            }
            swaps
        });
        let ran = (0..STARTS).filter(|_| bundle.run().code == 0).count();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        println!("  {ran} of {STARTS} starts worked beside {} swaps", racer.join().unwrap());
        ran
    });
    assert!(ran > 0, "no start worked: nothing was raced with");
    let made: Vec<_> = fs::read_dir(outside.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(made.is_empty(), "made outside: {made:?}");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(outside.path().to_str().unwrap()), "mounted outside");
}
