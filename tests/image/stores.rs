//! The store: sharing, locking of tags, removal, collection, kills, reboots, damage.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use runtime::image::{BuildEntry, BuildLayer, Content, Digest, ImageBuild, Store};
use runtime::runtime::{ImageConfig, NoProgress, PullPhase, PullRequest};

use crate::Case;
use crate::fake::{Answer, Fake};
use crate::lab::{Archive, Image, Lab, Pack, Phases, gzip, names, noise, pull, reference, wait_until};

pub(crate) const CASES: &[Case] = &[
    ("store_tag_is_locked_until_refreshed", tag_is_locked),
    ("store_layers_are_shared_and_fetched_once", shared_layers),
    ("store_parallel_pulls_fetch_each_layer_once", parallel_pulls),
    ("store_fifty_pulls_of_one_image_are_one_download", fifty_pulls),
    ("store_two_hundred_layers_are_one_image", many_layers),
    ("store_removal_keeps_what_others_need", removal),
    ("store_digest_form_resolves_and_is_named", digest_form),
    ("store_kill_9_during_a_pull_leaves_nothing_visible", kill_during_pull),
    ("store_kill_9_at_each_step_leaves_all_or_nothing", kill_at_each_step),
    ("store_damaged_layer_is_repaired_after_a_reboot", repair_after_reboot),
    ("store_missing_layer_is_repaired_without_network", repair_offline),
    ("store_slow_scrub_heals_one_layer_and_comes_round", slow_scrub),
    ("store_damaged_index_is_set_aside", damaged_index),
    ("store_builds_the_same_digests", build),
    ("store_loads_layouts_and_archives", load),
];

fn tar(name: &str, len: usize) -> Vec<u8> {
    Archive::new().file(name, &noise(len, name.len() as u64 + len as u64)).bytes()
}

fn refresh(store: &Store, name: &str) -> runtime::Result<runtime::runtime::ImageInfo> {
    store.pull(&PullRequest { reference: reference(name), refresh: true, newer_only: false }, &NoProgress)
}

fn tag_is_locked() -> Result<(), String> {
    let fake = Fake::start();
    let (one, two) = (Image::new(&[(&tar("one", 10), gzip)]), Image::new(&[(&tar("two", 10), gzip)]));
    fake.push("a", "1", &one);
    let lab = Lab::new();
    let store = lab.store();
    let name = fake.name("a:1");
    assert_eq!(pull(&store, &name).expect("it is pulled").digest, one.digest());
    fake.push("a", "1", &two);
    let requests = fake.log().len();
    assert_eq!(pull(&store, &name).expect("it is here").digest, one.digest());
    assert_eq!(fake.log().len(), requests, "the registry was not asked");
    assert_eq!(refresh(&store, &name).expect("it is pulled").digest, two.digest());
    assert_eq!(store.resolve(&reference(&name)).expect("it is here").digest, two.digest());
    // the old one stays for an undo, whoever collects, until its own name is removed
    let old = reference(&name).at(one.digest());
    assert_eq!(store.get(&one.digest()).expect("it is here").references, std::slice::from_ref(&old));
    assert_eq!(store.collect(&BTreeSet::new()).expect("collect").images, 0);
    assert_eq!(store.resolve(&old).expect("it is here").digest, one.digest());
    store.remove(&old, &BTreeSet::new()).expect("it is forgotten");
    assert!(store.get(&one.digest()).is_err_and(|e| e.is_not_found()));
    assert_eq!(store.list().expect("list").len(), 1);
    assert_eq!((names(&lab.images().join("layers")).len(), names(&lab.images().join("blobs/sha256")).len()), (1, 3));
    Ok(())
}

