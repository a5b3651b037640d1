//! The image that is pulled: 8 layers, 37,000 entries, 770 MB of files that compress to about 230 MB, the same on every
//! machine. An OCI layout, once packed with gzip and once with zstd; the files are the same.

use std::io::Write;
use std::path::{Path, PathBuf};

use runtime::image::Digest;
use serde_json::json;

/// Files, directories and links of each layer, in percent of all: one large base, small ones on top.
const LAYERS: [usize; 8] = [30, 22, 14, 12, 9, 6, 4, 3];
const ENTRIES: usize = 37_000;
/// Mean size of a file in bytes.
const FILE_BYTES: usize = 23_000;
const PER_DIR: usize = 12;

/// How layers are packed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pack {
    Gzip,
    Zstd,
}

impl Pack {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Makes the layout `dir` and returns the paths of its layers.
pub(crate) fn make(dir: &Path, pack: Pack) -> Vec<PathBuf> {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("make a directory");
    let store = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).expect("write a blob");
        digest
    };
    let mut listed = Vec::new();
    let mut diff_ids = Vec::new();
    let mut paths = Vec::new();
    for (n, percent) in LAYERS.iter().enumerate() {
        let tar = layer(n, ENTRIES * percent / 100);
        diff_ids.push(Digest::of(&tar));
        let packed = packed(&tar, pack);
        let digest = store(&packed);
        paths.push(blobs.join(digest.hex()));
        let kind = format!("application/vnd.oci.image.layer.v1.tar+{}", pack.name());
        listed.push(json!({"mediaType": kind, "digest": digest, "size": packed.len()}));
    }
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = serde_json::to_vec(&config).expect("encode");
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": store(&config),
            "size": config.len()}, "layers": listed});
    let manifest = serde_json::to_vec(&manifest).expect("encode");
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": store(&manifest),
        "size": manifest.len(), "annotations": {"org.opencontainers.image.ref.name": "1"}}]});
    std::fs::write(dir.join("index.json"), index.to_string()).expect("write a file");
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write a file");
    paths
}

fn packed(tar: &[u8], pack: Pack) -> Vec<u8> {
    match pack {
        Pack::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(tar).expect("compress");
            encoder.finish().expect("compress")
        }
        Pack::Zstd => zstd::encode_all(tar, 3).expect("compress"),
    }
}

/// One layer: directories of a dozen files, every twentieth entry a symbolic link, every fortieth a hard link.
fn layer(number: usize, entries: usize) -> Vec<u8> {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (number as u64 + 1));
    let words = words(&mut Dice(7));
    let mut tar = tar::Builder::new(Vec::new());
    let mut dir = String::new();
    let mut last = String::new();
    for n in 0..entries {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1_700_000_000 + n as u64);
        header.set_uid(0);
        header.set_gid(0);
        if n % PER_DIR == 0 {
            dir = format!("usr/share/layer{number}/group{}/dir{n}", n / (PER_DIR * 20));
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            tar.append_data(&mut header, format!("{dir}/"), &[][..]).expect("append");
            last.clear();
            continue;
        }
        let path = format!("{dir}/file-{n}.dat");
        header.set_mode(0o644);
        if n % 20 == 1 && !last.is_empty() {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, &path, "../target").expect("append");
        } else if n % 40 == 2 && !last.is_empty() {
            header.set_entry_type(tar::EntryType::Link);
            header.set_size(0);
            tar.append_link(&mut header, &path, &last).expect("append");
        } else {
            let data = content(&mut dice, &words);
            header.set_size(data.len() as u64);
            tar.append_data(&mut header, &path, &data[..]).expect("append");
            last = path;
        }
    }
    tar.into_inner().expect("finish")
}

/// Sizes as on a system: most files small, a few large. Words with some noise compress about as programs and texts do.
fn content(dice: &mut Dice, words: &[Vec<u8>]) -> Vec<u8> {
    let scale = [64, 16, 8, 4, 2, 2, 1, 1, 1, 1][dice.below(10)];
    let wanted = 1 + dice.below(FILE_BYTES * 20 / 4) * 4 / 10 / scale * 10 / 8;
    let mut data = Vec::with_capacity(wanted + 16);
    while data.len() < wanted {
        if dice.below(8) == 0 {
            data.extend_from_slice(&dice.next().to_le_bytes()[..5]);
        } else {
            // the smaller of two: some words are common
            let word = dice.below(words.len()).min(dice.below(words.len()));
            data.extend_from_slice(&words[word]);
        }
    }
    data.truncate(wanted);
    data
}

fn words(dice: &mut Dice) -> Vec<Vec<u8>> {
    let word = |dice: &mut Dice| (0..3 + dice.below(10)).map(|_| b"etaoinshrdlu_ .\n"[dice.below(16)]).collect();
    (0..3_000).map(|_| word(dice)).collect()
}

/// xorshift: the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap_or(0) % n
    }
}
