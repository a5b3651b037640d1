//! The one directory a controller is started with (`--manifests`), and what happens when it is another one than before:
//! the same source moved. What both define goes on under the new one; what only the old one defines stays as it is until
//! the old one is taken back. Pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::merge;
use super::saved::{Entry, Role, Saved};
use crate::api::types::{Notice, SourceRequest};
use crate::model::{Accepted, ObjectKey, codes};

/// Objects named in one notice.
const NAMES_MAX: usize = 5;

impl Saved {
    /// Makes a directory the controller's; one before it is left. Returns how it is to be read: a directory in force
    /// keeps the stack of the files directly in it, else they would all be other objects.
    pub(super) fn make_controllers(&mut self, path: &Path) -> SourceRequest {
        let known = self.entries.get(path).or_else(|| self.controllers().map(|(_, entry)| entry));
        let default_stack = known.map(|entry| entry.request.default_stack.clone()).unwrap_or_default();
        for (_, entry) in self.entries.iter_mut().filter(|(other, e)| e.role == Role::Controllers && *other != path) {
            entry.role = Role::Left;
            entry.request.watch = false;
        }
        let request = SourceRequest { path: path.to_owned(), default_stack, watch: true, confirm_removal: false };
        let accepted = self.entries.remove(path).map(|entry| entry.accepted).unwrap_or_default();
        let entry = Entry { request: request.clone(), accepted, role: Role::Controllers };
        self.entries.insert(path.to_owned(), entry);
        request
    }

    /// A request as it is to be read: the controller's own directory stays followed, in the stack it has, whoever asks.
    pub(super) fn as_known(&self, request: SourceRequest) -> SourceRequest {
        match self.entries.get(&request.path) {
            Some(entry) if entry.role == Role::Controllers => {
                SourceRequest { default_stack: entry.request.default_stack.clone(), watch: true, ..request }
            }
            Some(_) | None => request,
        }
    }

    /// Left directories give up what another source defines, and go when they have nothing any more.
    pub(super) fn forget_what_moved(&mut self) {
        let in_force = self.entries.values().filter(|entry| entry.role != Role::Left);
        let defined: BTreeSet<ObjectKey> =
            in_force.flat_map(|entry| merge::keys(&entry.accepted.desired)).cloned().collect();
        for entry in self.entries.values_mut().filter(|entry| entry.role == Role::Left) {
            forget(&mut entry.accepted, &defined);
        }
        self.entries.retain(|_, entry| entry.role != Role::Left || !merge::keys(&entry.accepted.desired).is_empty());
    }

    /// What stays although its directory was left, and the command that lets go of it.
    pub(super) fn left_notices(&self) -> Vec<Notice> {
        let now = self.controllers().map(|(path, _)| format!("follows {} now and ", path.display()));
        let left = self.entries.iter().filter(|(_, entry)| entry.role == Role::Left);
        left.map(|(path, entry)| {
            let keys = merge::keys(&entry.accepted.desired);
            let names: Vec<String> = keys.iter().take(NAMES_MAX).map(ToString::to_string).collect();
            let more = keys.len().checked_sub(NAMES_MAX).filter(|more| *more > 0);
            let message = format!(
                "the controller {}no longer reads {}; what only the latter defines stays as it is: {}{}",
                now.as_deref().unwrap_or_default(),
                path.display(),
                names.join(", "),
                more.map(|more| format!(" and {more} more")).unwrap_or_default(),
            );
            let help = Some(format!("boxship down {}", path.display()));
            Notice { code: codes::HELD_MOVED.to_owned(), message, help }
        })
        .collect()
    }

    fn controllers(&self) -> Option<(&PathBuf, &Entry)> {
        self.entries.iter().find(|(_, entry)| entry.role == Role::Controllers)
    }
}

/// Without resolving again: what stays is the last good version of each object, and that names nothing.
fn forget(accepted: &mut Accepted, keys: &BTreeSet<ObjectKey>) {
    let desired = &mut accepted.desired;
    desired.images.retain(|key, _| !keys.contains(key));
    desired.workloads.retain(|key, _| !keys.contains(key));
    desired.jobs.retain(|key, _| !keys.contains(key));
    desired.volumes.retain(|key, _| !keys.contains(key));
    // Nothing is read there any more, so nothing can be wrong with it.
    desired.holds.clear();
    accepted.objects.retain(|object| !keys.contains(&object.key));
}
