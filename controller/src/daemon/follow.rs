//! What rings the bell from outside: manifests that change, containers that end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtime::Runtime;
use runtime::error::chain;
use runtime::runtime::RuntimeEvent;
use tokio::sync::{Notify, watch};

use crate::sources::{Followed, Sources};

/// Between two looks at what events of files do not show (files named by `file:` on another file system, lost events).
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// Before the stream of exits is opened again: the supervisor is being restarted.
const REOPEN_AFTER: Duration = Duration::from_millis(50);

/// Reads followed sources again as they change, until `stop` turns true.
pub(super) fn follow(sources: Arc<Sources>, mut stop: watch::Receiver<bool>) {
    tokio::spawn(async move {
        let mut changes = sources.changes();
        loop {
            changes.mark_unchanged();
            let followed: BTreeMap<PathBuf, Followed> =
                sources.followed().into_iter().map(|followed| (followed.path.clone(), followed)).collect();
            for path in followed.into_keys() {
                let sources = Arc::clone(&sources);
                let _ = tokio::task::spawn_blocking(move || sources.refresh(&path)).await;
            }
            tokio::select! {
                () = tokio::time::sleep(REFRESH_EVERY) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    });
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
