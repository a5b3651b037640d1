//! Rows 2, 3, 20, 21: what a container wrote, read from its writable layer, listed and saved as an image; images from a
//! plain root file system; what differs between images.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use serde_json::{Value, json};

use super::desk::Desk;
use super::names::container;
use crate::Case;
use crate::fake::Fake;
use crate::lab::{Archive, Image, gzip, names, zstd};

pub(crate) const CASES: &[Case] = &[
    ("row_2_a_deletion_is_recorded_as_a_change", deletions),
    ("row_3_what_is_changed_is_in_the_containers_own_layer", changes),
    ("row_21_a_writable_layer_becomes_an_image_with_the_same_tree", commit),
    ("row_21_commit_says_what_was_asked_and_twice_the_same", notes),
    ("row_21_what_no_layer_can_hold_is_refused_and_nothing_is_left", refusals),
    ("row_20_a_base_image_is_made_from_a_root_file_system", import),
    ("two_images_are_compared_by_what_is_in_them", two_images),
];

/// The first host id of the container that `names::container` writes down.
const SHIFT: u32 = 1 << 20;
const ID: &str = "shop-web-1";

/// A data root with an image and a container of it that wrote nothing yet.
struct Scene {
    desk: Desk,
    upper: PathBuf,
    image: Image,
}

impl Scene {
    fn new() -> Self {
        let lower = Archive::new()
            .dir("etc")
            .file("etc/keep", b"kept")
            .file("etc/gone", b"gone")
            .dir("old")
            .file("old/a", b"a")
            .dir("old/deep")
            .file("old/deep/b", b"b");
        let image = Image::new(&[(&lower.bytes(), gzip)]);
        let fake = Fake::start();
        fake.push("a", "1", &image);
        let desk = Desk::new();
        desk.ok(&["pull", &fake.name("a:1")]);
        desk.ok(&["tag", &fake.name("a:1"), "base"]);
        container(&desk, image.digest());
        let upper = desk.lab.layout().container_dir(&ID.parse().expect("an id")).join("upper");
        std::fs::create_dir(&upper).expect("make the writable layer");
        own(&upper, 0, 0);
        Self { desk, upper, image }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.upper.join(path)
    }

    fn dir(&self, path: &str) {
        std::fs::create_dir(self.at(path)).expect("make a directory");
        std::fs::set_permissions(self.at(path), PermissionsExt::from_mode(0o755)).expect("set a mode");
        own(&self.at(path), 0, 0);
        if path == "etc" || path == "old" {
            time(&self.at(path), 1_000_000, 0);
        }
    }

    fn file(&self, path: &str, text: &str) {
        std::fs::write(self.at(path), text).expect("write a file");
        own(&self.at(path), 0, 0);
    }

    fn whiteout(&self, path: &str) {
        rustix::fs::mknodat(CWD, self.at(path), FileType::CharacterDevice, Mode::empty(), 0).expect("make a whiteout");
    }

    fn opaque(&self, path: &str) {
        rustix::fs::setxattr(self.at(path), "trusted.overlay.opaque", b"y", XattrFlags::empty()).expect("mark");
    }

    /// `diff` of the container, one line each.
    fn diff(&self) -> Vec<String> {
        self.top(&["diff", ID]).lines().map(str::to_owned).collect()
    }

    /// A verb that is not one of `image`.
    fn top(&self, args: &[&str]) -> String {
        let mut command = self.desk.command(args);
        let all: Vec<_> = command.get_args().skip(1).map(std::ffi::OsStr::to_owned).collect();
        command = std::process::Command::new(command.get_program());
        let output = command.args(all).stdin(Stdio::null()).output().expect("start boxship");
        assert!(output.status.success(), "boxship {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The whole tree of an image.
    fn unpacked(&self, image: &str) -> PathBuf {
        let dest = self.desk.path(&format!("tree-{}", image.replace([':', '/'], "-")));
        self.desk.ok(&["unpack", image, dest.to_str().expect("UTF-8")]);
        dest
    }
}

fn own(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::lchown(path, Some(SHIFT + uid), Some(SHIFT + gid)).expect("set the owner");
}

fn time(path: &Path, secs: i64, nanos: i64) {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos };
    let both = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &both, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).expect("set the time");
}

