//! Registries that lie, break off, stall or are away: each has its code, and nothing becomes visible.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use runtime::Error;
use runtime::image::Digest;
use serde_json::json;

use crate::Case;
use crate::fake::{Answer, Fake};
use crate::lab::{Archive, Image, Lab, gzip, names, noise, pull, refusal};

pub(crate) const CASES: &[Case] = &[
    ("mirror_is_asked_first_and_may_fail", mirrors),
    ("fault_flipped_byte_is_refused_naming_the_layer", flipped_byte),
    ("fault_wrong_diff_id_is_refused", wrong_diff_id),
    ("fault_wrong_manifest_is_refused", wrong_manifest),
    ("fault_too_long_blob_is_refused", too_long),
    ("fault_unknown_tag_names_the_nearest", unknown_tag),
    ("fault_unknown_repository", unknown_repository),
    ("fault_other_platform_names_the_offers", platform),
    ("fault_rate_limit_is_told", rate_limit),
    ("fault_cut_goes_on_where_it_stopped", cut),
    ("fault_cut_for_good_goes_on_in_the_next_pull", cut_for_good),
    ("fault_damaged_partial_is_thrown_away", damaged_partial),
    ("fault_dead_registries_fail_in_time", dead),
    ("fault_slow_registry_blocks_nobody_else", slow_beside_fast),
    ("fault_disk_full_while_unpacking_leaves_nothing", full_while_unpacking),
    ("fault_full_disk_is_seen_before_the_first_byte", full_disk),
];

fn one_layer(len: usize) -> Image {
    let tar = Archive::new().file("big", &noise(len, 7)).bytes();
    Image::new(&[(&tar, gzip)])
}

fn nothing_visible(lab: &Lab) {
    assert!(lab.store().list().expect("list").is_empty());
    assert!(names(&lab.images().join("layers")).is_empty());
    assert!(names(&lab.images().join("blobs/sha256")).is_empty());
}

fn flipped_byte() -> Result<(), String> {
    let image = one_layer(300_000);
    for at in [3, 20, 150_000, image.layers[0].len() - 2] {
        let fake = Fake::start();
        fake.push("a", "1", &image);
        let mut bytes = image.layers[0].clone();
        bytes[at] ^= 0x10;
        fake.spoil(&image.layers[0], bytes);
        let lab = Lab::new();
        let (code, message) = refusal(&lab.store(), &fake.name("a:1"));
        assert_eq!(code, "BX0307", "{message}");
        assert!(message.contains(Digest::of(&image.layers[0]).as_str()), "{message}");
        nothing_visible(&lab);
        assert!(names(&lab.images().join("tmp")).is_empty(), "bad bytes are not kept");
    }
    Ok(())
}

fn wrong_diff_id() -> Result<(), String> {
    let tar = Archive::new().file("a", b"x").bytes();
    let fake = Fake::start();
    fake.push("a", "1", &Image::with_diff_ids(vec![gzip(&tar)], &[Digest::of(b"another")]));
    let lab = Lab::new();
    let (_, message) = refusal(&lab.store(), &fake.name("a:1"));
    assert!(message.contains("but the image's config promises"), "{message}");
    nothing_visible(&lab);
    Ok(())
}

fn wrong_manifest() -> Result<(), String> {
    let (image, other) = (one_layer(10), one_layer(20));
    let swapped = other.manifest.clone();
    let fake =
        Fake::with(
            move |asked, good| {
                if asked.path.contains("/manifests/") { Answer { body: swapped.clone(), ..good } } else { good }
            },
        );
    fake.push("a", "1", &image);
    fake.push("a", "2", &other);
    let lab = Lab::new();
    let (code, message) = refusal(&lab.store(), &fake.name(&format!("a@{}", image.digest())));
    assert_eq!(code, "BX0307", "{message}");
    assert!(message.contains(image.digest().as_str()) && message.contains(other.digest().as_str()), "{message}");
    nothing_visible(&lab);
    Ok(())
}

fn too_long() -> Result<(), String> {
    let image = one_layer(10);
    let fake = Fake::start();
    fake.push("a", "1", &image);
    fake.spoil(&image.layers[0], [image.layers[0].clone(), vec![0; 100_000]].concat());
    // what is promised is read and no more; that is whole, so the rest does not matter
    let lab = Lab::new();
    assert!(pull(&lab.store(), &fake.name("a:1")).is_ok());
    Ok(())
}

