//! Pods as values: what runs beside a replica's main container, and what is seen of it.
//!
//! A replica whose template has a [`Pod`] is a *holder* (the container that everything else knows: address, slot, history)
//! and members that live in its namespaces. What follows for the whole from its members is here, once for the controller
//! and for the simulator. Pure.

use std::collections::BTreeMap;

use runtime::id::ContainerId;
use runtime::image::Digest;
use runtime::runtime::{Alteration, ContainerConfig, ContainerInfo, ContainerState, ExitStatus, Resources};
use serde::{Deserialize, Serialize};

use super::desired::Template;
use super::object::EnvFromSpec;
use super::{ObservedContainer, labels};

/// What runs beside the main container of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(bound(
    serialize = "Image: Serialize, Env: Serialize, Mount: Serialize, Network: Serialize",
    deserialize = "Image: Deserialize<'de>, Env: Deserialize<'de>, Mount: Deserialize<'de>, Network: Deserialize<'de>"
))]
pub struct Pod<Image, Env, Mount, Network> {
    /// The main container's name, unique among all.
    pub main: String,
    /// Containers see each other's processes.
    #[serde(default)]
    pub share_pids: bool,
    /// In the order in which they are started: those before the main container, then those beside it.
    pub members: Vec<Member<Image, Env, Mount, Network>>,
}

/// A container beside the main one. Its template has no pod, host name, network or stop grace of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(bound(
    serialize = "Image: Serialize, Env: Serialize, Mount: Serialize, Network: Serialize",
    deserialize = "Image: Deserialize<'de>, Env: Deserialize<'de>, Mount: Deserialize<'de>, Network: Deserialize<'de>"
))]
pub struct Member<Image, Env, Mount, Network> {
    /// Its name in the pod.
    pub name: String,
    /// When it runs.
    pub role: Role,
    /// What it runs.
    pub template: Template<Image, Env, Mount, Network>,
    /// Whole `Config`s as environment, as written; resolved, they are in the template's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSpec>,
}

/// When a container of a pod runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// To completion, before what comes after it.
    Init,
    /// From its turn before the main containers until they have ended; again whenever it ends.
    Sidecar,
    /// The main container.
    Main,
    /// Like the main container, and with it.
    Beside,
}

impl Role {
    /// As it is written in a holder's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Sidecar => "sidecar",
            Self::Main => "main",
            Self::Beside => "beside",
        }
    }

    /// Whether the pod has done its work when it and its like have ended.
    #[must_use]
    pub fn is_main(self) -> bool {
        matches!(self, Self::Main | Self::Beside)
    }
}

impl<Image, Env, Mount, Network> Pod<Image, Env, Mount, Network> {
    /// Every container by role and name in the order of starting, the main one among them.
    #[must_use]
    pub fn parts(&self) -> Vec<(Role, &str)> {
        let of = |before: bool| {
            let members = self.members.iter().filter(move |member| (member.role != Role::Beside) == before);
            members.map(|member| (member.role, member.name.as_str()))
        };
        of(true).chain([(Role::Main, self.main.as_str())]).chain(of(false)).collect()
    }

    /// The label by which a holder says what its pod is made of.
    #[must_use]
    pub fn label(&self) -> String {
        let parts: Vec<String> = self.parts().iter().map(|(role, name)| format!("{}:{name}", role.as_str())).collect();
        parts.join(" ")
    }
}

impl<Image, Env, Mount, Network> Template<Image, Env, Mount, Network> {
    /// What a container of the pod runs. The main one may have been called by another name when it was made.
    #[must_use]
    pub fn part(&self, role: Role, name: &str) -> Option<&Self> {
        if role == Role::Main {
            return Some(self);
        }
        self.pod.as_ref()?.members.iter().find(|member| member.name == name).map(|member| &member.template)
    }

    /// The template itself and those of its members.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        let members = self.pod.iter().flat_map(|pod| &pod.members).map(|member| &member.template);
        std::iter::once(self).chain(members)
    }
}

