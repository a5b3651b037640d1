//! Layers: what an archive may do to a directory, and what it may not.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use runtime::Result;
use runtime::image::Digest;

use crate::Case;
use crate::fake::Fake;
use crate::lab::{Archive, Image, Lab, Pack, gzip, pull, zstd};

pub(crate) const CASES: &[Case] = &[
    ("layer_is_one_and_the_same_however_it_is_packed", packings_agree),
    ("layer_whiteouts_work_in_any_order", whiteouts),
    ("layer_keeps_modes_owners_links_and_attributes", attributes),
    ("layer_long_names_are_kept", long_names),
    ("layer_later_entries_replace_earlier_ones", replacements),
    ("layer_cannot_leave_its_root", escapes),
    ("layer_nonsense_is_refused_with_the_entry", nonsense),
    ("layer_devices_are_left_out", devices),
    ("layer_bomb_is_refused", bombs),
    ("layer_unpacker_is_walled_in", sandbox),
];

/// Pulls an image of one layer; its unpacked directory.
fn unpack(lab: &Lab, tar: &[u8]) -> Result<PathBuf> {
    let fake = Fake::start();
    fake.push("a", "1", &Image::new(&[(tar, gzip)]));
    let store = lab.store();
    let info = pull(&store, &fake.name("a:1"))?;
    Ok(store.layer_dirs(&info.digest)?.remove(0))
}

fn refused(tar: &[u8]) -> String {
    let lab = Lab::new();
    let message = unpack(&lab, tar).expect_err("it must be refused").to_string();
    assert!(crate::lab::names(&lab.images().join("layers")).is_empty(), "nothing became visible");
    message
}

fn is_whiteout(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0_u8; 8];
    let found = rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value[..]);
    found.is_ok_and(|n| &value[..n] == b"y")
}

fn packings_agree() -> std::result::Result<(), String> {
    let tar = Archive::new().dir("etc").file("etc/a", b"hello").bytes();
    let fake = Fake::start();
    let plain: Pack = <[u8]>::to_vec;
    let twice: Pack = |tar| [gzip(&tar[..100]), gzip(&tar[100..])].concat();
    let lab = Lab::new();
    let store = lab.store();
    let mut dirs = Vec::new();
    for (tag, pack) in [("gz", gzip as Pack), ("zst", zstd), ("tar", plain), ("gz2", twice)] {
        fake.push("a", tag, &Image::new(&[(&tar, pack)]));
        let info = pull(&store, &fake.name(&format!("a:{tag}"))).expect("it is pulled");
        dirs.extend(store.layer_dirs(&info.digest).expect("its layers"));
    }
    dirs.dedup();
    assert_eq!(dirs, [lab.images().join("layers").join(Digest::of(&tar).hex()).join("fs")]);
    assert_eq!(std::fs::read(dirs[0].join("etc/a")).expect("the file"), b"hello");
    Ok(())
}

fn whiteouts() -> std::result::Result<(), String> {
    let tar = Archive::new()
        .file("a/.wh.gone", b"")
        .file("o/.wh..wh..opq", b"")
        .file("o/new", b"x")
        .file("late/new", b"x")
        .file("late/.wh..wh..opq", b"")
        .file(".wh.dir", b"")
        .file("dir/new", b"x")
        .file("dir2/new", b"x")
        .file(".wh.dir2", b"")
        .file(".wh.both", b"")
        .file("both", b"mine")
        .file("both2", b"mine")
        .file(".wh.both2", b"")
        .file(".wh..wh.plnk", b"")
        .file("never/.wh..wh..opq", b"")
        .bytes();
    let lab = Lab::new();
    let fs = unpack(&lab, &tar).expect("it is pulled");
    assert!(is_whiteout(&fs.join("a/gone")));
    assert!(!fs.join("a/.wh.gone").exists() && !fs.join(".wh..wh.plnk").exists());
    for opaque in ["o", "late", "dir", "dir2", "never"] {
        assert!(is_opaque(&fs.join(opaque)), "{opaque}");
    }
    assert!(!is_opaque(&fs.join("a")) && !is_opaque(&fs));
    for kept in ["o/new", "late/new", "dir/new", "dir2/new", "both", "both2"] {
        assert!(fs.join(kept).is_file(), "{kept}");
    }
    Ok(())
}

