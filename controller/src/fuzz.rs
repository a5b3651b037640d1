//! Fuzz targets: bytes of strangers into everything of this crate that reads them. A target panics when what it fed says
//! something that cannot be. They are driven by `tests/fuzz/run` (coverage-guided), and in the gate over the kept corpus
//! and its neighbours. Compiled for these two only.

/// A target: any bytes at all must not make it panic, hang or grow.
pub type Target = fn(&[u8]);

/// All targets by name; `tests/fuzz/corpus/NAME/` has inputs to begin with.
pub const TARGETS: &[(&str, Target)] = &[
    ("native", crate::manifest::fuzz::native),
    ("compose", crate::manifest::fuzz::compose),
    ("kubernetes", crate::manifest::fuzz::kubernetes),
    ("interpolation", crate::manifest::fuzz::interpolation),
    ("env_file", crate::manifest::fuzz::env_file),
    ("format", crate::manifest::fuzz::format),
    ("grammars", crate::manifest::fuzz::grammars),
    ("api", crate::api::fuzz::requests),
    ("records", crate::store::fuzz::records),
];

#[cfg(test)]
#[path = "../../tests/fuzz/neighbours.rs"]
mod neighbours;

#[cfg(test)]
mod tests {
    use super::{TARGETS, neighbours};

    #[test]
    fn kept_inputs_and_their_neighbours() {
        neighbours::feed(TARGETS);
    }
}
