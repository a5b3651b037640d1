//! A registry with 24 faults: each strikes a pull by itself, then at random in a long one. Whatever happens, nothing bad
//! becomes visible, and a registry that is well again is enough. `BOXSHIP_CAMPAIGN=1` pulls 1 GiB with a fault in every
//! tenth answer; without it, a slice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use runtime::image::Digest;

use crate::Case;
use crate::fake::{Answer, Asked, Fake};
use crate::lab::{Archive, Image, Lab, Pack, gzip, names, noise, pull, zstd};

pub(crate) const CASES: &[Case] =
    &[("fault_each_of_24_leaves_nothing_bad", each), ("fault_in_every_tenth_answer_costs_few_bytes", campaign)];

/// What is done to the answers of one pull. `n` counts the answers that could be struck, from 0.
type Strike = fn(n: usize, asked: &Asked, good: Answer) -> Answer;

/// What has to come of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The pull goes on by itself.
    Heals,
    /// It ends with this code (`-` for none).
    Refused(&'static str),
}
use End::{Heals, Refused};

/// Which answers are struck.
#[derive(Clone, Copy)]
enum At {
    Manifest,
    Layer,
}
use At::{Layer, Manifest};

const FAULTS: [(&str, At, End, Strike); 24] = [
    ("slow drip", Layer, Heals, |n, _, good| Answer { drip_ms: (n == 0).then_some(300), ..good }),
    ("stall", Layer, Heals, |n, _, good| if n == 0 { half(good, |a| a.hang = true) } else { good }),
    ("cut in the head of the layer", Layer, Heals, |n, _, good| Answer { cut: (n == 0).then_some(1), ..good }),
    ("cut in the middle", Layer, Heals, |n, _, good| if n == 0 { half(good, |_| {}) } else { good }),
    ("reset", Layer, Heals, |n, _, good| if n == 0 { half(good, |a| a.reset = true) } else { good }),
    ("manifest cut", Manifest, Heals, |n, _, good| Answer { cut: (n == 0).then_some(9), ..good }),
    ("429 with Retry-After", Manifest, Heals, |n, _, good| once(n, good, || busy(429, Some("1")))),
    ("429 with a long Retry-After", Manifest, Refused("BX0306"), |_, _, _| busy(429, Some("3600"))),
    ("429 without Retry-After", Manifest, Refused("BX0306"), |_, _, _| busy(429, None)),
    ("burst of 500 for manifests", Manifest, Heals, |n, _, good| if n < 2 { busy(500, None) } else { good }),
    ("burst of 503 for layers", Layer, Heals, |n, _, good| if n < 2 { busy(503, None) } else { good }),
    ("401 in the middle of a layer", Layer, Heals, |n, asked, good| match n {
        0 => half(good, |_| {}),
        1 => Answer::new(401, "").with("www-authenticate", r#"Basic realm="x""#),
        _ if asked.header("authorization").is_empty() => panic!("the login was asked for"),
        _ => good,
    }),
    ("token that expires at once", Layer, Heals, |_, asked, good| {
        match (asked.header("authorization"), asked.header("range")) {
            ("Bearer old", "") => half(good, |_| {}),
            ("" | "Bearer old", _) => {
                Answer::new(401, "").with("www-authenticate", r#"Bearer realm="/token",service="x""#)
            }
            _ => good,
        }
    }),
    ("wrong bytes", Layer, Refused("BX0307"), |_, _, mut good| {
        let middle = good.body.len() / 2;
        good.body[middle] ^= 1;
        good
    }),
    ("fewer bytes than the manifest says", Layer, Refused("BX0301"), |_, _, mut good| {
        good.body.truncate(good.body.len() / 2);
        Answer { status: 200, ..good }
    }),
    ("a length that is a lie", Layer, Heals, |n, _, good| Answer { said: (n == 0).then_some(1 << 30), ..good }),
    ("ranges ignored", Layer, Heals, |n, asked, good| match n {
        0 => half(good, |_| {}),
        _ => whole(asked, good),
    }),
    ("another range than asked", Layer, Heals, |n, _, good| match n {
        0 => half(good, |_| {}),
        1 => Answer { headers: vec![("content-range".into(), "bytes 3-9/10".into())], ..good },
        _ => good,
    }),
    ("redirects in a circle", Manifest, Refused("BX0301"), |_, asked, _| {
        Answer::new(307, "").with("location", asked.path.clone())
    }),
    ("redirect to a host that is not there", Layer, Refused("BX0301"), |_, _, _| {
        Answer::new(307, "").with("location", "http://127.0.0.1:1/x")
    }),
    ("gzip bomb", Layer, Refused("-"), |_, _, good| good),
    ("zstd bomb", Layer, Refused("-"), |_, _, good| good),
    ("media type of an index on an image", Manifest, Refused("-"), |_, _, good| Answer {
        headers: vec![("content-type".into(), "application/vnd.oci.image.index.v1+json".into())],
        ..good
    }),
    ("a page of a captive portal", Manifest, Refused("-"), |_, _, _| {
        Answer::new(200, "<html>Welcome</html>").with("content-type", "text/html")
    }),
];

fn half(good: Answer, more: impl Fn(&mut Answer)) -> Answer {
    let mut answer = Answer { cut: Some(good.body.len() / 2), ..good };
    more(&mut answer);
    answer
}

fn once(n: usize, good: Answer, bad: impl Fn() -> Answer) -> Answer {
    if n == 0 { bad() } else { good }
}

fn busy(status: u16, after: Option<&str>) -> Answer {
    let answer = Answer::new(status, "<html>busy</html>");
    match after {
        Some(after) => answer.with("retry-after", after),
        None => answer,
    }
}

/// All of it, though a part was asked for: the bytes before are not what they were, for they must not be taken.
fn whole(asked: &Asked, good: Answer) -> Answer {
    let from: usize = asked.header("range").trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0);
    let body = [vec![0; from], good.body].concat();
    Answer { status: 200, body, headers: Vec::new(), ..good }
}

fn bomb(pack: Pack) -> Image {
    // a few kilobytes that say they are 65 GiB: only the head of a file is there to be unpacked
    let mut header = tar::Header::new_gnu();
    header.set_size(65 << 30);
    header.set_mode(0o644);
    header.set_path("zeros").expect("a path");
    header.set_cksum();
    let bytes = [header.as_bytes().to_vec(), vec![0; 4 << 20]].concat();
    Image::with_diff_ids(vec![pack(&bytes)], &[Digest::of(b"whatever")])
}

fn image_for(name: &str) -> Image {
    match name {
        "gzip bomb" => bomb(gzip),
        "zstd bomb" => bomb(zstd),
        _ => Image::new(&[(&Archive::new().file("big", &noise(200_000, 7)).bytes(), gzip)]),
    }
}

fn each() -> Result<(), String> {
    std::thread::scope(|scope| {
        for fault in &FAULTS {
            scope.spawn(move || one(fault));
        }
    });
    Ok(())
}

fn one((name, at, end, strike): &'static (&'static str, At, End, Strike)) {
    let struck = AtomicUsize::new(0);
    let (is_ill, tokens) = (Arc::new(AtomicBool::new(true)), AtomicUsize::new(0));
    let ill = Arc::clone(&is_ill);
    let fake = Fake::with(move |asked, good| {
        if asked.path.starts_with("/token") {
            let token = if tokens.fetch_add(1, Ordering::SeqCst) == 0 { "old" } else { "new" };
            return Answer::new(
                200,
                format!(r#"{{"token":"{token}","expires_in":-5,"issued_at":"1970-01-01T00:00:00Z"}}"#),
            );
        }
        let is_meant = match at {
            Manifest => asked.path.contains("/manifests/"),
            Layer => asked.path.contains("/blobs/") && good.body.len() > 1_000,
        };
        if !is_meant || !ill.load(Ordering::SeqCst) {
            return good;
        }
        strike(struck.fetch_add(1, Ordering::SeqCst), asked, good)
    });
    let image = image_for(name);
    fake.push("a", "1", &image);
    let mut lab = Lab::new();
    lab.options.stall_ms = 1_500;
    let auth = lab.dir.path().join("auth.json");
    std::fs::write(&auth, format!(r#"{{"auths":{{"{}":{{"auth":"Y2k6c2VjcmV0"}}}}}}"#, fake.address)).expect("write");
    lab.options.auth_files = Some(vec![auth]);
    let store = lab.store();
    match (pull(&store, &fake.name("a:1")), end) {
        (Ok(_), Heals) => {}
        (Err(runtime::Error::Registry { code, .. }), Refused(wanted)) => assert_eq!(code, *wanted, "{name}"),
        (Err(_), Refused("-")) => {}
        (other, _) => panic!("{name}: {other:?}"),
    }
    if *end == Heals {
        let layer = Digest::of(&image.layers[0]);
        let blob = lab.images().join("blobs/sha256").join(layer.hex());
        assert_eq!(std::fs::read(blob).expect("the blob"), image.layers[0], "{name}");
        return;
    }
    assert!(store.list().expect("list").is_empty(), "{name}");
    for dir in ["layers", "blobs/sha256"] {
        assert!(names(&lab.images().join(dir)).is_empty(), "{name}: {dir}");
    }
    if !name.ends_with("bomb") {
        is_ill.store(false, Ordering::SeqCst);
        pull(&store, &fake.name("a:1")).unwrap_or_else(|e| panic!("{name}, healed: {e}"));
    }
}

/// Every tenth answer is struck by one of what passes, and no answer is longer than a few mebibytes before it is cut.
fn campaign() -> Result<(), String> {
    let is_long = std::env::var_os("BOXSHIP_CAMPAIGN").is_some();
    let (layers, layer_bytes) = if is_long { (16_u64, 64 << 20) } else { (4, 1 << 20) };
    let packed: Vec<Vec<u8>> =
        (0..layers).map(|n| Archive::new().file("big", &noise(layer_bytes, 2 * n + 1)).bytes()).collect();
    let tars: Vec<(&[u8], Pack)> = packed.iter().map(|t| (&t[..], (|t: &[u8]| t.to_vec()) as Pack)).collect();
    let image = Image::new(&tars);
    let dice = AtomicU64::new(0x9E37_79B9);
    let counts: Arc<Mutex<BTreeMap<&str, usize>>> = Arc::default();
    let seen = Arc::clone(&counts);
    let fake = Fake::with(move |asked, good| {
        let roll = usize::try_from(next(&dice) >> 33).expect("31 bits");
        let passing: Vec<_> = FAULTS.iter().filter(|f| f.2 == Heals && passes(f.0)).collect();
        let long = (roll % (layer_bytes / 8)).max(1);
        if roll % 10 != 0 {
            return if good.body.len() > long { Answer { cut: Some(long), ..good } } else { good };
        }
        let (name, _, _, strike) = passing[roll / 10 % passing.len()];
        *seen.lock().expect("nobody panics here").entry(name).or_default() += 1;
        let struck = strike(0, asked, good);
        match struck.cut {
            Some(cut) => Answer { cut: Some(cut.min(long)), ..struck },
            None if struck.body.len() > long => Answer { cut: Some(long), ..struck },
            None => struck,
        }
    });
    fake.push("a", "1", &image);
    let mut lab = Lab::new();
    lab.options.stall_ms = 1_000;
    let store = lab.store();
    // a pull may give up; whoever wants the image asks again, as the controller does
    let pulls = (1..=20).find(|_| pull(&store, &fake.name("a:1")).is_ok()).expect("twenty pulls are enough");
    let whole: u64 = image.layers.iter().map(|l| l.len() as u64).sum();
    let answers = fake.log().len();
    println!(
        "  {whole} bytes: {} sent in {answers} answers and {pulls} pulls; struck by {:?}",
        fake.sent(),
        counts.lock()
    );
    assert!(fake.sent() <= whole + whole / 5, "{} bytes sent for {whole}", fake.sent());
    for layer in &image.layers {
        let blob = lab.images().join("blobs/sha256").join(Digest::of(layer).hex());
        assert!(std::fs::read(blob).expect("the blob") == *layer, "every byte is right");
    }
    Ok(())
}

/// Strikes once, wants no login, and is over by itself.
fn passes(name: &str) -> bool {
    !["slow drip", "401 in the middle of a layer", "token that expires at once", "a length that is a lie"]
        .contains(&name)
}

fn next(dice: &AtomicU64) -> u64 {
    let step = |mut x: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        Some(x)
    };
    dice.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step).expect("it always steps")
}
