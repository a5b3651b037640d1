//! What to say about fields other tools have and native manifests spell otherwise.

use crate::model::{Diagnostic, codes};

/// `command` replaces the entrypoint in Kubernetes and the arguments in Docker; guessing would be wrong half the time.
pub(super) fn command() -> Diagnostic {
    Diagnostic::error(codes::COMMAND, "`command` means opposite things in Docker and Kubernetes")
        .why("write `args` or `entrypoint`")
        .help(
            "`args` replaces the image's arguments (Docker's command), `entrypoint` its program (Kubernetes' command)",
        )
}

/// Words of other tools, and what to write instead.
const FIELDS: [(&str, &str); 39] = [
    ("metadata", "native manifests are flat: write `name` at the top level"),
    ("spec", "native manifests are flat: move its fields up one level"),
    ("namespace", "the directory of the file names the stack"),
    ("stack", "the directory of the file names the stack"),
    ("volumes", "did you mean `mounts`?"),
    ("volumeMounts", "did you mean `mounts`?"),
    ("configs", "did you mean `mounts`? ({path: …, config: …})"),
    ("secrets", "secrets are not supported yet"),
    ("environment", "did you mean `env`?"),
    ("env_file", "write the variables under `env`"),
    ("envFrom", "write the variables under `env`: {NAME: {config: …, key: …}}"),
    ("restart", "a Job says `backoffLimit`"),
    ("restartPolicy", "an App says `restart`, a Job `backoffLimit`"),
    ("depends_on", "did you mean `dependsOn`?"),
    ("container_name", "replicas are called by their App's name: web-1, web-2"),
    ("imagePullPolicy", "did you mean `pullPolicy`?"),
    ("pull_policy", "did you mean `pullPolicy`?"),
    ("build", "images are pulled, not built"),
    ("livenessProbe", "did you mean `liveness`?"),
    ("readinessProbe", "did you mean `healthcheck`?"),
    ("startupProbe", "did you mean `startup`?"),
    ("memory", "did you mean `resources: {memory: …}`?"),
    ("cpu", "did you mean `resources: {cpu: …}`?"),
    ("cpus", "did you mean `resources: {cpu: …}`?"),
    ("mem_limit", "did you mean `resources: {memory: …}`?"),
    ("limits", "`cpu`, `memory` and `pids` here are the limits"),
    ("requests", "one host has no scheduler: `cpu`, `memory` and `pids` are limits"),
    ("cap_add", "did you mean `security: {capAdd: […]}`?"),
    ("cap_drop", "did you mean `security: {capDrop: […]}`?"),
    ("privileged", "there is no privileged mode: name what is needed under `security`"),
    ("securityContext", "did you mean `security`?"),
    ("read_only", "did you mean `security: {readOnlyRoot: true}`?"),
    ("hostNetwork", "did you mean `network: host`?"),
    ("network_mode", "did you mean `network: host`?"),
    ("working_dir", "did you mean `workingDir`?"),
    ("shm_size", "did you mean `shmSize`?"),
    ("stop_grace_period", "did you mean `stopGracePeriod`?"),
    ("terminationGracePeriodSeconds", "did you mean `stopGracePeriod: 30s`?"),
    ("containers", "an App runs one container: write `image` at the top level"),
];

/// Advice for a field by its exact name.
pub(super) fn field(name: &str) -> Option<&'static str> {
    FIELDS.iter().find(|(known, _)| *known == name).map(|(_, advice)| *advice)
}

/// Whether the advice is better than the nearest field of the schema: only for whole words that no typo makes.
pub(super) fn is_certain(name: &str) -> bool {
    field(name).is_some()
}
