//! `kind: Volume`.

use super::wire;
use crate::model::VolumeAccess;
use crate::model::object::VolumeSpec;

pub(super) fn lower(volume: &wire::Volume) -> VolumeSpec {
    let access = match volume.access.unwrap_or(wire::Access::Single) {
        wire::Access::Single => VolumeAccess::Single,
        wire::Access::Shared => VolumeAccess::Shared,
        wire::Access::Any => VolumeAccess::Any,
    };
    VolumeSpec { access }
}