fn attributes() -> std::result::Result<(), String> {
    // VFS_CAP_REVISION_2 with CAP_NET_RAW, permitted and effective
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Archive::new()
        .dir("d")
        .owned("d/su", 0o4755, 0, 42)
        .owned("d/mine", 0o600, 1000, 1001)
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.note", b"hi"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("mtime", b"1234.5"),
        ])
        .file("d/ping", b"x")
        .hard_link("d/ping2", "d/ping")
        .symlink("d/ln", "../../outside")
        .node(tar::EntryType::Fifo, "d/fifo")
        .bytes();
    let lab = Lab::new();
    let fs = unpack(&lab, &tar).expect("it is pulled");
    let meta = |name: &str| std::fs::symlink_metadata(fs.join(name)).expect(name);
    assert_eq!((meta("d/su").mode() & 0o7777, meta("d/su").gid()), (0o4755, 42));
    assert_eq!((meta("d/mine").uid(), meta("d/mine").gid(), meta("d/mine").mode() & 0o7777), (1000, 1001, 0o600));
    assert_eq!(meta("d/ping").ino(), meta("d/ping2").ino());
    assert_eq!((meta("d/ping").mtime(), meta("d/ping").mtime_nsec()), (1234, 500_000_000));
    assert_eq!(meta("d").mtime(), 1_000_000, "a directory's time is set after its files came");
    assert!(meta("d/fifo").file_type().is_fifo());
    assert_eq!(std::fs::read_link(fs.join("d/ln")).expect("a link"), Path::new("../../outside"));
    let attribute = |name: &str| {
        let mut value = [0_u8; 64];
        rustix::fs::lgetxattr(fs.join("d/ping"), name, &mut value[..]).map(|n| value[..n].to_vec())
    };
    assert_eq!(attribute("security.capability").expect("it is kept"), capability);
    assert_eq!(attribute("user.note").expect("it is kept"), b"hi");
    assert!(attribute("trusted.overlay.redirect").is_err(), "overlay's attributes are not the image's to set");
    assert_eq!(meta("").permissions().mode() & 0o7777, 0o755);
    Ok(())
}

fn long_names() -> std::result::Result<(), String> {
    let gnu = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let pax = "p".repeat(250);
    let tar = Archive::new().long(&gnu, b"gnu").pax(&[("path", pax.as_bytes())]).file("short", b"pax").bytes();
    let lab = Lab::new();
    let fs = unpack(&lab, &tar).expect("it is pulled");
    assert_eq!(std::fs::read(fs.join(gnu)).expect("it is there"), b"gnu");
    assert_eq!(std::fs::read(fs.join(pax)).expect("it is there"), b"pax");
    assert!(!fs.join("short").exists());
    Ok(())
}

fn replacements() -> std::result::Result<(), String> {
    let tar = Archive::new()
        .file("a", b"one")
        .file("a", b"two")
        .dir("b/deep/er")
        .file("b/deep/er/f", b"x")
        .file("b/deep", b"file now")
        .file("c", b"file")
        .file("c/inside", b"parent made a directory")
        .symlink("e", "a")
        .file("e", b"not through the link")
        .bytes();
    let lab = Lab::new();
    let fs = unpack(&lab, &tar).expect("it is pulled");
    let text = |name: &str| std::fs::read_to_string(fs.join(name)).expect(name);
    assert_eq!(text("a"), "two");
    assert_eq!(text("b/deep"), "file now");
    assert_eq!(text("c/inside"), "parent made a directory");
    assert_eq!(text("e"), "not through the link");
    assert!(!fs.join("e").is_symlink());
    Ok(())
}

fn escapes() -> std::result::Result<(), String> {
    for name in ["../x", "a/../../x", "/../x", "a/.."] {
        assert!(refused(&Archive::new().file(name, b"x").bytes()).contains("leads out of the root"), "{name}");
    }
    assert!(refused(&Archive::new().hard_link("x", "../../etc/passwd").bytes()).contains("leads out of the root"));
    assert!(refused(&Archive::new().hard_link("x", "/etc/passwd").bytes()).contains("not in this layer"));
    let canary = tempfile::tempdir().expect("make a directory");
    let outside = canary.path().to_str().expect("it is text").to_owned();
    let tar = Archive::new()
        .symlink("up", "../../../../../..")
        .symlink("abs", &outside)
        .dir("tmp")
        .file("up/tmp/through-up", b"x")
        .file("abs/through-abs", b"x")
        .symlink("proc-root", "/proc/self/root")
        .bytes();
    let lab = Lab::new();
    match unpack(&lab, &tar) {
        Ok(fs) => {
            assert!(fs.join("tmp/through-up").is_file(), "it was resolved inside the root");
        }
        Err(error) => assert!(error.to_string().contains("layer"), "{error}"),
    }
    assert!(crate::lab::names(canary.path()).is_empty(), "nothing was written outside");
    assert!(!Path::new("/tmp/through-up").exists());
    Ok(())
}

