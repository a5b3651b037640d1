//! What a pull would fetch, without fetching it: the manifest and the configuration are read, layers are only counted.
//! Writes nothing.

use serde::{Deserialize, Serialize};

use super::super::registry::Mirrors;
use super::super::{Digest, ImageRef, Store, config};
use super::{Together, choose, pair};
use crate::clock;
use crate::error::Result;

/// What a pull of one reference would cost now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullCost {
    /// The image the registry answers with now.
    pub digest: Digest,
    /// Bytes over the wire: compressed layers that are not here, less what an earlier pull left of them.
    pub fetch_bytes: u64,
    /// Compressed bytes of all its layers.
    pub total_bytes: u64,
    /// Layers that are not here.
    pub layers: u32,
}

impl Store {
    /// What a pull of this reference would fetch. Asks the registry for the manifest and, unless it is here, the
    /// configuration; blocks as long as [`Store::pull`] would for these.
    ///
    /// # Errors
    /// As [`Store::pull`].
    pub fn weigh(&self, reference: &ImageRef) -> Result<PullCost> {
        let mirrors = Mirrors::of(reference, &self.options)?;
        let (since_ms, stall_ms) = (clock::boot_ms(), self.options.stall_ms);
        let registry = Together { origin: &mirrors, documents: &self.documents, since_ms, stall_ms };
        let chosen = choose(&registry, reference)?;
        let (_config, bytes) = self.config_bytes(&registry, reference, &chosen.manifest.config)?;
        let layers = pair(&chosen.manifest, &config::parse(&bytes)?, reference)?;
        let mut cost = PullCost { digest: chosen.entry.digest, fetch_bytes: 0, total_bytes: 0, layers: 0 };
        for (blob, diff_id) in &layers {
            cost.total_bytes = cost.total_bytes.saturating_add(blob.size);
            if self.has_layer(diff_id) {
                continue;
            }
            cost.layers += 1;
            if !self.blob_path(&blob.digest).exists() {
                let here = std::fs::metadata(self.partial_path(&blob.digest)).map_or(0, |m| m.len());
                cost.fetch_bytes = cost.fetch_bytes.saturating_add(blob.size.saturating_sub(here));
            }
        }
        Ok(cost)
    }
}
