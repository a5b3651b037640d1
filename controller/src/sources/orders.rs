//! What people ask of one object by hand, over what its manifest says: hold, release, scale, pause, resume, undo, retry.
//! Kept beside the accepted state, so that a restart keeps it. A followed directory would bring its own word back: what
//! goes against it is refused until the object is held.

use super::saved::{Entry, Role, Saved};
use super::{Inner, Sources};
use crate::api::types::Order;
use crate::model::{
    DesiredState, HoldOrder, ObjectKey, ObservedState, Orders, Revision, RevisionResult, UndoOrder, Workload,
};
use crate::plan::changed_fields;

/// Longest reason for a hold, in characters: it is one line of a table.
const WHY_CHARS_MAX: usize = 200;

/// Why something is not done as asked. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Stable code.
    pub code: &'static str,
    /// What and why.
    pub message: String,
    /// One command that helps.
    pub help: Option<String>,
}

impl Refused {
    fn new(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: Some(help.into()) }
    }

    fn state(key: &ObjectKey, what: impl std::fmt::Display) -> Self {
        let name = short(key);
        Self::new("BX0605", format!("{name} {what}; nothing was changed"), format!("boxship describe {name}"))
    }
}

impl Sources {
    /// Does what a person asks of one object, and says it in one line. Blocks.
    ///
    /// # Errors
    /// Why not; nothing was changed then.
    pub fn order(&self, key: &ObjectKey, order: &Order, observed: &ObservedState, by: &str) -> Result<String, Refused> {
        let mut inner = self.lock();
        let desired = self.desired.borrow().clone();
        let asked = Asked { key, desired: &desired, observed };
        let before = inner.saved.orders.get(key).cloned().unwrap_or_default();
        let (now, reason, said) = asked.answer(&inner.saved, before, order)?;
        match now == Orders::default() {
            true => drop(inner.saved.orders.remove(key)),
            false => drop(inner.saved.orders.insert(key.clone(), now)),
        }
        if matches!(order, Order::Retry) {
            self.memory.try_again(key, &asked.subjects());
        }
        self.memory.record_event(Some(key), reason, format!("{said}, asked by {by}"), false);
        self.put_in_force(&mut inner, &format!("{} by hand", short(key)));
        Ok(said)
    }

    /// Why a source is not taken back: what it declares is held, or the controller was started on it and would read it
    /// again.
    pub(super) fn refuse_removal(inner: &Inner, path: Option<&std::path::Path>) -> Result<(), Refused> {
        let asked = |(of, _): &(&std::path::PathBuf, &Entry)| path.is_none_or(|path| of.as_path() == path);
        for (of, entry) in inner.saved.entries.iter().filter(asked) {
            if entry.role == Role::Controllers {
                let message = format!(
                    "{} is the directory this controller follows: what it declares would come back; nothing was changed",
                    of.display()
                );
                let help = "remove files there   or, to leave one object as it is: boxship hold APP --why TEXT";
                return Err(Refused::new("BX0604", message, help));
            }
            let mut keys = entry.accepted.objects.iter().map(|object| &object.key);
            let held = keys.find(|key| inner.saved.orders.get(key).is_some_and(|by_hand| by_hand.hold.is_some()));
            if let Some(key) = held {
                let help = format!("boxship release {}", short(key));
                return Err(Refused::new(
                    "BX0605",
                    format!("{} is held by hand; nothing was changed", short(key)),
                    help,
                ));
            }
        }
        Ok(())
    }
}

impl Saved {
    /// A source was read again: what its manifests say of replicas counts again, but for what is held.
    pub(super) fn read_again(&mut self, path: &std::path::Path) {
        let Some(entry) = self.entries.get(path) else { return };
        for object in &entry.accepted.objects {
            if let Some(by_hand) = self.orders.get_mut(&object.key).filter(|by_hand| by_hand.hold.is_none()) {
                by_hand.replicas = None;
            }
        }
        self.orders.retain(|_, by_hand| *by_hand != Orders::default());
    }

