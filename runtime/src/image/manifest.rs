//! Manifests and indexes of OCI (image-spec 1.1) and Docker (schema 2), parsed from raw bytes.
//!
//! Digests are always taken over the bytes as they came, never over something re-encoded. A document that could be read
//! as two kinds is refused (CVE-2021-41190). Knows nothing of registries or files.

use serde::{Deserialize, Serialize};

use super::{Digest, ImageRef};
use crate::error::{Error, Result};

/// Largest manifest or index taken, in bytes (distribution-spec asks for at least 4 MiB).
pub(crate) const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Most layers of one image. Overlay itself takes 500.
pub(crate) const LAYERS_MAX: usize = 256;
/// Most entries of one index.
pub(crate) const INDEX_ENTRIES_MAX: usize = 1_000;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What we ask a registry for, in one `Accept` header.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// A pointer to bytes: what they are, their digest, their size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) urls: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// Where an image runs: Go's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

/// One image: its config and its layers, bottom first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What a document turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Reads a document. `content_type` is what the carrier said it is; empty when it said nothing.
///
/// # Errors
/// `Untrusted` for anything that is not exactly one of the two kinds, or breaks a bound.
pub(crate) fn parse(bytes: &[u8], content_type: &str) -> Result<Document> {
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        return refuse(format!("the manifest is larger than {MANIFEST_BYTES_MAX} bytes"));
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(|e| untrusted(format!("the manifest is not valid: {e}")))?;
    if raw.fs_layers.is_some() || raw.schema_version == Some(1) {
        return refuse("the image has a Docker schema 1 manifest, which no tool has written since 2017; push it again");
    }
    if raw.schema_version != Some(2) {
        return refuse("the manifest does not say schemaVersion 2");
    }
    let carrier = content_type.split(';').next().unwrap_or_default().trim();
    if let (Some(inner), true) = (&raw.media_type, is_known(carrier))
        && inner != carrier
    {
        return refuse(format!("the manifest says it is `{inner}` but was served as `{carrier}`"));
    }
    let kind = raw.media_type.as_deref().or_else(|| is_known(carrier).then_some(carrier));
    match (raw.manifests, raw.config, raw.layers) {
        (Some(list), None, None) if kind.is_none_or(|k| k == OCI_INDEX || k == DOCKER_LIST) => index(list),
        (None, Some(config), Some(layers)) if kind.is_none_or(|k| k == OCI_MANIFEST || k == DOCKER_MANIFEST) => {
            image(config, layers)
        }
        _ => refuse("the manifest could be read as an image and as an index, or is neither"),
    }
}

/// The config of an image's manifest.
///
/// # Errors
/// `Untrusted` when it is no manifest of an image.
pub(crate) fn config_of(bytes: &[u8]) -> Result<Descriptor> {
    match parse(bytes, "")? {
        Document::Manifest(manifest) => Ok(manifest.config),
        Document::Index(_) => refuse("an index is where an image should be"),
    }
}

/// What a manifest says it is, if it says so.
pub(crate) fn own_media_type(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        media_type: Option<String>,
    }
    serde_json::from_slice::<Head>(bytes).ok()?.media_type
}

fn is_known(media_type: &str) -> bool {
    [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].contains(&media_type)
}

fn index(list: Vec<Descriptor>) -> Result<Document> {
    if list.len() > INDEX_ENTRIES_MAX {
        return refuse(format!("the index has more than {INDEX_ENTRIES_MAX} entries"));
    }
    Ok(Document::Index(list))
}

fn image(config: Descriptor, layers: Vec<Descriptor>) -> Result<Document> {
    if layers.len() > LAYERS_MAX {
        return refuse(format!("the image has {} layers, at most {LAYERS_MAX} are taken", layers.len()));
    }
    for layer in &layers {
        let foreign = layer.urls.as_ref().is_some_and(|u| !u.is_empty()) || layer.media_type.contains("foreign");
        if foreign {
            return refuse(format!("layer {} is to be fetched from elsewhere, which is not done", layer.digest));
        }
        let is_tar = layer.media_type.contains(".tar") && !layer.media_type.contains("encrypted");
        if !is_tar {
            return refuse(format!("layer {} is of the unknown kind `{}`", layer.digest, layer.media_type));
        }
    }
    Ok(Document::Manifest(Manifest { config, layers }))
}

fn untrusted(message: impl Into<String>) -> Error {
    Error::Untrusted(message.into())
}

fn refuse<T>(message: impl Into<String>) -> Result<T> {
    Err(untrusted(message))
}

impl Platform {
    /// This host's.
    pub(crate) fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.map(str::to_owned) }
    }

    /// How well an image of platform `offer` runs here: smaller is better, `None` is not at all.
    pub(crate) fn rank(&self, offer: &Self) -> Option<u8> {
        if offer.os != self.os || offer.architecture != self.architecture {
            return None;
        }
        let level = |v: &Option<String>| v.as_deref().and_then(|v| v.strip_prefix('v')?.parse::<u8>().ok());
        match (level(&self.variant), level(&offer.variant)) {
            // x86-64 levels: without asking the processor only the base level is sure; higher ones come last
            (None, Some(theirs)) => Some(theirs.saturating_mul(2)),
            (_, None) => Some(1),
            (Some(ours), Some(theirs)) if theirs <= ours => Some((ours - theirs).saturating_mul(2)),
            (Some(_), Some(_)) => None,
        }
    }

    /// Whether this host's kernel can run such programs though it would not pick them: 32 bit on 64 bit.
    pub(crate) fn runs(&self, offer: &Self) -> bool {
        let narrow =
            [("amd64", "386"), ("arm64", "arm")].contains(&(self.architecture.as_str(), offer.architecture.as_str()));
        let unsaid = offer.architecture.is_empty();
        let os_fits = offer.os.is_empty() || offer.os == self.os;
        os_fits && (unsaid || narrow || self.architecture == offer.architecture)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

/// Picks the entry that runs best on `host`.
///
/// # Errors
/// `Registry` `BX0305`, naming the platforms on offer.
pub(crate) fn select_platform<'a>(
    list: &'a [Descriptor],
    host: &Platform,
    reference: &ImageRef,
) -> Result<&'a Descriptor> {
    let ranked = |d: &&Descriptor| d.platform.as_ref().and_then(|p| host.rank(p));
    if let Some(best) = list.iter().filter(|d| ranked(d).is_some()).min_by_key(|d| ranked(d)) {
        return Ok(best);
    }
    // layouts written by small tools do not name the platform of their only image
    if let [only] = list
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let mut offers: Vec<String> = list
        .iter()
        .filter_map(|d| d.platform.as_ref())
        .filter(|p| p.os != "unknown")
        .map(ToString::to_string)
        .collect();
    offers.sort();
    offers.dedup();
    Err(platform_error(reference, host, &offers.join(", ")))
}

/// `BX0305`.
pub(crate) fn platform_error(reference: &ImageRef, host: &Platform, offers: &str) -> Error {
    let offers = if offers.is_empty() { "nothing" } else { offers };
    let message = format!("`{reference}` does not run on this host, which is {host}: it is built for {offers}");
    Error::Registry { code: "BX0305", message, retry: false }
}

#[cfg(test)]
mod tests;
