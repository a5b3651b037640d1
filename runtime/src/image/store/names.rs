//! Names: what people call an image, moved, added and taken away. Never touches a layer.

use std::collections::{BTreeMap, BTreeSet};

use super::{IndexEntry, Store, not_found};
use crate::error::{Error, Result};
use crate::image::{Digest, ImageRef};

/// Fewest digits of an id that are looked up.
const ID_DIGITS_MIN: usize = 4;

/// An image somebody named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its manifest digest.
    pub digest: Digest,
    /// Its id; the manifest digest where the manifest cannot be read.
    pub id: Digest,
    /// The reference it was named by; `None` for an id.
    pub reference: Option<ImageRef>,
}

impl Store {
    /// The image people mean: a reference that is here, or an id or digest, whole or its first digits.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the digits fit several images; `Io`.
    pub fn find(&self, text: &str) -> Result<Named> {
        let index = self.index()?;
        if let Ok(reference) = text.parse::<ImageRef>()
            && let Some(entry) = index.find(&reference)
        {
            let id = self.id_of(&entry.digest);
            return Ok(Named { digest: entry.digest.clone(), id, reference: Some(reference) });
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_id = digits.len() >= ID_DIGITS_MIN && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_id {
            return Err(not_found(text));
        }
        let mut fitting = BTreeMap::new();
        for entry in &index.entries {
            let id = self.id_of(&entry.digest);
            let all = [Some(&entry.digest), entry.index_digest.as_ref(), Some(&id)];
            if all.into_iter().flatten().any(|d| d.hex().starts_with(digits)) {
                fitting.insert(entry.digest.clone(), id);
            }
        }
        let mut found = fitting.iter();
        match (found.next(), found.next()) {
            (Some((digest, id)), None) => Ok(Named { digest: digest.clone(), id: id.clone(), reference: None }),
            (None, _) => Err(not_found(text)),
            (Some(_), Some(_)) => {
                let ids: Vec<&str> = fitting.values().map(Digest::short).collect();
                Err(Error::Conflict(format!("`{text}` fits several images: {}; give more digits", ids.join(", "))))
            }
        }
    }

    /// Every name of an image; none for one that is kept without.
    ///
    /// # Errors
    /// `Io`.
    pub fn names_of(&self, digest: &Digest) -> Result<Vec<ImageRef>> {
        let index = self.index()?;
        Ok(index.entries.iter().filter(|e| e.digest == *digest).filter_map(|e| e.reference.clone()).collect())
    }

    /// Docker's IMAGE ID; the manifest's digest where nothing better can be read.
    pub(super) fn id_of(&self, digest: &Digest) -> Digest {
        self.record(digest).map_or_else(|_| digest.clone(), |record| record.config_digest.clone())
    }

    /// Gives an image one more name. What had the name before keeps its digest form.
    ///
    /// # Errors
    /// `NotFound`; `Io`; `Unsupported` for a name with a digest, which nobody may choose.
    pub fn tag(&self, digest: &Digest, name: &ImageRef) -> Result<()> {
        if name.digest().is_some() {
            return Err(Error::Unsupported(format!("`{name}` has a digest: a name that is given has only a tag")));
        }
        self.get(digest)?;
        self.edit_index(|index| {
            let found = index.entries.iter().find(|e| e.digest == *digest).ok_or_else(|| not_found(digest))?;
            let entry = IndexEntry { reference: Some(name.clone()), ..found.clone() };
            index.set(entry);
            Ok(())
        })
    }

    /// Takes names away; an image of `in_use` that has none left stays without one. Deletes nothing: see
    /// [`Store::collect`].
    ///
    /// # Errors
    /// `NotFound` when one of them is not here, and then all stay; `Io`.
    pub fn untag(&self, names: &[ImageRef], in_use: &BTreeSet<Digest>) -> Result<()> {
        self.edit_index(|index| {
            for name in names {
                let exact = index.entries.iter().find(|e| e.reference.as_ref() == Some(name));
                let found = exact.cloned().ok_or_else(|| not_found(name))?;
                index.forget(&found, in_use.contains(&found.digest));
            }
            Ok(())
        })
    }
}
