//! What the further containers of a replica look like in native manifests: a container's own fields, and none that the
//! replica has as a whole.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{EnvFrom, Healthcheck, Mount, Resources, Security, Template, Tuning};
use crate::manifest::format::ShortOr;
use crate::manifest::native::pull::PullPolicyText;
use crate::manifest::native::text::{AnyScalar, ContainerPath, Name, Reference, Signal, User};
use crate::manifest::quantity::Memory;

/// A struct with the fields of a further container of a replica.
macro_rules! with_member {
    ($(#[$meta:meta])* $name:ident { $($(#[$own_meta:meta])* $own:ident: $own_type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(crate) struct $name {
            /// Its name in the replica, for `boxship logs -c NAME`.
            pub(crate) name: Name,
            $($(#[$own_meta])* pub(crate) $own: $own_type,)*
            /// Which image: [HOST[:PORT]/]PATH[:TAG][@DIGEST]. This or `imageFrom`.
            pub(crate) image: Option<Reference>,
            /// The name of an Image object of this stack.
            pub(crate) image_from: Option<Name>,
            /// When its registry is asked: missing (default), always (once for each revision), never, daily, weekly or
            /// every_12h, which follow the tag.
            pub(crate) pull_policy: Option<PullPolicyText>,
            /// Replaces the image's entrypoint, and drops its arguments.
            pub(crate) entrypoint: Option<Vec<String>>,
            /// Replaces the image's arguments.
            pub(crate) args: Option<Vec<String>>,
            /// Environment: values are taken as written; {config: NAME, key: KEY} reads one from a Config.
            #[serde(default)]
            pub(crate) env: BTreeMap<String, ShortOr<AnyScalar, EnvFrom>>,
            /// Replaces the image's working directory; made when missing.
            pub(crate) working_dir: Option<ContainerPath>,
            /// Replaces the image's user: user[:group], by name or number.
            pub(crate) user: Option<User>,
            /// Everything that is mounted.
            #[serde(default)]
            pub(crate) mounts: Vec<Mount>,
            /// Limits; what is not set is not limited.
            pub(crate) resources: Option<Resources>,
            /// When it is ready. Default: the image's own check, else when it runs.
            pub(crate) healthcheck: Option<Healthcheck>,
            /// For what starts slowly: tried until it passes once, while the other two wait. A replica that does not pass
            /// it in `retries` intervals is restarted. Default: there is none.
            pub(crate) startup: Option<Healthcheck>,
            /// Whether a replica still works: one that fails it `retries` times in a row is restarted. Default: only a
            /// program that ends is.
            pub(crate) liveness: Option<Healthcheck>,
            /// Replaces the image's stop signal.
            pub(crate) stop_signal: Option<Signal>,
            /// Named deviations from the safe defaults.
            pub(crate) security: Option<Security>,
            /// Size of /dev/shm. Default 64Mi.
            pub(crate) shm_size: Option<Memory>,
            /// Runs a small reaper in front of the program.
            pub(crate) init: Option<bool>,
            /// A program that writes faster than its log can be kept is never held up: lines are dropped and counted.
            pub(crate) lossy: Option<bool>,
            /// A terminal as stdio.
            pub(crate) tty: Option<bool>,
            /// Its stdin is a pipe that `boxship attach` writes to and that does not end. Default: it is empty.
            pub(crate) stdin: Option<bool>,
            /// What few programs need of the kernel: ulimits, sysctls, groups, oomScoreAdj.
            pub(crate) tuning: Option<Tuning>,
        }

        impl $name {
            /// Its template, beside what is its own.
            pub(crate) fn template(self) -> (String, Template) {
                let template = Template {
                    image: self.image,
                    image_from: self.image_from,
                    pull_policy: self.pull_policy,
                    entrypoint: self.entrypoint,
                    args: self.args,
                    env: self.env,
                    working_dir: self.working_dir,
                    user: self.user,
                    hostname: None,
                    mounts: self.mounts,
                    resources: self.resources,
                    healthcheck: self.healthcheck,
                    startup: self.startup,
                    liveness: self.liveness,
                    stop_grace_period: None,
                    stop_signal: self.stop_signal,
                    security: self.security,
                    shm_size: self.shm_size,
                    init: self.init,
                    lossy: self.lossy,
                    network: None,
                    networks: Vec::new(),
                    tty: self.tty,
                    stdin: self.stdin,
                    tuning: self.tuning,
                    depends_on: BTreeMap::new(),
                    init_containers: Vec::new(),
                    containers: Vec::new(),
                    share_process_namespace: None,
                };
                (self.name.0, template)
            }
        }
    };
}

with_member! {
    /// A container of a replica beside its main one.
    Container {}
}

with_member! {
    /// A container of a replica before its main one.
    InitContainer {
        /// always: it goes on when it has started (a sidecar). Default: it has to end well.
        restart: Option<RestartAlways>,
    }
}

/// The one word of `restart` in `initContainers`.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RestartAlways {
    Always,
}
