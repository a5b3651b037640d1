//! Compressed layers that the policy drops: what needs them fetches them again by digest, or is refused; nothing is packed
//! anew. And large layers that come over several connections.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use runtime::image::{Digest, SaveFormat, SaveImage, Store};
use runtime::runtime::NoProgress;

use crate::Case;
use crate::fake::{Answer, Asked, Fake};
use crate::lab::{Archive, Image, Lab, gzip, names, noise, pull, reference, refusal};

pub(crate) const CASES: &[Case] = &[
    ("dropped_blobs_are_fetched_again_for_save_or_it_is_refused", saved),
    ("dropped_blobs_of_what_was_loaded_are_kept", loaded),
    ("dropped_blobs_are_pushed_to_another_registry", pushed),
    ("parts_of_a_large_layer_come_over_several_connections", several),
    ("parts_that_fail_are_fetched_by_the_reader", failing),
    ("parts_are_not_asked_for_where_one_connection_is_fast_or_little_is_left", single),
];

fn image() -> Image {
    let (base, top) = (Archive::new().file("base", &noise(50_000, 1)), Archive::new().file("top", &noise(9_000, 2)));
    Image::new(&[(&base.bytes(), gzip), (&top.bytes(), gzip)])
}

fn dropping() -> Lab {
    let mut lab = Lab::new();
    lab.options.drop_blobs = true;
    lab
}

fn blobs(lab: &Lab) -> usize {
    names(&lab.images().join("blobs/sha256")).len()
}

fn save(store: &Store, digest: &Digest) -> runtime::Result<Vec<u8>> {
    let mut out = Vec::new();
    let chosen = [SaveImage { digest: digest.clone(), names: vec![reference("localhost/saved:1")] }];
    store.save(&chosen, SaveFormat::Oci, &mut out).map(|()| out)
}

/// How often a blob was asked for.
fn fetched(fake: &Fake, blob: &[u8]) -> usize {
    let digest = Digest::of(blob);
    fake.log().iter().filter(|asked| asked.path.ends_with(digest.as_str())).count()
}

fn saved() -> Result<(), String> {
    let (fake, lab, image) = (Fake::start(), dropping(), image());
    fake.push("a", "1", &image);
    let store = lab.store();
    let held = pull(&store, &fake.name("a:1")).expect("it is pulled");
    assert_eq!(blobs(&lab), 2, "manifest and config stay, layers go");
    pull(&store, &fake.name("a:1")).expect("it is here");
    assert_eq!(fetched(&fake, &image.layers[0]), 1, "what is unpacked is not fetched for a pull");
    let archive = save(&store, &held.digest).expect("it is saved");
    assert_eq!((fetched(&fake, &image.layers[0]), blobs(&lab)), (2, 2), "fetched for the archive, and dropped again");
    let file = lab.dir.path().join("saved.tar");
    std::fs::write(&file, &archive).expect("write a file");
    let other = Lab::new();
    let loaded = other.store().load(&file, None, None, &NoProgress).expect("it is loaded");
    assert_eq!(loaded[0].digest, held.digest, "the same bytes");
    // other bytes, or none: refused before anything is written
    fake.spoil(&image.layers[1], vec![7; image.layers[1].len()]);
    let error = save(&store, &held.digest).expect_err("the registry sends other bytes");
    assert!(error.to_string().contains("is not kept here compressed"), "{error}");
    assert_eq!(error.code(), Some("BX0307"), "{error}");
    store.tag(&held.digest, &reference("localhost:1/mine:1")).expect("it is tagged");
    store.untag(&[reference(&fake.name("a:1"))], &[held.digest.clone()].into()).expect("the name goes");
    let error = save(&store, &held.digest).expect_err("no registry is known");
    assert_eq!(error.code(), Some("BX0301"), "{error}");
    Ok(())
}

fn loaded() -> Result<(), String> {
    let (fake, lab, image) = (Fake::start(), Lab::new(), image());
    fake.push("a", "1", &image);
    let held = pull(&lab.store(), &fake.name("a:1")).expect("it is pulled");
    let file = lab.dir.path().join("saved.tar");
    std::fs::write(&file, save(&lab.store(), &held.digest).expect("it is saved")).expect("write a file");
    let lab = dropping();
    let store = lab.store();
    store.load(&file, None, None, &NoProgress).expect("it is loaded");
    assert_eq!(blobs(&lab), 4, "nobody else has them");
    save(&store, &held.digest).expect("it is saved without a registry");
    Ok(())
}

