//! Words for states: what people see for a given pass.

use std::sync::Arc;

use super::*;
use crate::plan::{Plan, Waiting};

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

#[test]
fn a_back_off_shows_its_time_and_cause() {
    let mut view = View::default();
    let mut plan = Plan::default();
    let on = WaitingOn::BackOff { until_boot_ms: 19_500, failures: 3, message: "OOM, exit 137".to_owned() };
    plan.waiting.push(Waiting { object: Some(key("shop/app/web")), on });
    view.plan = Arc::new(plan);
    let live = Live::default();
    let page = Page { view: &view, live: &live };
    assert_eq!(page.back_off(&key("shop/app/web")), Some((Phase::Failed, "Backoff 20s: OOM, exit 137".to_owned())));
    assert_eq!(page.back_off(&key("shop/app/db")), None);
}

#[test]
fn an_empty_host_that_settled_has_converged() {
    let view = View { settled: true, ..View::default() };
    let status = status(&view, &Live::default());
    assert_eq!((status.generation, status.converged_generation, status.objects.len()), (0, 0, 0));
}
