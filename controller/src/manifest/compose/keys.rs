//! Every key of the Compose specification, by mapping: honoured, or what it means that it is not. Parsing, suggestions
//! and the support matrix are made from these tables.

use crate::manifest::keys::{Key, Section, Tables, no, partly, unless, yes};

const NO_BUILD: &str = "images are pulled here, not built; build and push it elsewhere, and name it with `image`";
const BRIDGE: &str = "networks are bridges of this host with no options";
const ADDRESSES: &str = "addresses are chosen within `subnet`";
const NO_WEIGHT: &str = "only limits count here, and nothing is weighed against the others";
const NO_DEVICES: &str = "the container sees no devices of the host, GPUs included; run what needs one outside";
pub(super) const INERT: &str = "nothing here reads it";

const ORDER: &str = "the way out leads through the first network, by name, that is not internal";

/// Of the file.
pub(in crate::manifest) const TOP: Section = Section {
    name: "the file",
    keys: &[
        yes("name"),
        yes("services"),
        yes("volumes"),
        yes("networks"),
        yes("secrets"),
        yes("configs"),
        yes("include"),
        unless(
            "version",
            &[
                "1", "2", "2.0", "2.1", "2.2", "2.3", "2.4", "3", "3.0", "3.1", "3.2", "3.3", "3.4", "3.5", "3.6",
                "3.7", "3.8", "3.9",
            ],
            "it is obsolete and says nothing",
        ),
        no("models", "there are no models here"),
    ],
};

const OWN_LOGS: &str = "logs are kept in five files of 10 MiB; see `boxship logs`";

/// Of one service.
pub(super) const SERVICE: Section = Section { name: "service", keys: SERVICE_KEYS };

const SERVICE_KEYS: &[Key] = &[
    yes("image"),
    partly("build", "`image` beside it is used, else the name Compose would give the image; nothing is built"),
    yes("command"),
    yes("entrypoint"),
    yes("environment"),
    yes("env_file"),
    yes("volumes"),
    yes("tmpfs"),
    yes("ports"),
    yes("expose"),
    yes("depends_on"),
    yes("healthcheck"),
    yes("restart"),
    yes("deploy"),
    yes("scale"),
    yes("container_name"),
    yes("hostname"),
    yes("networks"),
    partly(
        "network_mode",
        "`host`, `none`, `bridge` and `service:NAME` (both are containers of one replica: `boxship logs NAME -c OTHER`); with others it has its own address on the stack's network",
    ),
    yes("links"),
    yes("user"),
    yes("working_dir"),
    yes("stop_grace_period"),
    yes("stop_signal"),
    yes("init"),
    yes("tty"),
    yes("read_only"),
    yes("cap_add"),
    yes("cap_drop"),
    partly("security_opt", "`no-new-privileges`; the safe defaults stay in force for the rest"),
    yes("shm_size"),
    yes("mem_limit"),
    yes("cpus"),
    yes("pids_limit"),
    yes("secrets"),
    yes("configs"),
    yes("profiles"),
    yes("extends"),
    unless(
        "privileged",
        &["false"],
        "there is no privileged mode: the container keeps the safe defaults; name what it \
        needs with `cap_add`",
    ),
    yes("stdin_open"),
    partly("pull_policy", "with `build` an image is pulled when it is missing: nothing is built"),
    unless("attach", &["true", "false"], ""),
    unless("isolation", &["default"], "it exists on Windows only"),
    unless("oom_kill_disable", &["false"], "a program over its limit is ended"),
    unless("runtime", &["runc"], "containers run in the built-in runtime"),
    unless("userns_mode", &[""], "each service has its own user namespace"),
    unless("ipc", &["private", "shareable"], "each container has its own IPC namespace"),
    unless("pid", &[], "each container has its own process ids"),
    unless("uts", &[], "each container has its own host name"),
    unless("cgroup", &["private"], "each container sees its own cgroup"),
    no("platform", "the image's variant for this host is taken"),
    partly("labels", "`autoheal: true` restarts a container that fails its healthcheck; nothing here reads the others"),
    no("label_file", INERT),
    no("annotations", INERT),
    partly("logging", "`mode: non-blocking`; logs are kept in rotated files, see `boxship logs`"),
    no("develop", "files are not watched, images are not built"),
    no("devices", NO_DEVICES),
    no("device_cgroup_rules", NO_DEVICES),
    no("gpus", NO_DEVICES),
    no("dns", "names are answered by the stack and the host's own resolvers"),
    yes("dns_search"),
    yes("dns_opt"),
    yes("extra_hosts"),
    no("external_links", "only services of the same stack are reached by name"),
    yes("domainname"),
    no("mac_address", "addresses are chosen here"),
    partly(
        "sysctls",
        "those of its own namespaces; one that this kernel does not show to a user namespace is left out",
    ),
    yes("ulimits"),
    yes("group_add"),
    no("volumes_from", "volumes of other services are not mounted; name them under `volumes`"),
    no("volume_driver", "volumes are directories of this host"),
    no("storage_opt", "the writable layer has no bound of its own"),
    no("credential_spec", "it exists on Windows only"),
    no("cgroup_parent", "each container has a cgroup of its own"),
    no("blkio_config", NO_WEIGHT),
    no("cpu_count", "the number of CPUs is limited with `cpus`"),
    no("cpu_percent", "the share of CPUs is limited with `cpus`"),
    yes("cpu_shares"),
    no("cpu_period", "the share of CPUs is limited with `cpus`"),
    no("cpu_quota", "the share of CPUs is limited with `cpus`"),
    no("cpu_rt_runtime", "real-time scheduling is not limited"),
    no("cpu_rt_period", "real-time scheduling is not limited"),
    no("cpuset", "it may run on every CPU"),
    yes("mem_reservation"),
    no("mem_swappiness", "the kernel's default is in force"),
    yes("memswap_limit"),
    yes("oom_score_adj"),
    no("post_start", "the hook does not run"),
    no("pre_start", "the hook does not run"),
    no("pre_stop", "the hook does not run"),
    no("provider", "there are no providers here"),
    no("models", "there are no models here"),
    no("use_api_socket", "the container does not reach the engine"),
];

