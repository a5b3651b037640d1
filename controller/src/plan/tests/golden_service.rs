//! Addresses that stand for Apps: who gets one, where it leads, and that it stays.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use runtime::runtime::{EndpointTable, Protocol, Service};

use super::world::*;
use crate::model::{DesiredState, Kind, ObservedState, ServiceUse};
use crate::plan::plan;

fn table(observed: &ObservedState) -> &EndpointTable {
    observed.published.as_ref().unwrap()
}

fn service<'a>(observed: &'a ObservedState, name: &str) -> &'a Service {
    let services = &table(observed).services;
    services.iter().find(|service| service.names[0] == name).unwrap_or_else(|| panic!("{name}: {services:?}"))
}

/// Replaced, scaled, and nobody remembers: the address is the same, and leads to whoever is ready.
#[test]
fn an_address_stays_whatever_happens_to_the_replicas() {
    let observed = settled(&desire(web(1, "1")), host(&["1", "2"]));
    let before = service(&observed, "web").clone();
    assert!(u32::from(before.address) > u32::from(Ipv4Addr::new(10, 88, 3, 0)), "{before:?}");
    assert_eq!(before.backends.len(), 1);
    let mut later = settled(&desire(web(3, "2")), observed);
    assert_eq!((service(&later, "web").address, service(&later, "web").backends.len()), (before.address, 3));
    assert!(!service(&later, "web").backends.contains(&before.backends[0]));
    later.published = None;
    let again = settled(&desire(web(3, "2")), later);
    assert_eq!(service(&again, "web").address, before.address);
    let gone = settled(&DesiredState { generation: 2, ..DesiredState::default() }, again);
    assert!(table(&gone).services.is_empty());
}

/// Two hundred Apps have two hundred addresses, none of them a container's.
#[test]
fn no_two_have_one_address() {
    let apps = (0..200).map(|n| (key(Kind::App, &format!("app-{n}")), web(1, "1")));
    let desired = DesiredState { generation: 1, workloads: apps.collect(), ..DesiredState::default() };
    let observed = settled(&desired, host(&["1"]));
    let addresses: BTreeSet<Ipv4Addr> = table(&observed).services.iter().map(|service| service.address).collect();
    assert_eq!(addresses.len(), 200);
    let mut held = observed.containers.values().flat_map(|container| container.addresses());
    assert!(held.all(|(_, address)| !addresses.contains(&address)));
    assert!(plan(&desired, &observed).steps.is_empty());
}

/// A headless App has none; an alias of one App leads where its name does, a shared one to replicas.
#[test]
fn headless_and_shared_names_lead_to_replicas() {
    let mut one = web(1, "1");
    one.aliases = ["www", "both"].map(str::to_owned).into();
    let mut two = web(2, "1");
    (two.headless, two.aliases) = (true, ["both".to_owned()].into());
    let apps = [(key(Kind::App, "one"), one), (key(Kind::App, "two"), two)];
    let desired = DesiredState { generation: 1, workloads: apps.into(), ..DesiredState::default() };
    let observed = settled(&desired, host(&["1"]));
    let names: Vec<_> = table(&observed).services.iter().map(|service| service.names.join(" ")).collect();
    assert_eq!(names, ["one www"]);
    let zone = table(&observed).zones.values().next().unwrap();
    assert_eq!((zone["two"].len(), zone["both"].len()), (2, 3));
}

/// A Service over two Apps has its own address and ports; one called as an App it selects is one with it.
#[test]
fn services_have_their_ports() {
    let of = |name: &str, target| {
        let names = [name.to_owned(), format!("{name}.shop.svc")].into();
        (name.to_owned(), ServiceUse { names, ports: vec![(Protocol::Tcp, 80, target)] })
    };
    let (mut front, mut back) = (web(1, "1"), web(2, "1"));
    front.services = [of("front", 8080), of("all", 8080)].into();
    back.services = [of("all", 9090)].into();
    let apps = [(key(Kind::App, "front"), front), (key(Kind::App, "back"), back)];
    let desired = DesiredState { generation: 1, workloads: apps.into(), ..DesiredState::default() };
    let observed = settled(&desired, host(&["1"]));
    let all = service(&observed, "all");
    let mut targets: Vec<u16> = all.ports[0].backends.iter().map(|backend| backend.port()).collect();
    targets.sort_unstable();
    assert_eq!((all.backends.len(), targets), (0, vec![8080, 9090, 9090]));
    let front = service(&observed, "front");
    assert_eq!((front.backends.len(), front.ports[0].backends[0].port()), (1, 8080));
    assert_eq!(front.names, ["front", "front.shop.svc"]);
    assert_eq!(table(&observed).services.len(), 3);
}
