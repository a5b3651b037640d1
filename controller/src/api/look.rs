//! Looks into containers, and the one function that answers: the controller for its socket, the command line by itself where
//! no controller runs. Nothing here changes anything.

use runtime::linux::{LinuxRuntime, Process, Sample};
use runtime::{Error, Result};
use serde::{Deserialize, Serialize};

use super::lookup::find;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LookRequest {
    /// Everything about a container or, where none is called so, an image.
    Inspect(String),
    /// The processes of a container.
    Top(String),
    /// What containers use at this moment; all that run when none is named.
    Stats(Vec<String>),
}

/// What is to be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LookAnswer {
    /// In the words of `docker inspect`.
    Inspected(Box<serde_json::Value>),
    /// By pid.
    Processes(Vec<Process>),
    /// By container.
    Samples(Vec<Sample>),
}

/// Looks.
///
/// # Errors
/// `NotFound`; `Conflict` when a name fits several containers, or what must run does not; `Io`.
pub fn look(linux: &LinuxRuntime, request: &LookRequest) -> Result<LookAnswer> {
    Ok(match request {
        LookRequest::Inspect(name) => LookAnswer::Inspected(Box::new(inspect(linux, name)?)),
        LookRequest::Top(name) => {
            let id = find(linux, name)?.id.clone();
            let processes = linux.processes(&id)?;
            if processes.is_empty() {
                return Err(Error::Conflict(format!("container `{id}` is not running: it has no processes")));
            }
            LookAnswer::Processes(processes)
        }
        LookRequest::Stats(names) => {
            let ids: Vec<_> = names.iter().map(|name| Ok(find(linux, name)?.id.clone())).collect::<Result<_>>()?;
            LookAnswer::Samples(linux.samples(&ids)?)
        }
    })
}

fn inspect(linux: &LinuxRuntime, name: &str) -> Result<serde_json::Value> {
    let config = match find(linux, name) {
        Err(error) if error.is_not_found() => {
            let image = linux.images().find(name).map_err(|other| match other.is_not_found() {
                true => Error::NotFound { what: "container or image", name: name.to_owned() },
                false => other,
            })?;
            return linux.images().inspect(&image.digest);
        }
        other => other?,
    };
    let mut all = linux.inspect_container(&config.id)?;
    all["Name"] = super::lookup::name_of(&config.labels, config.id.as_str()).into();
    Ok(all)
}