fn unknown_tag() -> Result<(), String> {
    let fake = Fake::start();
    for tag in ["1.5", "1.56", "latest", "nightly-2026"] {
        fake.push("shop/web", tag, &one_layer(10));
    }
    let lab = Lab::new();
    let (code, message) = refusal(&lab.store(), &fake.name("shop/web:1.55"));
    let wanted = format!("no tag `1.55` in {}/shop/web; nearest: 1.5, 1.56, latest, nightly-2026", fake.address);
    assert_eq!((code.as_str(), message.as_str()), ("BX0302", wanted.as_str()));
    Ok(())
}

fn unknown_repository() -> Result<(), String> {
    let fake = Fake::start();
    let lab = Lab::new();
    let (code, message) = refusal(&lab.store(), &fake.name("no/such:1"));
    assert_eq!(code, "BX0303");
    assert_eq!(message, format!("no repository `{}/no/such`, or it is private", fake.address));
    Ok(())
}

fn platform() -> Result<(), String> {
    let image = one_layer(10);
    let fake = Fake::start();
    let entry = |os: &str, architecture: &str, digest: Digest| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
            "size": 10, "platform": {"os": os, "architecture": architecture}})
    };
    let strange = json!({"schemaVersion": 2, "manifests": [entry("linux", "s390x", Digest::of(b"x")),
        entry("windows", "amd64", Digest::of(b"y")), entry("unknown", "unknown", Digest::of(b"z"))]});
    fake.push("a", "1", &image);
    fake.push_index("a", "strange", strange.to_string().as_bytes());
    let lab = Lab::new();
    let (code, message) = refusal(&lab.store(), &fake.name("a:strange"));
    assert_eq!(code, "BX0305");
    assert!(message.ends_with("it is built for linux/s390x, windows/amd64"), "{message}");
    let ours = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let both = json!({"schemaVersion": 2, "manifests": [entry("linux", "s390x", Digest::of(b"x")),
        entry("linux", ours, image.digest())]});
    fake.push_index("a", "both", both.to_string().as_bytes());
    let store = lab.store();
    let info = pull(&store, &fake.name("a:both")).expect("ours is there");
    assert_eq!(info.digest, image.digest());
    let pinned = format!("a@{}", Digest::of(both.to_string().as_bytes()));
    assert_eq!(store.resolve(&crate::lab::reference(&fake.name(&pinned))).expect("by the index").digest, info.digest);
    Ok(())
}

fn rate_limit() -> Result<(), String> {
    let fake =
        Fake::with(|_, _| Answer::new(429, "").with("retry-after", "700").with("ratelimit-remaining", "0;w=21600"));
    let lab = Lab::new();
    let (code, message) = refusal(&lab.store(), &fake.name("a:1"));
    assert_eq!(code, "BX0306");
    assert_eq!(
        message,
        "127.0.0.1:PORT limits the rate of anonymous, 0;w=21600 left, again in 700 s"
            .replace("127.0.0.1:PORT", &fake.address)
    );
    Ok(())
}

fn cut() -> Result<(), String> {
    let image = one_layer(1_000_000);
    let fake = Fake::with(|asked, good| {
        let is_layer = asked.path.contains("/blobs/") && good.body.len() > 10_000;
        Answer { cut: is_layer.then(|| good.body.len().min(300_000)), ..good }
    });
    fake.push("a", "1", &image);
    let lab = Lab::new();
    pull(&lab.store(), &fake.name("a:1")).expect("it goes on by itself");
    let layer = Digest::of(&image.layers[0]);
    let log = fake.log();
    let ranges: Vec<&str> =
        log.iter().filter(|a| a.path.ends_with(layer.as_str())).map(|a| a.header("range")).collect();
    assert_eq!(ranges, ["", "bytes=300000-", "bytes=600000-", "bytes=900000-"]);
    Ok(())
}

fn cut_for_good() -> Result<(), String> {
    let image = one_layer(1_000_000);
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let fake = Fake::with(move |asked, good| {
        if !asked.path.contains("/blobs/") || good.body.len() < 10_000 {
            return good;
        }
        match seen.fetch_add(1, Ordering::SeqCst) {
            0 => Answer { cut: Some(400_000), ..good },
            1..=3 => Answer::new(503, ""),
            _ => good,
        }
    });
    fake.push("a", "1", &image);
    let lab = Lab::new();
    let (code, message) = refusal(&lab.store(), &fake.name("a:1"));
    assert_eq!(code, "BX0301", "{message}");
    nothing_visible(&lab);
    pull(&lab.store(), &fake.name("a:1")).expect("the next pull goes on");
    let log = fake.log();
    assert_eq!(log.last().expect("requests").header("range"), "bytes=400000-");
    Ok(())
}

