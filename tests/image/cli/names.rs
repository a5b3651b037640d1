//! Rows 1, 6, 8-10, 12, 13, 25-27, 32: what an image is, what it is called, what it costs, and when it goes.

use std::collections::BTreeMap;

use runtime::image::Digest;
use runtime::runtime::{ContainerConfig, IdRange, LogConfig, NetworkMode, Resources, SecurityConfig};
use serde_json::json;

use super::desk::{Desk, image};
use crate::Case;
use crate::fake::Fake;
use crate::lab::{Archive, Image, gzip, noise};

pub(crate) const CASES: &[Case] = &[
    ("row_1_an_image_is_read_only_layers_each_with_its_own_hash", layers),
    ("row_8_an_id_is_immutable_and_its_first_twelve_digits_name_it", ids),
    ("row_9_one_id_has_many_tags_and_a_moved_tag_leaves_none", tags),
    ("row_10_references_have_defaults_and_latest_is_not_magical", references),
    ("row_12_the_list_has_dockers_columns_and_filters_by_repository", list),
    ("row_13_sizes_count_shared_layers_and_say_so", sizes),
    ("row_25_an_image_behind_a_container_is_not_removed", in_use),
    ("row_26_dangling_images_are_pruned_and_used_ones_stay", prune),
    ("row_27_settings_and_history_are_kept_as_written", settings),
    ("row_32_the_right_platform_is_chosen_or_the_offers_are_named", platforms),
];

/// A registry with `a:1` and `a:2`, which share their lower layer.
fn two_tags() -> (Fake, Image, Image) {
    let base = Archive::new().file("base", &noise(50_000, 1)).bytes();
    let top = |n: usize| Archive::new().file("top", &noise(10_000 * n, n as u64)).bytes();
    let (one, two) = (Image::new(&[(&base, gzip), (&top(1), gzip)]), Image::new(&[(&base, gzip), (&top(2), gzip)]));
    let fake = Fake::start();
    fake.push("a", "1", &one);
    fake.push("a", "2", &two);
    (fake, one, two)
}

fn pulled() -> (Desk, Fake, Image, Image) {
    let (fake, one, two) = two_tags();
    let desk = Desk::new();
    desk.ok(&["pull", &fake.name("a:1")]);
    desk.ok(&["pull", &fake.name("a:2")]);
    (desk, fake, one, two)
}

fn id(image: &Image) -> Digest {
    Digest::of(&image.config)
}

fn layers() -> Result<(), String> {
    let (desk, fake, one, _) = pulled();
    let seen = desk.json(&["inspect", &fake.name("a:1")]);
    assert_eq!(seen[0]["Digest"], json!(one.digest()));
    let ids = seen[0]["RootFS"]["Layers"].as_array().expect("layers").clone();
    assert_eq!(ids.len(), 2);
    for layer in ids {
        let hex = layer.as_str().expect("text").trim_start_matches("sha256:").to_owned();
        assert!(desk.lab.images().join("layers").join(hex).join("fs").is_dir(), "one directory a layer, by its hash");
    }
    let others = desk.json(&["inspect", &fake.name("a:2")]);
    assert_eq!(seen[0]["RootFS"]["Layers"][0], others[0]["RootFS"]["Layers"][0], "the lower one is one and the same");
    Ok(())
}

fn ids() -> Result<(), String> {
    let (desk, fake, one, two) = pulled();
    let whole = id(&one);
    for name in [whole.short(), whole.hex(), whole.as_str(), one.digest().short()] {
        assert_eq!(desk.json(&["inspect", name])[0]["Id"], json!(whole), "{name}");
    }
    assert_ne!(whole, id(&two), "a change makes a new id");
    let rows = desk.rows(&["--quiet", &fake.name("a:2")]);
    assert!(rows.is_empty() && desk.ok(&["ls", "-q", &fake.name("a:2")]).trim() == id(&two).short());
    assert!(desk.refused(&["inspect", "0000000000"]).contains("BX0903"));
    Ok(())
}