/// A pod as found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedPod {
    /// What it is made of, in the order of starting.
    pub parts: Vec<(Role, String)>,
    /// Its containers, those that ended included.
    pub members: BTreeMap<ContainerId, ObservedMember>,
    /// All its main containers have ended, or one that had to end well before them has failed, and not because we asked.
    #[serde(default)]
    pub has_ended: bool,
}

/// A container in a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedMember {
    /// Its name in the pod.
    pub name: String,
    /// How many containers of this name the pod had before.
    pub attempt: u32,
    /// Ends in a row that led to it.
    pub failures: u32,
    /// Its image.
    pub image: Digest,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Since when its readiness gate has been passing without a break, boot time.
    pub ready_since_boot_ms: Option<u64>,
    /// When its program was started, boot time; 0: never in this boot.
    pub started_boot_ms: u64,
    /// When it ended, boot time; 0: not in this boot.
    pub finished_boot_ms: u64,
    /// How it ended.
    pub exit: Option<ExitStatus>,
    /// Its limits.
    pub resources: Resources,
    /// What somebody changed of its limits from outside.
    #[serde(default)]
    pub is_altered: bool,
    /// It runs and does not do its work: its liveness or startup check has failed for good.
    #[serde(default)]
    pub unhealthy: bool,
}

impl ObservedMember {
    /// What a member's configuration alone says; `None` when it is no member of ours.
    #[must_use]
    pub fn from_config(config: &ContainerConfig) -> Option<Self> {
        config.holder()?;
        let number = |name: &str| config.labels.get(name).and_then(|text| text.parse().ok());
        Some(Self {
            name: config.labels.get(labels::MEMBER)?.clone(),
            attempt: number(labels::ATTEMPT)?,
            failures: number(labels::FAILURES).unwrap_or(0),
            image: config.image.clone(),
            state: ContainerState::Creating,
            ready_since_boot_ms: None,
            started_boot_ms: 0,
            finished_boot_ms: 0,
            exit: None,
            resources: config.resources.clone(),
            is_altered: false,
            unhealthy: false,
        })
    }

    /// A member as listed.
    #[must_use]
    pub fn from_info(info: &ContainerInfo, ready_since_boot_ms: Option<u64>, unhealthy: bool) -> Option<Self> {
        let member = Self::from_config(&info.config)?;
        let is_running = info.state == ContainerState::Running;
        Some(Self {
            state: info.state,
            ready_since_boot_ms: ready_since_boot_ms.filter(|_| is_running),
            started_boot_ms: info.times.started_boot_ms,
            finished_boot_ms: info.times.finished_boot_ms,
            exit: info.exit,
            is_altered: info.altered.contains(&Alteration::Limits),
            unhealthy: unhealthy && is_running,
            ..member
        })
    }
}

impl ObservedPod {
    /// From the holder's label.
    #[must_use]
    pub fn from_label(text: &str) -> Option<Self> {
        let part = |text: &str| {
            let (role, name) = text.split_once(':')?;
            let role =
                [Role::Init, Role::Sidecar, Role::Main, Role::Beside].into_iter().find(|r| r.as_str() == role)?;
            Some((role, name.to_owned()))
        };
        let parts = text.split(' ').map(part).collect::<Option<Vec<_>>>()?;
        Some(Self { parts, ..Self::default() })
    }

    /// The newest container of a name.
    #[must_use]
    pub fn newest(&self, name: &str) -> Option<(&ContainerId, &ObservedMember)> {
        self.members.iter().filter(|(_, member)| member.name == name).max_by_key(|(id, member)| (member.attempt, *id))
    }

    /// The newest container of each part, in the order of starting.
    pub fn newest_of_all(&self) -> impl Iterator<Item = (Role, &str, Option<&ObservedMember>)> {
        self.parts.iter().map(|(role, name)| (*role, name.as_str(), self.newest(name).map(|(_, member)| member)))
    }

