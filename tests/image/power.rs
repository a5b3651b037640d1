//! Power cuts: stores at work on a disk that logs what reaches it, and forgets at the cut what was not flushed. From many
//! points of the log the disk is made anew as it may look then, mounted, and opened in the next boot: what was
//! acknowledged is there and is what it was, what is ready is whole, and everything can be pulled again.
//!
//! Ten cuts; `BOXSHIP_CAMPAIGN=1` makes a hundred, `BOXSHIP_SEED=n` others.

mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use runtime::image::{Digest, PruneRequest, SaveFormat, SaveImage, Store, StoreOptions};
use runtime::runtime::{NoProgress, PullRequest};

use crate::Case;
use crate::fake::Fake;
use crate::lab::{Archive, Image, Lab, gzip, names, noise, pull, reference, store_at, zstd};
use disk::{Dice, Disk, Log, Loses, Mounted};

pub(crate) const CASES: &[Case] = &[("power_cuts_lose_nothing_and_leave_nothing_half", cuts)];

/// References, and the image each is locked to.
type Names = BTreeMap<String, Digest>;

/// What the store had acknowledged when the log was so long.
struct Acknowledged {
    log_bytes: u64,
    doing: &'static str,
    names: Names,
    /// Directories an image was unpacked into.
    unpacked: usize,
}

