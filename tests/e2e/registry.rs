//! Debian's docker-registry with a copy of the cached images, on loopback inside the scenario's network namespace.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use runtime::image::Digest;
use serde_json::json;

use crate::Result;

/// A running registry; ends with its value.
pub(crate) struct Registry {
    run: PathBuf,
    storage: PathBuf,
    /// `127.0.0.1:port`.
    pub(crate) address: String,
}

/// Where `tests/images/make.sh` keeps its images.
pub(crate) fn images_dir() -> PathBuf {
    std::env::var_os("BOXSHIP_TEST_IMAGES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/boxship-images"), PathBuf::from)
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images/registry.sh")
}

impl Registry {
    /// Serves a copy of the cached images (its blobs are hard links, its tags are its own).
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let storage = dir.join("registry");
        let copied = Command::new("cp").arg("-a").arg(images_dir().join("registry")).arg(&storage).status();
        if !copied.is_ok_and(|status| status.success()) {
            return Err("copy the registry's storage".to_owned());
        }
        let mut registry = Self { run: dir.join("registry-run"), storage, address: String::new() };
        registry.start_again()?;
        Ok(registry)
    }

    /// Starts it after [`Registry::stop`], on the port it had.
    pub(crate) fn start_again(&mut self) -> Result {
        let mut command = Command::new(script());
        command.arg("start").arg(&self.storage).arg(&self.run);
        if let Some((_, port)) = self.address.rsplit_once(':') {
            command.arg(port);
        }
        let output = command.output().map_err(|error| format!("run {}: {error}", script().display()))?;
        if !output.status.success() {
            return Err(format!("the registry did not start: {}", String::from_utf8_lossy(&output.stderr)));
        }
        self.address = format!("127.0.0.1:{}", String::from_utf8_lossy(&output.stdout).trim());
        Ok(())
    }

    /// Nothing answers on its port afterwards.
    pub(crate) fn stop(&self) {
        let _ = Command::new(script()).arg("stop").arg(&self.run).status();
    }

    /// The full reference of one of the cached images, as in `nginx:1`.
    pub(crate) fn image(&self, name_and_tag: &str) -> String {
        format!("{}/debian/{name_and_tag}", self.address)
    }

    /// Makes a key to sign with; where its public half is.
    pub(crate) fn signing_key(&self) -> Result<PathBuf> {
        self.openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key"])?;
        self.openssl(&["ec", "-in", "key", "-pubout", "-out", "key.pub"])?;
        Ok(self.run.join("key.pub"))
    }

    fn openssl(&self, args: &[&str]) -> Result {
        let output = Command::new("openssl").args(args).current_dir(&self.run).output();
        let output = output.map_err(|error| format!("openssl: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("openssl: {said}")) }
    }

    /// Signs what a tag points to, and keeps the signature beside it, as cosign does.
    pub(crate) fn sign(&self, name: &str, tag: &str) -> Result {
        let file = |name: &str| self.run.join(name);
        let read = |name: &str| std::fs::read(file(name)).map_err(|error| format!("{name}: {error}"));
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(file(name), bytes).map_err(|error| format!("{name}: {error}"));
        let base = format!("http://{}/v2/debian/{name}", self.address);
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = file("manifest").display().to_string();
        curl(&["-H", &format!("Accept: {kind}"), "-o", &manifest, &format!("{base}/manifests/{tag}")])?;
        let digest = Digest::of(&read("manifest")?);
        let repository = format!("{}/debian/{name}", self.address);
        let payload = json!({"critical": {"identity": {"docker-reference": repository},
            "image": {"docker-manifest-digest": digest}, "type": "cosign container image signature"}, "optional": null});
        write("payload", payload.to_string().as_bytes())?;
        self.openssl(&["dgst", "-sha256", "-sign", "key", "-out", "signature", "payload"])?;
        let signature = base64::engine::general_purpose::STANDARD.encode(read("signature")?);
        write("config", b"{}")?;
        let mut blobs = Vec::new();
        for blob in ["config", "payload"] {
            let bytes = read(blob)?;
            let digest = Digest::of(&bytes);
            let head = file("head").display().to_string();
            curl(&["-X", "POST", "-D", &head, &format!("{base}/blobs/uploads/")])?;
            let head = String::from_utf8_lossy(&read("head")?).into_owned();
            let place = head.lines().find_map(|line| line.strip_prefix("Location: ")).ok_or("no place to upload to")?;
            let place = format!("{}&digest={digest}", place.trim());
            let data = format!("@{}", file(blob).display());
            curl(&["-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary", &data, &place])?;
            blobs.push((digest, bytes.len()));
        }
        let of_signature = json!({"schemaVersion": 2, "mediaType": kind,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": blobs[0].0, "size": blobs[0].1},
            "layers": [{"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": blobs[1].0,
                "size": blobs[1].1, "annotations": {"dev.cosignproject.cosign/signature": signature}}]});
        write("manifest", of_signature.to_string().as_bytes())?;
        let beside = format!("{base}/manifests/sha256-{}.sig", digest.hex());
        let data = format!("@{manifest}");
        curl(&["-X", "PUT", "-H", &format!("Content-Type: {kind}"), "--data-binary", &data, &beside])
    }

    /// Lets a tag point to what another one points to, as a push would.
    pub(crate) fn retag(&self, name: &str, from: &str, to: &str) -> Result {
        let url = |tag: &str| format!("http://{}/v2/debian/{name}/manifests/{tag}", self.address);
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let file = self.run.join("manifest");
        let get = Command::new("curl")
            .args(["-sf", "--noproxy", "*", "-H", &format!("Accept: {kind}"), "-o"])
            .arg(&file)
            .arg(url(from))
            .status();
        let put = Command::new("curl")
            .args(["-sf", "--noproxy", "*", "-X", "PUT", "-H", &format!("Content-Type: {kind}"), "--data-binary"])
            .arg(format!("@{}", file.display()))
            .arg(url(to))
            .status();
        match (get, put) {
            (Ok(get), Ok(put)) if get.success() && put.success() => Ok(()),
            other => Err(format!("retag {name}:{from} as {to}: {other:?}")),
        }
    }
}

fn curl(args: &[&str]) -> Result {
    let output = Command::new("curl").args(["-sSf", "--noproxy", "*"]).args(args).output();
    let output = output.map_err(|error| format!("curl: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("curl {}: {said}", args.join(" "))) }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}
