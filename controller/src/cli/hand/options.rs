//! What is typed for `run` and `create` as what it means. Reads environment files; otherwise pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use runtime::runtime::{Protocol, Resources, SecurityConfig, Ulimit};

use crate::cli::args::MakeArgs;
use crate::cli::context::{Failure, absolute};
use crate::hand::{Restart, RunMount, RunNetwork, RunPort, RunSource, RunSpec};

/// Longest environment file, in bytes.
const ENV_FILE_BYTES_MAX: u64 = 1 << 20;

/// Most ports of one container that are published one by one: each is a socket of the switchboard.
const PORTS_MAX: usize = 1_000;

type Parsed<T> = Result<T, String>;

/// Everything at once.
pub(super) fn spec(args: &MakeArgs) -> Result<RunSpec, Failure> {
    parse(args).map_err(Failure::Usage)
}

fn parse(args: &MakeArgs) -> Parsed<RunSpec> {
    refuse(args)?;
    let (image, command) = args.image_and_command.split_first().ok_or("name an image")?;
    let restart = Restart::parse(&args.restart)?;
    if args.rm && restart != Restart::No {
        return Err("--rm and --restart contradict each other: a container that is removed cannot start again".into());
    }
    let spec = RunSpec {
        image: image.clone(),
        name: args.name.clone(),
        // an empty one takes the image's away, as in Docker
        entrypoint: args.entrypoint.as_ref().map(|p| if p.is_empty() { Vec::new() } else { vec![p.clone()] }),
        args: command.to_vec(),
        env: environment(args)?,
        labels: args.label.iter().map(|text| pair(text)).collect(),
        working_dir: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        mounts: mounts(args)?,
        network: network(&args.network)?,
        publish: published(args)?,
        publish_all: args.publish_all,
        expose: args.expose.iter().map(|text| exposed(text)).collect::<Parsed<Vec<_>>>()?.concat(),
        resources: resources(args)?,
        security: SecurityConfig {
            allow_privilege_escalation: args.allow_privilege_escalation,
            cap_add: args.cap_add.clone(),
            cap_drop: args.cap_drop.clone(),
            read_only_root: args.read_only,
        },
        ulimits: args.ulimit.iter().map(|text| ulimit(text)).collect::<Parsed<_>>()?,
        hosts: args.add_host.iter().map(|text| host(text)).collect::<Parsed<_>>()?,
        nameservers: args.dns.clone(),
        stop_signal: args.stop_signal.clone(),
        stop_ms: args.stop_timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        shm_bytes: args.shm_size.as_deref().map(size).transpose()?,
        tty: args.tty,
        stdin: args.interactive,
        init: args.init,
        lossy_log: lossy_log(&args.log_opt)?,
        auto_remove: args.rm,
        restart,
    };
    Ok(spec)
}

/// `mode=non-blocking` among the options of the log; bounds of its files are ours.
fn lossy_log(options: &[String]) -> Parsed<bool> {
    let mut lossy = false;
    for option in options {
        lossy = match option.as_str() {
            "mode=non-blocking" => true,
            "mode=blocking" => false,
            other => return Err(format!("--log-opt {other}: there are `mode=blocking` and `mode=non-blocking`")),
        };
    }
    Ok(lossy)
}

/// What is not done, with what to do instead.
fn refuse(args: &MakeArgs) -> Parsed<()> {
    if args.privileged {
        return Err("--privileged would give up every protection at once: name what is needed, --cap-add CAP, \
                    --allow-privilege-escalation, --network host or --volume /HOST:/PATH"
            .into());
    }
    if let Some(platform) = &args.platform {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        if *platform != format!("linux/{arch}") && platform != arch {
            return Err(format!("this host runs linux/{arch} and cannot run {platform}"));
        }
    }
    Ok(())
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

fn environment(args: &MakeArgs) -> Parsed<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    for file in &args.env_file {
        let text = read(file)?;
        let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.for_each(|line| env.extend(variable(line)));
    }
    args.env.iter().for_each(|text| env.extend(variable(text)));
    Ok(env)
}

