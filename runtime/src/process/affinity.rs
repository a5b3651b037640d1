//! On which CPUs a further program runs (OCI config, "execCPUAffinity"). Pure.

use super::memory_policy::ranges;
use crate::{Error, Result};

/// More CPUs than any kernel is built for (CONFIG_NR_CPUS).
const CPUS_MAX: u32 = 8192;

/// The list as bits.
///
/// # Errors
/// `BadContainer` naming the part that is none.
pub fn of(cpus: &str) -> Result<Vec<u64>> {
    ranges(cpus, CPUS_MAX)
        .map_err(|part| Error::BadContainer(format!("`execCPUAffinity`: `{part}` is no range of CPUs")))
}

/// The list as the kernel shows masks: `0x3`.
///
/// # Errors
/// As [`of`].
pub fn shown(cpus: &str) -> Result<String> {
    let digits: String = of(cpus)?.iter().rev().map(|word| format!("{word:016x}")).collect();
    let digits = digits.trim_start_matches('0');
    Ok(format!("0x{}", if digits.is_empty() { "0" } else { digits }))
}

#[cfg(test)]
mod tests {
    #[test]
    fn masks() {
        for (list, mask) in [("0,1", "0x3"), ("1", "0x2"), ("64,0", "0x10000000000000001"), ("", "0x0")] {
            assert_eq!(super::shown(list).unwrap(), mask);
        }
        assert!(super::shown("9-3").is_err());
    }
}
