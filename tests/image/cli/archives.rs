//! Row 22 and its kin: `save`, `load`, `unpack`. skopeo and podman read what we write, and we what they write.

use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use super::desk::{Desk, image};
use crate::Case;
use crate::fake::Fake;
use crate::lab::{Archive, Image, gzip, names, zstd};

pub(crate) const CASES: &[Case] = &[
    ("row_22_save_and_load_keep_every_digest", round_trip),
    ("row_22_load_takes_layouts_pipes_and_names", sources),
    ("row_22_skopeo_and_podman_read_what_save_writes", readers),
    ("row_22_load_reads_what_skopeo_writes", writers),
    ("unpack_writes_the_whole_root_file_system", unpack),
    ("scrub_heals_one_layer_and_fetches_nothing_else", scrub),
];

fn pulled() -> (Desk, Fake, Image) {
    let bottom = Archive::new().dir("etc").file("etc/motd", b"hello").file("gone", b"x").bytes();
    let top = Archive::new().file("etc/host", b"web").file(".wh.gone", b"").bytes();
    let image = Image::new(&[(&bottom, gzip), (&top, zstd)]);
    let fake = Fake::start();
    fake.push("shop/web", "1", &image);
    let desk = Desk::new();
    desk.ok(&["pull", &fake.name("shop/web:1")]);
    (desk, fake, image)
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn round_trip() -> Result<(), String> {
    let (desk, fake, image) = pulled();
    let other = super::desk::image("other", 5_000);
    fake.push("other", "1", &other);
    desk.ok(&["pull", &fake.name("other:1")]);
    for format in ["docker", "oci"] {
        let file = desk.path(&format!("{format}.tar"));
        let name = fake.name("shop/web:1");
        desk.ok(&["save", "-f", text(&file), "--format", format, &name, &fake.name("other:1")]);
        let second = Desk::new();
        second.ok(&["load", text(&file)]);
        let seen = second.json(&["inspect", &name, &fake.name("other:1")]);
        assert_eq!(seen[0]["Digest"], serde_json::json!(image.digest()), "{format}");
        assert_eq!(seen[1]["Digest"], serde_json::json!(other.digest()), "{format}");
        let again = second.path("again.tar");
        second.ok(&["save", "-f", text(&again), "--format", format, &name, &fake.name("other:1")]);
        assert_eq!(
            std::fs::read(&file).expect("one"),
            std::fs::read(&again).expect("two"),
            "the same archive, byte by byte"
        );
        assert!(names(&second.lab.images().join("tmp")).is_empty());
    }
    // what was dropped is fetched again or refused, and not packed again: it would be other bytes
    let blob = runtime::image::Digest::of(&image.layers[0]);
    std::fs::remove_file(desk.lab.images().join("blobs/sha256").join(blob.hex())).expect("drop a blob");
    fake.spoil(&image.layers[0], vec![7; image.layers[0].len()]);
    let file = desk.path("never.tar");
    assert!(desk.refused(&["save", "-f", text(&file), &fake.name("shop/web:1")]).contains(blob.as_str()));
    assert!(!file.exists() && names(desk.lab.dir.path()).iter().all(|n| !n.ends_with(".part")));
    Ok(())
}

fn sources() -> Result<(), String> {
    let (desk, fake, image) = pulled();
    let name = fake.name("shop/web:1");
    let is = |desk: &Desk, name: &str| {
        assert_eq!(desk.json(&["inspect", name])[0]["Digest"], serde_json::json!(image.digest()), "{name}");
    };
    // our own store is a layout
    let second = Desk::new();
    let layout = format!("oci:{}:{name}", desk.lab.images().display());
    second.ok(&["load", &layout]);
    is(&second, &name);
    second.ok(&["load", "--tag", "copy:2", text(&desk.lab.images())]);
    is(&second, "copy:2");
    let missing = second.refused(&["load", &format!("oci:{}:absent", desk.lab.images().display())]);
    assert!(missing.contains(&name), "it names what there is: {missing}");
    let mut save = desk.command(&["save", &name]).stdout(Stdio::piped()).spawn().expect("start");
    let pipe = save.stdout.take().expect("a pipe");
    let third = Desk::new();
    let load = third.command(&["load", "-t", "piped"]).stdin(pipe).status().expect("start");
    assert!(load.success() && save.wait().expect("wait").success());
    is(&third, "piped");
    std::fs::write(third.path("nonsense.tar"), b"nonsense").expect("write a file");
    third.refused(&["load", text(&third.path("nonsense.tar"))]);
    assert_eq!(third.rows(&[]).len(), 1, "nothing of a bad archive is seen");
    Ok(())
}

fn skopeo(args: &[&str]) -> Result<String, String> {
    let output = Command::new("skopeo").args(["--insecure-policy"]).args(args).output();
    let output = output.map_err(|_| "there is no skopeo".to_owned())?;
    assert!(output.status.success(), "skopeo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn readers() -> Result<(), String> {
    let fake = Fake::start();
    let image = image("x", 5_000);
    fake.push("shop/web", "1", &image);
    let desk = Desk::new();
    desk.ok(&["pull", &fake.name("shop/web:1")]);
    desk.ok(&["tag", &fake.name("shop/web:1"), "shop/web:1"]);
    let (docker, oci) = (desk.path("docker.tar"), desk.path("oci.tar"));
    desk.ok(&["save", "-f", text(&docker), "shop/web:1"]);
    desk.ok(&["save", "-f", text(&oci), "--format", "oci", "shop/web:1"]);
    let seen = skopeo(&["inspect", "--format", "{{.Digest}}", &format!("oci-archive:{}", oci.display())])?;
    assert_eq!(seen.trim(), image.digest().as_str());
    let raw = skopeo(&["inspect", "--config", "--raw", &format!("docker-archive:{}", docker.display())])?;
    assert_eq!(raw.trim_end().as_bytes(), &image.config[..], "the config is the image's id");
    let copied = format!("dir:{}", desk.path("copied").display());
    skopeo(&["copy", "-q", &format!("docker-archive:{}:shop/web:1", docker.display()), &copied])?;
    let podman = |args: &[&str]| {
        let root = desk.path("podman");
        let mut command = Command::new("podman");
        command.arg("--root").arg(root.join("root")).arg("--runroot").arg(root.join("run"));
        command.args(["--storage-driver", "vfs", "--events-backend", "none"]).args(args).output()
    };
    for file in [&docker, &oci] {
        let Ok(loaded) = podman(&["load", "-q", "-i", text(file)]) else { return Err("there is no podman".into()) };
        assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
        let listed = podman(&["images", "--no-trunc", "-q"]).expect("podman runs");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.contains(runtime::image::Digest::of(&image.config).as_str()), "{listed}");
        podman(&["rmi", "-a", "-f"]).expect("podman runs");
    }
    Ok(())
}

fn writers() -> Result<(), String> {
    let (desk, fake, image) = pulled();
    let id = serde_json::json!(runtime::image::Digest::of(&image.config));
    let layout = format!("oci:{}:{}", desk.lab.images().display(), fake.name("shop/web:1"));
    let file = desk.path("skopeo.tar");
    for kind in ["docker-archive", "oci-archive"] {
        let _ = std::fs::remove_file(&file);
        skopeo(&["copy", "-q", &layout, &format!("{kind}:{}:shop/web:1", file.display())])?;
        let second = Desk::new();
        second.ok(&["load", text(&file)]);
        assert_eq!(second.json(&["inspect", "shop/web:1"])[0]["Id"], id, "{kind}");
        let dest = second.path("root");
        second.ok(&["unpack", "shop/web:1", text(&dest)]);
        assert_eq!(std::fs::read(dest.join("etc/motd")).expect("a file"), b"hello", "{kind}");
    }
    Ok(())
}

fn unpack() -> Result<(), String> {
    let bottom = Archive::new()
        .dir("a")
        .file("a/below", b"1")
        .file("file", b"old")
        .dir("replaced")
        .file("replaced/x", b"x")
        .file("first", b"linked")
        .hard_link("second", "first")
        .owned("setuid", 0o4755, 7, 8)
        .bytes();
    let top = Archive::new()
        .dir("a")
        .file("a/.wh..wh..opq", b"")
        .file("a/above", b"2")
        .file("file", b"new")
        .file("replaced", b"a file now")
        .symlink("link", "/etc/passwd")
        .bytes();
    let fake = Fake::start();
    fake.push("a", "1", &Image::new(&[(&bottom, gzip), (&top, gzip)]));
    let desk = Desk::new();
    desk.ok(&["pull", &fake.name("a:1")]);
    let dest = desk.path("root");
    desk.ok(&["unpack", &fake.name("a:1"), text(&dest)]);
    assert_eq!(names(&dest), ["a", "file", "first", "link", "replaced", "second", "setuid"]);
    assert_eq!(names(&dest.join("a")), ["above"], "an opaque directory hides what is below it");
    assert_eq!(std::fs::read(dest.join("file")).expect("a file"), b"new");
    let inode = |name: &str| std::fs::metadata(dest.join(name)).expect("a file").ino();
    assert_eq!(inode("first"), inode("second"));
    let setuid = std::fs::metadata(dest.join("setuid")).expect("a file");
    assert_eq!((setuid.mode() & 0o7777, setuid.uid(), setuid.gid(), setuid.mtime()), (0o4755, 7, 8, 1_000_000));
    assert_eq!(std::fs::read_link(dest.join("link")).expect("a link").to_str(), Some("/etc/passwd"));
    assert!(desk.refused(&["unpack", &fake.name("a:1"), text(&dest)]).contains("is not empty"));
    Ok(())
}

fn scrub() -> Result<(), String> {
    let (desk, fake, image) = pulled();
    assert!(desk.ok(&["scrub"]).contains("0 healed, 0 damaged"));
    let seen = desk.json(&["inspect", &fake.name("shop/web:1")]);
    let layer = seen[0]["RootFS"]["Layers"][0].as_str().expect("text").trim_start_matches("sha256:").to_owned();
    let motd = desk.lab.images().join("layers").join(layer).join("fs/etc/motd");
    std::fs::write(&motd, b"rot!!").expect("damage a file");
    let before = fake.log().len();
    let said = desk.ok(&["scrub"]);
    assert!(said.contains("1 healed, 0 damaged"), "{said}");
    assert_eq!(std::fs::read(&motd).expect("the file"), b"hello");
    assert_eq!(fake.log().len(), before, "from its blob, without the registry");
    let blob = runtime::image::Digest::of(&image.layers[0]);
    std::fs::write(desk.lab.images().join("blobs/sha256").join(blob.hex()), b"rot").expect("damage a blob");
    std::fs::write(&motd, b"rot!!").expect("damage a file");
    let said = desk.ok(&["scrub"]);
    assert!(said.contains("1 healed, 0 damaged"), "{said}");
    assert_eq!(std::fs::read(&motd).expect("the file"), b"hello");
    let asked: Vec<String> = fake.log()[before..].iter().map(|a| a.path.clone()).collect();
    assert!(asked.len() == 1 && asked[0].ends_with(blob.as_str()), "only the damaged layer: {asked:?}");
    drop(fake);
    Ok(())
}
