//! The list of scenarios, in the order they run: what everything else rests on comes first.

mod converge;
mod crash;
mod demo;
mod dialects;
mod drift;
mod files;
mod hand;
mod hand_kept;
mod health;
mod images;
mod input;
mod logs;
mod look;
mod networks;
mod owners;
mod plans;
mod pods;
mod replace;
mod scale;
mod secrets;
mod stateful;
mod upgrade;

use crate::Scenario;

pub(crate) const ALL: &[&[Scenario]] = &[
    input::ALL,
    converge::ALL,
    replace::ALL,
    plans::ALL,
    files::ALL,
    secrets::ALL,
    stateful::ALL,
    health::ALL,
    dialects::ALL,
    networks::ALL,
    hand::ALL,
    hand_kept::ALL,
    pods::ALL,
    owners::ALL,
    crash::ALL,
    drift::ALL,
    upgrade::ALL,
    logs::ALL,
    look::ALL,
    images::ALL,
    scale::ALL,
    demo::ALL,
];

/// A scenario with images, in namespaces of its own.
const fn on_images(name: &'static str, limit_secs: u32, run: fn(&mut crate::lab::Lab) -> crate::Result) -> Scenario {
    Scenario { name, run, images: true, root: true, alone: false, limit_secs }
}

/// The same, with nothing beside it.
const fn alone(scenario: Scenario) -> Scenario {
    Scenario { alone: true, ..scenario }
}
