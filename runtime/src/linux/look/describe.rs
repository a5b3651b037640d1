//! One container as JSON, with Docker's names for what Docker has a name for. What boxship does not have is left out, not
//! made up; what only boxship has stands beside it.

use serde_json::{Map, Value, json};

use crate::cgroup::{Cgroup, Hierarchies};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::image::ImageRef;
use crate::linux::{LinuxRuntime, durable};
use crate::runtime::{
    ContainerConfig, ContainerInfo, ContainerState, ExitStatus, ImageConfig, ImageInfo, MountSource, NetworkConfig,
    NetworkMode, Runtime as _,
};
use crate::supervisor::rfc3339_nano;

impl LinuxRuntime {
    /// Everything known about a container, in the manner of `docker inspect`.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn inspect_container(&self, id: &ContainerId) -> Result<Value> {
        let info = self.container_info(id)?;
        let config = &info.config;
        // the image of a container cannot go, but its disk can be damaged: what is known of the container is told all the same
        let image = self.images.get(&config.image).ok();
        let of_image = image.as_ref().map(|image| image.config.clone()).unwrap_or_default();
        let command = command(config, &of_image);
        let dir = self.layout.container_dir(id);
        let layers = self.images.layer_dirs(&config.image).unwrap_or_default();
        let lower: Vec<String> = layers.iter().map(|dir| dir.display().to_string()).collect();
        let reference = image.as_ref().map(name_of_image).unwrap_or_default();
        Ok(json!({
            "Id": id,
            "Created": time(info.times.created_unix_ms),
            "Path": command.first(),
            "Args": command.get(1..).unwrap_or_default(),
            "State": self.state(&info)?,
            "Image": image.as_ref().map(|image| &image.id),
            "ImageDigest": config.image,
            "LogPath": dir.join("logs/current"),
            "Name": id,
            "Platform": "linux",
            "Driver": "overlay",
            "GraphDriver": {"Name": "overlay", "Data": {
                "LowerDir": lower.join(":"), "UpperDir": dir.join("upper"), "WorkDir": dir.join("work")}},
            "HostConfig": host_config(config),
            "Mounts": config.mounts.iter().map(|mount| self.mount(mount)).collect::<Vec<_>>(),
            "Config": settings(config, &of_image, &reference),
            "NetworkSettings": self.network_settings(config)?,
            "CgroupPath": format!("/{}/{id}", self.cgroup_parent),
            "IdRange": {"HostStart": config.ids.host_start, "Size": config.ids.len},
        }))
    }

    /// A container as found; from the disk and its cgroup alone where no supervisor runs.
    fn container_info(&self, id: &ContainerId) -> Result<ContainerInfo> {
        match self.list_containers() {
            Ok(all) => {
                let found = all.into_iter().find(|info| info.config.id == *id);
                found.ok_or_else(|| Error::NotFound { what: "container", name: id.to_string() })
            }
            Err(Error::Unreachable { .. }) => {
                let config = self.containers.get(id)?;
                let mut info = self.info(&config, None);
                if self.cgroup_is_populated(id)? {
                    (info.state, info.exit) = (ContainerState::Running, None);
                }
                Ok(info)
            }
            Err(error) => Err(error),
        }
    }

    fn cgroup_is_populated(&self, id: &ContainerId) -> Result<bool> {
        Cgroup::new(Hierarchies::of_host()?, &format!("{}/{id}", self.cgroup_parent)).is_populated()
    }

    fn state(&self, info: &ContainerInfo) -> Result<Value> {
        let name = format!("{}/{}", self.cgroup_parent, info.config.id);
        let is_running = info.state == ContainerState::Running;
        let is_paused = is_running && Cgroup::new(Hierarchies::of_host()?, &name).is_frozen();
        let status = match info.state {
            ContainerState::Running if is_paused => "paused",
            ContainerState::Running => "running",
            ContainerState::Creating | ContainerState::Created => "created",
            ContainerState::Stopped => "exited",
        };
        // 128 + signal, as a shell would say it; nobody knows the code of an end that nobody saw
        let code = info.exit.and_then(|exit| match exit {
            ExitStatus::Code(code) => Some(i32::from(code)),
            ExitStatus::Signal(signal) => Some(128 + i32::from(signal)),
            ExitStatus::OutOfMemory => Some(137),
            ExitStatus::Unknown => None,
        });
        let mut state = json!({
            "Status": status, "Running": is_running, "Paused": is_paused, "Dead": false,
            "OOMKilled": info.exit == Some(ExitStatus::OutOfMemory),
            "Pid": info.pid.unwrap_or(0),
            "StartedAt": time(info.times.started_unix_ms), "FinishedAt": time(info.times.finished_unix_ms),
        });
        let is_ended = info.exit.is_some();
        state["ExitCode"] = if is_ended { json!(code) } else { json!(0) };
        Ok(state)
    }

    fn mount(&self, mount: &crate::runtime::MountConfig) -> Value {
        let (kind, name, source) = match &mount.source {
            MountSource::Volume { name } => (
                "volume",
                Some(name.to_string()),
                Some(self.layout.volume_dir(name).join("data").display().to_string()),
            ),
            MountSource::Bind { path } => ("bind", None, Some(path.display().to_string())),
            MountSource::File { .. } => ("file", None, None),
            MountSource::Secret { .. } => ("secret", None, None),
            MountSource::Tmpfs { .. } => ("tmpfs", None, None),
        };
        let mut all = Map::new();
        all.insert("Type".into(), json!(kind));
        all.extend(name.map(|name| ("Name".to_owned(), json!(name))));
        all.extend(source.map(|source| ("Source".to_owned(), json!(source))));
        all.insert("Destination".into(), json!(mount.target));
        all.insert("RW".into(), json!(!mount.read_only));
        Value::Object(all)
    }

    fn network_settings(&self, config: &ContainerConfig) -> Result<Value> {
        let mut networks = Map::new();
        let mut first = json!({"IPAddress": ""});
        for (network, address) in config.network.addresses() {
            let found = durable::read_file::<NetworkConfig>(&self.layout.network_file(network))?;
            let (gateway, prefix) = found.map_or((None, None), |found| (Some(found.gateway), Some(found.prefix_len)));
            let one = json!({"IPAddress": address, "IPPrefixLen": prefix, "Gateway": gateway});
            if networks.is_empty() {
                first = one.clone();
            }
            networks.insert(network.to_string(), one);
        }
        first["Networks"] = Value::Object(networks);
        Ok(first)
    }
}