    /// Forgets what was asked of objects that nothing declares any more, unless they are held.
    pub(super) fn forget_orders(&mut self) {
        let declared: std::collections::BTreeSet<ObjectKey> =
            self.entries.values().flat_map(|entry| super::merge::keys(&entry.accepted.desired)).cloned().collect();
        self.orders.retain(|key, by_hand| by_hand.hold.is_some() || declared.contains(key));
    }

    /// Puts what was asked by hand over what manifests say.
    pub(super) fn apply_orders(&self, all: &mut DesiredState) {
        for (key, by_hand) in &self.orders {
            let mut by_hand = by_hand.clone();
            if let Some(hold) = &mut by_hand.hold {
                all.workloads.extend(hold.app.take().map(|app| (key.clone(), *app)));
                all.jobs.extend(hold.job.take().map(|job| (key.clone(), *job)));
            }
            if let (Some(replicas), Some(app)) = (by_hand.replicas, all.workloads.get_mut(key)) {
                app.replicas = replicas;
            }
            if all.workloads.contains_key(key) || all.jobs.contains_key(key) {
                all.orders.insert(key.clone(), by_hand);
            }
        }
    }
}

/// One object and what is known of it.
struct Asked<'a> {
    key: &'a ObjectKey,
    desired: &'a DesiredState,
    observed: &'a ObservedState,
}

