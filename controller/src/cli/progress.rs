//! How `up` looks while it waits: bars on a terminal, one line for each change elsewhere, JSON, or nothing.
//!
//! A frame is never taller than the screen (indicatif folds it); a line is printed once for each change of state.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use runtime::clock::unix_ms;

use super::args::Progress;
use super::format::{bytes, clock};
use super::up::short;
use crate::api::types::{ObjectStatus, Phase, PullStatus, Status};
use crate::model::ObjectKey;

/// Redraws per second.
const FRAMES_PER_SEC: u8 = 10;

/// Shows a sequence of statuses.
pub(super) struct Reporter {
    style: Style,
    /// What was said last, by object or image.
    said: RefCell<BTreeMap<String, String>>,
}

enum Style {
    Bars { screen: MultiProgress, bars: RefCell<BTreeMap<String, ProgressBar>> },
    Lines,
    Json,
    Quiet,
}

impl Reporter {
    pub(super) fn new(progress: Progress, json: bool) -> Self {
        let style = match progress {
            Progress::Quiet => Style::Quiet,
            Progress::Json => Style::Json,
            Progress::Plain => Style::Lines,
            Progress::Tty => Self::bars(),
            Progress::Auto if json => Style::Quiet,
            Progress::Auto if std::io::stderr().is_terminal() && std::env::var_os("CI").is_none() => Self::bars(),
            Progress::Auto => Style::Lines,
        };
        Self { style, said: RefCell::default() }
    }

    fn bars() -> Style {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(FRAMES_PER_SEC));
        Style::Bars { screen, bars: RefCell::default() }
    }

    /// Shows what is new.
    pub(super) fn show(&self, status: &Status, objects: &[ObjectKey]) {
        let ours = status.objects.iter().filter(|o| objects.contains(&o.key) || o.phase == Phase::Removing);
        match &self.style {
            Style::Quiet => {}
            Style::Bars { screen, bars } => {
                for pull in &status.pulls {
                    draw_pull(screen, &mut bars.borrow_mut(), pull);
                }
                for object in ours {
                    draw_object(screen, &mut bars.borrow_mut(), object);
                }
            }
            Style::Lines => {
                for pull in &status.pulls {
                    self.once(format!("pull {}", pull.reference), pull_phase(pull), |text| {
                        anstream::eprintln!("{} pull {} {text}", clock(unix_ms()), pull.reference);
                    });
                }
                for object in ours {
                    self.once(object.key.to_string(), object_line(object), |text| {
                        anstream::eprintln!("{} {} {text}", clock(unix_ms()), short(&object.key));
                    });
                }
            }
            Style::Json => {
                for object in ours {
                    self.once(object.key.to_string(), object_line(object), |_| {
                        let line = serde_json::json!({"t": unix_ms(), "type": "object", "object": object});
                        anstream::eprintln!("{line}");
                    });
                }
            }
        }
    }

    /// Says `text` about `subject` unless it was said last.
    fn once(&self, subject: String, text: String, say: impl FnOnce(&str)) {
        let mut said = self.said.borrow_mut();
        if said.get(&subject) != Some(&text) {
            say(&text);
            said.insert(subject, text);
        }
    }

    /// Leaves the last frame standing.
    pub(super) fn finish(&self) {
        if let Style::Bars { bars, .. } = &self.style {
            for bar in bars.borrow().values() {
                bar.abandon();
            }
        }
    }
}

fn object_line(object: &ObjectStatus) -> String {
    match object.desired {
        0 => object.message.clone(),
        desired => format!("{}/{desired} {}", object.ready, object.message),
    }
}

/// `started 18.4Mi`, then `done`: not a line a tick.
fn pull_phase(pull: &PullStatus) -> String {
    let total: u64 = pull.layers.iter().map(|l| l.total_bytes).sum();
    let done = pull.layers.iter().all(|l| l.done_bytes >= l.total_bytes && l.total_bytes > 0);
    if done { format!("unpacked {}", bytes(total)) } else { "started".to_owned() }
}

fn draw_pull(screen: &MultiProgress, bars: &mut BTreeMap<String, ProgressBar>, pull: &PullStatus) {
    let bar = bars.entry(format!("0 {}", pull.reference)).or_insert_with(|| {
        let bar = screen.insert(0, ProgressBar::new(0));
        bar.set_style(style("  Pull  {msg:40}  {bar:20}  {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left"));
        bar.set_message(pull.reference.to_string());
        bar
    });
    bar.set_length(pull.layers.iter().map(|l| l.total_bytes).sum());
    bar.set_position(pull.layers.iter().map(|l| l.done_bytes).sum());
}

fn draw_object(screen: &MultiProgress, bars: &mut BTreeMap<String, ProgressBar>, object: &ObjectStatus) {
    let bar = bars.entry(format!("1 {}", object.key)).or_insert_with(|| {
        let bar = screen.add(ProgressBar::new_spinner());
        bar.set_style(style("   Run  {msg}  {elapsed}"));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    });
    let dots: String = (0..object.desired.min(20)).map(|n| if n < object.ready { '●' } else { '○' }).collect();
    let text = format!("{:20} {dots} {}", short(&object.key), object_line(object));
    if matches!(object.phase, Phase::Ready | Phase::Completed | Phase::Failed | Phase::Held) {
        bar.finish_with_message(text);
    } else {
        bar.set_message(text);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
