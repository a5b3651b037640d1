//! What is looked after beside the loop, at each resync and whenever networks come or go: kernel objects whose owner is
//! gone are deleted, and what of this host stands in the way of networks is told. Decides nothing about containers, and
//! writes nothing where nothing is left over.

use std::collections::BTreeSet;
use std::sync::Arc;

use runtime::Runtime;
use runtime::error::chain;
use runtime::id::NetworkName;
use runtime::runtime::Finding;
use tokio::sync::watch;

use crate::reconcile::{RESYNC, View};

/// Goes on until `stop` turns true.
pub(super) fn tend(
    runtime: Arc<dyn Runtime>,
    mut views: watch::Receiver<Arc<View>>,
    findings: watch::Sender<Arc<Vec<Finding>>>,
    mut stop: watch::Receiver<bool>,
) {
    tokio::spawn(async move {
        loop {
            let networks = networks_of(&views);
            let tended = Arc::clone(&runtime);
            let found = tokio::task::spawn_blocking(move || once(&*tended)).await.ok().flatten();
            if let Some(found) = found {
                findings.send_if_modified(|known| {
                    let differs = **known != found;
                    *known = Arc::new(found);
                    differs
                });
            }
            let others = async {
                while networks_of(&views) == networks {
                    if views.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            tokio::select! {
                () = others => {}
                () = tokio::time::sleep(RESYNC) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    });
}

fn networks_of(views: &watch::Receiver<Arc<View>>) -> BTreeSet<NetworkName> {
    views.borrow().seen.state.networks.keys().cloned().collect()
}

/// One look. `None`: what stands in the way could not be found out, and what was known of it still counts.
pub(super) fn once(runtime: &dyn Runtime) -> Option<Vec<Finding>> {
    match runtime.sweep() {
        Ok(swept) if swept.is_empty() => {}
        Ok(swept) => tracing::info!(?swept, "left-over kernel objects were deleted"),
        Err(error) => tracing::warn!(error = chain(&error), "left-over kernel objects could not be swept"),
    }
    let found = runtime.findings();
    found.inspect_err(|error| tracing::debug!(error = chain(error), "the host's rules could not be read")).ok()
}
