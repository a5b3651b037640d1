//! How to find out how a replica is: what is tried, how often, and what it takes.

use serde::{Deserialize, Serialize};

/// How to find out whether a replica is ready, has started, or is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    /// What is tried.
    pub probe: Probe,
    /// Between tries.
    pub interval_ms: u64,
    /// For one try.
    pub timeout_ms: u64,
    /// Consecutive failures until a ready replica is unready, or one that has to be alive is restarted.
    pub retries: u32,
    /// Failures during this time after the start do not count.
    pub start_period_ms: u64,
    /// Consecutive successes until a replica that is not ready is ready; 0 is 1.
    #[serde(default, skip_serializing_if = "is_once")]
    pub successes: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_once(successes: &u32) -> bool {
    *successes <= 1
}

/// One way to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Probe {
    /// Exit code 0 in the container.
    Exec(Vec<String>),
    /// 200 to 399 from the container's address.
    Http {
        /// Port.
        port: u16,
        /// Path with query.
        path: String,
        /// What else is said and how.
        #[serde(default, skip_serializing_if = "HttpWith::is_plain")]
        with: HttpWith,
    },
    /// The server says SERVING by gRPC's health protocol (grpc/health/v1), without TLS.
    Grpc {
        /// Port.
        port: u16,
        /// The service asked about; empty: the server as a whole.
        service: String,
    },
    /// A connection is accepted.
    Tcp {
        /// Port.
        port: u16,
    },
    /// Never ready by a check: the image's healthcheck is switched off, the default gate applies.
    Off,
}

/// How a request of a check is made, beside its port and path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpWith {
    /// With TLS; whose certificate the answer has does not matter.
    pub tls: bool,
    /// Added headers, in order; a `host` among them replaces the address.
    pub headers: Vec<(String, String)>,
}

impl HttpWith {
    fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}
