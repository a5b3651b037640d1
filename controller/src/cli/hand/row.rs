//! `ps --format`: one container as the fields Docker's templates name, and the lines made of them. Pure.

use serde_json::{Value, json};

use super::ps::{command, id, size, status_word};
use crate::cli::look::template::{self, Piece};
use crate::cli::table::Table;
use crate::hand::{ContainerView, how_long, status_text};

/// What `--format` asks for.
pub(super) enum Format {
    /// `json`: one object a line.
    Json,
    /// A line for each container.
    Lines(Vec<Piece>),
    /// `table …`: cells between tabs, under their heads.
    Table(Vec<Vec<Piece>>),
}

impl Format {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence naming the piece that is not understood.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("table").filter(|rest| rest.starts_with(char::is_whitespace)) {
            _ if text == "json" => Ok(Self::Json),
            None => template::parse(text).map(Self::Lines),
            Some(cells) => {
                let cells = cells.trim_start().replace("\\t", "\t");
                cells.split('\t').map(template::parse).collect::<Result<_, _>>().map(Self::Table)
            }
        }
    }

    /// What is printed.
    ///
    /// # Errors
    /// A sentence naming the field that is not there, with what is.
    pub(super) fn text(&self, views: &[ContainerView], whole: bool, now: u64) -> Result<String, String> {
        let rows = views.iter().map(|view| fields(view, whole, now));
        match self {
            Self::Json => Ok(rows.map(|row| row.to_string()).collect::<Vec<_>>().join("\n")),
            Self::Lines(pieces) => {
                let lines: Vec<String> = rows.map(|row| template::fill(pieces, &row)).collect::<Result<_, _>>()?;
                Ok(lines.join("\n"))
            }
            Self::Table(cells) => {
                let heads: Vec<String> = cells.iter().map(|cell| head(cell)).collect();
                let mut table = Table::new(&heads.iter().map(String::as_str).collect::<Vec<_>>());
                for row in rows {
                    let filled = cells.iter().map(|cell| template::fill(cell, &row));
                    table.row(filled.collect::<Result<Vec<_>, _>>()?);
                }
                Ok(table.render())
            }
        }
    }
}

/// Docker's heads, which differ from the fields in two places.
fn head(cell: &[Piece]) -> String {
    let of = |path: &[String]| match path.concat().as_str() {
        "ID" => "CONTAINER ID".to_owned(),
        "RunningFor" => "CREATED".to_owned(),
        "CreatedAt" => "CREATED AT".to_owned(),
        other => other.to_ascii_uppercase(),
    };
    let named = cell.iter().filter_map(|piece| match piece {
        Piece::Text(_) => None,
        Piece::Field(path) | Piece::Json(path) | Piece::Len(path) | Piece::Index(path, _) => Some(of(path)),
    });
    named.collect::<Vec<_>>().join(" ")
}

fn fields(view: &ContainerView, whole: bool, now: u64) -> Value {
    let labels: Vec<String> = view.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let created = how_long(now.saturating_sub(view.created_unix_ms) / 1_000);
    json!({
        "ID": id(view, whole),
        "Names": view.name,
        "Image": view.image,
        "ImageID": view.image_id,
        "Command": command(view, whole),
        "CreatedAt": created_at(view.created_unix_ms),
        "RunningFor": format!("{created} ago"),
        "Ports": view.ports.join(", "),
        "State": status_word(view),
        "Status": status_text(view, now),
        "Size": view.sizes.map_or_else(|| "0 B".to_owned(), size),
        "Labels": labels.join(","),
        "Pid": view.pid.unwrap_or(0),
        "Object": view.object.clone().unwrap_or_default(),
    })
}

/// In UTC, to the second.
fn created_at(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map(|at| at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use runtime::runtime::ContainerState;

    use super::*;

    fn view() -> ContainerView {
        ContainerView {
            id: "3f09ab5d1e2c77aa".to_owned(),
            name: "brave_euler".to_owned(),
            object: None,
            image: "nginx:1".to_owned(),
            image_id: String::new(),
            command: vec!["nginx".to_owned()],
            tty: false,
            auto_remove: false,
            state: ContainerState::Running,
            paused: false,
            exit: None,
            pid: Some(7),
            created_unix_ms: 1_793_520_000_000,
            started_unix_ms: 1_793_520_000_000,
            finished_unix_ms: 0,
            ports: vec!["0.0.0.0:80->80/tcp".to_owned()],
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            sizes: None,
        }
    }

    fn text(format: &str) -> Result<String, String> {
        Format::parse(format)?.text(&[view(), view()], false, 1_793_520_060_000)
    }

    #[test]
    fn formats_are_dockers() {
        assert_eq!(text("{{.Names}} {{.State}} {{.Labels}}").unwrap(), ["brave_euler running a=b"; 2].join("\n"));
        let table = text(r"table {{.ID}}\t{{.Status}}").unwrap();
        let lines: Vec<&str> = table.lines().map(str::trim_end).collect();
        assert!(lines[0].starts_with("CONTAINER ID  ") && lines[0].ends_with("STATUS"), "{table}");
        assert!(lines[1].starts_with("3f09ab5d1e2c  ") && lines.len() == 3, "{table}");
        let line: Value = serde_json::from_str(text("json").unwrap().lines().next().unwrap()).unwrap();
        assert_eq!(
            (&line["CreatedAt"], &line["Ports"]),
            (&"2026-11-01 08:00:00 +0000 UTC".into(), &"0.0.0.0:80->80/tcp".into())
        );
        assert!(text("{{.Name}}").unwrap_err().contains("`Names`"));
        assert!(text("{{range .}}").is_err());
    }
}
