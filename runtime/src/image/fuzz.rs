//! Fuzz targets of what registries say: see `crate::fuzz`.

use super::{config, manifest};

pub(crate) use super::registry::fuzz_challenges as challenges;

/// A manifest or index under each media type, and a configuration.
pub(crate) fn documents(bytes: &[u8]) {
    for kind in [
        "",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ] {
        let _ = manifest::parse(bytes, kind);
    }
    let _ = config::parse(bytes);
}
