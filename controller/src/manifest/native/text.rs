//! The formats of native fields: names, paths, ports, signals, schedules. Parsed once, here.

use std::net::{IpAddr, Ipv4Addr};

use runtime::image::ImageRef;
use runtime::runtime::Protocol;

use crate::manifest::format::{Bad, Format, no_nul, wire_format};
use crate::model::codes;

/// A DNS label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(pub(crate) String);
/// An image reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference(pub(crate) ImageRef);
/// An absolute path inside a container, normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerPath(pub(crate) String);
/// A path on the host, absolute or relative to the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPath(pub(crate) String);
/// A key of a Config: one component of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileName(pub(crate) String);
/// Permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileMode(pub(crate) u32);
/// A host port, with the address it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}
/// The short form of a port: `80`, `8080:80`, `0.0.0.0:8080:80`, `5353:53/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortMapping {
    pub(crate) publish: Option<Publish>,
    pub(crate) container_port: u16,
    pub(crate) protocol: Protocol,
}
/// `:5432` or `5432`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpTarget(pub(crate) u16);
/// `:3000/healthz`, or `/healthz` on the only port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpTarget {
    pub(crate) port: Option<u16>,
    pub(crate) path: String,
}
/// A signal, by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signal(pub(crate) String);
/// Five fields of cron.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cron(pub(crate) String);
/// An IANA time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimeZone(pub(crate) String);
/// A capability, `CAP_NET_RAW` or `NET_RAW`; `ALL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capability(pub(crate) String);
/// `64Mi`, or `true` for no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TmpfsSize(pub(crate) Option<u64>);
/// `user[:group]`, by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User(pub(crate) String);
/// A host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hostname(pub(crate) String);
/// Any scalar, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnyScalar(pub(crate) String);

wire_format!(
    Name,
    Reference,
    ContainerPath,
    HostPath,
    FileName,
    FileMode,
    Publish,
    PortMapping,
    TcpTarget,
    HttpTarget,
    Signal,
    Cron,
    TimeZone,
    Capability,
    TmpfsSize,
    User,
    Hostname,
    AnyScalar,
);

const STRING: &[&str] = &["string"];
const STRING_OR_INTEGER: &[&str] = &["string", "integer"];

impl Format for Name {
    const NAME: &'static str = "name";
    const TYPES: &'static [&'static str] = STRING_OR_INTEGER;
    const ABOUT: &'static str = "A name: a-z, 0-9 and -, at most 63 characters";
    fn parse(text: &str) -> Result<Self, Bad> {
        runtime::id::check_name(text).map_err(|error| {
            let fixed: String =
                text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
            let fixed = fixed.trim_matches('-').to_owned();
            let bad = Bad::new(codes::NAME, format!("{text:?} is not a name: {}", error.why));
            if runtime::id::check_name(&fixed).is_ok() { bad.suggest(fixed) } else { bad }
        })?;
        Ok(Self(text.to_owned()))
    }
}

impl Format for Reference {
    const NAME: &'static str = "image";
    const TYPES: &'static [&'static str] = STRING;
    const ABOUT: &'static str = "An image reference: [HOST[:PORT]/]PATH[:TAG][@DIGEST]";
    fn parse(text: &str) -> Result<Self, Bad> {
        match text.parse() {
            Ok(reference) => Ok(Self(reference)),
            Err(runtime::image::RefError { why, .. }) => {
                let bad = Bad::new(codes::REFERENCE, format!("{text:?} is not an image reference: {why}"));
                let lower = text.to_ascii_lowercase();
                let fixed = lower != text && lower.parse::<ImageRef>().is_ok();
                Err(if fixed { bad.suggest(lower) } else { bad })
            }
        }
    }
}

