//! Generated archives, unpacked by us, by GNU tar and by bsdtar: the same tree. Damaged ones: an answer, never a crash.
//! `BOXSHIP_CAMPAIGN=1` takes hundreds of them, `BOXSHIP_SEED=n` begins elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime::image::Digest;

use crate::Case;
use crate::fake::Fake;
use crate::lab::{Image, Lab, Pack, gzip, names, pull, zstd};

pub(crate) const CASES: &[Case] = &[
    ("layer_unpacks_as_gnu_tar_and_bsdtar_unpack_it", same_trees),
    ("layer_damaged_anywhere_gets_an_answer", damaged),
];

/// How many of each.
fn rounds(slice: u64) -> std::ops::Range<u64> {
    let seed = std::env::var("BOXSHIP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1_u64);
    seed..seed + if std::env::var_os("BOXSHIP_CAMPAIGN").is_some() { slice * 40 } else { slice }
}

/// Numbers that look random and are the same everywhere (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("it is below a usize")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// What is in the archive so far.
#[derive(Default)]
struct Made {
    dirs: Vec<Vec<u8>>,
    files: Vec<Vec<u8>>,
    links: Vec<Vec<u8>>,
    count: usize,
    /// With PAX records and short names: bsdtar forgets a long name in GNU's form behind a PAX record.
    is_pax: bool,
}

impl Made {
    fn fresh(&mut self, dice: &mut Dice) -> Vec<u8> {
        self.count += 1;
        let stem: &[u8] = match dice.below(if self.is_pax { 3 } else { 8 }) {
            0 => b"sp ace\\n\"'",
            1 => "\u{fc}ml\u{e4}ut-\u{2603}".as_bytes(),
            2 => b"-rf",
            3 => &[b'l'; 120],
            4 => &[b'x'; 200],
            5 => b".hidden",
            _ => b"name",
        };
        let name = [stem, self.count.to_string().as_bytes()].concat();
        let parents = if self.is_pax { &self.dirs[..1] } else { &self.dirs[..] };
        match dice.pick(parents) {
            parent if parent.is_empty() => name,
            parent => [parent, &b"/"[..], &name].concat(),
        }
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Files, directories, links of both kinds and FIFOs, some of them again with other content, in GNU's and in PAX form.
fn archive(dice: &mut Dice) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut made = Made { dirs: vec![Vec::new()], is_pax: dice.below(3) == 0, ..Made::default() };
    for _ in 0..30 {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*dice.pick(&[0o644, 0o755, 0o600, 0o4755, 0o2711, 0o1777, 0o444, 0]));
        header.set_uid(*dice.pick(&[0, 1, 1_000, 65_534, 200_000]));
        header.set_gid(*dice.pick(&[0, 42, 3_000_000]));
        header.set_mtime(*dice.pick(&[0, 1, 1_700_000_000, (1 << 33) + 5]));
        header.set_size(0);
        if made.is_pax {
            tar.append_pax_extensions([("comment", &b"of no meaning"[..])]).expect("append");
        }
        match dice.below(12) {
            0..=2 => {
                let again = made.dirs.len() > 1 && dice.below(6) == 0;
                let name = if again { dice.pick(&made.dirs[1..]).clone() } else { made.fresh(dice) };
                header.set_entry_type(tar::EntryType::Directory);
                // no set-id bits: GNU tar lets directories inherit those, whatever the archive says
                header.set_mode(*dice.pick(&[0o755, 0o700, 0o711, 0o1777]));
                tar.append_data(&mut header, path(&name), &[][..]).expect("append");
                if !again && name.len() < 600 {
                    made.dirs.push(name);
                }
            }
            3 => {
                let name = made.fresh(dice);
                let long = "d/".repeat(70);
                let targets = ["../../etc/passwd", "/absolute", "dangling", &long];
                let target = *dice.pick(&targets[..if made.is_pax { 3 } else { 4 }]);
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, path(&name), target).expect("append");
                made.links.push(name);
            }
            // bsdtar makes an empty file of a link to a long name in GNU's form
            4 if made.files.iter().any(|f| f.len() < 100) => {
                let short: Vec<Vec<u8>> = made.files.iter().filter(|f| f.len() < 100).cloned().collect();
                let (name, target) = (made.fresh(dice), dice.pick(&short).clone());
                header.set_entry_type(tar::EntryType::Link);
                tar.append_link(&mut header, path(&name), path(&target)).expect("append");
            }
            5 => {
                header.set_entry_type(tar::EntryType::Fifo);
                tar.append_data(&mut header, path(&made.fresh(dice)), &[][..]).expect("append");
            }
            n => {
                let old = if n == 6 { made.links.pop() } else { None };
                let again = n == 7 && !made.files.is_empty();
                let fresh = if again { dice.pick(&made.files).clone() } else { made.fresh(dice) };
                let name = old.unwrap_or(fresh);
                let len = *dice.pick(&[0, 1, 511, 512, 513, 4_096, 70_000]);
                let data: Vec<u8> = (0..len).map(|_| dice.next().to_le_bytes()[0]).collect();
                header.set_size(len as u64);
                tar.append_data(&mut header, path(&name), &data[..]).expect("append");
                made.files.push(name);
            }
        }
    }
    tar.into_inner().expect("finish")
}

