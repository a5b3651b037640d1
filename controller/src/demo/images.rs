//! wip
use crate::cli::Failure;
use runtime::layout::Layout;
pub(super) fn build(_layout: &Layout) -> Result<(), Failure> {
    Ok(())
}