/// `NAME=VALUE`; `NAME` alone is passed on where it is set.
fn variable(text: &str) -> Option<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => std::env::var(text).ok().map(|value| (text.to_owned(), value)),
    }
}

fn read(file: &Path) -> Parsed<String> {
    let failed = |error: std::io::Error| format!("read {}: {error}", file.display());
    let bytes = std::fs::metadata(file).map_err(failed)?.len();
    if bytes > ENV_FILE_BYTES_MAX {
        return Err(format!("{} has {bytes} bytes: an environment is smaller", file.display()));
    }
    std::fs::read_to_string(file).map_err(failed)
}

fn network(text: &str) -> Parsed<RunNetwork> {
    match text {
        "default" | "bridge" => Ok(RunNetwork::Default),
        "none" => Ok(RunNetwork::None),
        "host" => Ok(RunNetwork::Host),
        other => Err(format!("`{other}` is no network for a container made by hand: default, none or host")),
    }
}

fn mounts(args: &MakeArgs) -> Parsed<Vec<RunMount>> {
    let mut mounts = Vec::new();
    for text in &args.volume {
        mounts.push(volume(text)?);
    }
    for text in &args.mount {
        mounts.push(mount(text)?);
    }
    for text in &args.tmpfs {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let size_bytes = options.split(',').find_map(|option| option.strip_prefix("size=")).map(size).transpose()?;
        let read_only = options.split(',').any(|option| option == "ro");
        mounts.push(RunMount { target: target.to_owned(), source: RunSource::Tmpfs(size_bytes), read_only });
    }
    match mounts.iter().find(|mount| !mount.target.starts_with('/')) {
        Some(mount) => Err(format!("`{}` is not an absolute path inside the container", mount.target)),
        None => Ok(mounts),
    }
}

/// `VOLUME:PATH`, `/HOST:PATH`, `./HOST:PATH`, `PATH`, each with options behind another colon.
fn volume(text: &str) -> Parsed<RunMount> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(format!("`{text}` is not SOURCE:PATH or SOURCE:PATH:ro")),
    };
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            // ids are mapped and labels unknown here: both are as they should be already
            "rw" | "z" | "Z" => {}
            other => return Err(format!("`{other}` of `{text}` is not an option of a mount: ro or rw")),
        }
    }
    Ok(RunMount { target: target.to_owned(), source: source_of(source), read_only })
}

fn source_of(text: &str) -> RunSource {
    match text {
        "" => RunSource::Anonymous,
        path if path.starts_with(['/', '.', '~']) => RunSource::Bind(host_path(path)),
        name => RunSource::Volume(name.to_owned()),
    }
}

fn host_path(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => absolute(Path::new(text)),
    }
}

fn mount(text: &str) -> Parsed<RunMount> {
    let (mut kind, mut source, mut target, mut read_only, mut size_bytes) = ("volume", "", None, false, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, "true"));
        match key {
            "type" => kind = value,
            "source" | "src" => source = value,
            "target" | "dst" | "destination" => target = Some(value.to_owned()),
            "readonly" | "ro" => read_only = value != "false" && value != "0",
            "tmpfs-size" => size_bytes = Some(size(value)?),
            other => {
                return Err(format!("`{other}` of `{text}` is unknown: type, source, target, readonly, tmpfs-size"));
            }
        }
    }
    let target = target.ok_or_else(|| format!("`{text}` has no target"))?;
    let source = match kind {
        "bind" if source.is_empty() => return Err(format!("`{text}` has no source")),
        "bind" => RunSource::Bind(host_path(source)),
        "volume" if source.starts_with('/') => return Err(format!("`{source}` is a path: use type=bind")),
        "volume" if source.is_empty() => RunSource::Anonymous,
        "volume" => RunSource::Volume(source.to_owned()),
        "tmpfs" => RunSource::Tmpfs(size_bytes),
        other => return Err(format!("`{other}` is not a kind of mount: bind, volume or tmpfs")),
    };
    Ok(RunMount { target, source, read_only })
}

