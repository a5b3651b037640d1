//! Names of things the kernel and the disk hold. Parsed at the edge, trusted inside.
//!
//! Every kernel object we make carries one of these in its name, so that a sweep can tell whose it is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name accepted, in bytes: a DNS label (RFC 1035 §2.3.4), so that each name can be a host name.
pub const NAME_BYTES_MAX: usize = 63;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a name: {why}")]
pub struct NameError {
    /// The text as given.
    pub name: String,
    /// Which rule it breaks.
    pub why: &'static str,
}

/// Checks the rule shared by all names: `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 63 bytes.
///
/// # Errors
/// [`NameError`] naming the first rule that is broken.
pub fn check_name(name: &str) -> std::result::Result<(), NameError> {
    let refuse = |why| Err(NameError { name: name.to_owned(), why });
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return refuse("it is longer than 63 bytes");
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return refuse("only a-z, 0-9 and `-` are allowed");
    }
    if name.starts_with('-') || name.ends_with('-') {
        return refuse("it starts or ends with `-`");
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> std::result::Result<Self, NameError> {
                check_name(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> std::result::Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// One container of this data root, unique for its whole history.
    ContainerId
}
name_type! {
    /// One bridge network of this data root.
    NetworkName
}
name_type! {
    /// One named or anonymous volume of this data root.
    VolumeName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "shop-web-1", "0x"] {
            assert!(good.parse::<ContainerId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "..", &"x".repeat(64)] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad}");
        }
    }
}
