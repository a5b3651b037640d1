//! The containers of a pod for people: their states, and one word for the whole, in Kubernetes' words.

use runtime::runtime::{ContainerState, ExitStatus};

use super::Page;
use crate::api::types::MemberStatus;
use crate::model::{ObservedMember, ObservedPod, Role};

/// The newest container of each part, in the order of starting.
pub(super) fn members(page: Page<'_>, pod: &ObservedPod) -> Vec<MemberStatus> {
    let one = |(role, name): &(Role, String)| {
        let (id, member) = pod.newest(name)?;
        let info = page.view.seen.containers.iter().find(|info| info.config.id == *id);
        Some(MemberStatus {
            name: name.clone(),
            role: *role,
            container: id.clone(),
            state: member.state,
            ready: member.state == ContainerState::Running && member.ready_since_boot_ms.is_some(),
            pid: info.and_then(|info| info.pid),
            started_unix_ms: info.map_or(0, |info| info.times.started_unix_ms),
            exit: member.exit,
            attempt: member.attempt,
            probe: page.live.probes.get(id).cloned(),
        })
    };
    pod.parts.iter().filter_map(one).collect()
}

/// `Init:1/2`, `PodInitializing`, `CrashLoopBackOff`, `Running`.
pub(super) fn word(pod: &ObservedPod) -> String {
    let before: Vec<_> = pod.newest_of_all().filter(|(role, ..)| !role.is_main()).collect();
    if !pod.has_begun() && !before.is_empty() {
        let is_done = |role: Role, member: &ObservedMember| match role {
            Role::Init => member.exit == Some(ExitStatus::Code(0)),
            Role::Sidecar | Role::Main | Role::Beside => member.state == ContainerState::Running,
        };
        let failed = before.iter().filter_map(|(_, _, newest)| *newest).find(|m| is_failed(m));
        if let Some(failed) = failed {
            return format!("Init:{}", trouble(failed));
        }
        let done = before.iter().filter(|(role, _, newest)| newest.is_some_and(|m| is_done(*role, m))).count();
        return if done == before.len() {
            "PodInitializing".to_owned()
        } else {
            format!("Init:{done}/{}", before.len())
        };
    }
    let late = |(role, _, _): &(Role, &str, Option<&ObservedMember>)| *role != Role::Init;
    let newest = pod.newest_of_all().filter(late).filter_map(|(_, _, newest)| newest);
    match newest.into_iter().find(|member| is_ended(member)) {
        Some(ended) => trouble(ended).to_owned(),
        None if pod.has_started() => "Running".to_owned(),
        None => "PodInitializing".to_owned(),
    }
}

fn is_ended(member: &ObservedMember) -> bool {
    member.state == ContainerState::Stopped
}

fn is_failed(member: &ObservedMember) -> bool {
    is_ended(member) && member.exit != Some(ExitStatus::Code(0))
}

/// What ended again and again is given time; what ended once has just ended.
fn trouble(member: &ObservedMember) -> &'static str {
    match (member.attempt, is_failed(member)) {
        (0, true) => "Error",
        (0, false) => "Completed",
        (_, _) => "CrashLoopBackOff",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use runtime::image::Digest;
    use runtime::runtime::Resources;

    use super::*;

    fn pod(members: &[(&str, u32, ContainerState, Option<u8>)]) -> ObservedPod {
        let label = "init:fetch sidecar:proxy init:migrate main:web beside:metrics";
        let member = |&(name, attempt, state, code): &(&str, u32, ContainerState, Option<u8>)| {
            let member = ObservedMember {
                name: name.to_owned(),
                attempt,
                failures: attempt,
                image: Digest::of(b"i"),
                state,
                ready_since_boot_ms: None,
                started_boot_ms: 1,
                finished_boot_ms: 2,
                exit: code.map(ExitStatus::Code),
                resources: Resources::default(),
                is_altered: false,
                unhealthy: false,
            };
            (format!("{name}-{attempt}").parse().expect("a label"), member)
        };
        let members: BTreeMap<_, _> = members.iter().map(member).collect();
        ObservedPod { members, ..ObservedPod::from_label(label).expect("a label of ours") }
    }

    #[test]
    fn the_word_says_how_far_a_pod_is() {
        use ContainerState::{Created, Running, Stopped};
        assert_eq!(word(&pod(&[])), "Init:0/3");
        assert_eq!(word(&pod(&[("fetch", 0, Running, None)])), "Init:0/3");
        assert_eq!(word(&pod(&[("fetch", 0, Stopped, Some(3))])), "Init:Error");
        assert_eq!(word(&pod(&[("fetch", 1, Stopped, Some(3))])), "Init:CrashLoopBackOff");
        let before = [("fetch", 1, Stopped, Some(0)), ("proxy", 0, Running, None)];
        assert_eq!(word(&pod(&before)), "Init:2/3");
        let before = [before[0], before[1], ("migrate", 0, Stopped, Some(0))];
        assert_eq!(word(&pod(&before)), "PodInitializing");
        let with = |more: &[(&'static str, u32, ContainerState, Option<u8>)]| word(&pod(&[&before[..], more].concat()));
        assert_eq!(with(&[("web", 0, Created, None)]), "PodInitializing");
        assert_eq!(with(&[("web", 0, Running, None), ("metrics", 0, Running, None)]), "Running");
        assert_eq!(with(&[("web", 0, Running, None), ("metrics", 0, Stopped, Some(1))]), "Error");
        assert_eq!(with(&[("web", 2, Stopped, Some(0)), ("metrics", 0, Running, None)]), "CrashLoopBackOff");
    }
}