fn shared_layers() -> Result<(), String> {
    let (base, top1, top2) = (tar("base", 10_000), tar("top1", 10), tar("top2", 20));
    let fake = Fake::start();
    let one = Image::new(&[(&base, gzip), (&top1, gzip)]);
    fake.push("a", "1", &one);
    fake.push("a", "2", &Image::new(&[(&base, gzip), (&top2, gzip), (&base, gzip)]));
    let lab = Lab::new();
    let store = lab.store();
    let first = pull(&store, &fake.name("a:1")).expect("it is pulled");
    let phases = Phases::default();
    let request = PullRequest { reference: reference(&fake.name("a:2")), refresh: false, newer_only: false };
    let second = store.pull(&request, &phases).expect("it is pulled");
    let phases = phases.0.into_inner().expect("nobody panics here");
    assert_eq!(phases[&Digest::of(&one.layers[0])][0], PullPhase::Shared);
    assert_eq!(phases[&Digest::of(&gzip(&top2))], [PullPhase::Download, PullPhase::Commit, PullPhase::Done]);
    let blob = Digest::of(&one.layers[0]);
    assert_eq!(fake.log().iter().filter(|a| a.path.ends_with(blob.as_str())).count(), 1);
    let dirs = |digest| store.layer_dirs(digest).expect("its layers");
    assert_eq!(dirs(&first.digest).len(), 2);
    assert_eq!(dirs(&second.digest).len(), 2, "a layer named twice is there once, where it counts");
    assert!(dirs(&second.digest)[0].ends_with(format!("{}/fs", Digest::of(&base).hex())), "topmost first");
    Ok(())
}

fn parallel_pulls() -> Result<(), String> {
    let layers: Vec<Vec<u8>> = (0..6).map(|n| tar(&format!("layer-{n}"), 200_000)).collect();
    let fake = Fake::start();
    for n in 0..6_usize {
        // every image has the shared layers in another order, and one of its own
        let mut tars: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        tars.rotate_left(n);
        let own = tar(&format!("own-{n}"), 1_000 + n);
        tars.push(&own);
        let packed: Vec<(&[u8], Pack)> = tars.into_iter().map(|t| (t, gzip as _)).collect();
        fake.push("a", &n.to_string(), &Image::new(&packed));
    }
    let lab = Lab::new();
    let store = lab.store();
    let barrier = Barrier::new(12);
    std::thread::scope(|scope| {
        for n in 0..12 {
            let (store, fake, barrier) = (&store, &fake, &barrier);
            scope.spawn(move || {
                barrier.wait();
                pull(store, &fake.name(&format!("a:{}", n % 6))).expect("it is pulled");
            });
        }
    });
    assert_eq!(store.list().expect("list").len(), 6);
    let log = fake.log();
    for layer in &layers {
        let blob = Digest::of(&gzip(layer));
        let count = log.iter().filter(|a| a.path.ends_with(blob.as_str())).count();
        assert_eq!(count, 1, "each shared layer is fetched once");
    }
    assert!(names(&lab.images().join("tmp")).is_empty());
    Ok(())
}

fn fifty_pulls() -> Result<(), String> {
    let begun = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&begun);
    // nobody has an answer before everybody has asked
    let fake = Fake::with(move |_, good| {
        wait_until("all pulls began", || seen.load(Ordering::SeqCst) == 50);
        good
    });
    let image = Image::new(&[(&tar("one", 300_000), gzip), (&tar("two", 100_000), gzip)]);
    fake.push("a", "1", &image);
    let lab = Lab::new();
    let store = lab.store();
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                begun.fetch_add(1, Ordering::SeqCst);
                assert_eq!(pull(&store, &fake.name("a:1")).expect("it is pulled").digest, image.digest());
            });
        }
    });
    let log = fake.log();
    let asked = |what: &str| log.iter().filter(|a| a.path.contains(what)).count();
    assert_eq!(asked("/blobs/"), 3, "the config and each layer, once");
    assert!(asked("/manifests/") < 25, "{} questions: a registry counts them", asked("/manifests/"));
    Ok(())
}

