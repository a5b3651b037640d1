//! What native manifests look like: the structs serde fills and schemars describes. No logic, no defaults but "absent".

mod healthcheck;
mod member;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::dns::DnsName;
use super::network::NetworkUse;
use super::restart::RestartPolicy;
use super::text::{
    AnyScalar, Capability, ContainerPath, Cron, FileMode, FileName, HostPath, Hostname, Name, PortMapping, Publish,
    Reference, Signal, TimeZone, TmpfsSize, User,
};
use super::tuning::Wire as Tuning;
use crate::manifest::duration::Duration;
use crate::manifest::format::ShortOr;
use crate::manifest::native::pull::PullPolicyText;
use crate::manifest::quantity::{Amount, Cpu, Memory, Swap};
pub(crate) use healthcheck::Healthcheck;
pub(crate) use member::{Container, InitContainer};

/// An image this host holds: pulled at once, verified, never collected while it is declared.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Image {
    /// Its name within the stack, for `imageFrom`.
    #[expect(dead_code, reason = "read from the tree before decoding; here for the schema")]
    pub(crate) name: Name,
    /// What to hold. With a digest it is pinned; a tag is locked at the first resolve, unless `follow` is set.
    #[serde(rename = "ref")]
    pub(crate) reference: Reference,
    /// Ask the registry again this often whether the tag has moved.
    pub(crate) follow: Option<Duration>,
    /// Earlier digests held for an offline undo. Default 1.
    #[schemars(range(min = 0, max = 100))]
    pub(crate) keep: Option<u32>,
    /// missing (default), never (it has to be loaded by hand), daily, weekly or every_12h (as `follow`).
    pub(crate) pull_policy: Option<PullPolicyText>,
}

/// Data that outlives containers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Volume {
    /// Its name within the stack.
    #[expect(dead_code, reason = "read from the tree before decoding; here for the schema")]
    pub(crate) name: Name,
    /// Who may write at once: single (default: one App, replaced stop-first), shared (any number), or any (any number,
    /// but an App of one replica is still replaced stop-first).
    pub(crate) access: Option<Access>,
}

/// Who may write to a volume at once.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Access {
    Single,
    Shared,
    Any,
}

/// Content mounted into containers or read into their environment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Config {
    /// Its name within the stack.
    #[expect(dead_code, reason = "read from the tree before decoding; here for the schema")]
    pub(crate) name: Name,
    /// Content by key; a key is a file name. `${…}` is left as it is in here.
    pub(crate) data: BTreeMap<String, ShortOr<AnyScalar, FromFile>>,
}

/// Content that is kept encrypted, is in memory only where it is used, and is shown nowhere.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Secret {
    /// Its name within the stack.
    #[expect(dead_code, reason = "read from the tree before decoding; here for the schema")]
    pub(crate) name: Name,
    /// Content by key; a key is a file name. `${…}` is left as it is in here.
    pub(crate) data: BTreeMap<String, ShortOr<AnyScalar, FromFile>>,
}

/// Content read from a file beside the manifest.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FromFile {
    /// Path of the file, absolute or relative to the manifest.
    pub(crate) file: HostPath,
}