/// Every name with all that matters about it. Directories have their times only where the archive named them: all do.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut first_names: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        let entries = std::fs::read_dir(&dir).expect("read a directory");
        let mut all: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
        all.sort();
        for at in all {
            let meta = std::fs::symlink_metadata(&at).expect("it is there");
            let name = at.strip_prefix(root).expect("it is below").to_owned();
            let content =
                if meta.is_file() { Digest::of(&std::fs::read(&at).expect("read")).to_string() } else { String::new() };
            let target = std::fs::read_link(&at).unwrap_or_default();
            let same_as = if meta.is_dir() {
                name.clone()
            } else {
                first_names.entry(meta.ino()).or_insert(name.clone()).clone()
            };
            let (mode, uid, gid, time) = (meta.mode(), meta.uid(), meta.gid(), meta.mtime());
            found.insert(name, format!("{mode:o} {uid}:{gid} {time} {content} {target:?} {same_as:?}"));
            if meta.is_dir() {
                waiting.push(at);
            }
        }
    }
    found
}

fn dirs_named_twice(tar: &[u8]) -> BTreeSet<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().expect("entries").map(|e| e.expect("an entry"));
    let dirs = entries.filter(|e| e.header().entry_type().is_dir());
    dirs.map(|e| e.path().expect("a path").into_owned()).filter(|path| !seen.insert(path.clone())).collect()
}

/// A line of [`tree`] but for its third word.
fn without_time(line: &str) -> String {
    let words = line.split(' ').enumerate();
    words.filter(|(n, _)| *n != 2).map(|(_, word)| word).collect::<Vec<_>>().join(" ")
}

fn same_trees() -> Result<(), String> {
    // without -P, GNU tar makes links last, after the times of their directories
    let tools: [(&str, &[&str]); 2] = [
        ("tar", &["--extract", "-P", "--preserve-permissions", "--numeric-owner", "--same-owner", "--file"]),
        ("bsdtar", &["-x", "-p", "--numeric-owner", "--same-owner", "-f"]),
    ];
    let mut judges = 0;
    for seed in rounds(12) {
        let bytes = archive(&mut Dice(seed));
        let twice = dirs_named_twice(&bytes);
        let lab = Lab::new();
        let fake = Fake::start();
        fake.push("a", "1", &Image::new(&[(&bytes, gzip)]));
        let store = lab.store();
        let info = pull(&store, &fake.name("a:1")).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let ours = tree(&store.layer_dirs(&info.digest).expect("its layers")[0]);
        let file = lab.dir.path().join("archive.tar");
        std::fs::write(&file, &bytes).expect("write a file");
        for (tool, args) in tools {
            let root = lab.dir.path().join(tool);
            std::fs::create_dir(&root).expect("make a directory");
            let Ok(done) = Command::new(tool).args(args).arg(&file).current_dir(&root).output() else { continue };
            assert!(done.status.success(), "seed {seed}: {tool}: {}", String::from_utf8_lossy(&done.stderr));
            let theirs = tree(&root);
            for (name, line) in &theirs {
                let mine = ours.get(name).unwrap_or_else(|| panic!("seed {seed}: only {tool} has {}", name.display()));
                // GNU tar sets a directory's time when it leaves it, and comes back for later entries; of two entries
                // for one directory, bsdtar takes modes and times from either
                if tool == "bsdtar" && twice.contains(name) {
                    continue;
                }
                let is_left = tool == "tar" && line.starts_with('4');
                let said = |line: &str| if is_left { without_time(line) } else { line.to_owned() };
                assert_eq!(said(mine), said(line), "seed {seed}: {tool}: {}", name.display());
            }
            assert_eq!(ours.len(), theirs.len(), "seed {seed}: {tool} has as many entries");
            judges += 1;
        }
    }
    println!("  {judges} trees compared");
    if judges == 0 { Err("there is neither tar nor bsdtar".into()) } else { Ok(()) }
}

/// Bytes changed, cut out, doubled: of the tar, and of what it is packed in. The digests are right: only reading can tell.
fn damaged() -> Result<(), String> {
    let lab = Lab::new();
    let fake = Fake::start();
    let store = lab.store();
    let mut taken = 0;
    let rounds = rounds(60);
    let all = rounds.end - rounds.start;
    for seed in rounds {
        let mut dice = Dice(seed);
        let tar = archive(&mut dice);
        let pack = *dice.pick(&[gzip as Pack, zstd, <[u8]>::to_vec]);
        let image = if dice.below(2) == 0 {
            Image::new(&[(&damage(tar, &mut dice), pack)])
        } else {
            Image::with_diff_ids(vec![damage(pack(&tar), &mut dice)], &[Digest::of(&tar)])
        };
        fake.push("a", &seed.to_string(), &image);
        let name = fake.name(&format!("a:{seed}"));
        match pull(&store, &name) {
            Ok(_) => {
                taken += 1;
                store.remove(&crate::lab::reference(&name), &BTreeSet::new()).expect("it is forgotten");
            }
            Err(error) => {
                let message = runtime::error::chain(&error);
                assert!(!message.contains("without a report"), "seed {seed}: the unpacker crashed: {message}");
            }
        }
        for dir in ["layers", "tmp"] {
            assert!(names(&lab.images().join(dir)).is_empty(), "seed {seed}: nothing is left in {dir}");
        }
    }
    println!("  {taken} of {all} still made sense");
    Ok(())
}

fn damage(mut bytes: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    for _ in 0..1 + dice.below(4) {
        let at = dice.below(bytes.len());
        let to = (at + 1 + dice.below(700)).min(bytes.len());
        match dice.below(5) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = *dice.pick(&[0, 0x7f, 0x80, 0xff, b'9', b'L', b'x', b'g']),
            2 => drop(bytes.drain(at..to)),
            3 => {
                let again = bytes[at..to].to_vec();
                bytes.splice(at..at, again);
            }
            _ => bytes.truncate(at.max(1)),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}