fn many_layers() -> Result<(), String> {
    let tars: Vec<Vec<u8>> = (0..200).map(|n| tar(&format!("{n:03}"), 100 + n)).collect();
    let packed: Vec<(&[u8], Pack)> = tars.iter().map(|t| (&t[..], gzip as Pack)).collect();
    let fake = Fake::start();
    let image = Image::new(&packed);
    fake.push("a", "1", &image);
    let lab = Lab::new();
    let store = lab.store();
    pull(&store, &fake.name("a:1")).expect("it is pulled");
    let dirs = store.layer_dirs(&image.digest()).expect("its layers");
    assert_eq!(dirs.len(), 200);
    assert!(dirs[0].join("199").is_file() && dirs[199].join("000").is_file(), "topmost first");
    drop(store);
    lab.reboot();
    let store = lab.store();
    assert_eq!(store.list().expect("list").len(), 1, "all of them are checked after a reboot");
    store.remove(&reference(&fake.name("a:1")), &BTreeSet::new()).expect("it is forgotten");
    assert!(names(&lab.images().join("layers")).is_empty());
    Ok(())
}

fn removal() -> Result<(), String> {
    let (base, top) = (tar("base", 1_000), tar("top", 10));
    let fake = Fake::start();
    fake.push("a", "1", &Image::new(&[(&base, gzip)]));
    fake.push("a", "2", &Image::new(&[(&base, gzip), (&top, gzip)]));
    let lab = Lab::new();
    let store = lab.store();
    pull(&store, &fake.name("a:1")).expect("it is pulled");
    let second = pull(&store, &fake.name("a:2")).expect("it is pulled");
    let name = reference(&fake.name("a:2"));
    store.remove(&name, &BTreeSet::from([second.digest.clone()])).expect("it is forgotten");
    assert!(store.resolve(&name).is_err());
    assert_eq!(store.layer_dirs(&second.digest).expect("a container needs it").len(), 2);
    assert!(store.remove(&name, &BTreeSet::new()).is_err_and(|e| e.is_not_found()));
    store.collect(&BTreeSet::new()).expect("collect");
    assert!(store.get(&second.digest).is_err_and(|e| e.is_not_found()));
    assert_eq!(names(&lab.images().join("layers")), [Digest::of(&base).hex()]);
    store.remove(&reference(&fake.name("a:1")), &BTreeSet::new()).expect("it is forgotten");
    assert!(names(&lab.images().join("layers")).is_empty() && names(&lab.images().join("blobs/sha256")).is_empty());
    Ok(())
}

fn digest_form() -> Result<(), String> {
    let fake = Fake::start();
    let image = Image::new(&[(&tar("x", 10), gzip)]);
    fake.push("a", "1", &image);
    let lab = Lab::new();
    let store = lab.store();
    pull(&store, &fake.name("a:1")).expect("it is pulled");
    let requests = fake.log().len();
    let pinned = fake.name(&format!("a:1@{}", image.digest()));
    let info = pull(&store, &pinned).expect("it is here");
    assert_eq!(fake.log().len(), requests, "the bytes are here under another name");
    assert!(info.references.contains(&reference(&pinned)) && info.references.len() == 2);
    store.remove(&reference(&fake.name("a:1")), &BTreeSet::new()).expect("it is forgotten");
    assert!(store.resolve(&reference(&pinned)).is_ok(), "the other name holds it");
    Ok(())
}

fn kill_during_pull() -> Result<(), String> {
    let image = Image::new(&[(&tar("one", 100), gzip), (&tar("two", 900_000), gzip)]);
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = Arc::clone(&is_slow);
    let fake = Fake::with(move |_, good| {
        let hang = slow.load(Ordering::SeqCst) && good.body.len() > 100_000;
        Answer { hang, cut: hang.then_some(500_000), ..good }
    });
    fake.push("a", "1", &image);
    let lab = Lab::new();
    let name = fake.name("a:1");
    let mut child = Command::new(std::env::current_exe().expect("our own path"))
        .arg("pull")
        .arg(lab.dir.path())
        .arg(&name)
        .stdin(Stdio::null())
        .spawn()
        .expect("start a puller");
    let partial = lab.images().join("tmp").join(format!("{}.partial", Digest::of(&image.layers[1]).hex()));
    wait_until("half of the layer is here", || std::fs::metadata(&partial).is_ok_and(|m| m.len() == 500_000));
    child.kill().expect("kill the puller");
    child.wait().expect("reap it");
    assert!(names(&lab.images().join("layers")).is_empty());
    assert!(names(&lab.images().join("blobs/sha256")).is_empty());
    let store = lab.store();
    assert!(store.list().expect("list").is_empty());
    let left: Vec<String> = names(&lab.images().join("tmp"));
    assert!(left.iter().all(|n| n.ends_with(".partial")), "only what a resume can use is left: {left:?}");
    is_slow.store(false, Ordering::SeqCst);
    pull(&store, &name).expect("it goes on");
    assert_eq!(fake.log().last().expect("requests").header("range"), "bytes=500000-");
    Ok(())
}

