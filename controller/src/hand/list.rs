//! What `ps` shows: every container, replicas among them, as values; and STATUS as people know it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use runtime::image::{Digest, ImageRef};
use runtime::runtime::{
    ContainerConfig, ContainerInfo, ContainerState, EndpointTable, ExitStatus, HostPort, ImageInfo, NetworkMode,
};
use runtime::{LinuxRuntime, Result, Runtime as _};
use serde::{Deserialize, Serialize};

use crate::model::{ObservedContainer, by_hand};

/// One container for display.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView {
    /// Whole.
    pub id: String,
    /// Its name, or its replica's with the stack: `shop/web-1`.
    pub name: String,
    /// The object it belongs to (`shop/app/web`); `None`: made by hand.
    pub object: Option<String>,
    /// The image as it was named.
    pub image: String,
    /// Its id.
    pub image_id: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// It has a terminal.
    pub tty: bool,
    /// It goes when it has ended.
    pub auto_remove: bool,
    /// Where it is in its life.
    pub state: ContainerState,
    /// All its processes are frozen.
    pub paused: bool,
    /// How it ended.
    pub exit: Option<ExitStatus>,
    /// Host pid of its first process.
    pub pid: Option<i32>,
    /// Wall clock, milliseconds since 1970.
    pub created_unix_ms: u64,
    /// 0: never.
    pub started_unix_ms: u64,
    /// 0: not, or nobody saw when.
    pub finished_unix_ms: u64,
    /// `0.0.0.0:5000->5000/tcp`.
    pub ports: Vec<String>,
    /// Labels of users.
    pub labels: BTreeMap<String, String>,
    /// Bytes of the writable layer, and with the image's layers; where they were asked for.
    pub sizes: Option<(u64, u64)>,
}

impl ContainerView {
    /// Whether a person who says `name` may mean it: its name, with or without the stack, or the beginning of its id.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        let in_stack = self.name.rsplit('/').next().is_some_and(|last| last == name);
        self.name == name || in_stack || (!name.is_empty() && self.id.starts_with(name))
    }
}

/// Everything there is, latest first.
pub(super) fn list(linux: &LinuxRuntime, sizes: bool) -> Result<Vec<ContainerView>> {
    let containers = linux.list_containers()?;
    let images: BTreeMap<Digest, ImageInfo> =
        linux.list_images()?.into_iter().map(|image| (image.digest.clone(), image)).collect();
    let table = linux.planned_table();
    let mut views: Vec<ContainerView> = containers
        .iter()
        .map(|info| {
            let mut view = view(info, images.get(&info.config.image), &table);
            view.paused = info.state == ContainerState::Running && linux.is_frozen(&info.config.id);
            view.sizes = sizes.then(|| {
                let own = linux.writable_bytes(&info.config.id);
                (own, own + images.get(&info.config.image).map_or(0, |image| image.size_bytes))
            });
            view
        })
        .collect();
    views.sort_by(|a, b| b.created_unix_ms.cmp(&a.created_unix_ms).then_with(|| a.name.cmp(&b.name)));
    Ok(views)
}

fn view(info: &ContainerInfo, image: Option<&ImageInfo>, table: &EndpointTable) -> ContainerView {
    let config = &info.config;
    let replica = ObservedContainer::from_config(config).map(|observed| observed.replica);
    let name = match (by_hand::name_of(&config.labels), &replica) {
        (Some(name), _) => name.to_owned(),
        (None, Some(replica)) => format!("{}/{replica}", replica.workload.stack),
        (None, None) => config.id.to_string(),
    };
    let known_as = || image.and_then(|image| image.references.first()).map(ImageRef::familiar);
    let named = config.labels.get(by_hand::IMAGE).cloned().or_else(known_as);
    let labels = config.labels.iter().filter(|(label, _)| !label.starts_with(by_hand::OURS));
    ContainerView {
        id: config.id.to_string(),
        name,
        object: replica.map(|replica| replica.workload.to_string()),
        image: named.unwrap_or_else(|| config.image.short().to_owned()),
        image_id: image.map(|image| image.id.to_string()).unwrap_or_default(),
        command: command(config, image),
        tty: config.tty,
        auto_remove: config.labels.contains_key(by_hand::AUTO_REMOVE),
        state: info.state,
        paused: false,
        exit: info.exit,
        pid: info.pid,
        created_unix_ms: info.times.created_unix_ms,
        started_unix_ms: info.times.started_unix_ms,
        finished_unix_ms: info.times.finished_unix_ms,
        ports: ports(info, table),
        labels: labels.map(|(label, value)| (label.clone(), value.clone())).collect(),
        sizes: None,
    }
}

fn command(config: &ContainerConfig, image: Option<&ImageInfo>) -> Vec<String> {
    let of_image = image.map(|image| &image.config);
    let entrypoint = config.entrypoint.clone().or_else(|| of_image.map(|image| image.entrypoint.clone()));
    let args = match (&config.args, &config.entrypoint) {
        (Some(args), _) => args.clone(),
        (None, None) => of_image.map(|image| image.cmd.clone()).unwrap_or_default(),
        (None, Some(_)) => Vec::new(),
    };
    entrypoint.unwrap_or_default().into_iter().chain(args).collect()
}

