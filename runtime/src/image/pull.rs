//! One pull, from reference to image.

use super::Store;
use crate::error::{Error, Result};
use crate::runtime::{ImageInfo, PullProgress, PullRequest};

impl Store {
    /// Makes an image present. See [`Runtime::pull_image`](crate::Runtime::pull_image).
    ///
    /// # Errors
    /// `Registry` (`BX0301`-`BX0307`), `Untrusted`, `NoSpace`, `Io`. Nothing becomes visible on error.
    pub fn pull(&self, request: &PullRequest, _progress: &dyn PullProgress) -> Result<ImageInfo> {
        match self.resolve(&request.reference) {
            Ok(info) if !request.refresh => Ok(info),
            _ => Err(Error::Unsupported("pulling images is not in this build yet".into())),
        }
    }
}
