//! What a plan comes to, object by object, for people: which fields differ and where they are written, what that leads
//! to, and what users of the object notice. Pure; read by nobody who acts.

mod field;

use std::collections::BTreeSet;

use runtime::image::ImageRef;
use runtime::runtime::{ContainerState, ImageConfig};
use serde::{Deserialize, Serialize};

use super::workload::spare;
use super::{Action, Plan};
use crate::model::{DesiredState, ObjectKey, ObservedState, SourceRef, Workload};
pub use field::FieldChange;

/// One object that does not stay as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub object: ObjectKey,
    /// Where it is written; `None` when nothing declares it any more.
    pub source: Option<SourceRef>,
    /// What is done to it.
    pub effect: Effect,
    /// What those who use it notice.
    pub interruption: Interruption,
    /// Fields that differ from what is in force. Empty when the manifest did not change and the host did.
    pub fields: Vec<FieldChange>,
    /// Why its first step is taken, as `Reason::name`.
    pub reasons: BTreeSet<String>,
    /// Images that have to be pulled for it.
    pub pulls: BTreeSet<ImageRef>,
}

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// It is made.
    Create,
    /// Containers go on: limits, ports, checks, names.
    InPlace,
    /// More or fewer replicas; those that stay are not touched.
    Scale {
        /// Replicas in force.
        from: u32,
        /// Replicas wanted.
        to: u32,
    },
    /// New containers come up before old ones go.
    Rolling {
        /// Replicas.
        replicas: u32,
        /// Above them at once.
        surge: u32,
    },
    /// Each old container is stopped before its successor starts.
    Replace {
        /// Replicas.
        replicas: u32,
    },
    /// The host is not as the manifest says: ended, drifted or unfinished things are put right.
    Repair,
    /// It is removed; volumes stay.
    Remove,
    /// Nothing declares it any more, and nothing of it is removed: a volume's data, or what is held.
    Forget,
}

/// What those who use an object notice while it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Interruption {
    /// Nothing.
    None,
    /// At least this many replicas serve throughout.
    Fewer {
        /// Replicas.
        serving: u32,
    },
    /// Nobody serves from the stop of the old container until the new one is ready.
    Gap {
        /// The longest the stop may take, in milliseconds; the start comes on top.
        stop_ms_max: u64,
    },
}

/// The objects a plan changes, in key order: between what is in force and what is wanted, or by what it does to them.
#[must_use]
pub fn changes(before: &DesiredState, wanted: &DesiredState, observed: &ObservedState, plan: &Plan) -> Vec<Change> {
    let mut keys: BTreeSet<&ObjectKey> = before.workloads.keys().chain(wanted.workloads.keys()).collect();
    keys.extend(before.jobs.keys().chain(wanted.jobs.keys()));
    keys.extend(before.images.keys().chain(wanted.images.keys()));
    keys.extend(before.volumes.keys().chain(wanted.volumes.keys()));
    keys.extend(before.networks.keys().chain(wanted.networks.keys()));
    keys.extend(plan.steps.iter().filter_map(|step| step.object.as_ref()));
    let sides = Sides { before, wanted, observed, plan };
    keys.into_iter().filter_map(|key| sides.change(key)).collect()
}

/// All that is compared.
#[derive(Clone, Copy)]
struct Sides<'a> {
    before: &'a DesiredState,
    wanted: &'a DesiredState,
    observed: &'a ObservedState,
    plan: &'a Plan,
}

