//! The manifests of the demo, as a user would write them.

use super::guest::WEB_PORT;

/// Three web replicas behind one host port; `tag` is the image's.
pub(super) fn web(tag: &str, replicas: u32, port: u16, mark: &str, deadline_secs: u64) -> String {
    format!(
        "apiVersion: boxship/v1\n\
         kind: App\n\
         name: web\n\
         replicas: {replicas}\n\
         image: localhost/demo:{tag}\n\
         env: {{{mark_name}: \"{mark}\"}}\n\
         ports: [{{containerPort: {WEB_PORT}, publish: \"127.0.0.1:{port}\"}}]\n\
         healthcheck: {{http: \":{WEB_PORT}/\", interval: 1s, retries: 2}}\n\
         strategy: {{maxSurge: 1, maxUnavailable: 0, progressDeadline: {deadline_secs}s, onFailure: undo}}\n\
         stopGracePeriod: 5s\n",
        mark_name = super::world::MARK,
    )
}

/// A job that leaves a file in a volume.
pub(super) fn seed(mark: &str) -> String {
    format!(
        "apiVersion: boxship/v1\n\
         kind: Volume\n\
         name: seed\n\
         ---\n\
         apiVersion: boxship/v1\n\
         kind: Job\n\
         name: seed\n\
         image: localhost/demo:1\n\
         args: [job, /seed/done]\n\
         env: {{{mark_name}: \"{mark}\"}}\n\
         mounts: [{{path: /seed, volume: seed}}]\n",
        mark_name = super::world::MARK,
    )
}
