//! Fuzz targets of what registries say: see `crate::fuzz`.

use std::io::Read;

use super::{Digest, config, manifest, unpack};

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

/// A layer, compressed or not: judged alike whole and in small pieces.
pub(crate) fn layer(bytes: &[u8]) {
    let verdict = |stream: &mut dyn Read| {
        let found = unpack::unpacked_digest(&mut { stream }, &Digest::of(bytes), bytes.len() as u64);
        found.map(|(digest, _)| digest).map_err(|error| error.to_string())
    };
    assert_eq!(verdict(&mut Pieces(bytes)), verdict(&mut { bytes }));
}

/// Gives three bytes at a time.
struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let (now, rest) = self.0.split_at(self.0.len().min(buffer.len()).min(3));
        buffer[..now.len()].copy_from_slice(now);
        self.0 = rest;
        Ok(now.len())
    }
}
