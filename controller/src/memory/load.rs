//! Reading the memory back. What belongs to an earlier boot loses its boot times; what cannot be read is left out.

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;

use serde::de::DeserializeOwned;

use super::Inner;
use crate::model::ReplicaKey;
use crate::store::StateStore;

/// Under which key the boot id is kept that the boot times belong to.
pub(super) const BOOT_KEY: &str = "meta/boot";

/// Under which key generation and digest of the accepted desired state are kept.
pub(super) const ACCEPTED_KEY: &str = "meta/accepted";

/// All records, with boot times of another boot set to 0.
pub(super) fn load(store: &dyn StateStore, boot_id: &str) -> Inner {
    let exits: BTreeMap<String, _> = records(store, "exit/");
    let events: BTreeMap<String, _> = records(store, "event/");
    let mut inner = Inner {
        images: records(store, "image/"),
        containers: records(store, "container/"),
        networks: records(store, "network/"),
        volumes: records(store, "volume/"),
        exits: exits.into_iter().filter_map(|(key, e)| Some((ReplicaKey::try_from(key).ok()?, e))).collect(),
        revisions: records(store, "revision/"),
        jobs: records(store, "job/"),
        id_ranges: records(store, "ids/"),
        failures: records(store, "failure/"),
        events: VecDeque::from_iter(events.into_values()),
        accepted: store.get(ACCEPTED_KEY).and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default(),
        ..Inner::default()
    };
    let same_boot = store.get(BOOT_KEY).and_then(|json| serde_json::from_str::<String>(&json).ok());
    if same_boot.as_deref() != Some(boot_id) {
        forget_boot_times(&mut inner);
    }
    inner
}

fn records<K: FromStr + Ord, V: DeserializeOwned>(store: &dyn StateStore, prefix: &str) -> BTreeMap<K, V> {
    let mut records = BTreeMap::new();
    for (key, json) in store.scan_prefix(prefix) {
        match (key[prefix.len()..].parse(), serde_json::from_str(&json)) {
            (Ok(name), Ok(record)) => {
                records.insert(name, record);
            }
            (_, Err(error)) => tracing::warn!(key, %error, "a record cannot be read and is left out"),
            (Err(_), Ok(_)) => tracing::warn!(key, "a record's key cannot be read; it is left out"),
        }
    }
    records
}

/// Boot times of an earlier boot mean nothing now: 0 says "before this boot". Failures start to count anew.
fn forget_boot_times(inner: &mut Inner) {
    for image in inner.images.values_mut() {
        image.checked_boot_ms = 0;
        image.unused_since_boot_ms = None;
        image.previous.iter_mut().for_each(|previous| previous.unused_since_boot_ms = None);
    }
    for record in inner.containers.values_mut() {
        record.observed.ready_since_boot_ms = None;
        record.observed.started_boot_ms = 0;
        record.observed.finished_boot_ms = 0;
    }
    for exit in inner.exits.values_mut().flatten() {
        exit.finished_boot_ms = 0;
    }
    for revision in inner.revisions.values_mut().flatten() {
        revision.progress_boot_ms = 0;
    }
    for subject in std::mem::take(&mut inner.failures).into_keys() {
        inner.pending.delete(super::failure_key(&subject));
    }
}
