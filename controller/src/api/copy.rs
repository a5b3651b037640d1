//! Files between host and containers: what is asked, what comes of it, and the one function that does the container's side.

use std::io::{Read, Write};

use runtime::archive::{Copied, Copy, Kind};
use runtime::linux::LinuxRuntime;
use runtime::{Error, Result};
use serde::{Deserialize, Serialize};

use super::lookup::find;
use super::types::ApiError;

/// The body of `POST /v1/copy`. After the upgrade the client's frames of [`super::types::ExecFrame::Stdin`] are an archive
/// that goes in (an empty one ends it), the controller's of `Stdout` one that comes out; `Exit` holds a [`CopyAnswer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRequest {
    /// Which container.
    pub container: String,
    /// What to do in it.
    pub copy: Copy,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CopyAnswer {
    /// What is there, if anything.
    Found(Option<Kind>),
    /// It was copied.
    Done(Copied),
    /// It was not.
    Failed(ApiError),
}

/// Does the container's side. Blocks as long as it takes.
///
/// # Errors
/// `NotFound`; `Conflict` when a name fits several containers; `Io`.
pub fn copy(
    linux: &LinuxRuntime,
    request: &CopyRequest,
    input: &mut dyn Read,
    out: &mut dyn Write,
) -> Result<CopyAnswer> {
    let id = find(linux, &request.container)?.id.clone();
    let copied = match &request.copy {
        Copy::Look { path, follow } => return Ok(CopyAnswer::Found(linux.look_at(&id, path, *follow)?)),
        Copy::Out { .. } => linux.copy_out(&id, request.copy.clone(), out),
        Copy::In { .. } => linux.copy_in(&id, request.copy.clone(), input),
    };
    copied.map(CopyAnswer::Done)
}

impl From<Error> for CopyAnswer {
    fn from(error: Error) -> Self {
        Self::Failed(ApiError::from(&error))
    }
}