/// `healthcheck`.
pub(super) const HEALTHCHECK: Section = Section {
    name: "healthcheck",
    keys: &[
        yes("test"),
        yes("interval"),
        yes("timeout"),
        yes("retries"),
        yes("start_period"),
        yes("disable"),
        no("start_interval", "it is tried every `interval` from the start on"),
    ],
};

/// `deploy`.
pub(super) const DEPLOY: Section = Section {
    name: "deploy",
    keys: &[
        yes("replicas"),
        yes("resources"),
        yes("restart_policy"),
        yes("update_config"),
        unless(
            "mode",
            &["replicated", "global"],
            "it runs as a service; a service that others wait for with \
            `service_completed_successfully` runs to completion",
        ),
        yes("endpoint_mode"),
        no("rollback_config", "the way back goes as the way forward"),
        no("labels", INERT),
        no("placement", "there is one host"),
    ],
};

/// `logging`.
pub(super) const LOGGING: Section = Section {
    name: "logging",
    keys: &[unless("driver", &["json-file", "local", "journald"], OWN_LOGS), yes("options")],
};

/// `logging.options`.
pub(super) const LOGGING_OPTIONS: Section = Section {
    name: "logging.options",
    keys: &[
        partly("mode", "`non-blocking` drops lines of a program that is faster than its log, and counts them"),
        no("max-buffer-size", "the buffer is 1 MiB for each of stdout and stderr"),
        no("max-size", OWN_LOGS),
        no("max-file", OWN_LOGS),
        no("compress", OWN_LOGS),
        no("tag", INERT),
        no("labels", INERT),
        no("env", INERT),
    ],
};

/// `deploy.resources`.
pub(super) const RESOURCES: Section = Section { name: "deploy.resources", keys: &[yes("limits"), yes("reservations")] };

/// `deploy.resources.reservations`.
pub(super) const RESERVATIONS: Section = Section {
    name: "deploy.resources.reservations",
    keys: &[
        no("cpus", NO_WEIGHT),
        yes("memory"),
        no("pids", NO_WEIGHT),
        no("devices", NO_DEVICES),
        no("generic_resources", INERT),
    ],
};

/// One of `ulimits`, in its long form.
pub(super) const ULIMIT: Section = Section { name: "ulimits", keys: &[yes("soft"), yes("hard")] };

/// `deploy.resources.limits`.
pub(super) const LIMITS: Section = Section {
    name: "deploy.resources.limits",
    keys: &[yes("cpus"), yes("memory"), yes("pids"), no("devices", NO_DEVICES), no("generic_resources", INERT)],
};

/// `deploy.restart_policy`.
pub(super) const RESTART_POLICY: Section = Section {
    name: "deploy.restart_policy",
    keys: &[
        yes("condition"),
        yes("max_attempts"),
        no("delay", "the time between tries grows by itself"),
        no("window", "a start counts as good after ten seconds of readiness"),
    ],
};

