//! Fuzz targets: bytes of strangers into everything of this crate that reads them. A target panics when what it fed says
//! something that cannot be. They are driven by `tests/fuzz/run` (coverage-guided), and in the gate over the kept corpus
//! and its neighbours. Compiled for these two only.

/// A target: any bytes at all must not make it panic, hang or grow.
pub type Target = fn(&[u8]);

/// All targets by name; `tests/fuzz/corpus/NAME/` has inputs to begin with.
pub const TARGETS: &[(&str, Target)] = &[
    ("names", names),
    ("image_documents", crate::image::fuzz::documents),
    ("auth_header", crate::image::fuzz::challenges),
    ("layer", crate::image::fuzz::layer),
    ("oci_config", crate::oci::fuzz::configuration),
    ("dns", crate::switchboard::fuzz::packet),
];

/// References, digests, addresses and subnets, one to a line: what is read is written as what reads the same.
fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines().take(64) {
        again::<crate::image::ImageRef>(line);
        again::<crate::image::Digest>(line);
        again::<crate::runtime::HostPort>(line);
        again::<crate::network::ipam::Subnet>(line);
    }
}

fn again<T: std::str::FromStr + std::fmt::Display + PartialEq + std::fmt::Debug>(line: &str) {
    let Ok(read) = line.parse::<T>() else { return };
    let written = read.to_string();
    assert_eq!(written.parse::<T>().ok().as_ref(), Some(&read), "{line:?} is written {written:?}");
}

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
