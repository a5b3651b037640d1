//! Images as they cross the boundary: what to pull, how it goes on, what one asks of its containers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::image::{Digest, ImageRef};

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// Tag or digest form.
    pub reference: ImageRef,
    /// Ask the registry even when the tag is present.
    pub refresh: bool,
    /// Refuse an image made before the one that is here under this reference.
    pub newer_only: bool,
}

/// Hears how a pull goes on. Called from pool threads; must not block.
pub trait PullProgress: Send + Sync {
    /// One layer moved on; sizes in bytes, `total` is 0 while unknown.
    fn layer(&self, digest: &Digest, phase: PullPhase, done: u64, total: u64);
}

/// Where one layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPhase {
    /// Bytes arrive, are hashed and unpacked as they come.
    Download,
    /// Being made durable.
    Commit,
    /// In place.
    Done,
    /// Was in place before.
    Shared,
}

/// A progress listener that hears nothing.
pub struct NoProgress;

impl PullProgress for NoProgress {
    fn layer(&self, _: &Digest, _: PullPhase, _: u64, _: u64) {}
}

/// One complete image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Digest of the platform's manifest: the identity containers are created from.
    pub digest: Digest,
    /// Digest of the config blob: what Docker calls IMAGE ID.
    pub id: Digest,
    /// References that point here, canonical form.
    pub references: Vec<ImageRef>,
    /// Bytes of all unpacked layers.
    pub size_bytes: u64,
    /// What the image asks of its containers.
    pub config: ImageConfig,
    /// Creation time as the image says, RFC 3339; untrusted text.
    pub created: Option<String>,
}

/// The part of an image's config that shapes containers (OCI image-spec `config`, Docker's `Healthcheck`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Program.
    pub entrypoint: Vec<String>,
    /// Arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user[:group]`, by name or number.
    pub user: Option<String>,
    /// Absolute path.
    pub working_dir: Option<String>,
    /// Paths that get an anonymous volume where nothing is mounted.
    pub volumes: Vec<String>,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Signal by name or number.
    pub stop_signal: Option<String>,
    /// The image's own health check.
    pub healthcheck: Option<ImageHealthcheck>,
    /// Labels; inert data.
    pub labels: BTreeMap<String, String>,
}

/// Docker's HEALTHCHECK (not in the OCI image specification; Docker image spec v1.2, durations in nanoseconds there).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageHealthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", line]` or `["NONE"]`.
    pub test: Vec<String>,
    /// Between checks; `None` is Docker's default of 30 s.
    pub interval_ms: Option<u64>,
    /// For one check; default 30 s.
    pub timeout_ms: Option<u64>,
    /// Failures during this time do not count; default 0.
    pub start_period_ms: Option<u64>,
    /// Consecutive failures until unhealthy; default 3.
    pub retries: Option<u32>,
}
