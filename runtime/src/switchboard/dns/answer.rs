//! What a container is told about a name. Pure: a table and a packet in, a packet or "ask the host's resolver" out.
//!
//! Any bytes at all give a value, never a panic. Must not know sockets or time. Formats: RFC 1035, RFC 6891 (EDNS).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::id::{ContainerId, NetworkName};
use crate::runtime::{DnsView, EndpointTable, Service};

/// Longest answer over UDP without EDNS (RFC 1035 §4.2.1).
const UDP_BYTES: u16 = 512;
/// Longest answer over UDP with EDNS: fits one IPv6 packet of the smallest MTU, as resolvers do since DNS flag day 2020.
const EDNS_BYTES: u16 = 1_232;
/// Header of every message.
const HEADER_BYTES: usize = 12;
/// Names change while clients run, so nobody may remember one.
const TTL_SECS: u32 = 0;
/// What leads to the replicas of a service, as in swarms.
const TASKS: &str = "tasks.";

/// Names and views of a table, with the way back from addresses.
#[derive(Debug, Default)]
pub(in crate::switchboard) struct Names {
    zones: BTreeMap<NetworkName, BTreeMap<String, Vec<IpAddr>>>,
    views: BTreeMap<ContainerId, DnsView>,
    reverse: BTreeMap<IpAddr, Vec<(NetworkName, String)>>,
}

/// What to do with a packet.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::switchboard) enum Answer {
    /// Send this back.
    Reply(Vec<u8>),
    /// Ask the host's resolvers; with nobody to ask, or in vain, see [`failure`].
    Forward,
    /// It is no question; say nothing.
    Ignore,
}

/// How the question came, which bounds the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::switchboard) enum Transport {
    /// One datagram.
    Udp,
    /// A stream with length prefixes.
    Tcp,
}

/// What our names say to a question.
enum Found {
    /// The name is ours, with these addresses.
    Addresses(Vec<IpAddr>),
    /// The address is ours, with these names.
    Names(Vec<String>),
    /// Not ours.
    Nothing,
}

impl Names {
    /// The names of a table.
    pub(in crate::switchboard) fn new(table: &EndpointTable) -> Self {
        let mut reverse: BTreeMap<IpAddr, Vec<(NetworkName, String)>> = BTreeMap::new();
        for (network, zone) in &table.zones {
            for (name, addresses) in zone {
                for address in addresses {
                    reverse.entry(*address).or_default().push((network.clone(), name.clone()));
                }
            }
        }
        // The name that stands for one address only says most about it.
        for names in reverse.values_mut() {
            names.sort_by_key(|(network, name)| table.zones[network][name].len());
        }
        let zones = table.zones.iter().map(|(network, zone)| (network.clone(), lowercase(zone))).collect();
        let mut names = Self { zones, views: table.views.clone(), reverse };
        table.services.iter().for_each(|service| names.serve(service));
        names
    }

    /// Names of a service lead to its address, and `tasks.NAME` to what they led to before.
    fn serve(&mut self, service: &Service) {
        let address = IpAddr::V4(service.address);
        let zone = self.zones.entry(service.network.clone()).or_default();
        for name in &service.names {
            let name = name.to_ascii_lowercase();
            if let Some(replicas) = zone.insert(name.clone(), vec![address]) {
                zone.entry(format!("{TASKS}{name}")).or_insert(replicas);
            }
            self.reverse.entry(address).or_default().push((service.network.clone(), name));
        }
    }

    /// The answer to one packet of a container. `turn` rotates the addresses, so that clients which take the first one
    /// spread.
    pub(in crate::switchboard) fn answer(
        &self,
        id: &ContainerId,
        packet: &[u8],
        turn: usize,
        via: Transport,
    ) -> Answer {
        // QR: an answer is never answered, or two servers could talk forever.
        if packet.len() < HEADER_BYTES || packet[2] & 0x80 != 0 {
            return Answer::Ignore;
        }
        let Ok(query) = Message::from_vec(packet) else { return reply(failure(packet, ResponseCode::FormErr)) };
        if query.metadata.op_code != OpCode::Query {
            return reply(failure(packet, ResponseCode::NotImp));
        }
        let [question] = query.queries.as_slice() else { return reply(failure(packet, ResponseCode::FormErr)) };
        let Some(view) = self.views.get(id) else { return reply(failure(packet, ResponseCode::ServFail)) };
        let ours = matches!(question.query_class(), DNSClass::IN | DNSClass::ANY);
        let found = if ours { self.find(view, question.name(), question.query_type()) } else { Found::Nothing };
        let wants = |kind| question.query_type() == kind || question.query_type() == RecordType::ANY;
        let records: Vec<RData> = match found {
            Found::Nothing if view.forward => return Answer::Forward,
            Found::Nothing => return reply(failure(packet, ResponseCode::NXDomain)),
            Found::Addresses(mut addresses) => {
                let len = addresses.len().max(1);
                addresses.rotate_left(turn % len);
                let data = addresses.into_iter().filter_map(|address| match address {
                    IpAddr::V4(v4) => wants(RecordType::A).then_some(RData::A(A(v4))),
                    IpAddr::V6(v6) => wants(RecordType::AAAA).then_some(RData::AAAA(AAAA(v6))),
                });
                data.collect()
            }
            Found::Names(names) => names
                .iter()
                .filter_map(|name| Name::from_ascii(format!("{name}.")).ok().map(|n| RData::PTR(PTR(n))))
                .collect(),
        };
        let owner = question.name().clone();
        let records = records.into_iter().map(|data| Record::from_rdata(owner.clone(), TTL_SECS, data)).collect();
        encode(&query, records, via).map_or_else(|| reply(failure(packet, ResponseCode::ServFail)), Answer::Reply)
    }

