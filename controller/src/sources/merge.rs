//! Several sources, one desired state. Pure. The first source (by path) that names an object has it.

use std::collections::{BTreeMap, BTreeSet};

use super::saved::Saved;
use crate::api::types::Notice;
use crate::model::{DesiredState, Hold, ObjectKey, codes};

/// Everything all sources want; objects that two of them name are told.
pub(super) fn merge(saved: &Saved, hold: Option<Hold>) -> (DesiredState, Vec<Notice>) {
    let mut all = DesiredState { generation: saved.generation, ..DesiredState::default() };
    let mut twice = BTreeSet::new();
    for (path, entry) in &saved.entries {
        let root = path.display().to_string();
        let one = &entry.accepted.desired;
        add(&mut all.images, &one.images, &mut twice);
        add(&mut all.workloads, &one.workloads, &mut twice);
        add(&mut all.jobs, &one.jobs, &mut twice);
        add(&mut all.volumes, &one.volumes, &mut twice);
        add(&mut all.networks, &one.networks, &mut twice);
        all.holds.extend(one.holds.iter().map(|hold| Hold { root: Some(root.clone()), ..hold.clone() }));
        for key in one.workloads.keys().chain(one.jobs.keys()) {
            all.roots.entry(key.clone()).or_insert_with(|| root.clone());
        }
    }
    all.holds.extend(hold);
    saved.apply_orders(&mut all);
    let notice = |key: &ObjectKey| Notice {
        code: codes::SAME_NAME.to_owned(),
        message: format!("two sources define {key}; the first one counts"),
        help: Some("boxship get -o json   (lists the sources)".to_owned()),
    };
    (all, twice.iter().map(notice).collect())
}

fn add<T: Clone>(all: &mut BTreeMap<ObjectKey, T>, one: &BTreeMap<ObjectKey, T>, twice: &mut BTreeSet<ObjectKey>) {
    for (key, value) in one {
        if all.contains_key(key) {
            twice.insert(key.clone());
        } else {
            all.insert(key.clone(), value.clone());
        }
    }
}

/// All objects of a state.
pub(super) fn keys(desired: &DesiredState) -> BTreeSet<&ObjectKey> {
    let keys = desired.images.keys().chain(desired.workloads.keys());
    keys.chain(desired.jobs.keys()).chain(desired.volumes.keys()).chain(desired.networks.keys()).collect()
}
