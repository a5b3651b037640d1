//! What a check looks like in native manifests.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::manifest::duration::Duration;
use crate::manifest::native::text::{AnyScalar, HttpTarget, TcpTarget};

/// How to find out how a replica is. Exactly one of exec, http, https, tcp, grpc, or `disable`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Healthcheck {
    /// A program in the container; exit code 0 is healthy.
    pub(crate) exec: Option<Vec<String>>,
    /// Port and path; 200 to 399 is healthy.
    pub(crate) http: Option<HttpTarget>,
    /// The same with TLS, whatever the certificate.
    pub(crate) https: Option<HttpTarget>,
    /// Headers of the request; `host` among them replaces the address.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, AnyScalar>,
    /// A port that accepts a connection.
    pub(crate) tcp: Option<TcpTarget>,
    /// A port whose server says SERVING by gRPC's health protocol, without TLS.
    pub(crate) grpc: Option<TcpTarget>,
    /// The service that `grpc` asks about. Default: the server as a whole.
    pub(crate) service: Option<AnyScalar>,
    /// Ignores the image's own check.
    pub(crate) disable: Option<bool>,
    /// Between tries. Default 10s.
    pub(crate) interval: Option<Duration>,
    /// For one try. Default 5s.
    pub(crate) timeout: Option<Duration>,
    /// Failures in a row until a ready replica is unready, or (liveness) is restarted; for startup, the intervals that
    /// it may take. Default 3.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) retries: Option<u32>,
    /// Successes in a row until a replica that is not ready is ready. Default 1.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) successes: Option<u32>,
    /// Failures during this time after the start do not count. Default 0s.
    pub(crate) start_period: Option<Duration>,
}