impl Asked<'_> {
    /// What is asked by hand from now on, the event's reason, and a line for people.
    fn answer(&self, saved: &Saved, before: Orders, order: &Order) -> Result<(Orders, &'static str, String), Refused> {
        let name = short(self.key);
        match order {
            Order::Hold { why } => {
                let hold = self.hold(&before, why)?;
                let said = format!("{name} is held: {}", hold.why);
                Ok((Orders { hold: Some(hold), ..before }, "HeldByHand", said))
            }
            Order::Release if before.hold.is_none() => Err(Refused::state(self.key, "is not held by hand")),
            // What a followed directory says counts again; elsewhere what was asked for goes on.
            Order::Release if is_followed(saved, self.key) => {
                let now = Orders { paused: before.paused, ..Orders::default() };
                Ok((now, "Released", format!("{name} is released: its manifest counts again")))
            }
            Order::Release => Ok((Orders { hold: None, ..before }, "Released", format!("{name} is released"))),
            Order::Scale { replicas } => {
                let app = self.app()?;
                self.may_go_against_manifest(saved, &before, "scale")?;
                if app.exclusive && *replicas > 1 {
                    return Err(Refused::state(self.key, "writes to a volume that is for one container"));
                }
                let said = format!("{name} is scaled {} -> {replicas}", app.replicas);
                Ok((Orders { replicas: Some(*replicas), ..before }, "Scaled", said))
            }
            Order::Pause => {
                self.app()?;
                let said = format!("roll-outs of {name} go no further; what serves goes on");
                Ok((Orders { paused: true, ..before }, "Paused", said))
            }
            Order::Resume if !before.paused => Err(Refused::state(self.key, "is not paused")),
            Order::Resume => Ok((Orders { paused: false, ..before }, "Resumed", format!("roll-outs of {name} go on"))),
            Order::Undo { to } => {
                self.app()?;
                self.may_go_against_manifest(saved, &before, "undo")?;
                let (undo, said) = self.undo(*to)?;
                Ok((Orders { undo: Some(undo), ..before }, "Undone", said))
            }
            Order::Retry => {
                self.app()?;
                let last = self.last()?;
                if last.result == RevisionResult::Ready {
                    return Err(Refused::state(
                        self.key,
                        format_args!("has nothing to retry: rev {} is ready", last.number),
                    ));
                }
                Ok((Orders { undo: None, ..before }, "Retried", format!("{name}: rev {} is tried again", last.number)))
            }
        }
    }

    fn app(&self) -> Result<&Workload, Refused> {
        self.desired.workloads.get(self.key).ok_or_else(|| self.missing("is no App that a manifest declares"))
    }

    fn missing(&self, what: &str) -> Refused {
        Refused::new("BX0903", format!("{} {what}", short(self.key)), "boxship get")
    }

    fn hold(&self, before: &Orders, why: &str) -> Result<HoldOrder, Refused> {
        let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WHY_CHARS_MAX).collect();
        let app = self.desired.workloads.get(self.key).cloned().map(Box::new);
        let job = self.desired.jobs.get(self.key).cloned().map(Box::new);
        if app.is_none() && job.is_none() {
            return Err(self.missing("is no App or Job that a manifest declares"));
        }
        let since_unix_ms = before.hold.as_ref().map_or(self.observed.now_unix_ms, |hold| hold.since_unix_ms);
        Ok(HoldOrder { why: why.trim().to_owned(), since_unix_ms, app, job })
    }

    fn may_go_against_manifest(&self, saved: &Saved, before: &Orders, verb: &str) -> Result<(), Refused> {
        if before.hold.is_some() || !is_followed(saved, self.key) {
            return Ok(());
        }
        let name = short(self.key);
        let place = self.desired.workloads.get(self.key).map(|app| app.source.to_string()).unwrap_or_default();
        let root = self.desired.roots.get(self.key).cloned().unwrap_or_default();
        let message = format!(
            "{name} comes from {place} in {root}, which is followed and would bring it back; nothing was changed"
        );
        let help = format!("change it there   or: boxship hold {name} --why TEXT, then {verb} it");
        Err(Refused::new("BX0604", message, help))
    }

    fn revisions(&self) -> &[Revision] {
        self.observed.revisions.get(self.key).map_or(&[], Vec::as_slice)
    }

    fn last(&self) -> Result<&Revision, Refused> {
        self.revisions().last().ok_or_else(|| Refused::state(self.key, "has no revision yet"))
    }

    fn undo(&self, to: Option<u32>) -> Result<(UndoOrder, String), Refused> {
        let last = self.last()?;
        let before = self.revisions().iter().rev().filter(|known| known.template_hash != last.template_hash);
        let good = |known: &&Revision| known.result == RevisionResult::Ready;
        let back = match to {
            None => before.clone().find(good),
            Some(number) => before.clone().find(|known| known.number == number),
        };
        let Some(back) = back else {
            let numbers: Vec<String> = before.map(|known| known.number.to_string()).collect();
            let what = match (to, numbers.is_empty()) {
                (_, true) => "has no other revision to go back to".to_owned(),
                (Some(to), false) => format!("cannot go back to rev {to}: there are {}", numbers.join(", ")),
                (None, false) => {
                    format!("has no earlier revision that was ready: name one with --to: {}", numbers.join(", "))
                }
            };
            return Err(Refused::state(self.key, what));
        };
        let mut images = self.observed.images.values();
        let is_here =
            images.any(|i| i.digest == back.image || i.previous.iter().any(|previous| previous.digest == back.image));
        if !is_here {
            let what =
                format!("cannot go back to rev {}: its image {} is not here any more", back.number, back.image.short());
            return Err(Refused::state(self.key, what));
        }
        let fields = changed_fields((&last.template, &last.image), (&back.template, &back.image));
        let said = format!("{}: rev {} -> rev {} ({})", short(self.key), last.number, back.number, fields.join(", "));
        let undo = UndoOrder { revision: last.number, of: last.template_hash.clone(), to: back.template_hash.clone() };
        Ok((undo, said))
    }

    /// Subjects of actions whose back-off a retry ends.
    fn subjects(&self) -> Vec<String> {
        let image = self.desired.workloads.get(self.key).map(|app| format!("pull {}", app.template.image.reference));
        let containers = self.observed.containers.iter().filter(|(_, c)| c.replica.workload == *self.key);
        let verbs =
            containers.flat_map(|(id, _)| ["create", "start", "stop", "remove"].map(|verb| format!("{verb} {id}")));
        image.into_iter().chain(verbs).collect()
    }
}

fn is_followed(saved: &Saved, key: &ObjectKey) -> bool {
    let declares = |entry: &&Entry| entry.accepted.objects.iter().any(|object| object.key == *key);
    saved.entries.values().find(declares).is_some_and(|entry| entry.request.watch)
}

fn short(key: &ObjectKey) -> String {
    format!("{}/{}", key.kind, key.name)
}