fn nonsense() -> std::result::Result<(), String> {
    let deep = "d/".repeat(129);
    let long = format!("{deep}f");
    let cases = [
        (Archive::new().file("a/.wh.", b"").bytes(), "entry `a/.wh.`: a whiteout hides nothing"),
        (Archive::new().file(".wh...", b"").bytes(), "a whiteout hides nothing or too much"),
        (Archive::new().pax(&[("path", long.as_bytes())]).file("x", b"").bytes(), "deeper than 128"),
        (Archive::new().pax(&[("size", b"3")]).file("x", b"12345").bytes(), "its size is said to be 5 and 3"),
        (Archive::new().pax(&[("GNU.sparse.major", b"1")]).file("x", b"").bytes(), "sparse file in PAX form"),
        (Archive::new().hard_link("x", "absent").bytes(), "a hard link to `absent`, which is not in this layer"),
        (Archive::new().link(tar::EntryType::new(b'Z'), "x", "").bytes(), "unknown kind"),
        (b"this is no archive at all".repeat(100), "read the archive"),
    ];
    for (tar, wanted) in cases {
        let message = refused(&tar);
        assert!(message.contains(wanted), "`{message}` should say `{wanted}`");
        assert!(message.contains("layer sha256:"), "`{message}` should name the layer");
    }
    Ok(())
}

fn devices() -> std::result::Result<(), String> {
    let tar = Archive::new()
        .node(tar::EntryType::Char, "dev/null")
        .node(tar::EntryType::Block, "dev/sda")
        .file("dev/plain", b"x")
        .bytes();
    let lab = Lab::new();
    let fs = unpack(&lab, &tar).expect("it is pulled");
    assert_eq!(crate::lab::names(&fs.join("dev")), ["plain"]);
    let note = std::fs::read_to_string(fs.join("../layer.json")).expect("the note");
    assert!(note.contains("\"devices_skipped\":2"), "{note}");
    Ok(())
}

fn bombs() -> std::result::Result<(), String> {
    // 1 GiB and a bit of zeros in a few hundred kilobytes: past the free size the ratio counts
    let mut header = tar::Header::new_ustar();
    header.set_size((1 << 30) + (1 << 20));
    header.set_mode(0o644);
    header.as_ustar_mut().expect("it is ustar").name[..4].copy_from_slice(b"zero");
    header.set_cksum();
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
    std::io::Write::write_all(&mut encoder, header.as_bytes()).expect("compress");
    let zeros = vec![0; 1 << 20];
    for _ in 0..1_025 {
        std::io::Write::write_all(&mut encoder, &zeros).expect("compress");
    }
    let blob = encoder.finish().expect("compress");
    let fake = Fake::start();
    fake.push("a", "1", &Image::with_diff_ids(vec![blob], &[Digest::of(b"whatever")]));
    let lab = Lab::new();
    let message = pull(&lab.store(), &fake.name("a:1")).expect_err("it must be refused").to_string();
    assert!(message.contains("unpacks to more than 1073741824 bytes"), "{message}");
    Ok(())
}

/// The unpacker as it waits for its archive: what it could reach if the archive took it over.
fn sandbox() -> std::result::Result<(), String> {
    let target = tempfile::tempdir().expect("make a directory");
    let mut child = std::process::Command::new(std::env::current_exe().expect("our own path"))
        .arg("unpack")
        .current_dir(target.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("start the unpacker");
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let status = || std::fs::read_to_string(proc.join("status")).expect("its status");
    crate::lab::wait_until("it is walled in", || status().contains("Seccomp:\t2"));
    let field = |name: &str| {
        let text = status();
        let line = text.lines().find(|l| l.starts_with(name)).expect("a field").to_owned();
        line.split_whitespace().last().expect("a value").to_owned()
    };
    // chown, dac_override, fowner, fsetid, setfcap: no mount, no device nodes, no network
    let kept = (1_u64 << 0) | (1 << 1) | (1 << 3) | (1 << 4) | (1 << 31);
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(kept), "{set}");
    }
    assert_eq!(field("CapInh:"), "0000000000000000");
    for space in ["net", "mnt", "ipc", "uts"] {
        let own = std::fs::read_link(format!("/proc/self/ns/{space}")).expect("our namespace");
        assert_ne!(std::fs::read_link(proc.join("ns").join(space)).expect("its namespace"), own, "{space}");
    }
    assert_eq!(crate::lab::names(&proc.join("root")), [] as [String; 0], "its root is the empty target");
    let mounts = std::fs::read_to_string(proc.join("mountinfo")).expect("its mounts");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    // the runner itself may have been given descriptors that are passed on; ours are not
    let is_passed_on = |fd: &String| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let flags = info.lines().find_map(|l| l.strip_prefix("flags:")).unwrap_or("02000000").trim();
        u32::from_str_radix(flags, 8).is_ok_and(|flags| flags & 0o2_000_000 == 0) && !matches!(&**fd, "0" | "1" | "2")
    };
    let given = crate::lab::names(Path::new("/proc/self/fd")).iter().filter(|fd| is_passed_on(fd)).count();
    let fds = crate::lab::names(&proc.join("fd")).len();
    assert!(fds <= 4 + given, "the three and its root, not {fds}");
    assert_eq!(field("Seccomp:"), "2");
    drop(child.stdin.take());
    assert!(child.wait().expect("it ends with its input").success(), "nothing is an empty archive");
    Ok(())
}
