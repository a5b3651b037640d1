//! A plan where no controller runs: the state is read as one would read it at its start, and nothing is made or changed,
//! not even a data root.

use std::collections::BTreeSet;
use std::sync::Arc;

use runtime::image::{ImageRef, PullCost, Store};
use runtime::layout::Layout;
use runtime::linux::{Alone, list_volumes};
use runtime::network;

use crate::api::types::{PlanView, SourceRequest};
use crate::api::weigh::weighed;
use crate::cli::context::{Context, Failure};
use crate::memory::Memory;
use crate::observe::{Found, remembered};
use crate::secret::{Keyring, Makes};
use crate::sources::Sources;
use crate::store::snapshot;

/// The plan, or who holds the data root.
pub(super) async fn view(
    context: &Context,
    request: Option<SourceRequest>,
) -> Result<Result<PlanView, String>, Failure> {
    let (layout, options) = (context.layout.clone(), context.place.store_options());
    let keys = Arc::new(Keyring::new(context.place.secret_key_file(), Makes::Throwaway));
    let work = move || look(&layout, request, keys).map(|view| view.map(|view| (view, Store::look(&layout, options))));
    let looked = tokio::task::spawn_blocking(work).await;
    let looked = looked.map_err(|panic| Failure::new("BX0900", format!("it broke: {panic}"), Some("boxship check")))?;
    let (mut view, store) = match looked? {
        Ok(looked) => looked,
        Err(holder) => return Ok(Err(holder)),
    };
    let store = store.ok().map(Arc::new);
    let ask = store.map(|store| move |reference: &ImageRef| -> runtime::Result<PullCost> { store.weigh(reference) });
    view.pulls = weighed(&view, ask).await;
    let root = context.layout.data_root.display();
    anstream::eprintln!("note: no controller runs for {root}: this is what one would do if it started now");
    Ok(Ok(view))
}

/// Blocks.
fn look(
    layout: &Layout,
    request: Option<SourceRequest>,
    keys: Arc<Keyring>,
) -> Result<Result<PlanView, String>, Failure> {
    // Held to the end: nobody starts to write in the middle of the look.
    let _held = match Alone::look(layout).map_err(|error| unreadable(layout, &error))? {
        Ok(held) => held,
        Err(holder) => return Ok(Err(holder)),
    };
    let records = snapshot(&layout.state_dir()).map_err(|error| unreadable(layout, &error))?;
    let memory = Arc::new(Memory::open(Arc::new(records), &layout.boot_id()?));
    let owners: BTreeSet<_> = memory.owners();
    let file = layout.state_dir().join("accepted.json");
    let sources = Sources::look(file, Arc::clone(&memory), crate::plan::plan, owners, Arc::clone(&keys));
    let found = Found {
        images: Store::look(layout, runtime::image::StoreOptions::default())?.list()?,
        networks: network::list(layout)?,
        volumes: list_volumes(layout)?,
    };
    let desired = sources.desired().borrow().clone();
    let lives = |id: &_| runtime::supervisor::lives(layout, id);
    let observed = remembered(&memory, found, lives, &desired);
    let mut view = sources.plan(request, &observed);
    if keys.is_throwaway() {
        // A controller makes another key, and its hash is another one.
        view.hash.clear();
    }
    Ok(Ok(view))
}

fn unreadable(layout: &Layout, error: &dyn std::error::Error) -> Failure {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    let message = format!("the state in {} cannot be read: {error}{cause}", layout.data_root.display());
    Failure::new("BX0702", message, Some("sudo boxship plan"))
}