impl Format for ContainerPath {
    const NAME: &'static str = "containerPath";
    const TYPES: &'static [&'static str] = STRING;
    const ABOUT: &'static str = "An absolute path inside the container";
    fn parse(text: &str) -> Result<Self, Bad> {
        no_nul(text)?;
        if !text.starts_with('/') {
            let bad = Bad::new(codes::MOUNT, format!("a path in a container begins with `/`, found {text:?}"));
            return Err(if text.is_empty() { bad } else { bad.suggest(format!("/{text}")) });
        }
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.contains(&"..") {
            return Err(Bad::new(codes::MOUNT, format!("`..` is not allowed in {text:?}")));
        }
        if text.len() > 4_095 {
            return Err(Bad::new(codes::MOUNT, "a path is at most 4095 bytes long"));
        }
        Ok(Self(format!("/{}", parts.join("/"))))
    }
}

impl Format for HostPath {
    const NAME: &'static str = "hostPath";
    const TYPES: &'static [&'static str] = STRING;
    const ABOUT: &'static str = "A path on the host, absolute or relative to the manifest";
    fn parse(text: &str) -> Result<Self, Bad> {
        no_nul(text)?;
        match text {
            "" => Err(Bad::new(codes::MOUNT, "the path is empty")),
            _ if text.starts_with('~') => {
                Err(Bad::new(codes::MOUNT, "`~` is not known here").help("write the directory, or ${HOME}"))
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl Format for FileName {
    const NAME: &'static str = "fileName";
    const TYPES: &'static [&'static str] = STRING_OR_INTEGER;
    const ABOUT: &'static str = "A key of a Config: a file name";
    fn parse(text: &str) -> Result<Self, Bad> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let plain = !text.is_empty() && text.len() <= 253 && text.chars().all(is_plain);
        if !plain || text == "." || text == ".." {
            let what = format!("{text:?} is not a key: letters, digits, `.`, `_` and `-` make a file name");
            return Err(Bad::new(codes::NAME, what));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Format for FileMode {
    const NAME: &'static str = "fileMode";
    const TYPES: &'static [&'static str] = STRING_OR_INTEGER;
    const ABOUT: &'static str = "Permission bits in octal: \"0644\"";
    fn parse(text: &str) -> Result<Self, Bad> {
        let bad =
            || Bad::new(codes::VALUE, format!("expected permission bits in octal such as \"0644\", found {text:?}"));
        let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'));
        let Some(digits) = digits.filter(|digits| digits.len() <= 4) else {
            let octal = text.len() == 3 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
            return Err(if octal { bad().suggest(format!("\"0{text}\"")) } else { bad() });
        };
        let mode = if digits.is_empty() { Ok(0) } else { u32::from_str_radix(digits, 8) };
        mode.ok().filter(|mode| *mode <= 0o7777).map(Self).ok_or_else(bad)
    }
}

fn port(text: &str) -> Result<u16, Bad> {
    match port_and_protocol(text)? {
        (port, Protocol::Tcp) => Ok(port),
        (_, Protocol::Udp) => Err(Bad::new(codes::PORT, format!("expected a TCP port 1-65535, found {text:?}"))
            .help("the protocol is written behind the container's port: 5353:53/udp")),
    }
}

fn port_and_protocol(text: &str) -> Result<(u16, Protocol), Bad> {
    let bad = |what: String| Err(Bad::new(codes::PORT, what));
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match (number.parse::<u16>(), protocol) {
        (Ok(port @ 1..), "tcp") if number.bytes().all(|b| b.is_ascii_digit()) => Ok((port, Protocol::Tcp)),
        (Ok(port @ 1..), "udp") if number.bytes().all(|b| b.is_ascii_digit()) => Ok((port, Protocol::Udp)),
        (Ok(1..), "sctp") => {
            Err(Bad::new(codes::NOT_YET, format!("sctp ports cannot be published yet, found {text:?}")))
        }
        _ if number.contains('-') => {
            Err(Bad::new(codes::NOT_YET, format!("ranges of ports are not supported yet, found {text:?}"))
                .help("write one entry for each port"))
        }
        _ => bad(format!("expected a port 1-65535, found {text:?}")),
    }
}

fn address(text: &str) -> Result<IpAddr, Bad> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| Bad::new(codes::PORT, format!("expected an IP address before the port, found {text:?}")))
}

impl Format for Publish {
    const NAME: &'static str = "publish";
    const TYPES: &'static [&'static str] = STRING_OR_INTEGER;
    const ABOUT: &'static str = "A host port: 8080 (on 127.0.0.1), 0.0.0.0:8080, [::]:8080";
    fn parse(text: &str) -> Result<Self, Bad> {
        match text.rsplit_once(':') {
            Some((host, number)) => Ok(Self { address: address(host)?, port: port(number)? }),
            None => Ok(Self { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: port(text)? }),
        }
    }
}