fn published(args: &MakeArgs) -> Parsed<Vec<RunPort>> {
    let ports = args.publish.iter().map(|text| port(text)).collect::<Parsed<Vec<_>>>()?.concat();
    if ports.len() > PORTS_MAX {
        return Err(format!("{} ports are published: {PORTS_MAX} are the most for one container", ports.len()));
    }
    Ok(ports)
}

/// `80/udp` apart.
fn protocol(text: &str) -> Option<(&str, Protocol)> {
    match text.split_once('/') {
        None => Some((text, Protocol::Tcp)),
        Some((ports, "tcp")) => Some((ports, Protocol::Tcp)),
        Some((ports, "udp")) => Some((ports, Protocol::Udp)),
        Some(_) => None,
    }
}

/// `80`, `8000-8010`; in order and without 0.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten().filter(|port| *port > 0)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

/// `PORT[-PORT][/PROTOCOL]`.
fn exposed(text: &str) -> Parsed<Vec<(u16, Protocol)>> {
    let bad = || format!("`{text}` is not PORT[/tcp|/udp], like 80 or 8000-8010/udp");
    let (ports, protocol) = protocol(text).ok_or_else(bad)?;
    Ok(range(ports).ok_or_else(bad)?.map(|port| (port, protocol)).collect())
}

/// `[ADDRESS:][HOST-PORT:]PORT[/PROTOCOL]`, each port also a range, then both of one length.
fn port(text: &str) -> Parsed<Vec<RunPort>> {
    let bad = || format!("`{text}` is not [ADDRESS:][HOST-PORT:]PORT[/tcp|/udp], like 8080:80 or 8000-8003:80-83");
    let (ports, protocol) = protocol(text).ok_or_else(bad)?;
    let mut parts = ports.rsplitn(3, ':');
    let inside = range(parts.next().unwrap_or_default()).ok_or_else(bad)?;
    let outside = parts.next().filter(|text| !text.is_empty()).map(|text| range(text).ok_or_else(bad)).transpose()?;
    let address = match parts.next().map(|text| text.trim_matches(['[', ']'])) {
        None | Some("") => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(text) => text.parse().map_err(|_| bad())?,
    };
    let one = |container_port, port| RunPort { address, port, container_port, protocol };
    match outside {
        None => Ok(inside.map(|port| one(port, None)).collect()),
        Some(outside) if outside.len() == inside.len() => {
            Ok(inside.zip(outside).map(|(port, host)| one(port, Some(host))).collect())
        }
        Some(outside) => Err(format!(
            "`{text}` has {} ports of the host for {} of the container: the two ranges must be of one length",
            outside.len(),
            inside.len()
        )),
    }
}

fn resources(args: &MakeArgs) -> Parsed<Resources> {
    let pids = args.pids_limit.filter(|most| *most > 0);
    Ok(Resources {
        memory_bytes: args.memory.as_deref().map(size).transpose()?,
        cpu_millis: args.cpus.as_deref().map(cpus).transpose()?,
        pids_max: pids.map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
        ..Resources::default()
    })
}

/// `0.5`, `2`: thousandths of a processor.
fn cpus(text: &str) -> Parsed<u32> {
    let bad = || format!("`{text}` is not a number of CPUs like 0.5 or 2");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if text.is_empty() || !digits(whole) || !digits(part) || (whole.is_empty() && part.is_empty()) {
        return Err(bad());
    }
    let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
    let part: u32 = format!("{part:0<3}")[..3].parse().map_err(|_| bad())?;
    whole.checked_mul(1_000).and_then(|millis| millis.checked_add(part)).filter(|millis| *millis > 0).ok_or_else(bad)
}

/// `512m`, `2g`, `64Mi`, `1024`: powers of 1024, as Docker takes them.
pub(super) fn size(text: &str) -> Parsed<u64> {
    let bad = || format!("`{text}` is not a size like 512m or 2g");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    let shift = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        _ => return Err(bad()),
    };
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(bad)
}

