//! wip
use super::args::*;
use std::process::ExitCode;
pub(super) fn keeper(_p: &Place, _a: &KeeperArgs) -> ExitCode {
    ExitCode::FAILURE
}
pub(super) fn supervisor(_p: &Place) -> ExitCode {
    ExitCode::FAILURE
}
pub(super) fn switchboard(_p: &Place) -> ExitCode {
    ExitCode::FAILURE
}
pub(super) fn controller(_p: &Place, _a: &ControllerArgs) -> ExitCode {
    ExitCode::FAILURE
}
pub(super) fn unpack(_a: &UnpackArgs) -> ExitCode {
    ExitCode::FAILURE
}
