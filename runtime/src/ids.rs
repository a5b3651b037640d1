//! Host ids to the container's own and back: owners, and the two extended attributes that hold ids. Pure.
//!
//! On a writable layer, and seen through an idmapped mount, id 0 of a container is the first of its range.

use crate::runtime::IdRange;

/// The id for owners outside the range (`/proc/sys/kernel/overflowuid`'s default).
const NOBODY: u32 = 65534;
/// File capabilities.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";
/// What the names of access control lists begin with.
pub(crate) const ACL: &[u8] = b"system.posix_acl_";

/// The container's own id of a host id; nobody's for one outside of its range.
pub(crate) fn unshift(id: u32, ids: IdRange) -> u32 {
    id.checked_sub(ids.host_start).filter(|id| *id < ids.len).unwrap_or(NOBODY)
}

/// The one attribute with an id inside (`struct vfs_ns_cap_data`, linux/capability.h): version 3 says which user is root
/// where the capabilities count. Read through the container's ids that is the range's first; on the volume's disk ids are
/// the container's own, and its root is version 2, which says none. `None`: capabilities of somebody else's namespace.
pub(crate) fn unshifted_capability(value: &[u8], ids: IdRange) -> Option<Vec<u8>> {
    const REVISION_MASK: u32 = 0xff00_0000;
    const REVISION_2: u32 = 0x0200_0000;
    const REVISION_3: u32 = 0x0300_0000;
    const BYTES_2: usize = 20;
    const BYTES_3: usize = 24;
    let word = |at: usize| Some(u32::from_le_bytes(value.get(at..at + 4)?.try_into().ok()?));
    let magic = word(0)?;
    if magic & REVISION_MASK != REVISION_3 || value.len() != BYTES_3 {
        return Some(value.to_vec());
    }
    let root = word(BYTES_2)?.checked_sub(ids.host_start).filter(|id| *id < ids.len)?;
    let mut own = value.to_vec();
    if root == 0 {
        own[..4].copy_from_slice(&((magic & !REVISION_MASK) | REVISION_2).to_le_bytes());
        own.truncate(BYTES_2);
    } else {
        own[BYTES_2..].copy_from_slice(&root.to_le_bytes());
    }
    Some(own)
}

/// An access control list (`struct posix_acl_xattr_header` and its entries, linux/posix_acl_xattr.h) with every named
/// user and group passed through `own`. What is none is left as it is: the kernel refuses it where it is set.
pub(crate) fn mapped_acl(value: &[u8], own: impl Fn(u32) -> u32) -> Vec<u8> {
    const HEADER_BYTES: usize = 4;
    const ENTRY_BYTES: usize = 8;
    const NAMED_USER: u16 = 0x02;
    const NAMED_GROUP: u16 = 0x08;
    let mut mapped = value.to_vec();
    for entry in mapped.get_mut(HEADER_BYTES..).unwrap_or_default().chunks_exact_mut(ENTRY_BYTES) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        if tag == NAMED_USER || tag == NAMED_GROUP {
            let id = own(u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]));
            entry[4..].copy_from_slice(&id.to_le_bytes());
        }
    }
    mapped
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: IdRange = IdRange { host_start: 1_000_000, len: 65_536 };

    #[test]
    fn capabilities_of_a_containers_root_are_those_of_root_on_the_volume() {
        let effective_net_bind = [1_u32, 0x400, 0, 0, 0];
        let with = |revision: u32, root: Option<u32>| {
            let first = revision | effective_net_bind[0];
            let words = [first].into_iter().chain(effective_net_bind[1..].iter().copied()).chain(root);
            words.flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
        };
        let two = with(0x0200_0000, None);
        assert_eq!(unshifted_capability(&two, IDS), Some(two.clone()));
        assert_eq!(unshifted_capability(&with(0x0300_0000, Some(1_000_000)), IDS), Some(two));
        let of_user_5 = with(0x0300_0000, Some(5));
        assert_eq!(unshifted_capability(&with(0x0300_0000, Some(1_000_005)), IDS), Some(of_user_5));
        assert_eq!(unshifted_capability(&with(0x0300_0000, Some(999_999)), IDS), None);
        assert_eq!(unshifted_capability(b"odd", IDS), None);
    }

    #[test]
    fn named_users_and_groups_of_a_list_are_the_containers_own() {
        let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &7_u16.to_le_bytes(), &id.to_le_bytes()].concat();
        let list = |user: u32, group: u32| {
            [&2_u32.to_le_bytes()[..], &entry(1, u32::MAX), &entry(2, user), &entry(8, group), &entry(32, u32::MAX)]
                .concat()
        };
        assert_eq!(mapped_acl(&list(1_000_005, 999_999), |id| unshift(id, IDS)), list(5, NOBODY));
        for odd in [&b""[..], b"odd", &list(1, 2)[..9]] {
            assert_eq!(mapped_acl(odd, |_| 0).len(), odd.len());
        }
    }
}