fn cuts() -> Result<(), String> {
    let count = if std::env::var_os("BOXSHIP_CAMPAIGN").is_some() { 100 } else { 10 };
    let seed = std::env::var("BOXSHIP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let ground = Ground::new();
    let (log, said) = ground.record()?;
    let mut dice = Dice(seed);
    let (mut in_flight, mut lost) = (0, 0);
    for cut in 0..count {
        let point = log.point(&mut dice);
        let loses = [Loses::Everything, Loses::Some, Loses::Some, Loses::Nothing][dice.below(4)];
        let what = format!("cut {cut} of seed {seed}, after write {point} of {}, losing {loses:?}", log.len());
        let (image, forgotten) = log.disk_at(&ground.dir(), point, loses, &mut dice);
        lost += forgotten;
        in_flight += usize::from(forgotten > 0);
        let mounted = Mounted::new(&image, &ground.dir().join("cut")).unwrap_or_else(|why| panic!("{what}: {why}"));
        ground.judge(&mounted, &said, log.bytes_at(point), &what);
    }
    println!("  {count} cuts in {} writes, {in_flight} of them with {lost} unflushed writes lost", log.len());
    ground.a_lying_disk_is_noticed(&log, &said);
    Ok(())
}

/// What all cuts share: the registry, the images and how they look unpacked.
struct Ground {
    lab: Lab,
    fake: Fake,
    images: BTreeMap<&'static str, Image>,
    archive: PathBuf,
    /// By diffID.
    truth: BTreeMap<String, BTreeMap<PathBuf, Digest>>,
    /// `a:2` as one directory.
    merged: BTreeMap<PathBuf, Digest>,
}

fn tree(name: &str, files: usize, bytes: usize) -> Vec<u8> {
    let mut archive = Archive::new().dir(&format!("{name}/"));
    for n in 0..files {
        archive = archive.file(&format!("{name}/{n}"), &noise(1 + bytes * (n % 7 + 1) / 4, n as u64 * 31 + 7));
    }
    archive.symlink(&format!("{name}/link"), "0").file(&format!("{name}/empty"), &[]).bytes()
}

impl Ground {
    fn new() -> Self {
        let (base, one, two) = (tree("base", 60, 12_000), tree("one", 20, 4_000), tree("two", 9, 90_000));
        let images = BTreeMap::from([
            ("a:1", Image::new(&[(&base, gzip), (&one, gzip)])),
            ("a:2", Image::new(&[(&base, gzip), (&two, zstd)])),
            ("b:1", Image::new(&[(&tree("other", 40, 20_000), gzip)])),
        ]);
        let (lab, fake) = (Lab::new(), Fake::start());
        for (name, image) in &images {
            let (repository, tag) = name.split_once(':').expect("a tag");
            fake.push(repository, tag, image);
        }
        let archive = lab.dir.path().join("archive.tar");
        let mut truth = BTreeMap::new();
        let merged = lab.dir.path().join("merged").join("root");
        {
            let store = lab.store();
            for name in images.keys() {
                let info = pull(&store, &fake.name(name)).expect("it is pulled");
                truth.extend(store.layer_dirs(&info.digest).expect("its layers").iter().map(|dir| content(dir)));
            }
            store.unpack_image(&images["a:2"].digest(), &merged).expect("it is unpacked");
            let names = vec![reference("localhost/saved:1")];
            let chosen = [SaveImage { digest: images["b:1"].digest(), names }];
            let mut file = std::fs::File::create(&archive).expect("create a file");
            store.save(&chosen, SaveFormat::Oci, &mut file).expect("it is saved");
        }
        let merged = content(&merged).1;
        Self { lab, fake, images, archive, truth, merged }
    }

    fn dir(&self) -> PathBuf {
        self.lab.dir.path().to_owned()
    }

    fn options(&self) -> StoreOptions {
        self.lab.options.clone()
    }

    /// Works on the logging disk, and notes how long the log was when each piece of work was done.
    fn record(&self) -> Result<(Log, Vec<Acknowledged>), String> {
        let disk = Disk::new(&self.dir())?;
        let root = disk.mounted.path().to_owned();
        std::fs::write(root.join("boot_id"), "boot-1\n").expect("write the boot id");
        let store = store_at(&root, self.options());
        let mut said =
            vec![Acknowledged { log_bytes: disk.log_bytes(), doing: "begin", names: Names::new(), unpacked: 0 }];
        let mut unpacked = 0;
        let mut names = Names::new();
        let mut done = |doing, names: &Names, unpacked: usize| {
            said.push(Acknowledged { log_bytes: disk.log_bytes(), doing, names: names.clone(), unpacked });
        };
        let saved = "localhost/saved:1".to_owned();
        for _ in 0..2 {
            for name in ["a:1", "a:2"] {
                let info = pull(&store, &self.fake.name(name)).expect("it is pulled");
                names.insert(self.fake.name(name), info.digest);
                done("pull", &names, unpacked);
            }
            store.unpack_image(&self.images["a:2"].digest(), &unpacked_at(&root, unpacked)).expect("it is unpacked");
            unpacked += 1;
            done("unpack", &names, unpacked);
            let loaded = store.load(&self.archive, None, None, &NoProgress).expect("it is loaded");
            names.insert(saved.clone(), loaded[0].digest.clone());
            done("load", &names, unpacked);
            store.remove(&reference(&self.fake.name("a:1")), &BTreeSet::new()).expect("it is removed");
            names.remove(&self.fake.name("a:1"));
            done("remove", &names, unpacked);
            let request =
                PullRequest { reference: reference(&self.fake.name("b:1")), refresh: true, newer_only: false };
            store.pull(&request, &NoProgress).expect("it is pulled");
            names.insert(self.fake.name("b:1"), self.images["b:1"].digest());
            done("pull what was loaded", &names, unpacked);
            let all = PruneRequest { all: true, ..PruneRequest::default() };
            let in_use = BTreeSet::from([self.images["a:2"].digest()]);
            store.prune(&all, &in_use, &BTreeSet::new()).expect("it is pruned");
            names.retain(|_, digest| in_use.contains(digest));
            done("prune", &names, unpacked);
        }
        drop(store);
        Ok((disk.end(), said))
    }

    /// The next boot on a disk as a cut left it.
    fn judge(&self, mounted: &Mounted, said: &[Acknowledged], log_bytes: u64, what: &str) {
        let root = mounted.path();
        std::fs::write(root.join("boot_id"), "boot-2\n").expect("write the boot id");
        let last = said.iter().rposition(|ack| ack.log_bytes <= log_bytes);
        let empty = Acknowledged { log_bytes: 0, doing: "nothing", names: Names::new(), unpacked: 0 };
        let before = last.map_or(&empty, |n| &said[n]);
        let after = said.get(last.map_or(0, |n| n + 1)).unwrap_or(before);
        let what = &format!("{what}, while it did `{}`", after.doing);
        let store = store_at(root, self.options());
        for number in 0..after.unpacked.max(before.unpacked) {
            let dir = unpacked_at(root, number);
            assert!(dir.exists() || number >= before.unpacked, "{what}: {} is gone", dir.display());
            let is_whole = !dir.exists() || content(&dir).1 == self.merged;
            assert!(is_whole, "{what}: {} is there and not what it should be", dir.display());
        }
        let resolve = |name: &String| store.resolve(&reference(name)).ok().map(|info| info.digest);
        for info in store.list().expect(what) {
            self.is_whole(&store, &info.digest, what);
        }
        for name in before.names.keys().chain(after.names.keys()) {
            let (old, new, found) = (before.names.get(name), after.names.get(name), resolve(name));
            assert!(
                found.as_ref() == old || found.as_ref() == new,
                "{what}: {name} is {found:?}; it was {old:?} and became {new:?}"
            );
        }
        let fetched = self.fake.log().len();
        for (name, _) in before.names.iter().filter(|(name, digest)| after.names.get(*name) == Some(digest)) {
            pull(&store, name).expect(what);
        }
        assert_eq!(self.fake.log().len(), fetched, "{what}: what was acknowledged is fetched again");
        for (name, image) in &self.images {
            pull(&store, &self.fake.name(name)).expect(what);
            self.is_whole(&store, &image.digest(), what);
        }
        let seen = store.scrub(&NoProgress, &|swap| swap(&BTreeSet::new())).expect(what);
        assert!(seen.healed.is_empty() && seen.lost.is_empty(), "{what}: {seen:?}");
        let all = PruneRequest { all: true, ..PruneRequest::default() };
        store.prune(&all, &BTreeSet::new(), &BTreeSet::new()).expect(what);
        for dir in ["layers", "blobs/sha256"] {
            let left = names(&root.join("data/images").join(dir));
            assert!(left.is_empty(), "{what}: {left:?} is left in {dir}");
        }
    }

    fn is_whole(&self, store: &Store, digest: &Digest, what: &str) {
        for dir in store.layer_dirs(digest).expect(what) {
            let (id, found) = content(&dir);
            assert!(self.truth.get(&id) == Some(&found), "{what}: layer {id} is ready and not what it should be");
        }
    }

    /// Where flushes mean nothing, something must be missed, or nothing above means anything.
    fn a_lying_disk_is_noticed(&self, log: &Log, said: &[Acknowledged]) {
        let mut dice = Dice(7);
        let lying = log.without_flushes();
        // what it says would look like a failure of this test
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let noticed = (0..6).any(|_| {
            let point = lying.len() / 2 + dice.below(lying.len() / 2);
            let (image, _) = lying.disk_at(&self.dir(), point, Loses::Some, &mut dice);
            let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mounted = Mounted::new(&image, &self.dir().join("cut"))?;
                self.judge(&mounted, said, lying.bytes_at(point), "a lying disk");
                Ok::<_, String>(())
            }));
            !matches!(judged, Ok(Ok(())))
        });
        std::panic::set_hook(hook);
        assert!(noticed, "a disk that loses what was flushed went unnoticed");
    }
}

fn unpacked_at(root: &Path, number: usize) -> PathBuf {
    root.join(format!("unpacked-{number}")).join("root")
}

/// A layer's diffID and everything in it.
fn content(fs: &Path) -> (String, BTreeMap<PathBuf, Digest>) {
    let id = fs.parent().and_then(Path::file_name).expect("layers/HEX/fs").to_string_lossy().into_owned();
    let (mut found, mut waiting) = (BTreeMap::new(), vec![fs.to_owned()]);
    while let Some(dir) = waiting.pop() {
        for name in names(&dir) {
            let path = dir.join(name);
            let kind = std::fs::symlink_metadata(&path).expect("stat").file_type();
            let bytes = if kind.is_dir() {
                waiting.push(path.clone());
                b"a directory".to_vec()
            } else if kind.is_symlink() {
                std::fs::read_link(&path).expect("read a link").into_os_string().into_encoded_bytes()
            } else {
                std::fs::read(&path).expect("read a file")
            };
            found.insert(path.strip_prefix(fs).expect("below it").to_owned(), Digest::of(&bytes));
        }
    }
    (id, found)
}
