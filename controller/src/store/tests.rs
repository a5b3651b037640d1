//! One suite for both stores, and what only the persisted one promises: it comes back, whatever happened to its files.

use std::fs;
use std::path::Path;

use super::*;

fn put(key: &str, json: &str) -> Batch {
    let mut batch = Batch::default();
    batch.put(key, json.to_owned());
    batch
}

fn suite(store: &dyn StateStore) {
    assert_eq!(store.get("a/1"), None);
    let mut batch = put("a/1", "1");
    batch.put("a/2", "2".to_owned());
    batch.put("b/1", "\"other\"".to_owned());
    batch.delete("a/absent");
    store.commit(batch).unwrap();
    assert_eq!(store.scan_prefix("a/"), [("a/1".into(), "1".into()), ("a/2".into(), "2".into())]);

    let mut batch = put("a/1", "[1]");
    batch.delete("a/2");
    batch.put("big", format!("\"{}\"", "x".repeat(40_000)));
    store.commit(batch).unwrap();
    assert_eq!(store.get("a/1").as_deref(), Some("[1]"));
    assert_eq!(store.get("a/2"), None);
    assert_eq!(store.get("big").map(|json| json.len()), Some(40_002));

    store.commit(put("big", "0")).unwrap();
    assert_eq!(store.get("big").as_deref(), Some("0"));
    let mut batch = Batch::default();
    batch.delete("big");
    store.commit(batch).unwrap();
    for bad in ["", "nul\0", &"k".repeat(KEY_BYTES_MAX + 1)] {
        assert!(matches!(store.commit(put(bad, "1")), Err(StoreError::BadKey(_))));
    }
    assert_eq!(store.problem(), None);
}

fn content(store: &dyn StateStore) -> Vec<(String, String)> {
    store.scan_prefix("").into_iter().filter(|(key, _)| !key.starts_with("meta/")).collect()
}

#[test]
fn the_volatile_store_keeps_the_contract() {
    suite(&VolatileStore::default());
}

#[test]
fn the_persisted_store_keeps_the_contract_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path()).unwrap();
    assert_eq!(store.opened(), &Opened::Fresh);
    suite(&store);
    let before = store.scan_prefix("");
    drop(store);
    let store = SledStore::open(dir.path()).unwrap();
    assert_eq!(store.opened(), &Opened::Existing);
    assert_eq!(store.scan_prefix(""), before);
}

#[test]
fn a_second_controller_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let _first = SledStore::open(dir.path()).unwrap();
    let Err(error) = SledStore::open(dir.path()) else { panic!("two writers") };
    assert!(error.to_string().contains(&format!("by pid {}", std::process::id())), "{error}");
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    SledStore::open(dir.path()).unwrap().commit(put("meta/format", "99")).unwrap();
    assert!(matches!(SledStore::open(dir.path()), Err(StoreError::Newer { found: 99, known: 1 })));
}

/// Writes a store, closes it, damages its directory, opens it again.
fn damaged(damage: impl Fn(&Path)) -> (Opened, Vec<(String, String)>) {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path()).unwrap();
    store.commit(put("a", "1")).unwrap();
    drop(store);
    damage(&dir.path().join("sled"));
    let store = SledStore::open(dir.path()).unwrap();
    store.commit(put("b", "2")).unwrap();
    (store.opened().clone(), content(&store))
}

#[test]
fn damage_never_prevents_a_start_and_the_checkpoint_fills_the_new_one() {
    let both = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())];
    let (opened, kept) = damaged(|dir| fs::write(dir.join("conf"), b"not a line of it").unwrap());
    assert!(matches!(opened, Opened::Rebuilt { .. }), "{opened:?}");
    assert_eq!(kept, both);
    let (opened, kept) = damaged(|dir| fs::write(dir.join("snap.0000000000000ABC.generating"), b"half").unwrap());
    assert_eq!(opened, Opened::Existing);
    assert_eq!(kept, both);
    let (_, kept) = damaged(|dir| fs::write(dir.join("db"), vec![7; 1 << 20]).unwrap());
    assert_eq!(kept, both);
    let (opened, kept) = damaged(|dir| fs::write(dir.join("snap.00000000000FFFFF"), b"nonsense").unwrap());
    assert!(matches!(opened, Opened::WithoutSnapshots { .. } | Opened::Existing), "{opened:?}");
    assert_eq!(kept, both);
    let (opened, kept) = damaged(|dir| fs::remove_dir_all(dir).unwrap());
    assert_eq!(opened, Opened::Fresh);
    assert_eq!(kept, both);
}

#[test]
fn a_database_deleted_while_open_is_made_again_with_everything_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path()).unwrap();
    store.commit(put("a", "1")).unwrap();
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    store.commit(put("b", "2")).unwrap();
    let before = content(&store);
    drop(store);
    fs::remove_file(dir.path().join("checkpoint.jsonl")).unwrap();
    let store = SledStore::open(dir.path()).unwrap();
    assert_eq!(content(&store), before);
}

#[test]
fn a_store_that_cannot_be_written_says_so_and_still_answers() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let store = SledStore::open(&file.join("state")).unwrap();
    assert!(matches!(store.commit(put("a", "1")), Err(StoreError::NotPersisted(_))));
    assert!(store.problem().is_some());
    assert_eq!(store.get("a").as_deref(), Some("1"));
}
