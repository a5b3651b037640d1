//! The checkpoint: every record as a line of JSON, readable by people and by whatever replaces the database.
//! It is the input of a rebuild; written whole or not at all, so a file that is there is complete.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Model, write_durably};

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    value: Box<RawValue>,
}

/// Writes all records.
pub(super) fn write(path: &Path, model: &Model) -> io::Result<()> {
    let mut text = Vec::new();
    for (key, json) in model {
        let Ok(value) = RawValue::from_string(json.clone()) else { continue };
        serde_json::to_writer(&mut text, &Line { key: key.clone(), value }).map_err(io::Error::other)?;
        text.push(b'\n');
    }
    write_durably(path, &text)
}

/// Reads all records; unreadable lines are left out. An absent file is an empty checkpoint.
pub(super) fn read(path: &Path) -> Model {
    let text = std::fs::read(path).unwrap_or_default();
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Line>(line).ok())
        .map(|line| (line.key, line.value.get().to_owned()))
        .collect()
}