    fn find(&self, view: &DnsView, name: &Name, kind: RecordType) -> Found {
        let Some(text) = text_of(name) else { return Found::Nothing };
        if kind == RecordType::PTR {
            return self.find_reverse(view, name);
        }
        for network in &view.networks {
            let Some(zone) = self.zones.get(network) else { continue };
            let short = text.strip_suffix(network.as_str()).and_then(|rest| rest.strip_suffix('.'));
            if let Some(addresses) = zone.get(&text).or_else(|| zone.get(short?)) {
                return Found::Addresses(addresses.clone());
            }
        }
        Found::Nothing
    }

    fn find_reverse(&self, view: &DnsView, name: &Name) -> Found {
        let Ok(net) = name.parse_arpa_name() else { return Found::Nothing };
        let whole = if net.addr().is_ipv4() { 32 } else { 128 };
        let Some(names) = (net.prefix_len() == whole).then(|| self.reverse.get(&net.addr())).flatten() else {
            return Found::Nothing;
        };
        let visible: Vec<String> = names
            .iter()
            .filter(|(network, _)| view.networks.contains(network))
            .map(|(network, name)| format!("{name}.{network}"))
            .collect();
        if visible.is_empty() { Found::Nothing } else { Found::Names(visible) }
    }
}

/// An answer without data: the question as asked, and why there is nothing.
pub(in crate::switchboard) fn failure(packet: &[u8], code: ResponseCode) -> Vec<u8> {
    let Some(header) = packet.first_chunk::<HEADER_BYTES>() else { return Vec::new() };
    let question = question_bytes(packet).unwrap_or(&[]);
    let mut reply = header.to_vec();
    // QR on; opcode and RD as asked; AA, TC off. RA on, Z off; the code.
    reply[2] = 0x80 | (header[2] & 0x79);
    reply[3] = 0x80 | (u16::from(code) & 0xf).to_be_bytes()[1];
    reply[4..12].fill(0);
    reply[5] = u8::from(!question.is_empty());
    reply.extend(question);
    reply
}

/// The bytes of a packet's only question: an uncompressed name, type and class.
pub(in crate::switchboard) fn question_bytes(packet: &[u8]) -> Option<&[u8]> {
    if packet.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER_BYTES;
    loop {
        let len = usize::from(*packet.get(at)?);
        at += 1 + len;
        match len {
            0 => return packet.get(HEADER_BYTES..at + 4),
            1..=63 => {}
            _ => return None,
        }
    }
}

fn encode(query: &Message, records: Vec<Record>, via: Transport) -> Option<Vec<u8>> {
    let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.authoritative = true;
    message.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS_BYTES);
        message.set_edns(edns);
    }
    let limit = match via {
        Transport::Tcp => u16::MAX,
        Transport::Udp => query.edns.as_ref().map_or(UDP_BYTES, |e| e.max_payload().clamp(UDP_BYTES, EDNS_BYTES)),
    };
    message.answers = records;
    loop {
        let bytes = message.to_vec().ok()?;
        let over = bytes.len().saturating_sub(usize::from(limit));
        if over == 0 {
            return Some(bytes);
        }
        // What fits is still of use to those who do not ask again by TCP. A record takes at least 16 bytes.
        message.metadata.truncation = true;
        let keep = message.answers.len().saturating_sub(over.div_ceil(28).max(1));
        message.answers.truncate(keep);
    }
}

fn reply(bytes: Vec<u8>) -> Answer {
    if bytes.is_empty() { Answer::Ignore } else { Answer::Reply(bytes) }
}

/// A name in small letters, without the last dot; `None` for what no name of ours can be.
fn text_of(name: &Name) -> Option<String> {
    let mut text = String::new();
    for label in name.iter() {
        let label = std::str::from_utf8(label).ok().filter(|l| !l.contains('.'))?;
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(&label.to_ascii_lowercase());
    }
    Some(text)
}

fn lowercase(zone: &BTreeMap<String, Vec<IpAddr>>) -> BTreeMap<String, Vec<IpAddr>> {
    let distinct = |addresses: &Vec<IpAddr>| {
        let mut seen = BTreeSet::new();
        addresses.iter().filter(|a| seen.insert(**a)).copied().collect()
    };
    zone.iter().map(|(name, addresses)| (name.to_ascii_lowercase(), distinct(addresses))).collect()
}

#[cfg(test)]
mod tests;