/// A step as it shows on disk.
type Reached = Box<dyn Fn(&Path) -> bool>;

/// Kills the puller as soon as a step shows on disk; what is visible then is whole, and a new pull finishes.
fn kill_at_each_step() -> Result<(), String> {
    let image = Image::new(&[(&tar("one", 2_000_000), gzip), (&tar("two", 1_000_000), gzip)]);
    let fake = Fake::start();
    fake.push("a", "1", &image);
    let name = fake.name("a:1");
    fn has(dir: &Path, what: &str) -> bool {
        dir.exists() && names(dir).iter().any(|n| n.contains(what))
    }
    let steps: [(&str, Reached); 7] = [
        ("the store is open", Box::new(|images| images.join("index.json").exists())),
        ("a blob arrives", Box::new(|images| has(&images.join("tmp"), ".partial"))),
        ("a layer is unpacked", Box::new(|images| has(&images.join("tmp"), "layer-"))),
        ("small blobs are staged", Box::new(|images| has(&images.join("tmp"), "blob-"))),
        ("a blob is published", Box::new(|images| has(&images.join("blobs/sha256"), ""))),
        ("a layer is published", Box::new(|images| has(&images.join("layers"), ""))),
        (
            "the index names it",
            Box::new(|images| {
                std::fs::read_to_string(images.join("index.json")).is_ok_and(|text| text.contains("a:1"))
            }),
        ),
    ];
    for (step, reached) in &steps {
        let lab = Lab::new();
        let mut child = Command::new(std::env::current_exe().expect("our own path"))
            .arg("pull")
            .arg(lab.dir.path())
            .arg(&name)
            .stdin(Stdio::null())
            .spawn()
            .expect("start a puller");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !reached(&lab.images()) && child.try_wait().expect("look at the puller").is_none() {
            assert!(Instant::now() < deadline, "waited in vain until {step}");
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().expect("reap it");
        let store = lab.store();
        for info in store.list().expect("list") {
            let dirs = store.layer_dirs(&info.digest).expect("its layers");
            assert_eq!(std::fs::metadata(dirs[1].join("one")).expect(step).len(), 2_000_000, "{step}");
        }
        pull(&store, &name).expect(step);
        let dirs = store.layer_dirs(&image.digest()).expect("its layers");
        assert_eq!(std::fs::read(dirs[0].join("two")).expect(step), noise(1_000_000, 3 + 1_000_000), "{step}");
        store.remove(&reference(&name), &BTreeSet::new()).expect("it is forgotten");
        for dir in ["layers", "blobs/sha256", "tmp"] {
            let left = names(&lab.images().join(dir));
            assert!(left.is_empty(), "{step}: nothing is left in {dir}: {left:?}");
        }
    }
    Ok(())
}

fn repair_after_reboot() -> Result<(), String> {
    let fake = Fake::start();
    let (good, bad) = (tar("good", 5_000), tar("bad", 50_000));
    fake.push("a", "1", &Image::new(&[(&good, gzip), (&bad, gzip)]));
    let lab = Lab::new();
    let store = lab.store();
    let info = pull(&store, &fake.name("a:1")).expect("it is pulled");
    let dirs = store.layer_dirs(&info.digest).expect("its layers");
    drop(store);
    // what a power cut does to a file system without a sync: the name is there, the bytes are not
    std::fs::write(dirs[0].join("bad"), vec![0; 50_000]).expect("damage a file");
    let requests = fake.log().len();
    drop(lab.store());
    let same_boot = std::fs::read(dirs[0].join("bad")).expect("the file");
    assert!(same_boot.iter().all(|b| *b == 0), "not looked at within the same boot");
    lab.reboot();
    let store = lab.store();
    assert_eq!(std::fs::read(dirs[0].join("bad")).expect("the file"), noise(50_000, 3 + 50_000));
    assert_eq!(store.list().expect("list").len(), 1);
    assert_eq!(fake.log().len(), requests, "from its blob, without the registry");
    Ok(())
}

fn repair_offline() -> Result<(), String> {
    let fake = Fake::start();
    fake.push("a", "1", &Image::new(&[(&tar("x", 5_000), gzip)]));
    let lab = Lab::new();
    let store = lab.store();
    let info = pull(&store, &fake.name("a:1")).expect("it is pulled");
    let dir = store.layer_dirs(&info.digest).expect("its layers").remove(0);
    std::fs::remove_dir_all(dir.parent().expect("a parent")).expect("delete a layer");
    assert!(store.list().expect("list").is_empty(), "an image without a layer is not there");
    assert!(store.resolve(&reference(&fake.name("a:1"))).is_err_and(|e| e.is_not_found()));
    let requests = fake.log().len();
    pull(&store, &fake.name("a:1")).expect("from its blob");
    assert_eq!(fake.log().len(), requests);
    assert!(dir.join("x").is_file());
    Ok(())
}

fn slow_scrub() -> Result<(), String> {
    let fake = Fake::start();
    let tars = [tar("one", 3_000), tar("two", 40_000), tar("three", 5_000)];
    let image = Image::new(&[(&tars[0], gzip), (&tars[1], gzip), (&tars[2], gzip)]);
    fake.push("a", "1", &image);
    let lab = Lab::new();
    let store = lab.store();
    let read = std::cell::Cell::new(0);
    let next = |after: &Digest| {
        let alone: runtime::image::Swap<'_> = &|swap| swap(&BTreeSet::new());
        store.scrub_next(after, &NoProgress, alone, &|bytes| read.set(read.get() + bytes)).expect("it looks")
    };
    assert!(next(&Digest::of(b"")).is_none(), "there is nothing");
    let info = pull(&store, &fake.name("a:1")).expect("it is pulled");
    let (asked, written) = (fake.log().len(), names(&lab.images().join("blobs/sha256")));
    let mut at = Digest::of(b"");
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let (layer, layers, scrubbed) = next(&at).expect("there are layers");
        assert!(layers == 3 && scrubbed.healed.is_empty() && scrubbed.lost.is_empty(), "{scrubbed:?}");
        seen.insert(layer.clone());
        at = layer;
    }
    assert_eq!(seen, tars.iter().map(|tar| Digest::of(tar)).collect(), "each has its turn");
    assert!(read.get() > 48_000, "files and blobs are read: {}", read.get());
    // layer and blob of one are gone bad
    let blob = Digest::of(&image.layers[1]);
    std::fs::write(store.layer_dirs(&info.digest).expect("its layers")[1].join("two"), b"").expect("damage a file");
    std::fs::write(lab.images().join("blobs/sha256").join(blob.hex()), b"").expect("damage a blob");
    let mut healed = Vec::new();
    for _ in 0..3 {
        let (layer, _, scrubbed) = next(&at).expect("there are layers");
        healed.extend(scrubbed.healed);
        at = layer;
    }
    assert_eq!(healed, [Digest::of(&tars[1])]);
    let paths: Vec<String> = fake.log()[asked..].iter().map(|asked| asked.path.clone()).collect();
    assert!(paths.len() == 1 && paths[0].ends_with(blob.as_str()), "only that layer is fetched: {paths:?}");
    assert_eq!(names(&lab.images().join("blobs/sha256")), written);
    assert_eq!(
        std::fs::metadata(store.layer_dirs(&info.digest).expect("its layers")[1].join("two")).expect("a file").len(),
        40_000
    );
    Ok(())
}