/// A struct with the fields of what a container runs, which an App and a Job share (serde's `flatten` would lose the
/// places of errors), and `take_template`, which moves them out.
macro_rules! with_template {
    ($(#[$meta:meta])* $name:ident { $($(#[$own_meta:meta])* $own:ident: $own_type:ty,)* }) => {
        with_template! { @all $(#[$meta])* $name { $($(#[$own_meta])* $own: $own_type,)* } {
            /// Which image: [HOST[:PORT]/]PATH[:TAG][@DIGEST]. This or `imageFrom`.
            image: Option<Reference>,
            /// The name of an Image object of this stack.
            image_from: Option<Name>,
            /// When its registry is asked: missing (default), always (once for each revision), never, daily, weekly or
            /// every_12h, which follow the tag.
            pull_policy: Option<PullPolicyText>,
            /// Replaces the image's entrypoint, and drops its arguments.
            entrypoint: Option<Vec<String>>,
            /// Replaces the image's arguments.
            args: Option<Vec<String>>,
            /// Environment: values are taken as written; {config: NAME, key: KEY} reads one from a Config, {secret: NAME, key: KEY} from a Secret.
            #[serde(default)]
            env: BTreeMap<String, ShortOr<AnyScalar, EnvFrom>>,
            /// Replaces the image's working directory; made when missing.
            working_dir: Option<ContainerPath>,
            /// Replaces the image's user: user[:group], by name or number.
            user: Option<User>,
            /// Replaces the replica's name as host name.
            hostname: Option<Hostname>,
            /// Everything that is mounted.
            #[serde(default)]
            mounts: Vec<Mount>,
            /// Limits; what is not set is not limited.
            resources: Option<Resources>,
            /// When a replica is ready. Default: the image's own check, else "its port is open and it stays up".
            healthcheck: Option<Healthcheck>,
            /// For what starts slowly: tried until it passes once, while the other two wait. A replica that does not pass
            /// it in `retries` intervals is restarted. Default: there is none.
            startup: Option<Healthcheck>,
            /// Whether a replica still works: one that fails it `retries` times in a row is restarted. Default: only a
            /// program that ends is.
            liveness: Option<Healthcheck>,
            /// Time between the stop signal and the kill. Default 10s.
            stop_grace_period: Option<Duration>,
            /// Replaces the image's stop signal.
            stop_signal: Option<Signal>,
            /// Named deviations from the safe defaults.
            security: Option<Security>,
            /// Size of /dev/shm. Default 64Mi.
            shm_size: Option<Memory>,
            /// Runs a small reaper as PID 1 in front of the program.
            init: Option<bool>,
            /// A program that writes faster than its log can be kept is never held up: lines are dropped and counted.
            lossy: Option<bool>,
            /// `host` shares the host's network; default: the stack's own.
            network: Option<Network>,
            /// Networks it is on: NAME, or {name: NAME, aliases: [NAME], address: 10.99.0.5}. Default: the stack's own.
            #[serde(default)]
            networks: Vec<ShortOr<Name, NetworkUse>>,
            /// A terminal as stdio.
            tty: Option<bool>,
            /// Its stdin is a pipe that `boxship attach` writes to and that does not end. Default: it is empty.
            stdin: Option<bool>,
            /// What few programs need of the kernel: ulimits, sysctls, groups, oomScoreAdj, domainname.
            tuning: Option<Tuning>,
            /// What must hold before it is created: {NAME: started | ready | completed}.
            #[serde(default)]
            depends_on: BTreeMap<String, Condition>,
            /// Containers of each replica that run before it, one after the other, each to completion; with `restart: always`
            /// one stays (a sidecar) and is stopped last. They share its network.
            #[serde(default)]
            init_containers: Vec<InitContainer>,
            /// Containers of each replica that run beside it and share its network: they reach each other at 127.0.0.1.
            #[serde(default)]
            containers: Vec<Container>,
            /// The containers of a replica see each other's processes.
            share_process_namespace: Option<bool>,
        } }
    };
    (@all $(#[$meta:meta])* $name:ident { $($(#[$own_meta:meta])* $own:ident: $own_type:ty,)* }
     { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(crate) struct $name {
            /// Its name within the stack, also its host name in DNS.
            #[expect(dead_code, reason = "read from the tree before decoding; here for the schema")]
    pub(crate) name: Name,
            $($(#[$own_meta])* pub(crate) $own: $own_type,)*
            $($(#[$field_meta])* pub(crate) $field: $type,)*
        }

        impl $name {
            pub(crate) fn take_template(&mut self) -> Template {
                Template { $($field: std::mem::take(&mut self.$field),)* }
            }
        }
    };
}

/// The fields that App and Job share.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) image: Option<Reference>,
    pub(crate) image_from: Option<Name>,
    pub(crate) pull_policy: Option<PullPolicyText>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) args: Option<Vec<String>>,
    pub(crate) env: BTreeMap<String, ShortOr<AnyScalar, EnvFrom>>,
    pub(crate) working_dir: Option<ContainerPath>,
    pub(crate) user: Option<User>,
    pub(crate) hostname: Option<Hostname>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) resources: Option<Resources>,
    pub(crate) healthcheck: Option<Healthcheck>,
    pub(crate) startup: Option<Healthcheck>,
    pub(crate) liveness: Option<Healthcheck>,
    pub(crate) stop_grace_period: Option<Duration>,
    pub(crate) stop_signal: Option<Signal>,
    pub(crate) security: Option<Security>,
    pub(crate) shm_size: Option<Memory>,
    pub(crate) init: Option<bool>,
    pub(crate) lossy: Option<bool>,
    pub(crate) network: Option<Network>,
    pub(crate) networks: Vec<ShortOr<Name, NetworkUse>>,
    pub(crate) tty: Option<bool>,
    pub(crate) stdin: Option<bool>,
    pub(crate) tuning: Option<Tuning>,
    pub(crate) depends_on: BTreeMap<String, Condition>,
    pub(crate) init_containers: Vec<InitContainer>,
    pub(crate) containers: Vec<Container>,
    pub(crate) share_process_namespace: Option<bool>,
}

with_template! {
    /// A replicated, long-running workload.
    App {
        /// How many run at once: web-1, web-2, … Default 1.
        #[schemars(range(min = 0, max = 1000))]
        replicas: Option<u32>,
        /// Ports: 80 (only listened on), 8080:80, 0.0.0.0:8080:80, or {containerPort: 80, publish: "0.0.0.0:8080"}.
        #[serde(default)]
        ports: Vec<ShortOr<PortMapping, Port>>,
        /// How a new revision replaces the old one.
        strategy: Option<Strategy>,
        /// When its program has ended: always (default), on-failure, on-failure:MAX or never.
        restart: Option<RestartPolicy>,
        /// Further names in the stack's DNS, which other Apps may share.
        #[serde(default)]
        aliases: Vec<DnsName>,
        /// Its name leads to each replica's own address, and not to one that stays and leads to whoever is ready. Default false.
        headless: Option<bool>,
    }
}

with_template! {
    /// A workload that runs to completion, once per version or by schedule.
    Job {
        /// Minute, hour, day of month, month, day of week. Default: once for each version of the Job.
        schedule: Option<Cron>,
        /// The time zone of `schedule`. Default UTC.
        time_zone: Option<TimeZone>,
        /// What happens when the last run is not over. Default Forbid.
        concurrency_policy: Option<ConcurrencyPolicy>,
        /// How often a failed run is tried again. Default 6.
        #[schemars(range(min = 0, max = 1000))]
        backoff_limit: Option<u32>,
        /// How often the program must end well for a run to have succeeded. Default 1.
        #[schemars(range(min = 1, max = 1000))]
        completions: Option<u32>,
        /// How many containers of a run there are at once; 0: none are started. Default 1.
        #[schemars(range(min = 0, max = 1000))]
        parallelism: Option<u32>,
        /// Indexed: each completion finds its number, from 0, in JOB_COMPLETION_INDEX. Default NonIndexed.
        completion_mode: Option<CompletionMode>,
        /// How long a run may take, tries and waiting included; then it is stopped and has failed. Default: for ever.
        active_deadline: Option<Duration>,
        /// How long the containers of a run stay when it is over, for their logs. Default: until the next run.
        ttl_after_finished: Option<Duration>,
        /// How late a scheduled run may start. Default 1h.
        starting_deadline: Option<Duration>,
        /// Starts nothing; without `schedule`, what runs is stopped.
        suspend: Option<bool>,
        /// How many scheduled runs that succeeded keep their containers, for their logs. Default 3.
        #[schemars(range(min = 0, max = 100))]
        successful_runs_history_limit: Option<u32>,
        /// How many scheduled runs that failed keep their containers. Default 1.
        #[schemars(range(min = 0, max = 100))]
        failed_runs_history_limit: Option<u32>,
    }
}

/// Whether completions are told apart.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(crate) enum CompletionMode {
    /// They are all the same.
    NonIndexed,
    /// Each has a number.
    Indexed,
}

/// An environment variable's value from elsewhere.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EnvFrom {
    /// The name of a Config of this stack.
    pub(crate) config: Option<Name>,
    /// The key in it; of a Secret with one key only, it may be left out.
    pub(crate) key: Option<FileName>,
    /// The name of a Secret of this stack.
    pub(crate) secret: Option<Name>,
}

/// One mount. Exactly one of file, config, secret, volume, claim, bind, tmpfs, anonymous, scratch says what it shows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Mount {
    /// Where, inside the container.
    pub(crate) path: ContainerPath,
    /// A copy of this host file, refreshed when it changes.
    pub(crate) file: Option<HostPath>,
    /// The name of a Config: one `key` of it as a file, or all as files of a directory.
    pub(crate) config: Option<Name>,
    /// The name of a Secret: one `key` of it as a file, or all as files of a directory. In memory only.
    pub(crate) secret: Option<Name>,
    /// The key of the Config or Secret.
    pub(crate) key: Option<FileName>,
    /// The name of a Volume.
    pub(crate) volume: Option<Name>,
    /// A host directory or file itself, read and written in place.
    pub(crate) bind: Option<HostPath>,
    /// Memory: its bound, or true.
    pub(crate) tmpfs: Option<TmpfsSize>,
    /// A volume of each replica's own, CLAIM-APP-NUMBER, which stays when the replica, or the App, goes. Only for Apps.
    pub(crate) claim: Option<Name>,
    /// With true: a volume of each replica's own, kept over its restarts and replacements, removed with the App.
    pub(crate) anonymous: Option<bool>,
    /// An empty volume of this name that lives as long as the replica's containers, which share it by the name.
    pub(crate) scratch: Option<Name>,
    /// Refuses writes.
    pub(crate) read_only: Option<bool>,
    /// What a change of a file's or Config's content does: roll (default) or none.
    pub(crate) on_change: Option<OnChange>,
    /// Permission bits of a file or of a Config's or Secret's files. Default "0644", of a Secret "0400".
    pub(crate) mode: Option<FileMode>,
    /// Whose a Secret's files are, in the container. Default: the container's user where it is a number, else 0.
    pub(crate) uid: Option<u32>,
    /// The group of a Secret's files. Default 0.
    pub(crate) gid: Option<u32>,
}

/// What a change of mounted content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnChange {
    Roll,
    None,
    Restart,
    Signal,
}

