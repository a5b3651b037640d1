//! The gate's slice of fuzzing: every kept input of each target, and random neighbours of them. No coverage guides it;
//! `tests/fuzz/run` does that. Shared by the crates that have targets.

use std::path::Path;

use super::Target;

/// Random neighbours of each target, spread over its inputs; `FUZZ_RUNS` sets another number.
const RUNS: usize = 2_000;

/// Bytes at which grammars turn.
const TURNS: &[&[u8]] = &[
    b"\n",
    b":",
    b": ",
    b"- ",
    b"  ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"'",
    b"$",
    b"${",
    b"$$",
    b":-",
    b"*",
    b"&",
    b"!",
    b"|",
    b">",
    b"#",
    b"---\n",
    b"\0",
    b"\xff",
    b"-1",
    b"0",
    b"9999999999999999999",
    b"1e999",
    b".",
    b"/",
    b"../",
    b"\t",
    b"\r\n",
];

/// Feeds all of `targets`; a panic names target and input.
pub(crate) fn feed(targets: &[(&str, Target)]) {
    let runs = std::env::var("FUZZ_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    for (name, target) in targets {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(name);
        let mut files: Vec<_> = std::fs::read_dir(&kept)
            .unwrap_or_else(|why| panic!("{name} has no inputs: {why}"))
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        let inputs: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).expect("an input")).collect();
        assert!(!inputs.is_empty(), "{name} has no inputs");
        let seed = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
        let mut random = Random(seed);
        for (file, input) in files.iter().zip(&inputs) {
            try_one(name, target, input, &file.display().to_string());
        }
        for run in 0..runs {
            let input = neighbour(&inputs, &mut random);
            try_one(name, target, &input, &format!("run {run}"));
        }
    }
}

fn try_one(name: &str, target: &Target, input: &[u8], which: &str) {
    let outcome = std::panic::catch_unwind(|| target(input));
    assert!(outcome.is_ok(), "{name}, {which}: {:?}", String::from_utf8_lossy(input));
}

fn neighbour(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = inputs[random.below(inputs.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(12)).min(bytes.len());
        let splice: Vec<u8> = match random.below(6) {
            0 => Vec::new(),
            1 => TURNS[random.below(TURNS.len())].to_vec(),
            2 => vec![random.below(256) as u8; 1 + random.below(3)],
            3 => bytes[at..end].repeat(1 + random.below(3)),
            4 => {
                let other = &inputs[random.below(inputs.len())];
                let from = random.below(other.len() + 1);
                other[from..(from + random.below(64)).min(other.len())].to_vec()
            }
            _ => {
                let end = bytes.len();
                bytes.truncate(at.max(end / 2));
                continue;
            }
        };
        bytes.splice(at..end, splice);
    }
    bytes
}

/// A generator with nothing but speed: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound.max(1) as u64).unwrap_or(0)
    }
}