fn damaged_index() -> Result<(), String> {
    let fake = Fake::start();
    fake.push("a", "1", &Image::new(&[(&tar("x", 5_000), gzip)]));
    let lab = Lab::new();
    pull(&lab.store(), &fake.name("a:1")).expect("it is pulled");
    std::fs::write(lab.images().join("index.json"), b"{").expect("damage the index");
    let store = lab.store();
    assert!(store.list().expect("list").is_empty());
    pull(&store, &fake.name("a:1")).expect("it is named again");
    let blobs = fake.log().iter().filter(|a| a.path.contains("/blobs/")).count();
    assert_eq!(blobs, 2, "nothing was fetched twice");
    Ok(())
}

fn recipe() -> ImageBuild {
    let entry = |path: &str, mode, content| BuildEntry { path: path.to_owned(), mode, content };
    ImageBuild {
        layers: vec![
            BuildLayer {
                entries: vec![
                    entry("/bin", 0o755, Content::Dir),
                    entry("/bin/self", 0o755, Content::HostFile("/proc/self/exe".into())),
                    entry("/bin/sh", 0o777, Content::Symlink("self".into())),
                ],
            },
            BuildLayer { entries: vec![entry("etc/motd", 0o644, Content::Bytes(b"hello".to_vec()))] },
        ],
        config: ImageConfig { cmd: vec!["/bin/sh".into()], env: vec!["A=b".into()], ..ImageConfig::default() },
    }
}

