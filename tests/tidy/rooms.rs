//! The table of rooms: what each may not name, and what to use instead. The reasons are in docs/ARCHITECTURE.md.
//! A new arrow between rooms is a new page in docs/decisions/ first and a changed line here second.

/// Words that may not appear in some files' code (tests excepted), with the replacement.
pub(crate) struct Rule {
    /// Path prefixes the rule is about.
    pub(crate) within: &'static [&'static str],
    /// Path prefixes it is not about.
    pub(crate) but: &'static [&'static str],
    /// Whole words: crates, paths, macros.
    pub(crate) words: &'static [&'static str],
    /// What to do instead.
    pub(crate) instead: &'static str,
}

/// Everything that touches the world; pure rooms have none of it.
const EFFECTS: &[&str] = &[
    "tokio",
    "sled",
    "notify",
    "std::fs",
    "std::process",
    "std::env",
    "std::thread",
    "std::io",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "Instant",
    "SystemTime",
    "clock",
    "tracing",
    "println!",
    "eprintln!",
    "nix",
    "rustix",
    "libc",
];

const CONTROLLER_ROOMS_ABOVE_MODEL: &[&str] = &[
    "crate::manifest",
    "crate::plan",
    "crate::observe",
    "crate::execute",
    "crate::reconcile",
    "crate::store",
    "crate::status",
    "crate::watch",
    "crate::probe",
    "crate::api",
    "crate::cli",
];

