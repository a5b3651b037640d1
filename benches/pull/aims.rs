//! What a pull is meant to cost, and whether it did: beside the fastest of the peers, beside the plain tools, warm, and in
//! memory. The bounds are those of docs/benchmarks.md.

use crate::Figures;

/// Of the wall time of the fastest peer, in percent.
const OF_PEER_PERCENT: u128 = 40;
/// Of the plain tools, in percent.
const OF_TOOLS_PERCENT: u128 = 100;
const WARM_MS_MAX: u128 = 10;
const ANON_MIB_MAX: u128 = 64;

/// Prints each aim with what came of it; whether all of them that could be measured were met.
pub(crate) fn print(all: &[Figures]) -> bool {
    println!("\n| aim | layers | measured | at most | |\n|---|---|---|---|---|");
    let mut met = true;
    let mut say = |aim: &str, pack: &str, found: Option<u128>, most: u128| {
        let verdict = found.map_or("not measured", |found| if found <= most { "met" } else { "missed" });
        met &= verdict != "missed";
        let found = found.map_or_else(|| "-".to_owned(), |found| found.to_string());
        println!("| {aim} | {pack} | {found} | {most} | {verdict} |");
    };
    for ours in all.iter().filter(|figures| figures.peer == "boxship") {
        let others = || all.iter().filter(|figures| figures.pack == ours.pack);
        let is_peer = |figures: &&Figures| matches!(figures.peer, "docker" | "containerd" | "podman");
        let percent_of = |wall_ms: Option<u128>| wall_ms.map(|wall_ms| ours.wall_ms * 100 / wall_ms.max(1));
        let fastest = others().filter(is_peer).map(|figures| figures.wall_ms).min();
        let tools = others().find(|figures| figures.peer == "plain tools, two at a time").map(|tools| tools.wall_ms);
        say("wall, % of the fastest peer's", ours.pack, percent_of(fastest), OF_PEER_PERCENT);
        say("wall, % of the plain tools'", ours.pack, percent_of(tools), OF_TOOLS_PERCENT);
        say("pulled again, ms", ours.pack, Some(ours.warm_ms), WARM_MS_MAX);
        say("anonymous memory, MiB", ours.pack, Some(ours.anon_mib), ANON_MIB_MAX);
    }
    met
}