fn build() -> Result<(), String> {
    let (one, two) = (Lab::new(), Lab::new());
    let store = one.store();
    let info = store.build(&reference("localhost/demo:1"), &recipe()).expect("it is built");
    let again = store.build(&reference("localhost/demo:2"), &recipe()).expect("it is built");
    let elsewhere = two.store().build(&reference("localhost/demo:1"), &recipe()).expect("it is built");
    assert_eq!((&info.digest, &info.digest), (&again.digest, &elsewhere.digest));
    assert_eq!(again.references.len(), 2);
    assert_eq!(info.config, recipe().config);
    let dirs = store.layer_dirs(&info.digest).expect("its layers");
    assert_eq!(std::fs::read(dirs[0].join("etc/motd")).expect("the file"), b"hello");
    let own = std::fs::metadata("/proc/self/exe").expect("our program").len();
    assert_eq!(std::fs::metadata(dirs[1].join("bin/self")).expect("the file").len(), own);
    assert!(names(&one.images().join("tmp")).is_empty());
    Ok(())
}

fn load() -> Result<(), String> {
    let lab = Lab::new();
    let info = lab.store().build(&reference("localhost/demo:1"), &recipe()).expect("it is built");
    // our own store is an OCI layout
    let other = Lab::new();
    let store = other.store();
    let tag = "localhost/demo:1";
    let copy = reference("localhost/copy:1");
    let loaded = store.load(&lab.images(), Some(tag), Some(&copy), &NoProgress).expect("it is loaded");
    assert_eq!(loaded[0].digest, info.digest);
    let missing = store.load(&lab.images(), Some("2"), Some(&reference("localhost/copy:2")), &NoProgress);
    assert!(missing.expect_err("there is none").to_string().contains("which has localhost/demo:1"));
    let archive = lab.dir.path().join("archive.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(lab.images()).arg("-cf").arg(&archive).args(["index.json", "blobs"]);
    if !tar.status().is_ok_and(|s| s.success()) {
        return Err("there is no tar".into());
    }
    let third = Lab::new();
    let loaded = third.store().load(&archive, None, Some(&copy), &NoProgress).expect("it is loaded");
    assert_eq!(loaded[0].digest, info.digest);
    assert!(names(&third.images().join("tmp")).is_empty());
    Ok(())
}