fn tags() -> Result<(), String> {
    let (desk, fake, one, two) = pulled();
    desk.ok(&["tag", one.digest().short(), "shop/web:stable"]);
    desk.ok(&["tag", &fake.name("a:1"), "shop/web:blue"]);
    let rows = desk.rows(&[]);
    let of_one = rows.iter().filter(|row| row[2] == id(&one).short()).count();
    assert_eq!(of_one, 3, "listed once a name: {rows:?}");
    desk.ok(&["tag", &fake.name("a:2"), "shop/web:stable"]);
    let rows = desk.rows(&["shop/web:stable"]);
    assert_eq!(rows[0][2], id(&two).short(), "the tag moved: {rows:?}");
    desk.ok(&["rm", &fake.name("a:1")]);
    desk.ok(&["rm", "shop/web:blue"]);
    let rows = desk.rows(&["--dangling"]);
    assert_eq!((rows.len(), &*rows[0][0], &*rows[0][1], &*rows[0][2]), (1, "shop/web", "<none>", id(&one).short()));
    desk.ok(&["rm", id(&one).short()]);
    assert!(desk.rows(&["--dangling"]).is_empty());
    Ok(())
}

fn references() -> Result<(), String> {
    let (desk, fake, one, _) = pulled();
    desk.ok(&["tag", &fake.name("a:1"), "web"]);
    let seen = desk.json(&["inspect", "docker.io/library/web:latest"]);
    assert_eq!(seen[0]["Id"], json!(id(&one)), "host, user and tag have defaults");
    let rows = desk.rows(&["web"]);
    assert_eq!((&*rows[0][0], &*rows[0][1]), ("web", "latest"), "and are not shown");
    desk.ok(&["tag", &fake.name("a:2"), "web:2"]);
    assert_eq!(
        desk.json(&["inspect", "web"])[0]["Id"],
        json!(id(&one)),
        "`latest` is what was called so, not what came last"
    );
    assert!(desk.refused(&["tag", "web", "Shop/Web"]).contains("lower case"));
    assert!(desk.refused(&["tag", "web", &format!("x@{}", one.digest())]).contains("only a tag"));
    Ok(())
}

fn list() -> Result<(), String> {
    let (desk, fake, one, _) = pulled();
    desk.ok(&["tag", &fake.name("a:1"), "shop/web:1"]);
    let text = desk.ok(&["ls"]);
    let head: Vec<&str> =
        text.lines().next().expect("a head").split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
    assert_eq!(head, ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "UNIQUE", "SHARED", "USED BY"]);
    assert_eq!(text.lines().count(), 4, "{text}");
    assert_eq!(desk.rows(&["shop/web"]).len(), 1);
    assert_eq!(desk.rows(&[&fake.name("a")]).len(), 2, "all tags of a repository");
    assert!(desk.rows(&["shop/other"]).is_empty());
    assert!(desk.ok(&["ls", "--no-trunc", "--digests"]).contains(one.digest().as_str()));
    assert_eq!(desk.ok(&["ls", "--remote", &fake.name("a")]), "1\n2\n", "the registry's tags");
    Ok(())
}

fn sizes() -> Result<(), String> {
    let (desk, ..) = pulled();
    let views = desk.json(&["ls"]);
    let sum =
        |key: &str| views.as_array().expect("images").iter().map(|v| v["sizes"][key].as_u64().expect(key)).sum::<u64>();
    assert_eq!(
        (sum("unique_bytes"), sum("shared_bytes")),
        (30_000, 100_000),
        "the shared layer counts in both: {views}"
    );
    let on_disk: u64 = walk(&desk.lab.images().join("layers"));
    assert_eq!(on_disk, 80_000, "and is there once");
    Ok(())
}

