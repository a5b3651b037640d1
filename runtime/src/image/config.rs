//! The image config blob (OCI image-spec `config.md` and Docker's additions), parsed by our own struct.
//!
//! Docker writes `null` for most things it leaves out and adds `Healthcheck`, which OCI does not know; both are read.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Digest;
use super::manifest::{LAYERS_MAX, Platform};
use crate::error::{Error, Result};
use crate::runtime::{ImageConfig, ImageHealthcheck};

/// Largest config blob taken, in bytes.
pub(crate) const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// A config blob: what we use of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageSpec {
    pub(crate) platform: Platform,
    pub(crate) created: Option<String>,
    pub(crate) config: ImageConfig,
    /// Digests of the layers' uncompressed tars, bottom first.
    pub(crate) diff_ids: Vec<Digest>,
}

/// One entry of a config's history, as written.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct RawStep {
    pub(crate) created: Option<String>,
    pub(crate) created_by: Option<String>,
    pub(crate) comment: Option<String>,
    pub(crate) empty_layer: bool,
}

/// The history in a config blob, oldest first; empty where none was written.
///
/// # Errors
/// `Untrusted` when it is no config.
pub(crate) fn history(bytes: &[u8]) -> Result<Vec<RawStep>> {
    #[derive(Deserialize)]
    struct Head {
        history: Option<Vec<RawStep>>,
    }
    let head: Head = serde_json::from_slice(bytes)
        .map_err(|e| Error::Untrusted(format!("the image's history is not valid: {e}")))?;
    Ok(head.history.unwrap_or_default())
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    config: Option<RawConfig>,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    healthcheck: Option<RawHealthcheck>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawHealthcheck {
    test: Option<Vec<String>>,
    interval: Option<i64>,
    timeout: Option<i64>,
    start_period: Option<i64>,
    retries: Option<i64>,
}

/// Reads a config blob.
///
/// # Errors
/// `Untrusted` when it is not one.
pub(crate) fn parse(bytes: &[u8]) -> Result<ImageSpec> {
    let untrusted = |why: String| Error::Untrusted(format!("the image's config is not valid: {why}"));
    let raw: Raw = serde_json::from_slice(bytes).map_err(|e| untrusted(e.to_string()))?;
    if raw.rootfs.kind != "layers" {
        return Err(untrusted(format!("rootfs is of the unknown type `{}`", raw.rootfs.kind)));
    }
    let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() > LAYERS_MAX {
        return Err(untrusted(format!("more than {LAYERS_MAX} layers")));
    }
    let platform = Platform {
        os: raw.os.unwrap_or_default(),
        architecture: raw.architecture.unwrap_or_default(),
        variant: raw.variant.filter(|v| !v.is_empty()),
    };
    Ok(ImageSpec { platform, created: raw.created, config: lower(raw.config.unwrap_or_default()), diff_ids })
}

fn lower(raw: RawConfig) -> ImageConfig {
    let set = |text: Option<String>| text.filter(|t| !t.is_empty());
    ImageConfig {
        entrypoint: raw.entrypoint.unwrap_or_default(),
        cmd: raw.cmd.unwrap_or_default(),
        env: raw.env.unwrap_or_default(),
        user: set(raw.user),
        working_dir: set(raw.working_dir),
        volumes: raw.volumes.unwrap_or_default().into_keys().collect(),
        exposed_ports: raw.exposed_ports.unwrap_or_default().into_keys().collect(),
        stop_signal: set(raw.stop_signal),
        healthcheck: raw.healthcheck.and_then(healthcheck),
        labels: raw.labels.unwrap_or_default(),
    }
}

/// Docker's zero means "inherit", and an empty test inherits everything: there is nothing left to inherit from here.
fn healthcheck(raw: RawHealthcheck) -> Option<ImageHealthcheck> {
    let test = raw.test.filter(|t| !t.is_empty())?;
    let ms = |nanos: Option<i64>| nanos.and_then(|n| u64::try_from(n).ok()).filter(|&n| n > 0).map(|n| n / 1_000_000);
    Some(ImageHealthcheck {
        test,
        interval_ms: ms(raw.interval),
        timeout_ms: ms(raw.timeout),
        start_period_ms: ms(raw.start_period),
        retries: raw.retries.and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_nulls_and_healthcheck_are_read() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"2026-01-01T00:00:00Z","config":{{"Entrypoint":null,
            "Cmd":["sh"],"Env":null,"Volumes":{{"/data":{{}}}},"ExposedPorts":{{"80/tcp":{{}}}},"User":"",
            "Healthcheck":{{"Test":["CMD-SHELL","true"],"Interval":5000000000,"Retries":0}}}},
            "rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}},"history":[]}}"#,
            "a".repeat(64)
        );
        let spec = parse(text.as_bytes()).expect("it is a config");
        assert_eq!(spec.config.cmd, ["sh"]);
        assert_eq!(spec.config.volumes, ["/data"]);
        assert_eq!(spec.config.exposed_ports, ["80/tcp"]);
        assert_eq!(spec.config.user, None);
        let check = spec.config.healthcheck.expect("it has one");
        assert_eq!((check.interval_ms, check.retries), (Some(5_000), None));
        assert_eq!(spec.diff_ids.len(), 1);
    }

    #[test]
    fn a_digest_that_is_none_is_refused() {
        let text = r#"{"rootfs":{"type":"layers","diff_ids":["sha256:../../etc"]}}"#;
        assert!(parse(text.as_bytes()).is_err());
    }
}