/// `deploy.update_config`.
pub(super) const UPDATE_CONFIG: Section = Section {
    name: "deploy.update_config",
    keys: &[
        yes("parallelism"),
        yes("order"),
        yes("failure_action"),
        yes("monitor"),
        unless("delay", &["0", "0s"], "the next replica follows when the last one is ready"),
        unless("max_failure_ratio", &["0"], "one replica that does not become ready stops the update"),
    ],
};

/// The long form of a port.
pub(super) const PORT: Section = Section {
    name: "ports",
    keys: &[
        yes("target"),
        yes("published"),
        yes("protocol"),
        yes("host_ip"),
        unless("mode", &["host", "ingress"], ""),
        unless("name", &[""], INERT),
        unless("app_protocol", &["http", "tcp"], INERT),
    ],
};

/// The long form of a volume mount.
pub(super) const VOLUME_MOUNT: Section = Section {
    name: "volumes",
    keys: &[
        yes("type"),
        yes("source"),
        yes("target"),
        yes("read_only"),
        yes("bind"),
        partly("volume", "none of its keys is honoured"),
        yes("tmpfs"),
        unless("consistency", &["consistent", "cached", "delegated", "default"], ""),
        no("image", "images are not mounted"),
    ],
};

/// `volumes[].bind`.
pub(super) const BIND: Section = Section {
    name: "bind",
    keys: &[
        partly("create_host_path", "a path that is not there is told, not made"),
        unless("propagation", &["rprivate", "private"], "mounts made later are not seen on the other side"),
        unless("selinux", &["z", "Z"], ""),
        unless("recursive", &["enabled"], INERT),
    ],
};

/// `volumes[].volume`.
pub(super) const VOLUME_OPTIONS: Section = Section {
    name: "volume",
    keys: &[
        unless("nocopy", &["false"], "an empty volume is filled from the image"),
        no("subpath", "the whole volume is mounted"),
        no("labels", INERT),
    ],
};

/// `volumes[].tmpfs`.
pub(super) const TMPFS: Section = Section { name: "tmpfs", keys: &[yes("size"), no("mode", "its mode is 1777")] };

/// A top-level volume.
pub(super) const VOLUME: Section = Section {
    name: "volume",
    keys: &[
        unless("driver", &["local", "default"], "volumes are directories of this host"),
        no("driver_opts", "volumes are directories of this host"),
        unless("external", &["false"], "it is a volume of this stack, not one that was made elsewhere"),
        no("name", "it is called after its key, within the stack"),
        no("labels", INERT),
    ],
};

/// A top-level network.
pub(super) const NETWORK: Section = Section {
    name: "network",
    keys: &[
        unless(
            "driver",
            &["bridge", "default"],
            "it is a bridge; with macvlan or ipvlan services would have addresses of the host's own network: publish \
            their ports instead",
        ),
        no("driver_opts", BRIDGE),
        unless("external", &["false"], "its services do not meet those of other stacks; publish a port instead"),
        no("name", "it is called after its key, within the stack"),
        yes("internal"),
        unless("attachable", &["true", "false"], ""),
        yes("ipam"),
        unless("enable_ipv4", &["true"], "addresses inside are IPv4"),
        unless("enable_ipv6", &["false"], "addresses inside are IPv4"),
        no("labels", INERT),
    ],
};

/// `ipam` of a network.
pub(super) const IPAM: Section = Section {
    name: "ipam",
    keys: &[
        yes("config"),
        unless("driver", &["default"], "addresses are chosen here"),
        no("options", "addresses are chosen here"),
    ],
};

/// `ipam.config[]` of a network.
pub(super) const IPAM_CONFIG: Section = Section {
    name: "ipam.config",
    keys: &[yes("subnet"), yes("gateway"), no("ip_range", ADDRESSES), no("aux_addresses", ADDRESSES)],
};

/// `networks` of a service.
pub(super) const ATTACHMENT: Section = Section {
    name: "networks",
    keys: &[
        yes("aliases"),
        yes("ipv4_address"),
        no("ipv6_address", "addresses inside are IPv4"),
        no("link_local_ips", "addresses are chosen here"),
        no("mac_address", "addresses are chosen here"),
        no("interface_name", "interfaces are called eth0, eth1, …"),
        no("driver_opts", BRIDGE),
        unless("gw_priority", &["0"], ORDER),
        unless("priority", &["0"], ORDER),
    ],
};

