//! How a check asks by HTTP.

use serde::{Deserialize, Serialize};

/// How a request of a check is made, beside its port and path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpWith {
    /// With TLS; whose certificate the answer has does not matter.
    pub tls: bool,
    /// Added headers, in order; a `host` among them replaces the address.
    pub headers: Vec<(String, String)>,
}

impl HttpWith {
    pub(super) fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}