fn deletions() -> Result<(), String> {
    let scene = Scene::new();
    assert!(scene.diff().is_empty(), "nothing was changed yet");
    scene.dir("etc");
    scene.whiteout("etc/gone");
    scene.whiteout("old");
    scene.whiteout("never");
    assert_eq!(scene.diff(), ["C /etc", "D /etc/gone", "D /old"]);
    scene.top(&["commit", ID, "less"]);
    let tree = scene.unpacked("less");
    assert_eq!((names(&tree), names(&tree.join("etc"))), (vec!["etc".to_owned()], vec!["keep".to_owned()]));
    assert_eq!(names(&scene.unpacked("base").join("etc")), ["gone", "keep"], "the image below stays as it was");
    assert_eq!(scene.desk.ok(&["diff", "less"]), "C /etc\nD /etc/gone\nD /old\n", "its last layer says the same");
    Ok(())
}

fn changes() -> Result<(), String> {
    let scene = Scene::new();
    scene.dir("old");
    scene.opaque("old");
    scene.file("old/c", "c");
    scene.dir("new");
    scene.dir("new/empty");
    scene.dir("etc");
    scene.file("etc/keep", "changed");
    // what a start leaves behind for its mounts is nobody's change
    let dir = scene.upper.parent().expect("a directory");
    let spec = json!({"ociVersion": "1.2.0", "mounts": [{"destination": "/proc"}, {"destination": "/srv/data"},
        {"destination": "/etc/app.toml"}, {"destination": "/etc/keep"}]});
    std::fs::write(dir.join("spec.json"), spec.to_string()).expect("write the spec");
    ["dev", "proc", "srv", "srv/data"].iter().for_each(|path| scene.dir(path));
    std::os::unix::fs::symlink("/dev/.files/current/0", scene.at("etc/app.toml")).expect("make a link");
    let all = ["C /etc", "C /etc/keep", "A /new", "A /new/empty", "C /old", "D /old/a", "A /old/c", "D /old/deep"];
    assert_eq!(scene.diff(), all);
    let json: Value = serde_json::from_str(&scene.top(&["diff", "shop-w", "-o", "json"])).expect("JSON");
    assert_eq!(json[0], json!({"kind": "C", "path": "/etc"}), "named by how its id begins");
    scene.top(&["commit", ID, "more"]);
    let tree = scene.unpacked("more");
    assert_eq!(names(&tree), ["etc", "new", "old"]);
    assert_eq!(
        (names(&tree.join("old")), names(&tree.join("etc"))),
        (vec!["c".to_owned()], vec!["gone".into(), "keep".into()])
    );
    Ok(())
}

