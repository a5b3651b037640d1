//! What the pulls of a plan would fetch, asked of the registries side by side.

use std::collections::BTreeSet;
use std::time::Duration;

use runtime::error::chain;
use runtime::image::{ImageRef, PullCost};

use crate::api::types::{PlanView, PullView};

/// Longest question to a registry about one image of a plan.
const WEIGH_MAX: Duration = Duration::from_secs(10);

/// What each image to pull costs; `ask` blocks, and is `None` where there is no store.
pub(crate) async fn weighed<A>(plan: &PlanView, ask: Option<A>) -> Vec<PullView>
where
    A: Fn(&ImageRef) -> runtime::Result<PullCost> + Clone + Send + 'static,
{
    let pulls: BTreeSet<&ImageRef> = plan.changes.iter().flat_map(|change| &change.pulls).collect();
    let asked = pulls.into_iter().map(|reference| {
        let (ask, reference) = (ask.clone(), reference.clone());
        tokio::spawn(async move {
            let Some(ask) = ask else { return PullView { reference, cost: None, unknown: None } };
            let asking = reference.clone();
            let asked = tokio::task::spawn_blocking(move || ask(&asking));
            let (cost, unknown) = match tokio::time::timeout(WEIGH_MAX, asked).await {
                Ok(Ok(Ok(cost))) => (Some(cost), None),
                Ok(Ok(Err(error))) => (None, Some(chain(&error))),
                Ok(Err(panic)) => (None, Some(format!("it broke: {panic}"))),
                Err(_) => (None, Some(format!("no answer in {} s", WEIGH_MAX.as_secs()))),
            };
            PullView { reference, cost, unknown }
        })
    });
    let asked: Vec<_> = asked.collect();
    let mut weighed = Vec::new();
    for answer in asked {
        weighed.extend(answer.await);
    }
    weighed
}
