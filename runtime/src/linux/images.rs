//! Images together with the containers made from them: what is used is never taken away, and whoever asks is told by
//! what it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use super::LinuxRuntime;
use crate::error::{Error, Result};
use crate::image::{Collected, Digest, ImageRef, Pace, PruneRequest, Pruned, Scrubbed, Swap};
use crate::runtime::PullProgress;

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Removed {
    /// Names taken away.
    pub untagged: Vec<ImageRef>,
    /// Images that are gone, by id.
    pub deleted: Vec<Digest>,
    /// What that freed.
    pub freed: Collected,
}

impl LinuxRuntime {
    /// Deletes images nobody refers to, and layers and blobs nobody needs.
    ///
    /// # Errors
    /// `Io`.
    pub fn collect_images(&self) -> Result<Collected> {
        let _alone = self.images_in_use.write().unwrap_or_else(PoisonError::into_inner);
        let in_use = self.image_users()?.into_keys().collect();
        self.images.collect(&in_use)
    }

    /// Which containers, running or not, were made from which image (manifest digest).
    ///
    /// # Errors
    /// `Io`.
    pub fn image_users(&self) -> Result<BTreeMap<Digest, BTreeSet<String>>> {
        let mut users: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
        for config in self.containers.list()? {
            users.entry(config.image.clone()).or_default().insert(config.id.to_string());
        }
        Ok(users)
    }

    /// Takes images away as `docker rmi` does: a reference loses that name, an id all its names (several only with
    /// `force`); with its last name the image goes. One that a container was made from stays, running or not.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` naming the containers, or the names an id has; `Io`. Earlier ones of `texts` are gone then.
    pub fn remove_images(&self, texts: &[String], force: bool) -> Result<Removed> {
        let _alone = self.images_in_use.write().unwrap_or_else(PoisonError::into_inner);
        let users = self.image_users()?;
        let in_use: BTreeSet<Digest> = users.keys().cloned().collect();
        let mut removed = Removed::default();
        for text in texts {
            self.remove_one(text, force, &users, &mut removed)?;
        }
        removed.freed = self.images.collect(&in_use)?;
        Ok(removed)
    }

    fn remove_one(
        &self,
        text: &str,
        force: bool,
        users: &BTreeMap<Digest, BTreeSet<String>>,
        removed: &mut Removed,
    ) -> Result<()> {
        let named = self.images.find(text)?;
        let all = self.images.names_of(&named.digest)?;
        let names: Vec<ImageRef> = match named.reference {
            Some(name) if all.contains(&name) => vec![name],
            // what is here under another name is that name's business
            Some(name) => return Err(Error::NotFound { what: "image", name: name.to_string() }),
            None => all.clone(),
        };
        let is_last = names.len() == all.len();
        if is_last && let Some(users) = users.get(&named.digest) {
            let users = users.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::Conflict(format!("image `{text}` is used by {users}; nothing of it was removed")));
        }
        let tags = names.iter().filter(|name| name.digest().is_none()).count();
        if tags > 1 && !force {
            let names = names.iter().map(ImageRef::familiar).collect::<Vec<_>>().join(", ");
            return Err(Error::Conflict(format!(
                "image `{text}` has several names: {names}; name one, or use --force"
            )));
        }
        self.images.untag(&names, &BTreeSet::new())?;
        removed.untagged.extend(names);
        if is_last {
            removed.deleted.push(named.id);
        }
        Ok(())
    }

    /// Deletes images nothing uses. `held` are references that must stay though no container has them.
    ///
    /// # Errors
    /// `Io`, `Untrusted`.
    pub fn prune_images(&self, request: &PruneRequest, held: &BTreeSet<ImageRef>) -> Result<Pruned> {
        let _alone = self.images_in_use.write().unwrap_or_else(PoisonError::into_inner);
        let mut in_use: BTreeSet<Digest> = self.image_users()?.into_keys().collect();
        in_use.extend(held.iter().filter_map(|name| name.digest().cloned()));
        self.images.prune(request, &in_use, held)
    }

    /// Checks every image; heals what no container stands on. See [`crate::image::Store::scrub`].
    ///
    /// # Errors
    /// `Io`.
    pub fn scrub_images(&self, progress: &dyn PullProgress) -> Result<Scrubbed> {
        self.images.scrub(progress, &|swap| {
            let _alone = self.images_in_use.write().unwrap_or_else(PoisonError::into_inner);
            swap(&self.image_users()?.into_keys().collect())
        })
    }

    /// Checks the layer after this one. See [`crate::image::Store::scrub_next`].
    ///
    /// # Errors
    /// `Io`.
    pub fn scrub_next(
        &self,
        after: &Digest,
        progress: &dyn PullProgress,
        pace: Pace<'_>,
    ) -> Result<Option<(Digest, usize, Scrubbed)>> {
        let alone: Swap<'_> = &|swap| {
            let _alone = self.images_in_use.write().unwrap_or_else(PoisonError::into_inner);
            swap(&self.image_users()?.into_keys().collect())
        };
        self.images.scrub_next(after, progress, alone, pace)
    }

    /// Says in a "no space" what a prune would give.
    pub(super) fn with_reclaimable(&self, error: Error) -> Error {
        match error {
            Error::NoSpace { path, needed_bytes, free_bytes, .. } => {
                let request = PruneRequest { all: true, dry_run: true, ..PruneRequest::default() };
                let reclaimable_bytes = self.prune_images(&request, &BTreeSet::new()).map_or(0, |p| p.freed.bytes);
                Error::NoSpace { path, needed_bytes, free_bytes, reclaimable_bytes }
            }
            other => other,
        }
    }
}
