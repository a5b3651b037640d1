//! Answers to real questions, and to bytes that are none.

use proptest::prelude::*;

use super::*;
use std::net::Ipv4Addr;

fn names() -> Names {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let shop: BTreeMap<String, Vec<IpAddr>> = [
        ("web".to_owned(), vec![address("10.88.0.2"), address("10.88.0.3"), address("10.88.0.4")]),
        ("web-1".to_owned(), vec![address("10.88.0.2")]),
        ("db".to_owned(), vec![]),
        ("api".to_owned(), vec![address("10.88.0.7"), address("10.88.0.8")]),
        ("many".to_owned(), (0..100).map(|n| IpAddr::from([10, 88, 1, n])).collect()),
    ]
    .into();
    let blog = [("web".to_owned(), vec![address("10.88.9.9")])].into();
    let view = |networks: &[&str], forward| DnsView {
        networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
        forward,
    };
    let table = EndpointTable {
        listeners: vec![],
        zones: [("shop".parse().unwrap(), shop), ("blog".parse().unwrap(), blog)].into(),
        services: vec![Service {
            network: "shop".parse().unwrap(),
            address: Ipv4Addr::new(10, 88, 3, 254),
            names: vec!["api".to_owned(), "API.shop.svc".to_owned()],
            ports: Vec::new(),
            backends: Vec::new(),
        }],
        views: [
            ("c1".parse().unwrap(), view(&["shop"], true)),
            ("c2".parse().unwrap(), view(&["blog", "shop"], false)),
        ]
        .into(),
    };
    Names::new(&table)
}

fn query(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(hickory_proto::op::Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

/// The answer as text: code and data, or what else is done.
fn ask(id: &str, name: &str, kind: RecordType, turn: usize) -> String {
    match names().answer(&id.parse().unwrap(), &query(name, kind, None), turn, Transport::Udp) {
        Answer::Forward => "forward".into(),
        Answer::Ignore => "ignore".into(),
        Answer::Reply(bytes) => {
            let message = Message::from_vec(&bytes).unwrap();
            assert_eq!(message.metadata.id, 4711);
            assert!(message.metadata.recursion_available && message.metadata.message_type == MessageType::Response);
            assert!(message.answers.iter().all(|r| r.ttl == 0));
            let data: Vec<String> = message.answers.iter().map(|r| r.data.to_string()).collect();
            format!("{:?} {}", message.metadata.response_code, data.join(" ")).trim_end().to_owned()
        }
    }
}

#[test]
fn names_of_the_own_network_in_turn() {
    assert_eq!(ask("c1", "web.", RecordType::A, 0), "NoError 10.88.0.2 10.88.0.3 10.88.0.4");
    assert_eq!(ask("c1", "WEB.shop.", RecordType::A, 1), "NoError 10.88.0.3 10.88.0.4 10.88.0.2");
    assert_eq!(ask("c1", "web.", RecordType::AAAA, 0), "NoError");
    assert_eq!(ask("c1", "web.", RecordType::MX, 0), "NoError");
    assert_eq!(ask("c1", "db.", RecordType::A, 0), "NoError");
}

#[test]
fn names_of_a_service_lead_to_its_address() {
    assert_eq!(ask("c1", "api.", RecordType::A, 0), "NoError 10.88.3.254");
    assert_eq!(ask("c1", "api.shop.svc.", RecordType::A, 0), "NoError 10.88.3.254");
    assert_eq!(ask("c2", "api.", RecordType::A, 0), "NoError 10.88.3.254");
    assert_eq!(ask("c1", "tasks.api.", RecordType::A, 0), "NoError 10.88.0.7 10.88.0.8");
    assert_eq!(ask("c1", "254.3.88.10.in-addr.arpa.", RecordType::PTR, 0), "NoError api.shop. api.shop.svc.shop.");
}

#[test]
fn each_container_sees_its_networks_only() {
    assert_eq!(ask("c2", "web.", RecordType::A, 0), "NoError 10.88.9.9");
    assert_eq!(ask("c2", "web.shop.", RecordType::A, 0), "NoError 10.88.0.2 10.88.0.3 10.88.0.4");
    assert_eq!(ask("c1", "web.blog.", RecordType::A, 0), "forward");
    assert_eq!(ask("c1", "example.com.", RecordType::A, 0), "forward");
    assert_eq!(ask("c2", "example.com.", RecordType::A, 0), "NXDomain");
    assert_eq!(ask("nobody", "web.", RecordType::A, 0), "ServFail");
}

#[test]
fn addresses_have_names() {
    assert_eq!(ask("c1", "2.0.88.10.in-addr.arpa.", RecordType::PTR, 0), "NoError web-1.shop. web.shop.");
    assert_eq!(ask("c1", "9.9.88.10.in-addr.arpa.", RecordType::PTR, 0), "forward");
    assert_eq!(ask("c2", "1.1.1.1.in-addr.arpa.", RecordType::PTR, 0), "NXDomain");
}

#[test]
fn answers_that_do_not_fit_are_cut_and_say_so() {
    for (edns, via, limit) in [
        (None, Transport::Udp, 512),
        (Some(4_096), Transport::Udp, 1_232),
        (Some(0), Transport::Udp, 512),
        (None, Transport::Tcp, 65_535),
    ] {
        let packet = query("many.", RecordType::A, edns);
        let Answer::Reply(bytes) = names().answer(&"c1".parse().unwrap(), &packet, 7, via) else { panic!("no reply") };
        let message = Message::from_vec(&bytes).unwrap();
        assert!(bytes.len() <= limit, "{} over {limit}", bytes.len());
        assert_eq!(message.metadata.truncation, via == Transport::Udp);
        assert!(message.answers.len() >= limit.min(1_600) / 2 / 16, "{}", message.answers.len());
        assert_eq!(message.edns.is_some(), edns.is_some());
    }
}

#[test]
fn what_is_no_question_is_refused_or_ignored() {
    let names = names();
    let id = "c1".parse().unwrap();
    let code = |packet: &[u8]| match names.answer(&id, packet, 0, Transport::Udp) {
        Answer::Reply(bytes) => bytes[3] & 15,
        other => panic!("{other:?}"),
    };
    let good = query("web.", RecordType::A, None);
    let mut answer = good.clone();
    answer[2] |= 0x80;
    assert_eq!(names.answer(&id, &answer, 0, Transport::Udp), Answer::Ignore);
    assert_eq!(names.answer(&id, &good[..11], 0, Transport::Udp), Answer::Ignore);
    assert_eq!(code(&good[..12]), 1);
    let mut update = good.clone();
    update[2] |= 5 << 3;
    assert_eq!(code(&update), 4);
    let mut two = good.clone();
    two[5] = 2;
    assert_eq!(code(&two), 1);
}

proptest! {
    #[test]
    fn any_bytes_give_a_value(bytes in prop::collection::vec(any::<u8>(), 0..600), turn: usize) {
        check(&bytes, turn)?;
    }

    #[test]
    fn a_damaged_question_gives_a_value(at in 0_usize..30, byte: u8, cut in 0_usize..40) {
        let mut packet = query("web.shop.", RecordType::A, Some(1_232));
        let len = packet.len();
        packet[at % len] = byte;
        packet.truncate(len - cut.min(len));
        check(&packet, at)?;
    }
}

/// A part of a name as it is on the wire.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let label = "[a-z_-]{1,63}".prop_map(|text| {
        let len = u8::try_from(text.len()).unwrap();
        [&[len], text.as_bytes()].concat()
    });
    let pointer = (0_u16..0x4000).prop_map(|to| (0xc000 | to).to_be_bytes().to_vec());
    // Into the header, at the name itself, at its neighbours: loops of every length.
    let near = (0_u16..60).prop_map(|to| (0xc000 | to).to_be_bytes().to_vec());
    let reserved = (0x40_u8..0xc0).prop_map(|byte| vec![byte]);
    prop_oneof![4 => label, 1 => pointer, 3 => near, 1 => reserved, 1 => Just(vec![0])]
}