/// Bytes of the files in all `fs` directories.
fn walk(layers: &std::path::Path) -> u64 {
    let dirs = std::fs::read_dir(layers).expect("layers").map(|e| e.expect("an entry").path().join("fs"));
    let files = dirs.flat_map(|dir| std::fs::read_dir(dir).expect("a layer"));
    files.map(|e| e.expect("an entry").metadata().expect("a file").len()).sum()
}

/// A container that was made from an image and does not run.
pub(crate) fn container(desk: &Desk, image: Digest) {
    let config = ContainerConfig {
        id: "shop-web-1".parse().expect("an id"),
        labels: BTreeMap::new(),
        hostname: "web".into(),
        image,
        entrypoint: None,
        args: None,
        env: BTreeMap::new(),
        sealed_env: BTreeMap::new(),
        working_dir: None,
        user: None,
        mounts: Vec::new(),
        network: NetworkMode::None,
        resources: Resources::default(),
        ids: IdRange { host_start: 1 << 20, len: 1 << 16 },
        security: SecurityConfig::default(),
        stop_signal: None,
        shm_bytes: 1 << 26,
        tty: false,
        init: false,
        dns_search: Vec::new(),
        extras: runtime::runtime::Extras::default(),
        log: LogConfig::default(),
        pod: None,
    };
    let dir = desk.lab.layout().container_dir(&config.id);
    std::fs::create_dir_all(&dir).expect("make a directory");
    std::fs::write(dir.join("config.json"), serde_json::to_vec(&config).expect("encode")).expect("write it");
}

fn in_use() -> Result<(), String> {
    let (desk, fake, one, two) = pulled();
    container(&desk, one.digest());
    for args in [vec!["rm", id(&one).short()], vec!["rm", "--force", id(&one).short()]] {
        let said = desk.refused(&args);
        assert!(said.contains("is used by shop-web-1"), "{said}");
    }
    let name = fake.name("a:1");
    assert!(desk.refused(&["rm", &name]).contains("is used by shop-web-1"), "its last name");
    desk.ok(&["tag", &name, "shop/web:1"]);
    desk.ok(&["rm", &name]);
    assert_eq!(desk.rows(&["shop/web"])[0].last().map(String::as_str), Some("shop-web-1"), "another name may go");
    desk.ok(&["rm", &fake.name("a:2")]);
    assert!(desk.refused(&["inspect", id(&two).short()]).contains("BX0903"));
    desk.ok(&["unpack", "shop/web:1", desk.path("root").to_str().expect("UTF-8")]);
    assert_eq!(std::fs::read(desk.path("root/base")).expect("the shared layer is still here").len(), 50_000);
    // several names of one image are not taken by its id in passing
    std::fs::remove_dir_all(desk.lab.layout().containers_dir()).expect("remove the container");
    desk.ok(&["tag", "shop/web:1", "shop/web:2"]);
    assert!(desk.refused(&["rm", id(&one).short()]).contains("shop/web:1, shop/web:2"));
    desk.ok(&["rm", "--force", id(&one).short()]);
    assert!(desk.rows(&[]).is_empty());
    Ok(())
}

fn prune() -> Result<(), String> {
    let (desk, fake, one, two) = pulled();
    let third = image("third", 20_000);
    fake.push("b", "1", &third);
    desk.ok(&["pull", &fake.name("b:1")]);
    desk.ok(&["tag", &fake.name("a:2"), &fake.name("a:1")]);
    assert_eq!(desk.rows(&["--dangling"]).len(), 1);
    let dry = desk.ok(&["prune", "--dry-run"]);
    assert!(dry.contains(&format!("would delete {}", id(&one).short())), "{dry}");
    assert_eq!(desk.rows(&["--dangling"]).len(), 1, "a dry run changes nothing");
    desk.ok(&["prune"]);
    assert!(desk.rows(&["--dangling"]).is_empty() && desk.rows(&[]).len() == 3, "only what has no tag");
    container(&desk, two.digest());
    desk.ok(&["prune", "--all", "--unused-for", "1h"]);
    assert_eq!(desk.rows(&[]).len(), 3, "all of them came just now");
    let said = desk.ok(&["prune", "--all"]);
    assert!(said.contains(id(&third).short()), "{said}");
    let left = desk.rows(&[]);
    assert!(left.len() == 2 && left.iter().all(|row| row[2] == id(&two).short()), "a container's stays: {left:?}");
    // where manifests were accepted, only a controller knows what is needed
    std::fs::create_dir_all(desk.lab.layout().state_dir()).expect("make a directory");
    std::fs::write(desk.lab.layout().state_dir().join("accepted.json"), "{}").expect("write a file");
    assert!(desk.refused(&["prune", "--all"]).contains("BX0904"));
    Ok(())
}