/// A top-level secret or config.
pub(super) const CONTENT: Section = Section {
    name: "secret or config",
    keys: &[
        yes("file"),
        yes("environment"),
        yes("content"),
        partly("external", "there is no store of secrets and configs here; nothing is mounted"),
        no("name", "it is known by its key"),
        no("labels", INERT),
        no("template_driver", "it is taken as it is"),
        no("driver", "it is taken from this host"),
        no("driver_opts", "it is taken from this host"),
    ],
};

/// The long form of a secret or config of a service.
pub(super) const CONTENT_MOUNT: Section = Section {
    name: "secrets or configs",
    keys: &[
        yes("source"),
        yes("target"),
        yes("mode"),
        unless("uid", &["0"], "it belongs to the container's root"),
        unless("gid", &["0"], "it belongs to the container's root"),
    ],
};

/// `depends_on` in its long form.
pub(super) const DEPENDENCY: Section = Section {
    name: "depends_on",
    keys: &[
        yes("condition"),
        yes("required"),
        unless("restart", &["false"], "it goes on running when the other is replaced"),
    ],
};

/// The long form of `env_file`.
pub(super) const ENV_FILE: Section = Section {
    name: "env_file",
    keys: &[yes("path"), yes("required"), no("format", "it is read as `NAME=value` lines with quotes and `${…}`")],
};

/// `extends`.
pub(super) const EXTENDS: Section = Section { name: "extends", keys: &[yes("service"), yes("file")] };

/// The long form of `include`.
pub(super) const INCLUDE: Section =
    Section { name: "include", keys: &[yes("path"), yes("project_directory"), yes("env_file")] };

/// `build`.
pub(super) const BUILD: Section = Section {
    name: "build",
    keys: &[
        no("context", NO_BUILD),
        unless("dockerfile", &["Dockerfile"], NO_BUILD),
        no("dockerfile_inline", NO_BUILD),
        no("args", NO_BUILD),
        no("target", NO_BUILD),
        no("additional_contexts", NO_BUILD),
        no("cache_from", NO_BUILD),
        no("cache_to", NO_BUILD),
        no("entitlements", NO_BUILD),
        no("extra_hosts", NO_BUILD),
        no("isolation", NO_BUILD),
        no("labels", NO_BUILD),
        no("network", NO_BUILD),
        no("no_cache", NO_BUILD),
        no("no_cache_filter", NO_BUILD),
        no("platforms", NO_BUILD),
        no("privileged", NO_BUILD),
        no("provenance", NO_BUILD),
        no("pull", NO_BUILD),
        no("sbom", NO_BUILD),
        no("secrets", NO_BUILD),
        no("shm_size", NO_BUILD),
        no("ssh", NO_BUILD),
        no("tags", NO_BUILD),
        no("ulimits", NO_BUILD),
    ],
};

/// All tables, with where each is found.
pub(crate) const TABLES: Tables = Tables {
    dialect: "Compose",
    all: &[
        ("", &TOP),
        ("services.*", &SERVICE),
        ("services.*.healthcheck", &HEALTHCHECK),
        ("services.*.ulimits.*", &ULIMIT),
        ("services.*.logging", &LOGGING),
        ("services.*.logging.options", &LOGGING_OPTIONS),
        ("services.*.deploy", &DEPLOY),
        ("services.*.deploy.resources", &RESOURCES),
        ("services.*.deploy.resources.limits", &LIMITS),
        ("services.*.deploy.resources.reservations", &RESERVATIONS),
        ("services.*.deploy.restart_policy", &RESTART_POLICY),
        ("services.*.deploy.update_config", &UPDATE_CONFIG),
        ("services.*.ports[]", &PORT),
        ("services.*.volumes[]", &VOLUME_MOUNT),
        ("services.*.volumes[].bind", &BIND),
        ("services.*.volumes[].volume", &VOLUME_OPTIONS),
        ("services.*.volumes[].tmpfs", &TMPFS),
        ("services.*.networks.*", &ATTACHMENT),
        ("services.*.depends_on.*", &DEPENDENCY),
        ("services.*.env_file[]", &ENV_FILE),
        ("services.*.secrets[]", &CONTENT_MOUNT),
        ("services.*.extends", &EXTENDS),
        ("services.*.build", &BUILD),
        ("volumes.*", &VOLUME),
        ("networks.*", &NETWORK),
        ("networks.*.ipam", &IPAM),
        ("networks.*.ipam.config[]", &IPAM_CONFIG),
        ("secrets.*", &CONTENT),
        ("include[]", &INCLUDE),
    ],
    links: &[("services.*.configs[]", "services.*.secrets[]"), ("configs.*", "secrets.*")],
};
