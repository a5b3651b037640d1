//! Fuzz target of `config.json`: see `crate::fuzz`.

use std::path::PathBuf;

use super::bundle;

/// Told from a configuration, or what is wrong with it is said in words.
pub(crate) fn configuration(bytes: &[u8]) {
    if let Err(error) = bundle::examine(bytes, PathBuf::from("/bundle"), "c1") {
        assert!(!error.to_string().is_empty());
    }
}