pub(crate) const RULES: &[Rule] = &[
    // --- pure rooms
    Rule {
        within: &["controller/src/plan"],
        but: &[],
        words: EFFECTS,
        instead: "the planner is pure: time, randomness and ids come in as fields of ObservedState; effects go out as Actions",
    },
    Rule {
        within: &["controller/src/model"],
        but: &[],
        words: EFFECTS,
        instead: "the model holds values: pass what was read in as an argument",
    },
    Rule {
        within: &[
            "runtime/src/spec",
            "runtime/src/network/ipam",
            "runtime/src/network/ruleset",
            "runtime/src/network/address",
            "runtime/src/cgroup/resources",
            "runtime/src/process/handshake",
            "runtime/src/image/reference",
            "runtime/src/image/digest",
        ],
        but: &[],
        words: &[
            "std::fs",
            "std::process",
            "std::thread",
            "TcpStream",
            "nix",
            "rustix",
            "Instant",
            "SystemTime",
            "tracing",
        ],
        instead: "this half is pure and golden-tested: give it what was read, let its caller act",
    },
    Rule {
        within: &["controller/src/plan", "controller/src/model", "controller/src/manifest"],
        but: &[],
        words: &["HashMap", "HashSet"],
        instead: "iteration order is output here: BTreeMap or BTreeSet",
    },
    // --- which way the controller's rooms point
    Rule {
        within: &["controller/src/model"],
        but: &[],
        words: CONTROLLER_ROOMS_ABOVE_MODEL,
        instead: "the model is below every other room: move the type down or pass a value",
    },
    Rule {
        within: &["controller/src/plan"],
        but: &[],
        words: &[
            "crate::manifest",
            "crate::observe",
            "crate::execute",
            "crate::reconcile",
            "crate::store",
            "crate::status",
            "crate::watch",
            "crate::probe",
            "crate::api",
            "crate::cli",
        ],
        instead: "plan knows only model",
    },
    Rule {
        within: &["controller/src/manifest"],
        but: &[],
        words: &[
            "crate::plan",
            "crate::observe",
            "crate::execute",
            "crate::reconcile",
            "crate::store",
            "crate::watch",
            "crate::api",
            "crate::cli",
            "tokio",
            "sled",
            "runtime::Runtime",
            "LinuxRuntime",
        ],
        instead: "a front-end turns text into objects and knows only model",
    },
    Rule {
        within: &["controller/src/observe"],
        but: &[],
        words: &["crate::manifest", "crate::plan", "crate::execute", "crate::reconcile", "crate::api", "crate::cli"],
        instead: "observe reads the world through Runtime and Store and fills ObservedState",
    },
    Rule {
        within: &["controller/src/execute"],
        but: &[],
        words: &["crate::manifest", "crate::observe", "crate::reconcile", "crate::api", "crate::cli", "sled"],
        instead: "execute carries out a plan and decides nothing: the decision belongs into plan/",
    },
    Rule {
        within: &["controller/src/hand"],
        but: &[],
        words: &[
            "crate::manifest",
            "crate::observe",
            "crate::execute",
            "crate::reconcile",
            "crate::api",
            "crate::cli",
            "crate::memory",
            "sled",
        ],
        instead: "containers made by hand are nobody's plan: ask the runtime, and return values to api and cli",
    },
    Rule {
        within: &["controller/src/store"],
        but: &[],
        words: &[
            "crate::manifest",
            "crate::plan",
            "crate::execute",
            "crate::observe",
            "runtime::Runtime",
            "LinuxRuntime",
        ],
        instead: "the store keeps versioned records and knows nobody's policy",
    },
    Rule {
        within: &["controller/src"],
        but: &[],
        words: &[
            "rustix::mount",
            "nix::mount",
            "nix::sched",
            "libc",
            "netlink_packet_route",
            "netlink_packet_core",
            "tar",
            "flate2",
            "zstd",
            "rustls",
        ],
        instead: "mechanism belongs to the runtime crate; ask for it through Runtime",
    },
    // --- one home for each delicate dependency
    Rule {
        within: &["controller/src", "runtime/src"],
        but: &["controller/src/store"],
        words: &["sled"],
        instead: "sled is named in controller/src/store only; use its trait",
    },
    Rule {
        within: &["controller/src", "runtime/src"],
        but: &["controller/src/manifest/yaml"],
        words: &["serde_yaml", "saphyr_parser"],
        instead: "YAML is read in manifest/yaml.rs only, so that the crate can be replaced",
    },
    Rule {
        within: &["runtime/src"],
        but: &[],
        words: &["tokio", "controller", "axum", "notify", "clap"],
        instead: "the runtime is blocking code that has never heard of the controller",
    },
    Rule {
        within: &["runtime/src"],
        but: &["runtime/src/image/registry", "runtime/src/tls"],
        words: &["hyper", "rustls", "http_body_util"],
        instead: "only the registry client speaks HTTP; checks that ask with TLS go through tls.rs",
    },
    Rule {
        within: &["runtime/src"],
        but: &["runtime/src/switchboard", "runtime/src/image/registry"],
        words: &["hickory_proto"],
        instead: "only the switchboard and the registry client (which may not use the host's resolver library) speak DNS",
    },
    Rule {
        within: &["runtime/src"],
        but: &["runtime/src/network", "runtime/src/sys"],
        words: &["netlink_packet_route", "netlink_packet_core"],
        instead: "links, addresses and routes are made in runtime/src/network",
    },
    Rule {
        within: &["runtime/src/supervisor", "runtime/src/keeper"],
        but: &[],
        words: &["crate::image", "hyper", "tar", "std::thread", "thread::spawn"],
        instead: "the supervisor and the keeper are single-threaded and know no image: clone asserts the thread count",
    },
    Rule {
        within: &["controller/src"],
        but: &["controller/src/cli", "controller/src/demo", "controller/src/main.rs"],
        words: &["clap", "println!", "print!", "eprintln!", "eprint!"],
        instead: "only the command line and the demo print: return the value, or log with tracing",
    },
    Rule {
        within: &["runtime/src"],
        but: &[],
        words: &["println!", "print!"],
        instead: "return the value, or log with tracing",
    },
    // --- things with one right way
    Rule {
        within: &["controller/src", "runtime/src"],
        but: &["runtime/src/sys", "runtime/src/process"],
        words: &["unsafe"],
        instead: "unsafe code lives in runtime/src/sys and runtime/src/process: add a safe wrapper there",
    },
    Rule {
        within: &["controller/src", "runtime/src"],
        // watch settles by tokio's clock, which its tests stop and move
        but: &["runtime/src/clock.rs", "controller/src/watch"],
        words: &["SystemTime::now", "Instant::now", "Timestamp::now", "Zoned::now", "clock_gettime", "elapsed"],
        instead: "runtime::clock is the one reader of clocks",
    },
    Rule {
        within: &["controller/src", "runtime/src"],
        but: &[],
        words: &["env::set_var", "env::remove_var", "env::set_current_dir"],
        instead: "process-wide state races with every other thread: pass the value on",
    },
    Rule {
        within: &["controller/src", "runtime/src", "tests"],
        but: &["tests/tidy"],
        words: &["todo!", "unimplemented!", "dbg!"],
        instead: "no stub lands: leave it out, or return Error::Unsupported with a clear text",
    },
    Rule {
        within: &["runtime/src", "controller/src"],
        but: &["runtime/src/sys"],
        words: &["getaddrinfo", "getpwnam", "getgrnam", "ToSocketAddrs"],
        instead: "name lookups of a static glibc load the host's libraries: parse the files, use our resolver",
    },
];
