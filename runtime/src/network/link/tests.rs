//! What the encoder writes, the decoder reads; what is cut off, the decoder survives.

use proptest::prelude::*;

use super::message::{self, Message, attributes, messages};

#[test]
fn nested_attributes_are_read_back() {
    let bytes = Message::link(libc::RTM_NEWLINK, 7, 1, 1)
        .text(libc::IFLA_IFNAME, "eth0")
        .nested(libc::IFLA_LINKINFO, |info| info.text(libc::IFLA_INFO_KIND, "veth"))
        .number(libc::IFLA_MASTER, 3)
        .finish(42);
    let part = messages(&bytes).next().unwrap();
    assert_eq!((part.kind, part.seq), (libc::RTM_NEWLINK, 42));
    let link = super::parse_link(part.body).unwrap();
    assert_eq!((link.index, link.name.as_str(), link.up), (7, "eth0", true));
    assert_eq!((link.kind.as_deref(), link.master), (Some("veth"), Some(3)));
}

#[test]
fn an_acknowledgement_is_an_errno() {
    assert!(message::acknowledgement(&0_i32.to_ne_bytes()).is_ok());
    let error = message::acknowledgement(&(-libc::ENODEV).to_ne_bytes()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    assert!(message::acknowledgement(&[]).is_err());
}

proptest! {
    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for part in messages(&bytes).take(1000) {
            let _ = super::parse_link(part.body);
            let _ = super::parse_address(part.body);
        }
        prop_assert!(attributes(&bytes).take(1000).count() < 1000);
        prop_assert!(messages(&bytes).take(1000).count() < 1000);
    }
}