/// The same image with another config.
fn with_config(image: &Image, config: &serde_json::Value) -> Image {
    let config = serde_json::to_vec(config).expect("encode");
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).expect("JSON");
    manifest["config"]["digest"] = json!(Digest::of(&config));
    manifest["config"]["size"] = json!(config.len());
    Image { manifest: serde_json::to_vec(&manifest).expect("encode"), config, layers: image.layers.clone() }
}

fn settings() -> Result<(), String> {
    let layer = Archive::new().file("x", b"x").bytes();
    let base = Image::new(&[(&layer, gzip)]);
    let mut config: serde_json::Value = serde_json::from_slice(&base.config).expect("JSON");
    config["config"] = json!({"Cmd": ["serve"], "Env": ["A=b"], "Labels": {"team": "shop"}, "WorkingDir": "/srv",
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_u64}});
    config["history"] = json!([
        {"created": "2026-01-01T00:00:00Z", "created_by": "COPY x /x \u{1b}[31m"},
        {"created": "2026-01-02T00:00:00Z", "created_by": "CMD [\"serve\"]", "empty_layer": true}]);
    let image = with_config(&base, &config);
    let fake = Fake::start();
    fake.push("a", "1", &image);
    let desk = Desk::new();
    desk.ok(&["pull", &fake.name("a:1")]);
    let seen = desk.json(&["inspect", &fake.name("a:1")]);
    assert_eq!(seen[0]["Config"], config["config"], "nothing is lost or added");
    let text = desk.ok(&["history", &fake.name("a:1")]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].contains("CMD [\"serve\"]") && lines[1].contains("0B"), "latest first: {text}");
    assert!(lines[2].contains("COPY x /x") && lines[2].contains("1B") && !text.contains('\u{1b}'), "{text}");
    Ok(())
}

fn platforms() -> Result<(), String> {
    let ours = image("ours", 10);
    let other = image("other", 10);
    let fake = Fake::start();
    let entry = |image: &Image, platform: serde_json::Value| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.digest(),
            "size": image.manifest.len(), "platform": platform})
    };
    let index = |list: serde_json::Value| {
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": list})
            .to_string()
    };
    let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    fake.push("a", "ours", &ours);
    fake.push("a", "other", &other);
    let foreign = [
        entry(&other, json!({"os": "linux", "architecture": "arm", "variant": "v7"})),
        entry(&other, json!({"os": "linux", "architecture": "s390x"})),
    ];
    let all = json!([foreign[0], foreign[1], entry(&ours, json!({"os": "linux", "architecture": host}))]);
    fake.push_index("a", "all", index(all).as_bytes());
    fake.push_index("a", "foreign", index(json!(foreign)).as_bytes());
    let desk = Desk::new();
    desk.ok(&["pull", &fake.name("a:all")]);
    assert_eq!(desk.json(&["inspect", &fake.name("a:all")])[0]["Id"], json!(id(&ours)));
    let said = desk.refused(&["pull", &fake.name("a:foreign")]);
    assert!(said.contains("BX0305") && said.contains("linux/arm/v7, linux/s390x"), "{said}");
    Ok(())
}
