//! libFuzzer's loop over the target that `FUZZ_TARGET` names; the targets are in the crates themselves.
#![no_main]

use std::sync::OnceLock;

use controller::fuzz::Target;

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let all: Vec<(&str, Target)> = controller::fuzz::TARGETS.iter().chain(runtime::fuzz::TARGETS).copied().collect();
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = all.iter().find(|(known, _)| *known == name);
    found.map_or_else(
        || {
            let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
            eprintln!("FUZZ_TARGET is one of: {}", names.join(" "));
            std::process::exit(64);
        },
        |(_, target)| *target,
    )
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| CHOSEN.get_or_init(chosen)(bytes));
