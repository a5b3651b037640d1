//! Row 18: `pull` and `push` against Debian's docker-registry.

use std::path::Path;
use std::process::Command;

use super::desk::Desk;
use crate::Case;
use crate::fake::{Answer, Fake};
use crate::lab::{Archive, Image, gzip, noise};

pub(crate) const CASES: &[Case] = &[
    ("row_18_push_sends_only_what_is_missing_and_mounts_the_rest", push),
    ("row_18_a_refused_push_leaves_the_tag_as_it_was", refused),
];

/// An empty registry, stopped at the end.
struct Registry<'a> {
    desk: &'a Desk,
    address: String,
}

fn script() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images/registry.sh")
}

impl<'a> Registry<'a> {
    fn start(desk: &'a Desk) -> Result<Self, String> {
        let started = Command::new(script()).arg("start").arg(desk.path("storage")).arg(desk.path("registry")).output();
        let started = started.map_err(|e| e.to_string())?;
        if !started.status.success() {
            return Err(String::from_utf8_lossy(&started.stderr).trim().to_owned());
        }
        let address = format!("127.0.0.1:{}", String::from_utf8_lossy(&started.stdout).trim());
        Ok(Self { desk, address })
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        let _ = Command::new(script()).arg("stop").arg(self.desk.path("registry")).status();
    }
}

fn push() -> Result<(), String> {
    let desk = Desk::new();
    let registry = Registry::start(&desk)?;
    let base = Archive::new().file("base", &noise(700_000, 1)).bytes();
    let top = Archive::new().file("top", &noise(1_000, 2)).bytes();
    let (one, two) = (Image::new(&[(&base, gzip)]), Image::new(&[(&base, gzip), (&top, gzip)]));
    let fake = Fake::start();
    fake.push("a", "1", &one);
    fake.push("a", "2", &two);
    desk.ok(&["pull", &fake.name("a:1")]);
    desk.ok(&["pull", &fake.name("a:2")]);
    let name = |rest: &str| format!("{}/{rest}", registry.address);
    let pushed = desk.json(&["push", &fake.name("a:1"), &name("shop/web:1")]);
    assert_eq!((&pushed["uploaded"], &pushed["mounted"]), (&2.into(), &0.into()), "{pushed}");
    let pushed = desk.json(&["push", &fake.name("a:1"), &name("shop/web:again")]);
    assert_eq!((&pushed["uploaded"], &pushed["present"]), (&0.into(), &2.into()), "{pushed}");
    // named after the other repository it is known there, and is mounted from it
    desk.ok(&["tag", &fake.name("a:1"), &name("shop/web:1")]);
    let pushed = desk.json(&["push", &fake.name("a:2"), &name("shop/api:1")]);
    assert_eq!((&pushed["uploaded"], &pushed["mounted"]), (&2.into(), &1.into()), "{pushed}");
    let second = Desk::new();
    second.ok(&["pull", &name("shop/api:1")]);
    assert_eq!(second.json(&["inspect", &name("shop/api:1")])[0]["Digest"], serde_json::json!(two.digest()));
    let tags = desk.ok(&["ls", "--remote", &name("shop/web")]);
    assert!(tags.lines().count() == 2 && tags.contains("1\n") && tags.contains("again\n"), "{tags}");
    let seen = Command::new("skopeo")
        .args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"])
        .arg(format!("docker://{}", name("shop/api:1")))
        .output();
    let Ok(seen) = seen else { return Err("there is no skopeo".into()) };
    assert_eq!(String::from_utf8_lossy(&seen.stdout).trim(), two.digest().as_str());
    Ok(())
}

fn refused() -> Result<(), String> {
    let desk = Desk::new();
    let fake = Fake::start();
    fake.push("a", "1", &Image::new(&[(&Archive::new().file("x", b"x").bytes(), gzip)]));
    desk.ok(&["pull", &fake.name("a:1")]);
    // ours serves, and takes nothing
    let said = desk.refused(&["push", &fake.name("a:1"), &fake.name("b:1")]);
    assert!(said.contains("is denied without a login"), "{said}");
    let mirror = Fake::with(|asked, good| match asked.method.as_str() {
        "HEAD" => Answer::new(404, ""),
        "POST" => Answer::new(405, ""),
        _ => good,
    });
    let said = desk.refused(&["push", &fake.name("a:1"), &mirror.name("b:1")]);
    assert!(said.contains("takes no uploads"), "{said}");
    let puts = mirror.log().iter().filter(|asked| asked.method == "PUT").count();
    assert_eq!(puts, 0, "the manifest comes last");
    Ok(())
}
