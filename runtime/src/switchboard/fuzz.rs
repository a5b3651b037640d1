//! Fuzz target of DNS packets: see `crate::fuzz`.

use std::net::{IpAddr, Ipv4Addr};

use super::dns::answer::{Answer, Names, Transport, question_bytes};
use crate::runtime::{DnsView, EndpointTable};

/// A reply repeats the question's number, is marked as one, and is never answered in turn.
#[expect(clippy::expect_used, reason = "a target says by a panic what cannot be")]
pub(crate) fn packet(bytes: &[u8]) {
    let id = "c1".parse().expect("an id");
    let network: crate::id::NetworkName = "shop".parse().expect("a name");
    let addresses = |count: u8| (1..=count).map(|n| IpAddr::V4(Ipv4Addr::new(10, 88, 0, n))).collect::<Vec<_>>();
    let zone = [("web".to_owned(), addresses(3)), ("many".to_owned(), addresses(200)), ("none".to_owned(), Vec::new())];
    let table = EndpointTable {
        zones: [(network.clone(), zone.into())].into(),
        views: [(id, DnsView { networks: vec![network], forward: true })].into(),
        ..EndpointTable::default()
    };
    let (names, id) = (Names::new(&table), "c1".parse().expect("an id"));
    for via in [Transport::Udp, Transport::Tcp] {
        let Answer::Reply(reply) = names.answer(&id, bytes, bytes.len(), via) else { continue };
        assert!(reply.len() >= 12 && reply[..2] == bytes[..2] && reply[2] & 0x80 != 0, "{reply:?}");
        assert_eq!(names.answer(&id, &reply, 0, via), Answer::Ignore);
    }
    let _ = question_bytes(bytes);
}
