//! Real images from a real registry: Debian's docker-registry, images made by `tests/images/make.sh`, tools skopeo and
//! umoci as judges.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime::runtime::{PullPhase, PullRequest};

use crate::Case;
use crate::lab::{Lab, Phases, pull, reference, refusal};

pub(crate) const CASES: &[Case] = &[
    ("real_images_unpack_as_umoci_unpacks_them", same_as_umoci),
    ("real_gzip_and_zstd_share_their_layers", gzip_and_zstd),
    ("real_registry_refusals_have_their_codes", refusals),
];

fn cache() -> PathBuf {
    std::env::var_os("BOXSHIP_TEST_IMAGES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/boxship-images"), PathBuf::from)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images").join(name)
}

pub(crate) struct Registry {
    run: PathBuf,
    pub(crate) address: String,
}

impl Registry {
    /// Serves the cached images; nothing here pushes.
    pub(crate) fn start(dir: &Path) -> Result<Self, String> {
        let made = Command::new(script("make.sh")).arg(cache()).output().map_err(|e| format!("make.sh: {e}"))?;
        if !made.status.success() {
            let why = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(why.lines().last().unwrap_or("images cannot be made").to_owned());
        }
        Self::over(&cache().join("registry"), &dir.join("registry-run"))
    }

    /// Serves what is in a directory, and takes what is pushed.
    pub(crate) fn over(storage: &Path, run: &Path) -> Result<Self, String> {
        let started = Command::new(script("registry.sh")).arg("start").arg(storage).arg(run).output();
        let started = started.map_err(|e| format!("registry.sh: {e}"))?;
        if !started.status.success() {
            return Err(String::from_utf8_lossy(&started.stderr).trim().to_owned());
        }
        Ok(Self {
            run: run.to_owned(),
            address: format!("127.0.0.1:{}", String::from_utf8_lossy(&started.stdout).trim()),
        })
    }

    pub(crate) fn stop(&self) {
        let _ = Command::new(script("registry.sh")).arg("stop").arg(&self.run).status();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Everything about a tree that unpacking decides: path → type and mode, owner, size, link target, device.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).expect("read a directory") {
            let path = entry.expect("an entry").path();
            let meta = std::fs::symlink_metadata(&path).expect("stat");
            let is_node = meta.file_type().is_char_device() || meta.file_type().is_block_device();
            if is_node && meta.rdev() != 0 {
                continue; // device nodes are left out on purpose
            }
            let target = std::fs::read_link(&path).unwrap_or_default();
            let size = if meta.is_file() { meta.len() } else { 0 };
            // directories only implied by a layer have no time of their own
            let time = if meta.is_dir() { 0 } else { meta.mtime() };
            let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
            let line = format!("{mode:o} {uid}:{gid} {size} {} {time}", target.display());
            found.insert(path.strip_prefix(root).expect("it is below").to_owned(), line);
            if meta.is_dir() {
                waiting.push(path);
            }
        }
    }
    found
}

fn same_as_umoci() -> Result<(), String> {
    let lab = Lab::new();
    let registry = Registry::start(lab.dir.path())?;
    let store = lab.store();
    let names = ["busybox:1", "nginx:1", "redis:7", "postgres:15"];
    for (n, name) in names.iter().enumerate() {
        let full = format!("{}/debian/{name}", registry.address);
        let began = std::time::Instant::now();
        let info = pull(&store, &full).expect("it is pulled");
        println!("  {name}: {} bytes in {:?}", info.size_bytes, began.elapsed());
        // umoci takes its time: the small ones are compared
        if n > 1 {
            continue;
        }
        let bundle = lab.dir.path().join(name.replace(':', "-"));
        let tag = name.replace(':', "-");
        let image = format!("{}:{tag}", cache().join("oci").display());
        let unpacked = Command::new("umoci").args(["raw", "unpack", "--image", &image]).arg(&bundle).output();
        let unpacked = unpacked.map_err(|_| "there is no umoci".to_owned())?;
        if !unpacked.status.success() {
            println!("  umoci cannot unpack {image}: {}", String::from_utf8_lossy(&unpacked.stderr).trim());
            continue;
        }
        let theirs = tree(&bundle);
        let mut ours = BTreeMap::new();
        for dir in store.layer_dirs(&info.digest).expect("its layers").into_iter().rev() {
            ours.extend(tree(&dir));
        }
        // a whiteout takes away what is below it
        let hidden: Vec<PathBuf> =
            ours.iter().filter(|(_, line)| line.starts_with("20000 ")).map(|(path, _)| path.clone()).collect();
        ours.retain(|path, _| !hidden.iter().any(|h| path.starts_with(h)));
        for (path, line) in &theirs {
            assert_eq!(ours.get(path), Some(line), "{name}: {}", path.display());
        }
        assert_eq!(ours.len(), theirs.len(), "{name} has as many entries");
    }
    registry.stop();
    for name in names {
        let full = format!("{}/debian/{name}", registry.address);
        pull(&store, &full).expect("it is held with the registry off");
    }
    let (code, _) = refusal(&store, &format!("{}/debian/nginx:2", registry.address));
    assert_eq!(code, "BX0301");
    Ok(())
}

/// `nginx:zstd` is `nginx:1`, packed otherwise: what was unpacked from one serves the other.
fn gzip_and_zstd() -> Result<(), String> {
    let lab = Lab::new();
    let registry = Registry::start(lab.dir.path())?;
    let store = lab.store();
    let zstd = pull(&store, &format!("{}/debian/nginx:zstd", registry.address)).expect("it is pulled");
    let phases = Phases::default();
    let request = PullRequest {
        reference: reference(&format!("{}/debian/nginx:1", registry.address)),
        refresh: false,
        newer_only: false,
    };
    let gzip = store.pull(&request, &phases).expect("it is pulled");
    assert_ne!(gzip.digest, zstd.digest);
    let phases = phases.0.into_inner().expect("nobody panics here");
    assert!(phases.values().all(|p| p[0] == PullPhase::Shared), "{phases:?}");
    let dirs = |digest| store.layer_dirs(digest).expect("its layers");
    assert_eq!(dirs(&gzip.digest), dirs(&zstd.digest));
    Ok(())
}

fn refusals() -> Result<(), String> {
    let lab = Lab::new();
    let registry = Registry::start(lab.dir.path())?;
    let store = lab.store();
    let (code, message) = refusal(&store, &format!("{}/debian/nginx:11", registry.address));
    assert_eq!(code, "BX0302", "{message}");
    assert!(message.contains("nearest: 1, "), "{message}");
    let (code, message) = refusal(&store, &format!("{}/no/such:1", registry.address));
    assert_eq!(code, "BX0303", "{message}");
    let digest = "a".repeat(64);
    let (code, message) = refusal(&store, &format!("{}/debian/nginx@sha256:{digest}", registry.address));
    assert_eq!(code, "BX0302", "{message}");
    assert!(store.resolve(&reference("absent/x:1")).is_err_and(|e| e.is_not_found()));
    Ok(())
}