fn pushed() -> Result<(), String> {
    let lab = dropping();
    let registry = crate::real::Registry::start(lab.dir.path())?;
    let store = lab.store();
    let from = format!("{}/debian/busybox:1", registry.address);
    let held = pull(&store, &from).expect("it is pulled");
    let layers = |store: &Store| store.inspect(&held.digest).is_ok() && blobs(&lab) == 2;
    assert!(layers(&store), "no layer is kept");
    let empty = lab.dir.path().join("empty");
    let other = crate::real::Registry::over(&empty, &lab.dir.path().join("other-run"))?;
    let to = reference(&format!("{}/mine/box:1", other.address));
    let sent = store.push(&held.digest, &to, &NoProgress).expect("it is pushed");
    assert!(sent.uploaded > 1 && sent.digest == held.digest, "{sent:?}");
    assert!(layers(&store), "what was fetched for it is dropped again");
    registry.stop();
    let again = store.push(&held.digest, &to, &NoProgress).expect("the registry has it all");
    assert_eq!((again.uploaded, again.present), (0, sent.uploaded), "nothing is fetched for what is there");
    let there = Lab::new();
    assert_eq!(pull(&there.store(), &to.to_string()).expect("it is pulled").digest, held.digest);
    Ok(())
}

const MIB: usize = 1 << 20;
/// What one connection of the slow registry brings.
const SLOW_BYTES_PER_S: u64 = 32 << 20;

fn large() -> Image {
    Image::new(&[(&Archive::new().file("large", &noise(24 * MIB, 3)).bytes(), |bytes| bytes.to_vec())])
}

fn is_part(asked: &Asked) -> bool {
    asked.header("range").strip_prefix("bytes=").is_some_and(|range| !range.ends_with('-'))
}

fn is_right(store: &Store, lab: &Lab, digest: &Digest) {
    let dir = &store.layer_dirs(digest).expect("its layers")[0];
    assert!(std::fs::read(dir.join("large")).expect("the file") == noise(24 * MIB, 3));
    assert_eq!(left(&lab.images().join("tmp")), 0, "parts are left");
}

fn left(tmp: &Path) -> usize {
    names(tmp).iter().filter(|name| name.contains(".part")).count()
}

fn slow(_: &Asked, answer: Answer) -> Answer {
    Answer { bytes_per_s: Some(SLOW_BYTES_PER_S), ..answer }
}

fn several() -> Result<(), String> {
    let (fake, lab, image) = (Fake::with(slow), Lab::new(), large());
    fake.push("a", "1", &image);
    let store = lab.store();
    let held = pull(&store, &fake.name("a:1")).expect("it is pulled");
    is_right(&store, &lab, &held.digest);
    let parts = fake.log().iter().filter(|asked| is_part(asked)).count();
    assert!(parts >= 3, "{parts} parts");
    assert!(store.save(&[], SaveFormat::Oci, &mut Vec::new()).is_ok());
    Ok(())
}

fn failing() -> Result<(), String> {
    type Harm = fn(usize, Answer) -> Answer;
    let harms: [(&str, Harm); 5] = [
        ("cut", |_, answer| Answer { cut: Some(answer.body.len() / 3), ..answer }),
        ("reset", |n, answer| Answer { cut: Some(n * 1_000), reset: true, ..answer }),
        ("no ranges", |_, answer| Answer::new(200, answer.body)),
        ("too many connections", |_, _| Answer::new(429, "")),
        ("another range", |_, mut answer| {
            answer.headers = vec![("content-range".to_owned(), "bytes 7-9/99".to_owned())];
            answer
        }),
    ];
    for (what, harm) in harms {
        let turn = AtomicUsize::new(0);
        let fake = Fake::with(move |asked, answer| {
            let answer = slow(asked, answer);
            let n = turn.fetch_add(usize::from(is_part(asked)), Ordering::Relaxed);
            if is_part(asked) && n.is_multiple_of(2) { harm(n, answer) } else { answer }
        });
        let (lab, image) = (Lab::new(), large());
        fake.push("a", "1", &image);
        let store = lab.store();
        let held = pull(&store, &fake.name("a:1")).unwrap_or_else(|error| panic!("{what}: {error}"));
        is_right(&store, &lab, &held.digest);
        assert!(fake.log().iter().any(is_part), "{what}: no part was asked for");
    }
    // wrong bytes in a part are what wrong bytes always are
    let fake = Fake::with(|asked, answer| {
        let mut answer = slow(asked, answer);
        if is_part(asked) {
            answer.body[5] ^= 1;
        }
        answer
    });
    let lab = Lab::new();
    fake.push("a", "1", &large());
    assert_eq!(refusal(&lab.store(), &fake.name("a:1")).0, "BX0307");
    assert_eq!(left(&lab.images().join("tmp")), 0, "parts are left");
    Ok(())
}

fn single() -> Result<(), String> {
    let (fake, lab) = (Fake::start(), Lab::new());
    fake.push("a", "1", &large());
    pull(&lab.store(), &fake.name("a:1")).expect("it is pulled");
    let few = Image::new(&[(&Archive::new().file("few", &noise(9 * MIB, 4)).bytes(), |bytes| bytes.to_vec())]);
    let (crawling, small) = (Fake::with(slow), Lab::new());
    crawling.push("a", "1", &few);
    pull(&small.store(), &crawling.name("a:1")).expect("it is pulled");
    assert!(!crawling.log().iter().any(is_part), "too little is left for it");
    Ok(())
}