/// Everything a tree can hold but devices.
fn furnish(scene: &Scene) {
    scene.dir("d");
    scene.file("d/owned", "five");
    own(&scene.at("d/owned"), 5, 6);
    time(&scene.at("d/owned"), 12, 500_000_000);
    scene.file("d/before", "old");
    time(&scene.at("d/before"), -2, 750_000_000);
    scene.file("d/nobody", "outside of the range");
    std::os::unix::fs::lchown(scene.at("d/nobody"), Some(7), Some(SHIFT)).expect("set the owner");
    scene.file("d/setuid", "x");
    std::fs::set_permissions(scene.at("d/setuid"), PermissionsExt::from_mode(0o4755)).expect("set a mode");
    std::os::unix::fs::symlink("../../../../etc/passwd", scene.at("d/link")).expect("make a link");
    own(&scene.at("d/link"), 5, 6);
    std::fs::hard_link(scene.at("d/owned"), scene.at("d/twin")).expect("make a hard link");
    rustix::fs::mknodat(CWD, scene.at("d/fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("make a FIFO");
    own(&scene.at("d/fifo"), 0, 0);
    drop(std::os::unix::net::UnixListener::bind(scene.at("d/socket")).expect("make a socket"));
    scene.file(&format!("d/{}", "long".repeat(60)), "a long name");
    rustix::fs::setxattr(scene.at("d/setuid"), "user.note", b"hi", XattrFlags::empty()).expect("set an attribute");
    // version 3: root is the first of the container's ids
    let words = [0x0300_0001_u32, 0x400, 0, 0, 0, SHIFT];
    let capability: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    rustix::fs::setxattr(scene.at("d/setuid"), "security.capability", &capability, XattrFlags::empty())
        .expect("set it");
}

fn commit() -> Result<(), String> {
    let scene = Scene::new();
    furnish(&scene);
    scene.top(&["commit", ID, "shop/web:edited"]);
    let tree = scene.unpacked("shop/web:edited");
    let stat = |path: &str| std::fs::symlink_metadata(tree.join(path)).expect(path);
    let owner = |path: &str| (stat(path).uid(), stat(path).gid());
    assert_eq!(
        (owner("d/owned"), owner("d/link"), owner("d/nobody")),
        ((5, 6), (5, 6), (65534, 0)),
        "the container's own ids"
    );
    assert_eq!((stat("d/owned").mtime(), stat("d/owned").mtime_nsec()), (12, 500_000_000));
    assert_eq!((stat("d/before").mtime(), stat("d/before").mtime_nsec()), (-2, 750_000_000));
    assert_eq!(stat("d/setuid").mode() & 0o7777, 0o4755);
    assert_eq!(std::fs::read_link(tree.join("d/link")).expect("a link"), Path::new("../../../../etc/passwd"));
    assert_eq!((stat("d/owned").nlink(), stat("d/owned").ino()), (2, stat("d/twin").ino()), "one file, two names");
    assert!(stat("d/fifo").file_type().is_fifo());
    assert!(!tree.join("d/socket").exists(), "no archive holds a socket");
    let long = tree.join("d").join("long".repeat(60));
    assert_eq!(std::fs::read(long).expect("the long name"), b"a long name");
    let mut value = [0_u8; 64];
    let mut attribute = |name: &str| {
        let length = rustix::fs::lgetxattr(tree.join("d/setuid"), name, &mut value[..]).expect(name);
        value[..length].to_vec()
    };
    assert_eq!(attribute("user.note"), b"hi");
    let expected: Vec<u8> = [0x0200_0001_u32, 0x400, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(attribute("security.capability"), expected, "capabilities of the container's root are root's");
    // others can read it
    let layout = scene.desk.path("layout.tar");
    scene.desk.ok(&["save", "shop/web:edited", "--file", layout.to_str().expect("UTF-8")]);
    let read = std::process::Command::new("skopeo")
        .args(["inspect", "--config", &format!("oci-archive:{}", layout.display())])
        .output();
    match read {
        Ok(read) => assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr)),
        Err(_) => println!("  there is no skopeo to read it"),
    }
    Ok(())
}

fn notes() -> Result<(), String> {
    let scene = Scene::new();
    furnish(&scene);
    let commit = |name: &str| {
        let change =
            ["--change", "CMD [\"serve\", \"it\"]", "-c", "ENV A=1", "-c", "LABEL team=shop", "-c", "EXPOSE 80"];
        let args = [&["commit", "-m", "with a page", "-a", "Ada"][..], &change, &[ID, name]].concat();
        scene.top(&args).trim().to_owned()
    };
    let id = commit("one:1");
    assert_eq!(id, commit("two:1"), "the same layer and the same words make the same image");
    let seen = scene.desk.json(&["inspect", "one:1"]);
    let config = &seen[0]["Config"];
    assert_eq!((&seen[0]["Id"], &seen[0]["Author"]), (&json!(id), &json!("Ada")));
    assert_eq!((&config["Cmd"], &config["Env"]), (&json!(["serve", "it"]), &json!(["A=1"])));
    assert_eq!((&config["Labels"], &config["ExposedPorts"]), (&json!({"team": "shop"}), &json!({"80/tcp": {}})));
    let base = scene.desk.json(&["inspect", "base"]);
    assert_eq!(seen[0]["RootFS"]["Layers"][0], base[0]["RootFS"]["Layers"][0], "on top of what was there");
    let history = scene.desk.json(&["history", "one:1"]);
    assert_eq!((&history[0]["comment"], &history[0]["created_by"]), (&json!("with a page"), &json!("serve it")));
    assert_eq!(history[0]["layer"], seen[0]["RootFS"]["Layers"][1], "its line stands for its layer");
    // without a name it has its id, and a container is known by its replica's name only where it has one
    let nameless = scene.top(&["commit", ID]);
    assert!(scene.desk.ok(&["ls", "--dangling", "-q", "--no-trunc"]).contains(nameless.trim()));
    assert_ne!(nameless.trim(), id);
    Ok(())
}

fn refusals() -> Result<(), String> {
    let scene = Scene::new();
    let before = names(&scene.desk.lab.images().join("blobs/sha256"));
    let said = scene.desk.refused(&["commit", "-c", "RUN make", ID, "x"]);
    assert!(said.contains("`RUN`") && said.contains("CMD, ENTRYPOINT"), "{said}");
    assert!(scene.desk.refused(&["commit", "web-9", "x"]).contains("container `web-9` does not exist"));
    assert!(scene.desk.refused(&["commit", ID, "Shop"]).contains("lower case"));
    let pinned = format!("x@{}", scene.image.digest());
    assert!(scene.desk.refused(&["commit", ID, &pinned]).contains("only a tag"));
    scene.file(".wh.odd", "");
    let said = scene.desk.refused(&["commit", ID, "x"]);
    assert!(said.contains("/.wh.odd cannot be in an image"), "{said}");
    let images = scene.desk.lab.images();
    assert_eq!(names(&images.join("blobs/sha256")), before, "nothing became visible");
    assert!(names(&images.join("tmp")).is_empty(), "and nothing is left behind");
    Ok(())
}

fn import() -> Result<(), String> {
    let desk = Desk::new();
    let tar = Archive::new().dir("bin").file("bin/tool", b"#!").owned("bin/s", 0o4755, 5, 6).bytes();
    let packed: [(&str, Vec<u8>); 3] = [("tar", tar.clone()), ("tgz", gzip(&tar)), ("tzst", zstd(&tar))];
    let mut layers = Vec::new();
    for (name, bytes) in packed {
        let path = desk.path(name);
        std::fs::write(&path, bytes).expect("write an archive");
        let path = path.to_str().expect("UTF-8");
        let id =
            desk.ok(&["import", "--change", "CMD [\"/bin/tool\"]", "-m", "by hand", path, &format!("mine:{name}")]);
        assert_eq!(
            id,
            desk.ok(&["import", "--change", "CMD [\"/bin/tool\"]", "-m", "by hand", path]),
            "the same again"
        );
        let seen = desk.json(&["inspect", &format!("mine:{name}")]);
        assert_eq!(seen[0]["Config"]["Cmd"], json!(["/bin/tool"]));
        layers.push(seen[0]["RootFS"]["Layers"].clone());
        desk.ok(&["save", &format!("mine:{name}"), "--file", desk.path("saved").to_str().expect("UTF-8")]);
    }
    assert!(layers.iter().all(|layer| *layer == layers[0]), "one layer, however it was packed: {layers:?}");
    desk.ok(&["unpack", "mine:tzst", desk.path("tree").to_str().expect("UTF-8")]);
    let meta = std::fs::metadata(desk.path("tree/bin/s")).expect("a file");
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o4755, 5, 6));
    // from a pipe
    let mut child =
        desk.command(&["import", "-", "piped:1"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), &tar).expect("write the archive");
    assert!(child.wait().expect("wait").success());
    assert_eq!(desk.ok(&["diff", "mine:tar", "piped:1"]), "");
    assert_eq!(desk.ok(&["diff", "piped:1"]), "A /bin\nA /bin/s\nA /bin/tool\n", "on nothing, everything is new");
    // what is none
    for (name, bytes, why) in
        [("xz", &b"\xfd7zXZ\0..."[..], "xz -dc"), ("empty", b"", "is empty"), ("text", b"hello", "BX0307")]
    {
        std::fs::write(desk.path(name), bytes).expect("write a file");
        let said = desk.refused(&["import", desk.path(name).to_str().expect("UTF-8"), "bad:1"]);
        assert!(said.contains(why), "{name}: {said}");
    }
    assert!(desk.refused(&["inspect", "bad:1"]).contains("BX0903"));
    assert!(names(&desk.lab.images().join("tmp")).is_empty(), "nothing is left behind");
    Ok(())
}