fn damaged_partial() -> Result<(), String> {
    let image = one_layer(100_000);
    let fake = Fake::start();
    fake.push("a", "1", &image);
    let lab = Lab::new();
    let store = lab.store();
    let partial = lab.images().join("tmp").join(format!("{}.partial", Digest::of(&image.layers[0]).hex()));
    std::fs::write(&partial, vec![0; 5_000]).expect("plant a bad partial file");
    pull(&store, &fake.name("a:1")).expect("it starts anew");
    let blob = lab.images().join("blobs/sha256").join(Digest::of(&image.layers[0]).hex());
    assert_eq!(std::fs::read(blob).expect("the blob"), image.layers[0]);
    Ok(())
}

fn dead() -> Result<(), String> {
    let mut lab = Lab::new();
    lab.options.stall_ms = 700;
    // without name servers the one on this host is asked, and there is none
    lab.options.resolv_conf = "/dev/null".into();
    let store = lab.store();
    let closed = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("an address");
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
    let stalling = Fake::with(|_, good| Answer { hang: true, cut: Some(good.body.len() / 2), ..good });
    stalling.push("a", "1", &one_layer(10));
    let cases = [
        (format!("{closed}/a:1"), "is not reachable", 500),
        (format!("{}/a:1", silent.local_addr().expect("an address")), "sent nothing for 1 s", 1_500),
        (stalling.name("a:1"), "sent nothing for 1 s", 1_500),
        ("no-such-host.invalid/a:1".to_owned(), "no address of `no-such-host.invalid`", 5_000),
    ];
    for (name, wanted, within_ms) in cases {
        let began = Instant::now();
        let (code, message) = refusal(&store, &name);
        assert_eq!(code, "BX0301", "{message}");
        assert!(message.contains(wanted), "{message}");
        assert!(began.elapsed() < Duration::from_millis(within_ms + 1_500), "{name} took {:?}", began.elapsed());
    }
    Ok(())
}

fn slow_beside_fast() -> Result<(), String> {
    let slow = Fake::with(|asked, good| {
        let is_blob = asked.path.contains("/blobs/");
        Answer { hang: is_blob, cut: is_blob.then_some(0), ..good }
    });
    let fast = Fake::start();
    slow.push("a", "1", &one_layer(50_000));
    fast.push("b", "1", &one_layer(10));
    let mut lab = Lab::new();
    lab.options.stall_ms = 60_000;
    let store: &'static runtime::image::Store = Box::leak(Box::new(lab.store()));
    let name = slow.name("a:1");
    std::thread::spawn(move || drop(pull(store, &name)));
    crate::lab::wait_until("the slow pull waits for a blob", || slow.log().iter().any(|a| a.path.contains("/blobs/")));
    let began = Instant::now();
    pull(store, &fast.name("b:1")).expect("the fast one");
    assert!(began.elapsed() < Duration::from_secs(3));
    Ok(())
}

fn full_disk() -> Result<(), String> {
    // a layer said to be as large as the bound: more than this disk has free, and not a byte of it is asked for
    let mut image = one_layer(10);
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).expect("it is JSON");
    manifest["layers"][0]["size"] = json!(60_u64 << 30);
    image.manifest = serde_json::to_vec(&manifest).expect("encode");
    let fake = Fake::start();
    fake.push("a", "1", &image);
    let lab = Lab::new();
    let free = rustix::fs::statvfs(lab.dir.path()).map_or(0, |s| s.f_bavail * s.f_frsize);
    if free > 240 << 30 {
        return Err("the disk here is too large to be full".into());
    }
    match pull(&lab.store(), &fake.name("a:1")) {
        Err(Error::NoSpace { needed_bytes, free_bytes, path, .. }) => {
            assert!(needed_bytes > 240 << 30 && free_bytes < 240 << 30);
            assert_eq!(path, lab.images().display().to_string());
        }
        other => panic!("{other:?}"),
    }
    let layer = Digest::of(&image.layers[0]);
    assert!(fake.log().iter().all(|a| !a.path.ends_with(layer.as_str())), "not a byte was asked for");
    nothing_visible(&lab);
    Ok(())
}