impl Sides<'_> {
    fn change(self, key: &ObjectKey) -> Option<Change> {
        let steps = || self.plan.steps.iter().filter(|step| step.object.as_ref() == Some(key));
        let (was, is) = (source_of(self.before, key), source_of(self.wanted, key));
        let fields = self.fields(key);
        if fields.is_empty() && steps().next().is_none() && was.is_some() == is.is_some() {
            return None;
        }
        let (effect, interruption) = match is {
            None if steps().next().is_none() => (Effect::Forget, Interruption::None),
            None => (Effect::Remove, Interruption::None),
            Some(_) => self.effect(key, &fields),
        };
        let pulled = |action: &Action| match action {
            Action::PullImage { reference, .. } => Some(reference.clone()),
            Action::RemoveImage { .. }
            | Action::CreateNetwork { .. }
            | Action::RemoveNetwork { .. }
            | Action::CreateVolume { .. }
            | Action::RemoveVolume { .. }
            | Action::CreateContainer { .. }
            | Action::StartContainer { .. }
            | Action::StopContainer { .. }
            | Action::RemoveContainer { .. }
            | Action::UpdateResources { .. }
            | Action::PublishEndpoints { .. }
            | Action::RecordRevision { .. }
            | Action::RecordJob { .. } => None,
        };
        let pulls = steps().filter_map(|step| pulled(&step.action));
        Some(Change {
            object: key.clone(),
            source: is.cloned(),
            effect,
            interruption,
            fields,
            reasons: steps().map(|step| step.reason.name().to_owned()).collect(),
            pulls: pulls.collect(),
        })
    }

    fn fields(self, key: &ObjectKey) -> Vec<FieldChange> {
        if let (Some(before), Some(wanted)) = (self.before.workloads.get(key), self.wanted.workloads.get(key)) {
            return field::of_workload(before, wanted);
        }
        if let (Some(before), Some(wanted)) = (self.before.jobs.get(key), self.wanted.jobs.get(key)) {
            return field::of_job(before, wanted);
        }
        if let (Some(before), Some(wanted)) = (self.before.images.get(key), self.wanted.images.get(key)) {
            return field::of_image(before, wanted);
        }
        if let (Some(before), Some(wanted)) = (self.before.networks.get(key), self.wanted.networks.get(key)) {
            return field::of_network(before, wanted);
        }
        let volumes = self.before.volumes.get(key).zip(self.wanted.volumes.get(key));
        volumes.map(|(before, wanted)| field::of_volume(before, wanted)).unwrap_or_default()
    }

    fn effect(self, key: &ObjectKey, fields: &[FieldChange]) -> (Effect, Interruption) {
        let mut containers = self.observed.containers.values().filter(|c| c.replica.workload == *key);
        let Some(wanted) = self.wanted.workloads.get(key) else {
            let is_new = source_of(self.before, key).is_none();
            let effect = if is_new {
                Effect::Create
            } else if fields.is_empty() {
                Effect::Repair
            } else {
                Effect::InPlace
            };
            return (effect, Interruption::None);
        };
        let runs = containers.any(|c| c.state == ContainerState::Running);
        let Some(before) = self.before.workloads.get(key).filter(|_| runs || !fields.is_empty()) else {
            let effect = if self.before.workloads.contains_key(key) { Effect::Repair } else { Effect::Create };
            return (effect, Interruption::None);
        };
        // A manifest in force may not have got as far as the containers: what the planner does counts too.
        let rolls = self.plan.steps.iter().any(|step| {
            step.object.as_ref() == Some(key) && matches!(step.reason, super::Reason::TemplateChanged { .. })
        });
        if runs && (rolls || fields.iter().any(|field| field.replaces)) {
            return self.replacement(key, wanted);
        }
        match fields {
            [] => (Effect::Repair, Interruption::None),
            [only] if only.field == "replicas" => {
                (Effect::Scale { from: before.replicas, to: wanted.replicas }, Interruption::None)
            }
            _ => (Effect::InPlace, Interruption::None),
        }
    }

    fn replacement(self, key: &ObjectKey, wanted: &Workload) -> (Effect, Interruption) {
        let replicas = wanted.replicas;
        let image = self.observed.images.get(&wanted.template.image.reference);
        // Of an image that is not here its volumes are not known yet.
        let unknown = ImageConfig::default();
        let runs = (&wanted.template, image.map_or(&unknown, |image| &image.config));
        match spare(self.wanted, key, wanted, Some(runs)) {
            (0, unavailable) if replicas <= unavailable => {
                let gap = Interruption::Gap { stop_ms_max: wanted.template.stop_grace_ms };
                (Effect::Replace { replicas }, if replicas == 0 { Interruption::None } else { gap })
            }
            (0, unavailable) => (Effect::Replace { replicas }, Interruption::Fewer { serving: replicas - unavailable }),
            (surge, 0) => (Effect::Rolling { replicas, surge }, Interruption::None),
            (surge, unavailable) => {
                let serving = replicas.saturating_sub(unavailable);
                (Effect::Rolling { replicas, surge }, Interruption::Fewer { serving })
            }
        }
    }
}

fn source_of<'a>(state: &'a DesiredState, key: &ObjectKey) -> Option<&'a SourceRef> {
    let app = state.workloads.get(key).map(|app| &app.source);
    let app = app.or_else(|| state.jobs.get(key).map(|job| &job.source));
    let app = app.or_else(|| state.images.get(key).map(|image| &image.source));
    let app = app.or_else(|| state.volumes.get(key).map(|volume| &volume.source));
    app.or_else(|| state.networks.get(key).map(|network| &network.source))
}