/// `nofile=1024:2048`.
fn ulimit(text: &str) -> Parsed<Ulimit> {
    let bad = || format!("`{text}` is not a limit like nofile=1024:2048");
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        number => number.parse().map_err(|_| bad()),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    Ok(Ulimit { name: name.to_owned(), soft: value(soft)?, hard: value(hard)? })
}

/// `NAME:ADDRESS`; `None` is this host.
fn host(text: &str) -> Parsed<(String, Option<IpAddr>)> {
    let bad = || format!("`{text}` is not NAME:ADDRESS or NAME:host-gateway");
    let (name, address) = text.split_once([':', '=']).ok_or_else(bad)?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(bad());
    }
    match address {
        "host-gateway" => Ok((name.to_owned(), None)),
        other => Ok((name.to_owned(), Some(other.trim_matches(['[', ']']).parse().map_err(|_| bad())?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_as_people_write_them() {
        let text = |text: &str| {
            port(text).map(|all| {
                let shown = all.iter().map(|p| (p.address.to_string(), p.port, p.container_port, p.protocol.is_tcp()));
                shown.collect::<Vec<_>>()
            })
        };
        assert_eq!(text("8080:80"), Ok(vec![("0.0.0.0".into(), Some(8080), 80, true)]));
        assert_eq!(text("80"), Ok(vec![("0.0.0.0".into(), None, 80, true)]));
        assert_eq!(text("127.0.0.1::53/udp"), Ok(vec![("127.0.0.1".into(), None, 53, false)]));
        assert_eq!(text("[::1]:8443:443"), Ok(vec![("::1".into(), Some(8443), 443, true)]));
        let two = [(Some(8000), 80), (Some(8001), 81)].map(|(host, port)| ("1.2.3.4".into(), host, port, false));
        assert_eq!(text("1.2.3.4:8000-8001:80-81/udp"), Ok(two.to_vec()));
        assert_eq!(text("80-82").map(|all| all.len()), Ok(3));
        assert_eq!(text("65535").map(|all| all.len()), Ok(1));
        for bad in ["", "0:80", "80:0", "x:80", "1.2.3:1:2", "80/sctp", "99999:80", "82-80", "80-", "+8:80", "1-2:1-3"]
        {
            assert!(port(bad).is_err(), "{bad}");
        }
        assert_eq!(exposed("53/udp"), Ok(vec![(53, Protocol::Udp)]));
        assert!(exposed("1:2").is_err() && exposed("0").is_err());
    }

    #[test]
    fn sizes_and_processors_as_people_write_them() {
        assert_eq!(
            (size("512m"), size("2g"), size("64Mi"), size("7")),
            (Ok(512 << 20), Ok(2 << 30), Ok(64 << 20), Ok(7))
        );
        assert_eq!((cpus("1.5"), cpus("2"), cpus(".25"), cpus("0.0625")), (Ok(1500), Ok(2000), Ok(250), Ok(62)));
        for bad in ["", "m", "-1", "1x", "0"] {
            assert!(size(bad).is_err() && cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts_as_people_write_them() {
        let one = |text: &str| volume(text).map(|m| (m.source, m.target, m.read_only));
        assert_eq!(one("data:/d"), Ok((RunSource::Volume("data".into()), "/d".into(), false)));
        assert_eq!(one("/srv:/d:ro"), Ok((RunSource::Bind("/srv".into()), "/d".into(), true)));
        assert_eq!(one("/d"), Ok((RunSource::Anonymous, "/d".into(), false)));
        let both = mount("type=bind,src=/srv,dst=/d,readonly").map(|m| (m.source, m.target, m.read_only));
        assert_eq!(both, one("/srv:/d:ro"));
        for bad in ["type=bind,target=/d", "type=nfs,target=/d", "source=x", "type=volume,source=/x,target=/d", "k=v"] {
            assert!(mount(bad).is_err(), "{bad}");
        }
        assert!(volume("a:/b:sync").is_err() && volume("a:b:c:d").is_err());
    }
}
