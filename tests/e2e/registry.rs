//! Debian's docker-registry with a copy of the cached images, on loopback inside the scenario's network namespace.

use std::path::{Path, PathBuf};
use std::process::Command;

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

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}