/// Its own ports, and those of the planned table that lead to it, while it runs.
fn ports(info: &ContainerInfo, table: &EndpointTable) -> Vec<String> {
    if info.state != ContainerState::Running {
        return Vec::new();
    }
    let text = |at: &HostPort, port: u16| {
        let protocol = if at.protocol.is_tcp() { "tcp" } else { "udp" };
        format!("{}->{port}/{protocol}", at.socket_address())
    };
    let own = info.config.extras.endpoints.iter().flat_map(|own| &own.ports);
    let mut ports: Vec<String> = own.map(|port| text(&port.at, port.container_port)).collect();
    if let NetworkMode::Bridge { address, .. } = &info.config.network {
        let leads_here = |backend: &&SocketAddr| backend.ip() == IpAddr::V4(*address);
        for listener in &table.listeners {
            let here = listener.backends.iter().find(leads_here);
            ports.extend(here.map(|backend| text(&listener.at, backend.port())));
        }
    }
    ports
}

/// `Up 2 minutes`, `Up 2 minutes (Paused)`, `Exited (0) 12 seconds ago`, `Created`.
#[must_use]
pub fn status_text(view: &ContainerView, now_unix_ms: u64) -> String {
    let since = |then: u64| how_long(now_unix_ms.saturating_sub(then) / 1_000);
    match view.state {
        ContainerState::Creating => "Creating".to_owned(),
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Running if view.paused => format!("Up {} (Paused)", since(view.started_unix_ms)),
        ContainerState::Running => format!("Up {}", since(view.started_unix_ms)),
        ContainerState::Stopped => {
            let code = match view.exit {
                None | Some(ExitStatus::Unknown) => "unknown".to_owned(),
                Some(exit) => super::shell_code(exit).to_string(),
            };
            match view.finished_unix_ms {
                0 => format!("Exited ({code})"),
                finished => format!("Exited ({code}) {} ago", since(finished)),
            }
        }
    }
}

/// Program and arguments on one line, without what a terminal would obey; at most `chars_max` characters.
#[must_use]
pub fn command_text(command: &[String], chars_max: usize) -> String {
    let line = command.join(" ");
    let tame: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match tame.char_indices().nth(chars_max) {
        Some((at, _)) => format!("\"{}…\"", tame[..at].trim_end()),
        None => format!("\"{tame}\""),
    }
}

/// A duration as Docker says it: `2 minutes`, `About an hour`, `12 weeks`.
#[must_use]
pub fn how_long(secs: u64) -> String {
    const DAY: u64 = 86_400;
    match secs {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{secs} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3_600 => format!("{} minutes", secs / 60),
        3_600..7_200 => "About an hour".to_owned(),
        7_200..172_800 => format!("{} hours", secs / 3_600),
        _ if secs < 14 * DAY => format!("{} days", secs / DAY),
        _ if secs < 60 * DAY => format!("{} weeks", secs / DAY / 7),
        _ if secs < 730 * DAY => format!("{} months", secs / DAY / 30),
        _ => format!("{} years", secs / DAY / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: ContainerState, exit: Option<ExitStatus>) -> ContainerView {
        ContainerView {
            id: "ab".repeat(20),
            name: "brave_euler".into(),
            object: None,
            image: "busybox".into(),
            image_id: String::new(),
            command: vec!["sh".into()],
            tty: false,
            auto_remove: false,
            state,
            paused: false,
            exit,
            pid: None,
            created_unix_ms: 1_000,
            started_unix_ms: 1_000,
            finished_unix_ms: 109_000,
            ports: Vec::new(),
            labels: BTreeMap::new(),
            sizes: None,
        }
    }

    #[test]
    fn status_reads_as_people_know_it() {
        let at = |state, exit| status_text(&view(state, exit), 121_000);
        assert_eq!(at(ContainerState::Running, None), "Up 2 minutes");
        assert_eq!(at(ContainerState::Stopped, Some(ExitStatus::Code(0))), "Exited (0) 12 seconds ago");
        assert_eq!(at(ContainerState::Stopped, Some(ExitStatus::OutOfMemory)), "Exited (137) 12 seconds ago");
        assert_eq!(at(ContainerState::Stopped, Some(ExitStatus::Unknown)), "Exited (unknown) 12 seconds ago");
        assert_eq!(at(ContainerState::Created, None), "Created");
        assert_eq!(how_long(12 * 7 * 86_400), "2 months");
        assert_eq!(how_long(5 * 7 * 86_400), "5 weeks");
    }

    #[test]
    fn commands_are_tamed_and_cut() {
        let command = ["sh".to_owned(), "-c".to_owned(), "echo \u{1b}[31m; sleep 100000".to_owned()];
        assert_eq!(command_text(&command, 20), "\"sh -c echo  [31m; sl…\"");
        assert_eq!(command_text(&command[..1], 20), "\"sh\"");
    }
}
