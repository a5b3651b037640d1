//! Containers of Apps and Jobs that no manifest names: stopped and removed, unless something holds them. Absence
//! deletes; an error (a source that cannot be read) never does.

use super::pass::Pass;
use super::{Reason, WaitingOn};

pub(super) fn remove_undeclared(pass: &mut Pass<'_>) {
    let desired = pass.desired;
    let undeclared = pass
        .owned
        .iter()
        .filter(|(key, _)| !desired.workloads.contains_key(**key) && !desired.jobs.contains_key(**key));
    let undeclared: Vec<_> = undeclared.map(|(key, found)| (*key, found.clone())).collect();
    for (key, found) in undeclared {
        for (id, container) in found {
            match pass.hold(container) {
                Some(reason) => pass.wait(key, WaitingOn::Held { reason: reason.to_owned() }),
                // Still being made: it shows as created, or as half made, in the next look.
                None if pass.is_being_made(id) => {}
                None => {
                    pass.remove((id, container), Reason::Undeclared, None);
                }
            }
        }
    }
}