impl Format for PortMapping {
    const NAME: &'static str = "portMapping";
    const TYPES: &'static [&'static str] = STRING_OR_INTEGER;
    const ABOUT: &'static str = "A container port, or HOST:CONTAINER, or ADDRESS:HOST:CONTAINER, each with /udp or not";
    fn parse(text: &str) -> Result<Self, Bad> {
        match text.rsplit_once(':') {
            Some((publish, container)) => {
                let publish = Some(Publish::parse(publish)?);
                let (container_port, protocol) = port_and_protocol(container)?;
                Ok(Self { publish, container_port, protocol })
            }
            None => {
                let (container_port, protocol) = port_and_protocol(text)?;
                Ok(Self { publish: None, container_port, protocol })
            }
        }
    }
}

impl Format for TcpTarget {
    const NAME: &'static str = "tcpTarget";
    const TYPES: &'static [&'static str] = STRING_OR_INTEGER;
    const ABOUT: &'static str = "A container port: :5432";
    fn parse(text: &str) -> Result<Self, Bad> {
        port(text.strip_prefix(':').unwrap_or(text)).map(Self)
    }
}

impl Format for HttpTarget {
    const NAME: &'static str = "httpTarget";
    const TYPES: &'static [&'static str] = STRING_OR_INTEGER;
    const ABOUT: &'static str = "Port and path: :3000/healthz";
    fn parse(text: &str) -> Result<Self, Bad> {
        if text.starts_with("https:") {
            return Err(Bad::new(codes::NOT_YET, "https checks are not supported yet").help("use `tcp` or `exec`"));
        }
        let local = ["http://localhost", "http://127.0.0.1"].iter().find_map(|prefix| text.strip_prefix(prefix));
        let rest = local.unwrap_or(text);
        let (number, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        if path.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(Bad::new(
                codes::HEALTHCHECK,
                format!("the path of an HTTP check has no blanks, found {path:?}"),
            ));
        }
        let number = number.strip_prefix(':').unwrap_or(number);
        let port = match (number, local) {
            ("", Some(_)) => Some(80),
            ("", None) => None,
            _ => Some(port(number).map_err(|_| {
                let what = format!("expected :PORT/PATH such as :3000/healthz, found {text:?}");
                Bad::new(codes::HEALTHCHECK, what)
            })?),
        };
        Ok(Self { port, path: path.to_owned() })
    }
}

const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

impl Format for Signal {
    const NAME: &'static str = "signal";
    const TYPES: &'static [&'static str] = STRING_OR_INTEGER;
    const ABOUT: &'static str = "A signal by name or number: SIGTERM, QUIT, 15";
    fn parse(text: &str) -> Result<Self, Bad> {
        if let Ok(number @ 1..=64) = text.parse::<u8>() {
            return Ok(Self(number.to_string()));
        }
        let upper = text.to_ascii_uppercase();
        let short = upper.strip_prefix("SIG").unwrap_or(&upper);
        let realtime = short == "RTMIN" || short == "RTMAX" || short.starts_with("RTMIN+");
        let offset = short.strip_prefix("RTMIN+").map(str::parse::<u8>);
        if SIGNALS.contains(&short) || (realtime && offset.is_none_or(|n| n.is_ok_and(|n| n <= 30))) {
            return Ok(Self(format!("SIG{short}")));
        }
        let bad = Bad::new(codes::VALUE, format!("{text:?} is not a signal"));
        Err(match crate::text::nearest(short, SIGNALS) {
            Some(near) => bad.suggest(format!("SIG{near}")),
            None => bad,
        })
    }
}