/// Limits.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Resources {
    /// Cores.
    pub(crate) cpu: Option<Cpu>,
    /// Bytes.
    pub(crate) memory: Option<Memory>,
    /// Processes and threads.
    #[schemars(range(min = 1))]
    pub(crate) pids: Option<u32>,
    /// Swap beside the memory: bytes, or unlimited. Default: none where memory is limited.
    pub(crate) swap: Option<Swap>,
    /// Bytes that are taken from it last when the host runs short of memory.
    pub(crate) memory_reservation: Option<Memory>,
    /// Its part of busy CPUs beside other containers. Default: as every other, 1024.
    #[schemars(range(min = 2, max = 262144))]
    pub(crate) cpu_shares: Option<u32>,
}

/// How a new revision replaces the old one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Strategy {
    /// Replicas above `replicas` while replacing, or a share. Default 1.
    pub(crate) max_surge: Option<Amount>,
    /// Replicas that may be missing while replacing, or a share. Default 0.
    pub(crate) max_unavailable: Option<Amount>,
    /// A replica counts as available after being ready this long. Default 0s.
    pub(crate) min_ready: Option<Duration>,
    /// With true: a replica is started only once those of lower numbers are ready, and of too many the highest go first,
    /// one by one. Default false.
    pub(crate) ordered: Option<bool>,
    /// A revision that makes no progress this long has failed. Default 10m.
    pub(crate) progress_deadline: Option<Duration>,
    /// What a failed revision leads to: undo (default) or hold.
    pub(crate) on_failure: Option<OnFailure>,
}

