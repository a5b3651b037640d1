//! What the tests share: stores in directories that vanish, archives made entry by entry, images made of them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use runtime::error::chain;
use runtime::image::{Digest, ImageRef, Store, StoreOptions};
use runtime::layout::Layout;
use runtime::runtime::{ImageInfo, NoProgress, PullPhase, PullProgress, PullRequest};
use runtime::{Error, Result};
use serde_json::json;

/// A data root of one test.
pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) options: StoreOptions,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("boxship-image-").tempdir().expect("make a directory");
        let options = StoreOptions {
            auth_files: Some(Vec::new()),
            stall_ms: 5_000,
            registries_conf: None,
            policy: None,
            ..StoreOptions::default()
        };
        std::fs::write(dir.path().join("boot_id"), "boot-1\n").expect("write the boot id");
        Self { dir, options }
    }

    pub(crate) fn layout(&self) -> Layout {
        layout(self.dir.path())
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.layout(), self.options.clone()).expect("open the store")
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.layout().images_dir()
    }

    pub(crate) fn reboot(&self) {
        std::fs::write(self.dir.path().join("boot_id"), "boot-2\n").expect("write the boot id");
    }
}

/// A store of the data root in `dir`, which has a boot id.
pub(crate) fn store_at(dir: &Path, options: StoreOptions) -> Store {
    Store::open(&layout(dir), options).expect("open the store")
}

fn layout(dir: &Path) -> Layout {
    let mut layout = Layout::new(dir.join("data"), dir.join("run"));
    layout.boot_id_path = dir.join("boot_id");
    layout
}

/// `pull DIR REFERENCE`: pulls in a process of its own.
pub(crate) fn pull_process(args: &[String]) -> ExitCode {
    let options = StoreOptions { auth_files: Some(Vec::new()), ..StoreOptions::default() };
    let store = Store::open(&layout(Path::new(&args[0])), options).expect("open the store");
    match pull(&store, &args[1]) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

pub(crate) fn reference(text: &str) -> ImageRef {
    text.parse().expect("a reference")
}

pub(crate) fn pull(store: &Store, text: &str) -> Result<ImageInfo> {
    store.pull(&PullRequest { reference: reference(text), refresh: false, newer_only: false }, &NoProgress)
}

/// A pull that must fail: its code (`-` when it has none) and its message.
pub(crate) fn refusal(store: &Store, text: &str) -> (String, String) {
    let error = pull(store, text).expect_err("the pull must fail");
    let code = if let Error::Registry { code, .. } = &error { (*code).to_owned() } else { "-".to_owned() };
    (code, chain(&error))
}

/// Waits for a state, at most ten seconds.
pub(crate) fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !reached() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("read a directory");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Remembers the phases of each layer.
#[derive(Default)]
pub(crate) struct Phases(pub(crate) Mutex<BTreeMap<Digest, Vec<PullPhase>>>);

impl PullProgress for Phases {
    fn layer(&self, digest: &Digest, phase: PullPhase, _: u64, _: u64) {
        let mut all = self.0.lock().expect("nobody panics here");
        let phases = all.entry(digest.clone()).or_default();
        if phases.last() != Some(&phase) {
            phases.push(phase);
        }
    }
}

/// A tar under construction.
pub(crate) struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(1_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header
    }

    /// Writes a name as it is, even one no sane tool would write.
    fn raw(mut self, mut header: tar::Header, name: &str, data: &[u8]) -> Self {
        let field = &mut header.as_ustar_mut().expect("it is ustar").name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).expect("append");
        self
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.raw(Self::header(tar::EntryType::Regular, 0o644, data.len() as u64), name, data)
    }

    pub(crate) fn owned(self, name: &str, mode: u32, uid: u64, gid: u64) -> Self {
        let mut header = Self::header(tar::EntryType::Regular, mode, 0);
        header.set_uid(uid);
        header.set_gid(gid);
        self.raw(header, name, &[])
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.raw(Self::header(tar::EntryType::Directory, 0o755, 0), name, &[])
    }

    pub(crate) fn link(self, kind: tar::EntryType, name: &str, target: &str) -> Self {
        let mut header = Self::header(kind, 0o777, 0);
        header.as_ustar_mut().expect("it is ustar").linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.raw(header, name, &[])
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.link(tar::EntryType::Symlink, name, target)
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.link(tar::EntryType::Link, name, target)
    }

    pub(crate) fn node(self, kind: tar::EntryType, name: &str) -> Self {
        let mut header = Self::header(kind, 0o666, 0);
        header.set_device_major(1).expect("it is ustar");
        header.set_device_minor(3).expect("it is ustar");
        self.raw(header, name, &[])
    }

    pub(crate) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).expect("append");
        self
    }

    /// A long name the way GNU tar writes it.
    pub(crate) fn long(mut self, name: &str, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        self.0.append_data(&mut header, name, data).expect("append");
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("finish")
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compress");
    encoder.finish().expect("compress")
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("compress")
}

/// Bytes that do not compress.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state & 0xff).expect("one byte")
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// How a layer is packed.
pub(crate) type Pack = fn(&[u8]) -> Vec<u8>;

/// The parts of an image, ready to be served.
pub(crate) struct Image {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
}

impl Image {
    /// Of uncompressed tars and how each is packed.
    pub(crate) fn new(tars: &[(&[u8], Pack)]) -> Self {
        let diff_ids: Vec<Digest> = tars.iter().map(|(tar, _)| Digest::of(tar)).collect();
        let layers: Vec<Vec<u8>> = tars.iter().map(|(tar, pack)| pack(tar)).collect();
        Self::with_diff_ids(layers, &diff_ids)
    }

    /// The same, saying when it was made.
    pub(crate) fn made(mut self, created: &str) -> Self {
        let mut config: serde_json::Value = serde_json::from_slice(&self.config).expect("it is JSON");
        let mut manifest: serde_json::Value = serde_json::from_slice(&self.manifest).expect("it is JSON");
        config["created"] = created.into();
        self.config = serde_json::to_vec(&config).expect("encode");
        manifest["config"]["digest"] = Digest::of(&self.config).as_str().into();
        manifest["config"]["size"] = self.config.len().into();
        self.manifest = serde_json::to_vec(&manifest).expect("encode");
        self
    }

    pub(crate) fn with_diff_ids(layers: Vec<Vec<u8>>, diff_ids: &[Digest]) -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = serde_json::to_vec(&config).expect("encode");
        let listed: Vec<_> = layers
            .iter()
            .map(|l| {
                json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": Digest::of(l),
                "size": l.len()})
            })
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(&config),
                "size": config.len()},
            "layers": listed});
        Self { manifest: serde_json::to_vec(&manifest).expect("encode"), config, layers }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}