impl Format for Cron {
    const NAME: &'static str = "cron";
    const TYPES: &'static [&'static str] = STRING;
    const ABOUT: &'static str = "Minute, hour, day of month, month, day of week: \"15 3 * * *\"";
    fn parse(text: &str) -> Result<Self, Bad> {
        match text.parse::<crate::model::cron::Cron>() {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(Bad::new(codes::SCHEDULE, format!("{text:?} is not a schedule: {}", error.why))
                .help("minute hour day-of-month month day-of-week, such as \"15 3 * * *\"")),
        }
    }
}

impl Format for TimeZone {
    const NAME: &'static str = "timeZone";
    const TYPES: &'static [&'static str] = STRING;
    const ABOUT: &'static str = "An IANA time zone: Europe/Berlin";
    fn parse(text: &str) -> Result<Self, Bad> {
        if crate::model::cron::time_zone(text).is_some() {
            return Ok(Self(text.to_owned()));
        }
        let zones = jiff::tz::TimeZoneDatabase::bundled();
        let known: Vec<String> = zones.available().map(|name| name.as_str().to_owned()).collect();
        let bad = Bad::new(codes::SCHEDULE, format!("{text:?} is not a known time zone"));
        Err(match crate::text::nearest(text, known.iter().map(String::as_str)) {
            Some(near) => bad.suggest(near),
            None => bad.help("write it as Area/City, such as Europe/Berlin"),
        })
    }
}

const CAPABILITIES: [&str; 42] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

impl Format for Capability {
    const NAME: &'static str = "capability";
    const TYPES: &'static [&'static str] = STRING;
    const ABOUT: &'static str = "A capability: NET_ADMIN, CAP_NET_RAW, ALL";
    fn parse(text: &str) -> Result<Self, Bad> {
        let upper = text.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if CAPABILITIES.contains(&short) {
            let name = if short == "ALL" { short.to_owned() } else { format!("CAP_{short}") };
            return Ok(Self(name));
        }
        let bad = Bad::new(codes::VALUE, format!("{text:?} is not a capability"));
        Err(match crate::text::nearest(short, CAPABILITIES) {
            Some(near) => bad.suggest(near),
            None => bad,
        })
    }
}

impl Format for TmpfsSize {
    const NAME: &'static str = "tmpfsSize";
    const TYPES: &'static [&'static str] = &["string", "integer", "boolean"];
    const ABOUT: &'static str = "Its bound: 64Mi, or true for the kernel's default";
    fn parse(text: &str) -> Result<Self, Bad> {
        if text == "true" {
            return Ok(Self(None));
        }
        crate::manifest::quantity::Memory::parse(text).map(|memory| Self(Some(memory.0)))
    }
}

impl Format for User {
    const NAME: &'static str = "user";
    const TYPES: &'static [&'static str] = STRING_OR_INTEGER;
    const ABOUT: &'static str = "user[:group], by name or number";
    fn parse(text: &str) -> Result<Self, Bad> {
        let part =
            |part: &str| !part.is_empty() && !part.chars().any(|c| c.is_whitespace() || c.is_control() || c == ':');
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        if part(user) && group.is_none_or(part) {
            return Ok(Self(text.to_owned()));
        }
        Err(Bad::new(codes::VALUE, format!("expected user or user:group, found {text:?}")))
    }
}

impl Format for Hostname {
    const NAME: &'static str = "hostname";
    const TYPES: &'static [&'static str] = STRING;
    const ABOUT: &'static str = "A host name";
    fn parse(text: &str) -> Result<Self, Bad> {
        let label = |label: &str| {
            let plain = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            (1..=63).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
        };
        if text.len() <= 64 && text.split('.').all(label) {
            return Ok(Self(text.to_owned()));
        }
        Err(Bad::new(codes::NAME, format!("{text:?} is not a host name of at most 64 characters")))
    }
}

impl Format for AnyScalar {
    const NAME: &'static str = "scalar";
    const TYPES: &'static [&'static str] = &["string", "number", "boolean"];
    const ABOUT: &'static str = "A text, number or boolean, taken as it is written";
    fn parse(text: &str) -> Result<Self, Bad> {
        no_nul(text)?;
        Ok(Self(text.to_owned()))
    }
}