/// What a failed revision leads to.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnFailure {
    Undo,
    Hold,
}

/// Named deviations from the safe defaults.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Security {
    /// The root file system refuses writes.
    pub(crate) read_only_root: Option<bool>,
    /// Capabilities added to the default ones.
    #[serde(default)]
    pub(crate) cap_add: Vec<Capability>,
    /// Capabilities taken away; ALL first.
    #[serde(default)]
    pub(crate) cap_drop: Vec<Capability>,
    /// Gives sudo and setuid programs back.
    pub(crate) allow_privilege_escalation: Option<bool>,
}

/// A port with names.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Port {
    /// The port the program listens on.
    #[schemars(range(min = 1, max = 65535))]
    pub(crate) container_port: u16,
    /// The host port that leads to it: 8080 (on 127.0.0.1) or ADDRESS:PORT.
    pub(crate) publish: Option<Publish>,
    /// tcp when left out.
    pub(crate) protocol: Option<Protocol>,
}

/// The transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(crate) fn lower(self) -> runtime::runtime::Protocol {
        match self {
            Self::Tcp => runtime::runtime::Protocol::Tcp,
            Self::Udp => runtime::runtime::Protocol::Udp,
        }
    }
}

/// Which network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Network {
    Host,
    None,
}

/// What a dependency must have reached.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Condition {
    Started,
    Ready,
    Completed,
}

/// Kubernetes' words.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(crate) enum ConcurrencyPolicy {
    Allow,
    Forbid,
    Replace,
}