/// RFC 3339; Docker's "never" for 0.
fn time(unix_ms: u64) -> String {
    match unix_ms {
        0 => "0001-01-01T00:00:00Z".to_owned(),
        ms => rfc3339_nano(ms.saturating_mul(1_000_000)),
    }
}

fn name_of_image(image: &ImageInfo) -> String {
    let named = image.references.iter().find(|name| name.digest().is_none()).or_else(|| image.references.first());
    named.map_or_else(|| image.digest.to_string(), ImageRef::familiar)
}

/// What it runs: its own words, else the image's.
fn command(config: &ContainerConfig, image: &ImageConfig) -> Vec<String> {
    let (entrypoint, args) = words(config, image);
    [entrypoint, args].concat()
}

fn words(config: &ContainerConfig, image: &ImageConfig) -> (Vec<String>, Vec<String>) {
    let entrypoint = config.entrypoint.clone();
    // an entrypoint of its own takes the image's arguments away
    let args = config.args.clone().unwrap_or_else(|| if entrypoint.is_some() { Vec::new() } else { image.cmd.clone() });
    (entrypoint.unwrap_or_else(|| image.entrypoint.clone()), args)
}

fn host_config(config: &ContainerConfig) -> Value {
    let network = match &config.network {
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Bridge { network, .. } => network.to_string(),
    };
    json!({
        "Memory": config.resources.memory_bytes.unwrap_or(0),
        "NanoCpus": u64::from(config.resources.cpu_millis.unwrap_or(0)) * 1_000_000,
        "PidsLimit": config.resources.pids_max,
        "NetworkMode": network,
        "ReadonlyRootfs": config.security.read_only_root,
        "CapAdd": config.security.cap_add, "CapDrop": config.security.cap_drop,
        "NoNewPrivileges": !config.security.allow_privilege_escalation,
        "ShmSize": config.shm_bytes, "Init": config.init,
        "DnsSearch": config.dns_search,
        "LogConfig": {"Type": "cri", "Config": {
            "max-size": config.log.file_bytes_max.to_string(), "max-file": config.log.files_max.to_string()}},
    })
}

fn settings(config: &ContainerConfig, image: &ImageConfig, reference: &str) -> Value {
    let (entrypoint, args) = words(config, image);
    let mut env: Vec<String> = image.env.clone();
    env.retain(|line| line.split('=').next().is_none_or(|name| !config.env.contains_key(name)));
    env.extend(config.env.iter().map(|(name, value)| format!("{name}={value}")));
    env.extend(config.sealed_env.keys().map(|name| format!("{name}=<secret>")));
    let set = |keys: &[String]| keys.iter().map(|key| (key.clone(), json!({}))).collect::<Map<_, _>>();
    json!({
        "Hostname": config.hostname,
        "User": config.user.as_ref().or(image.user.as_ref()).cloned().unwrap_or_default(),
        "Tty": config.tty, "OpenStdin": config.extras.stdin,
        "Env": env, "Entrypoint": entrypoint, "Cmd": args,
        "Image": reference,
        "WorkingDir": config.working_dir.as_ref().or(image.working_dir.as_ref()).cloned().unwrap_or_default(),
        "Labels": config.labels,
        "StopSignal": config.stop_signal.as_ref().or(image.stop_signal.as_ref()),
        "ExposedPorts": set(&image.exposed_ports), "Volumes": set(&image.volumes),
    })
}
