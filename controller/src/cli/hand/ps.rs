//! `ps`: containers in Docker's columns, those made by hand and the replicas of objects alike.

use std::process::ExitCode;

use runtime::clock::unix_ms;
use runtime::runtime::ContainerState;

use super::row::Format;
use super::{close, is_from, open, views};
use crate::cli::args::PsArgs;
use crate::cli::context::{Context, Failure};
use crate::cli::format::bytes;
use crate::cli::table::Table;
use crate::hand::{ContainerView, command_text, how_long, shell_code, status_text};

/// Characters of a command shown, and of an id.
const COMMAND_CHARS: usize = 20;
const ID_CHARS: usize = 12;

pub(in crate::cli) async fn ps(context: &Context, args: &PsArgs) -> Result<ExitCode, Failure> {
    let format = args.format.as_deref().map(Format::parse).transpose().map_err(Failure::Usage)?;
    let filters: Vec<Filter> = args.filter.iter().map(|text| Filter::parse(text)).collect::<Result<_, _>>()?;
    let desk = open(context, "ps").await?;
    let found = views(&desk, args.size).await;
    close(context, desk);
    let mut found = found?;
    let last = if args.latest { Some(1) } else { args.last };
    let wants_state = filters.iter().any(|filter| matches!(filter, Filter::Status(_) | Filter::Exited(_)));
    if !args.all && last.is_none() && !wants_state {
        found.retain(|view| view.state == ContainerState::Running);
    }
    found.retain(|view| fits(view, &filters));
    found.truncate(last.unwrap_or(usize::MAX));
    if context.json() && format.is_none() {
        context.print_json(&found);
    } else {
        let text = match format {
            Some(format) => format
                .text(&found, args.no_trunc, unix_ms())
                .map_err(|why| Failure::new("BX0903", why, Some("boxship ps --format json")))?,
            None if args.quiet => ids(&found, args.no_trunc),
            None => table(&found, args, unix_ms()),
        };
        if !text.is_empty() {
            anstream::println!("{text}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Part of an id, where it is one of random digits; a replica's says whose it is and stays whole.
pub(super) fn id(view: &ContainerView, whole: bool) -> &str {
    if whole || view.object.is_some() { &view.id } else { &view.id[..ID_CHARS.min(view.id.len())] }
}

fn ids(views: &[ContainerView], whole: bool) -> String {
    views.iter().map(|view| id(view, whole)).collect::<Vec<_>>().join("\n")
}

fn table(views: &[ContainerView], args: &PsArgs, now: u64) -> String {
    let mut head = vec!["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    if args.size {
        head.push("SIZE");
    }
    let mut table = Table::new(&head);
    for view in views {
        let created = how_long(now.saturating_sub(view.created_unix_ms) / 1_000);
        let mut row = vec![
            id(view, args.no_trunc).to_owned(),
            view.image.clone(),
            command(view, args.no_trunc),
            format!("{created} ago"),
            status_text(view, now),
            view.ports.join(", "),
            view.name.clone(),
        ];
        if let (true, Some(sizes)) = (args.size, view.sizes) {
            row.push(size(sizes));
        }
        table.row(row);
    }
    table.render()
}

pub(super) fn command(view: &ContainerView, whole: bool) -> String {
    command_text(&view.command, if whole { usize::MAX } else { COMMAND_CHARS })
}

/// Of the writable layer, and with those of the image.
pub(super) fn size((own, all): (u64, u64)) -> String {
    format!("{} (virtual {})", bytes(own), bytes(all))
}

/// One `--filter`.
enum Filter {
    Name(String),
    Id(String),
    Status(String),
    Image(String),
    Label(String, Option<String>),
    Exited(u8),
}

impl Filter {
    fn parse(text: &str) -> Result<Self, Failure> {
        let bad = |why: &str| Failure::Usage(format!("`{text}` is no filter: {why}"));
        let (key, value) = text.split_once('=').ok_or_else(|| bad("KEY=VALUE is expected"))?;
        let value = value.to_owned();
        let states = ["created", "running", "paused", "exited"];
        match key {
            "name" => Ok(Self::Name(value)),
            "id" => Ok(Self::Id(value)),
            "status" if states.contains(&value.as_str()) => Ok(Self::Status(value)),
            "status" => Err(bad("a status is created, running, paused or exited")),
            "image" | "ancestor" => Ok(Self::Image(value)),
            "label" => {
                let (name, content) = match value.split_once('=') {
                    Some((name, content)) => (name.to_owned(), Some(content.to_owned())),
                    None => (value, None),
                };
                Ok(Self::Label(name, content))
            }
            "exited" => value.parse().map(Self::Exited).map_err(|_| bad("an exit code is 0 to 255")),
            _ => Err(bad("the keys are name, id, status, image, label and exited")),
        }
    }

    fn fits(&self, view: &ContainerView) -> bool {
        match self {
            Self::Name(text) => view.name.contains(text.as_str()),
            Self::Id(text) => view.id.starts_with(text.as_str()),
            Self::Status(text) => text == status_word(view),
            Self::Image(text) => is_from(view, text),
            Self::Label(name, None) => view.labels.contains_key(name),
            Self::Label(name, Some(value)) => view.labels.get(name) == Some(value),
            Self::Exited(code) => view.exit.is_some_and(|exit| shell_code(exit) == *code),
        }
    }
}

pub(super) fn status_word(view: &ContainerView) -> &'static str {
    match view.state {
        ContainerState::Creating | ContainerState::Created => "created",
        ContainerState::Running if view.paused => "paused",
        ContainerState::Running => "running",
        ContainerState::Stopped => "exited",
    }
}

/// Filters of one kind are alternatives; kinds add up.
fn fits(view: &ContainerView, filters: &[Filter]) -> bool {
    filters.iter().all(|filter| {
        let kind = std::mem::discriminant(filter);
        let is_label = matches!(filter, Filter::Label(..));
        let mut same = filters.iter().filter(|other| std::mem::discriminant(*other) == kind);
        if is_label { filter.fits(view) } else { same.any(|other| other.fits(view)) }
    })
}
