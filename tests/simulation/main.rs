//! The simulator: the real planner against a fake host that checks contracts, under random manifests, faults, crashes,
//! reboots and lost memory. One seed is one whole life; `BOXSHIP_SEED=n` replays one with a trace.

mod desire;
mod disturb;
mod invariant;
mod memory;
mod pods;
mod rng;
mod run;
mod settle;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use controller::plan::bug::Bug;
use controller::plan::{Action, Reason};

use run::{Counts, run};

const SEEDS: u64 = 20_000;
/// Each action and each reason is planned at least this often in all seeds together.
const OCCURRENCES_MIN: u64 = 1_000;
/// Each planted mistake is found within this many seeds.
const BUG_SEEDS_MAX: u64 = 2_000;

/// Runs seeds on all cores; returns the sum, or what the lowest failing seed said.
fn run_all(seeds: std::ops::Range<u64>, bug: Option<Bug>) -> Result<Counts, String> {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new((Counts::default(), None::<(u64, String)>));
    let work = || {
        let mut counts = Counts::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let caught = std::panic::catch_unwind(|| run(seed, bug, false));
            match caught.unwrap_or_else(|_| Err(format!("seed {seed}: a panic"))) {
                Ok(more) => counts.add(&more),
                Err(error) => {
                    let mut sum = sum.lock().expect("no thread panics with the lock");
                    if sum.1.as_ref().is_none_or(|(before, _)| seed < *before) {
                        sum.1 = Some((seed, error));
                    }
                    next.store(seeds.end, Ordering::Relaxed);
                    break;
                }
            }
        }
        sum.lock().expect("no thread panics with the lock").0.add(&counts);
    };
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (counts, failed) = sum.into_inner().expect("no thread panics with the lock");
    failed.map_or(Ok(counts), |(seed, error)| Err(format!("{error}\n  replay: BOXSHIP_SEED={seed}")))
}

#[test]
fn every_seed_keeps_the_invariants_and_settles() {
    if let Some(seed) = std::env::var("BOXSHIP_SEED").ok().and_then(|seed| seed.parse().ok()) {
        run(seed, None, true).map(|_| ()).unwrap();
        return;
    }
    let seeds = std::env::var("BOXSHIP_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    let counts = run_all(0..seeds, None).unwrap_or_else(|error| panic!("{error}"));
    let steps: u64 = counts.actions.values().sum();
    println!(
        "{seeds} seeds, {} passes, {steps} steps, settled after at most {} passes",
        counts.passes, counts.settle_passes_max
    );
    println!("{:?}\n{:?}", counts.actions, counts.reasons);
    let rare = |names: &[&str], counted: &std::collections::BTreeMap<&'static str, u64>| {
        let rare = names.iter().filter(|name| counted.get(*name).is_none_or(|count| *count < OCCURRENCES_MIN));
        rare.map(|name| (*name).to_owned()).collect::<Vec<_>>()
    };
    if seeds >= SEEDS {
        assert_eq!(rare(&Action::NAMES, &counts.actions), Vec::<String>::new(), "actions that hardly occur");
        assert_eq!(rare(&Reason::NAMES, &counts.reasons), Vec::<String>::new(), "reasons that hardly occur");
    }
}

#[test]
fn every_planted_mistake_is_found() {
    for bug in Bug::ALL {
        match run_all(0..BUG_SEEDS_MAX, Some(bug)) {
            Ok(_) => panic!("{bug:?} is not found in {BUG_SEEDS_MAX} seeds"),
            Err(found) => println!("{bug:?}: {found}"),
        }
    }
}
