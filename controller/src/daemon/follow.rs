//! What rings the bell from outside: manifests that change, containers that end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtime::Runtime;
use runtime::error::chain;
use runtime::runtime::RuntimeEvent;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::api::types::SourceRequest;
use crate::sources::Sources;
use crate::watch::{Trigger, WatchOptions, Watcher};

/// Between two looks whether the accepted state is still on disk.
const HEAL_EVERY: Duration = Duration::from_secs(30);

/// Before the stream of exits is opened again: the supervisor is being restarted.
const REOPEN_AFTER: Duration = Duration::from_millis(50);

/// Reads followed sources again as they change, until `stop` turns true.
pub(super) fn follow(sources: Arc<Sources>, mut stop: watch::Receiver<bool>) {
    tokio::spawn(async move {
        let mut changes = sources.changes();
        let mut watching: BTreeMap<PathBuf, (SourceRequest, AbortHandle)> = BTreeMap::new();
        loop {
            changes.mark_unchanged();
            let healing = Arc::clone(&sources);
            let _ = tokio::task::spawn_blocking(move || healing.heal()).await;
            let wanted = sources.followed();
            watching.retain(|_, (request, task)| {
                let keep = wanted.contains(request);
                if !keep {
                    task.abort();
                }
                keep
            });
            for request in wanted {
                watching.entry(request.path.clone()).or_insert_with(|| {
                    let task = tokio::spawn(follow_one(Arc::clone(&sources), request.clone()));
                    (request, task.abort_handle())
                });
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(HEAL_EVERY) => {}
                _ = stop.wait_for(|stop| *stop) => return watching.values().for_each(|(_, task)| task.abort()),
            }
        }
    });
}

async fn follow_one(sources: Arc<Sources>, request: SourceRequest) {
    let mut watcher = Watcher::new(&request.path, WatchOptions::default());
    loop {
        match watcher.next().await {
            Trigger::Resync => continue,
            Trigger::Manifests => {}
        }
        let wanted = request.clone();
        let reading = Arc::clone(&sources);
        let Ok(loaded) = tokio::task::spawn_blocking(move || reading.load(&wanted)).await else { continue };
        if !watcher.follow(&loaded) {
            continue;
        }
        let (sources, request) = (Arc::clone(&sources), request.clone());
        let _ = tokio::task::spawn_blocking(move || sources.refresh(request, &loaded)).await;
    }
}

/// Rings at each exit, for as long as the process lives: on a thread of its own, since the stream blocks.
pub(super) fn watch_runtime(runtime: Arc<dyn Runtime>, bell: Arc<Notify>) {
    let watching = move || {
        loop {
            match runtime.watch() {
                Ok(mut events) => loop {
                    // Whatever happened before the stream was open is found by a look.
                    bell.notify_one();
                    match events.next() {
                        Ok(RuntimeEvent::Exited { id, .. }) => tracing::debug!(%id, "exited"),
                        Ok(RuntimeEvent::Changed) => {}
                        Err(error) => {
                            tracing::debug!(error = chain(&error), "the stream of exits broke");
                            break;
                        }
                    }
                },
                Err(error) => tracing::debug!(error = chain(&error), "exits cannot be watched yet"),
            }
            std::thread::sleep(REOPEN_AFTER);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("exits".to_owned()).spawn(watching) {
        tracing::error!(%error, "exits are found by the timer only");
    }
}
