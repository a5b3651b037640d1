//! What is remembered comes back; what did not change is not written.

use std::sync::atomic::{AtomicUsize, Ordering};

use runtime::runtime::ExitStatus;

use super::*;
use crate::model::TemplateHash;
use crate::store::{StoreError, VolatileStore};

/// Counts commits that change something.
#[derive(Default)]
struct Counting {
    store: VolatileStore,
    commits: AtomicUsize,
}

impl StateStore for Counting {
    fn get(&self, key: &str) -> Option<String> {
        self.store.get(key)
    }
    fn scan_prefix(&self, prefix: &str) -> Vec<(String, String)> {
        self.store.scan_prefix(prefix)
    }
    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.commits.fetch_add(usize::from(!batch.is_empty()), Ordering::SeqCst);
        self.store.commit(batch)
    }
    fn problem(&self) -> Option<String> {
        None
    }
    fn close(&self) {}
}

fn replica() -> ReplicaKey {
    ReplicaKey { workload: "shop/app/web".parse().unwrap(), ordinal: 2 }
}

fn exit(attempt: u32) -> ExitRecord {
    ExitRecord {
        attempt,
        template_hash: TemplateHash("v1-0".to_owned()),
        exit: ExitStatus::Code(3),
        finished_boot_ms: 77,
        finished_unix_ms: 88,
        ready_for_ms: 9,
        asked: false,
        unhealthy: false,
    }
}

#[test]
fn memory_survives_and_boot_times_do_not_survive_a_boot() {
    let store = Arc::new(Counting::default());
    let memory = Memory::open(store.clone(), "boot-a");
    for attempt in 0..25 {
        memory.record_exit(&mut memory.lock(), replica(), exit(attempt));
    }
    memory.record_failure("create web-1-x", &runtime::Error::Conflict("no".to_owned()));
    memory.record_failure("create web-1-x", &runtime::Error::Conflict("no again".to_owned()));
    memory.record_event(None, "Accepted", "generation 1".to_owned(), false);
    assert!(memory.flush());

    let again = Memory::open(store.clone(), "boot-a");
    assert_eq!(again.exits(&replica()).len(), ObservedState::EXITS_MAX);
    assert_eq!(again.exits(&replica()).last(), Some(&exit(24)));
    assert_eq!(again.lock().failures["create web-1-x"].attempts, 2);
    assert_eq!(again.events_after(0).len(), 1);

    let rebooted = Memory::open(store, "boot-b");
    assert_eq!(rebooted.exits(&replica()).last().unwrap().finished_boot_ms, 0);
    assert_eq!(rebooted.exits(&replica()).last().unwrap().finished_unix_ms, 88);
    assert!(rebooted.lock().failures.is_empty());
    rebooted.flush();
    assert!(rebooted.store.scan_prefix("failure/").is_empty());
}

#[test]
fn nothing_is_written_while_nothing_happens() {
    let store = Arc::new(Counting::default());
    let memory = Memory::open(store.clone(), "boot");
    let network = |intact| ObservedNetwork {
        config: runtime::runtime::NetworkConfig {
            name: "shop".parse().unwrap(),
            gateway: [10, 0, 0, 1].into(),
            prefix_len: 24,
            internal: false,
        },
        intact,
    };
    let look = |intact| {
        let networks = BTreeMap::from([("shop".parse().unwrap(), network(intact))]);
        let world = World { images: BTreeMap::new(), containers: BTreeMap::new(), networks, volumes: BTreeMap::new() };
        memory.record_world(&mut memory.lock(), world);
        memory.flush();
        store.commits.load(Ordering::SeqCst)
    };
    let first = look(true);
    assert_eq!(look(true), first);
    assert_eq!(look(false), first + 1);
    assert_eq!(look(false), first + 1);
}

#[test]
fn events_are_bounded_and_told() {
    let memory = Memory::open(Arc::new(VolatileStore::default()), "boot");
    let watch = memory.event_watch();
    for n in 0..EVENTS_MAX + 5 {
        memory.record_event(Some(&"shop/app/web".parse().unwrap()), "Started", format!("{n}"), false);
    }
    let events = memory.events_after(0);
    assert_eq!(events.len(), EVENTS_MAX);
    assert_eq!(*watch.borrow(), events.last().unwrap().seq);
    memory.flush();
    assert_eq!(memory.store.scan_prefix("event/").len(), EVENTS_MAX);
}