    /// What a container of this name is.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<Role> {
        self.parts.iter().find(|(_, known)| known == name).map(|(role, _)| *role)
    }

    /// Whether the main containers were begun: what comes before them is over then.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.newest_of_all().any(|(role, _, newest)| role.is_main() && newest.is_some())
    }

    /// Whether every main container was started.
    #[must_use]
    pub fn has_started(&self) -> bool {
        let started =
            |member: &ObservedMember| matches!(member.state, ContainerState::Running | ContainerState::Stopped);
        self.newest_of_all().filter(|(role, ..)| role.is_main()).all(|(_, _, newest)| newest.is_some_and(started))
    }

    /// How often containers of it were started again.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.newest_of_all().filter_map(|(_, _, newest)| newest).map(|member| member.attempt).sum()
    }

    /// How it ended as a whole: as the first container did that failed, else well; `None`: nothing of it ran.
    fn exit(&self) -> Option<ExitStatus> {
        let of = |main: bool| self.newest_of_all().filter(move |(role, ..)| role.is_main() == main || !main);
        let ends = |main: bool| of(main).filter_map(|(_, _, newest)| newest.and_then(|member| member.exit));
        let bad = |exit: &ExitStatus| *exit != ExitStatus::Code(0);
        if self.has_begun() {
            return ends(true).find(bad).or_else(|| ends(true).next());
        }
        ends(false).find(bad)
    }

    /// Whether all its main containers have ended, or one that has to end well before them has not.
    fn is_over(&self) -> bool {
        let ended = |newest: Option<&ObservedMember>| newest.is_some_and(|m| m.state == ContainerState::Stopped);
        if self.has_begun() {
            return self.newest_of_all().filter(|(role, ..)| role.is_main()).all(|(_, _, newest)| ended(newest));
        }
        let failed =
            |newest: Option<&ObservedMember>| newest.is_some_and(|m| m.exit.is_some_and(|e| e != ExitStatus::Code(0)));
        self.newest_of_all().any(|(role, _, newest)| role == Role::Init && ended(newest) && failed(newest))
    }

    /// Since when everything that has to be ready is.
    fn ready_since(&self) -> Option<u64> {
        let needed = self.newest_of_all().filter(|(role, ..)| *role != Role::Init);
        needed
            .map(|(_, _, newest)| newest.and_then(|member| member.ready_since_boot_ms))
            .try_fold(0, |latest, since| Some(since?.max(latest)))
    }
}

impl ObservedContainer {
    /// Draws what follows for a holder from its members, which must be set: whether it is ready, over, or cut off from
    /// what runs without it. `was_over` is what an earlier look drew, `stop_asked` whether we have begun to stop it.
    pub fn settle_pod(&mut self, stop_asked: bool, was_over: bool) {
        let Some(pod) = &mut self.pod else { return };
        let is_live = |member: &ObservedMember| member.state != ContainerState::Stopped;
        pod.has_ended = pod.is_over() && (!stop_asked || was_over);
        match self.state {
            ContainerState::Stopped if pod.members.values().any(is_live) => {
                self.state = ContainerState::Running;
                self.exit = None;
                self.ready_since_boot_ms = None;
                self.altered.insert(Alteration::Network);
            }
            ContainerState::Stopped => self.exit = pod.exit().or(self.exit),
            ContainerState::Running => self.ready_since_boot_ms = pod.ready_since(),
            ContainerState::Creating | ContainerState::Created => {}
        }
    }

    /// Whether its programs were started.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.state == ContainerState::Running && self.pod.as_ref().is_none_or(ObservedPod::has_started)
    }

    /// Images it and its members need.
    pub fn images(&self) -> impl Iterator<Item = &Digest> {
        let members = self.pod.iter().flat_map(|pod| pod.members.values());
        std::iter::once(&self.image).chain(members.map(|member| &member.image))
    }
}