fn full_while_unpacking() -> Result<(), String> {
    // compresses far better than the estimate thinks, so that admission lets it in
    let tar = Archive::new().file("small", b"x").file("zeros", &vec![0; 90 << 20]).bytes();
    let fake = Fake::start();
    fake.push("a", "big", &Image::new(&[(&tar, gzip)]));
    fake.push("a", "small", &one_layer(1_000));
    let lab = Lab::new();
    let data = lab.dir.path().join("data");
    std::fs::create_dir(&data).expect("make a directory");
    let _disk = Mounted::tmpfs(&data, "size=96m")?;
    // what somebody else uses of it, so that less than the image needs and more than the reserve is left
    std::fs::write(data.join("other"), vec![1; 24 << 20]).expect("use some of the disk");
    let store = lab.store();
    pull(&store, &fake.name("a:small")).expect("it fits");
    match pull(&store, &fake.name("a:big")) {
        Err(Error::NoSpace { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(names(&lab.images().join("layers")).len(), 1, "only the one that fits");
    assert!(names(&lab.images().join("tmp")).is_empty(), "the space is given back");
    assert_eq!(store.list().expect("list").len(), 1);
    store.remove(&crate::lab::reference(&fake.name("a:small")), &std::collections::BTreeSet::new()).expect("removed");
    Ok(())
}

/// A mount in the runner's own mount namespace, gone with its value.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn tmpfs(at: &std::path::Path, options: &str) -> Result<Self, String> {
        let options = std::ffi::CString::new(options).expect("no zero byte");
        rustix::mount::mount("tmpfs", at, "tmpfs", rustix::mount::MountFlags::empty(), Some(options.as_c_str()))
            .map_err(|e| format!("no tmpfs can be mounted: {e}"))?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// A good mirror serves what the registry never sees; one that is away, lies or does not know costs nothing.
fn mirrors() -> Result<(), String> {
    let image = one_layer(50_000);
    let (registry, mirror, empty) = (Fake::start(), Fake::start(), Fake::start());
    registry.push("shop/web", "1", &image);
    mirror.push("copy/web", "1", &image);
    let mut lab = Lab::new();
    let file = lab.dir.path().join("registries.conf");
    lab.options.registries_conf = Some(file.clone());
    let write = |mirrors: &[&str]| {
        let list: String = mirrors.iter().map(|m| format!("[[registry.mirror]]\nlocation = \"{m}\"\n")).collect();
        let text = format!("[[registry]]\nprefix = \"{}/shop\"\nlocation = \"{0}/shop\"\n{list}", registry.address);
        std::fs::write(&file, text).expect("write a file");
    };
    write(&[&mirror.name("copy")]);
    let store = lab.store();
    let info = pull(&store, &registry.name("shop/web:1")).expect("the mirror has it");
    assert_eq!((info.digest, registry.log().len()), (image.digest(), 0));
    assert_eq!(info.references[0].to_string(), registry.name("shop/web:1"), "its name is what was asked for");
    // one is away, one does not know it, one serves another layer under its name
    let liar = Fake::with(|asked, good| if asked.path.contains("/blobs/") { Answer::new(404, "") } else { good });
    liar.push("copy/web", "1", &image);
    write(&["127.0.0.1:1/x", &empty.name("copy"), &liar.name("copy")]);
    let mut other = Lab::new();
    other.options.registries_conf = Some(file.clone());
    pull(&other.store(), &registry.name("shop/web:1")).expect("the registry has it");
    assert!(!empty.log().is_empty() && !liar.log().is_empty() && !registry.log().is_empty());
    // one sends other bytes: it is asked no more, and the registry's are taken
    let forger = Fake::start();
    forger.push("copy/web", "1", &image);
    forger.spoil(&image.layers[0], noise(image.layers[0].len(), 9));
    write(&[&forger.name("copy")]);
    let mut third = Lab::new();
    third.options.registries_conf = Some(file.clone());
    assert_eq!(pull(&third.store(), &registry.name("shop/web:1")).expect("the registry has it").digest, image.digest());
    std::fs::write(&file, "[[registry]").expect("write a file");
    let (code, message) = refusal(&Lab { options: other.options.clone(), ..Lab::new() }.store(), "a.test/x:1");
    assert!(code == "BX0301" && message.contains("registries.conf is not valid"), "{message}");
    Ok(())
}