proptest! {
    /// Names made of pointers end, and what is said to them is itself never answered.
    #[test]
    fn pointers_lead_nowhere_for_ever(
        parts in prop::collection::vec(part(), 0..12),
        counts in prop::array::uniform4(0_u8..3),
        kind in 0_u16..300,
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut packet = vec![1, 2, 1, 0];
        counts.iter().for_each(|count| packet.extend([0, *count]));
        packet.extend(parts.concat());
        packet.extend(kind.to_be_bytes());
        packet.extend([0, 1]);
        packet.extend(tail);
        check(&packet, 0)?;
    }

    /// Whatever is asked properly is answered with the question it was, or passed on as it is.
    #[test]
    fn a_proper_question_gets_its_own_answer(name in "([a-z0-9]{1,20}\\.){1,6}", kind in 1_u16..260, edns: Option<u16>) {
        let packet = query(&name, RecordType::from(kind), edns);
        check(&packet, 0)?;
        if let Answer::Reply(reply) = names().answer(&"c1".parse().unwrap(), &packet, 0, Transport::Udp) {
            prop_assert_eq!(question_bytes(&reply), question_bytes(&packet));
        }
    }
}

fn check(packet: &[u8], turn: usize) -> Result<(), TestCaseError> {
    for via in [Transport::Udp, Transport::Tcp] {
        if let Answer::Reply(reply) = names().answer(&"c1".parse().unwrap(), packet, turn, via) {
            prop_assert!(reply.len() >= 12);
            prop_assert_eq!(&reply[..2], &packet[..2]);
            prop_assert!(reply[2] & 0x80 != 0);
            prop_assert_eq!(names().answer(&"c1".parse().unwrap(), &reply, turn, via), Answer::Ignore);
        }
    }
    let _ = question_bytes(packet);
    Ok(())
}