fn two_images() -> Result<(), String> {
    let base = Archive::new().dir("etc").file("etc/a", b"a").file("etc/b", b"b").dir("lib").file("lib/x", b"x").bytes();
    let one = Archive::new().file("etc/b", b"B").symlink("l", "a").dir("only").file("only/here", b"1").bytes();
    let two = Archive::new().file("etc/.wh.a", b"").symlink("l", "b").dir("new").file("new/file", b"1").bytes();
    let fake = Fake::start();
    fake.push("a", "1", &Image::new(&[(&base, gzip), (&one, gzip)]));
    fake.push("a", "2", &Image::new(&[(&base, gzip), (&two, gzip)]));
    let desk = Desk::new();
    let (one, two) = (fake.name("a:1"), fake.name("a:2"));
    desk.ok(&["pull", &one]);
    desk.ok(&["pull", &two]);
    let there = "C /etc\nD /etc/a\nC /etc/b\nC /l\nA /new\nA /new/file\nD /only\n";
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_by(|a, b| a[2..].cmp(&b[2..]));
        lines
    };
    assert_eq!(sorted(&desk.ok(&["diff", &one, &two])), sorted(there));
    let back = there.replace("D /etc/a", "A /etc/a").replace("D /only", "A /only\nA /only/here");
    let back = back.replace("A /new\nA /new/file", "D /new");
    assert_eq!(sorted(&desk.ok(&["diff", &two, &one])), sorted(&back));
    assert_eq!(desk.ok(&["diff", &one, &one]), "");
    Ok(())
}
