//! Plans with networks beside the stacks' own.

use std::collections::BTreeSet;

use expect_test::expect;
use runtime::runtime::ContainerState;

use super::golden::check;
use super::world::*;
use crate::model::{DesiredState, Kind, NetworkRange, NetworkUse, ObjectKey, Workload};
use crate::plan::{Action, network_name, network_of, plan, template_hash};

fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey { stack: "shop".to_owned(), kind, name: name.to_owned() }
}

fn on(name: &str, internal: bool) -> NetworkUse {
    let network = key(Kind::Network, name);
    NetworkUse { network, internal, range: None, aliases: BTreeSet::new(), address: None }
}

fn app(networks: Vec<NetworkUse>) -> Workload {
    let mut app = web(1, "1");
    app.template.networks = networks;
    app
}

/// `web` on the stack's own network, `api` there and behind, `db` behind, where nothing leads out.
fn three() -> DesiredState {
    let mut db = on("back", true);
    db.aliases.insert("database".to_owned());
    let apps = [
        (key(Kind::App, "web"), web(1, "1")),
        (key(Kind::App, "api"), app(vec![on("default", false), on("back", true)])),
        (key(Kind::App, "db"), app(vec![db])),
    ];
    DesiredState { generation: 1, workloads: apps.into(), ..DesiredState::default() }
}

#[test]
fn who_shares_no_network_has_no_name_for_the_other() {
    let desired = three();
    let mut observed = host(&["1"]);
    observed.networks.clear();
    let observed = settled(&desired, observed);
    let table = observed.published.as_ref().unwrap();
    let back = network_of(&key(Kind::Network, "back"), None);
    let names = |network| table.zones[&network].keys().map(String::as_str).collect::<Vec<_>>().join(" ");
    expect![[r#"api api-1 web web-1"#]].assert_eq(&names(network_name("shop")));
    expect![[r#"api api-1 api-1.shop api.shop database database.shop db db-1 db-1.shop db.shop"#]]
        .assert_eq(&names(back.clone()));
    let view = |name: &str| {
        let (id, container) = observed.containers.iter().find(|(_, c)| c.replica.workload.name == name).unwrap();
        (container.addresses().count(), table.views[id].networks.len(), table.views[id].forward)
    };
    assert_eq!([view("web"), view("api"), view("db")], [(1, 1, true), (2, 2, true), (1, 1, false)]);
    assert!(observed.networks[&back].config.internal);
    check(&desired, &observed, expect![[""]]);
}

#[test]
fn opening_a_network_happens_in_place_and_another_range_moves_its_containers() {
    let mut desired = three();
    let mut observed = host(&["1"]);
    observed.networks.clear();
    let observed = settled(&desired, observed);
    let mut behind = |change: &dyn Fn(&mut NetworkUse)| {
        for app in desired.workloads.values_mut() {
            app.template.networks.iter_mut().filter(|n| n.network.name == "back").for_each(change);
        }
        desired.clone()
    };
    let opened = plan(&behind(&|network| network.internal = false), &observed);
    opened.check(&observed).unwrap();
    assert_eq!(
        text(&opened),
        "#0 CreateNetwork shop-back-54f67d 10.88.4.1/22  NetworkChanged\n#1 PublishEndpoints api=1 api-1=1 web=1 web-1=1 api=1 api-1=1 api-1.shop=1 api.shop=1 database=1 database.shop=1 db=1 db-1=1 db-1.shop=1 db.shop=1  views=3  EndpointsChanged\n"
    );
    let range = NetworkRange { subnet: "10.99.0.0/24".parse().unwrap(), gateway: [10, 99, 0, 1].into() };
    let moved = plan(&behind(&|network| network.range = Some(range)), &observed);
    moved.check(&observed).unwrap();
    let made: Vec<_> = moved.steps.iter().filter(|s| matches!(s.action, Action::CreateContainer { .. })).collect();
    assert_eq!(made.len(), 2, "{}", text(&moved));
}

#[test]
fn an_address_asked_for_is_given_and_taken_over_stop_first() {
    let range = NetworkRange { subnet: "10.99.0.0/24".parse().unwrap(), gateway: [10, 99, 0, 1].into() };
    let fixed = NetworkUse { range: Some(range), address: Some([10, 99, 0, 2].into()), ..on("back", false) };
    let beside = NetworkUse { address: None, ..fixed.clone() };
    let with = |tag: &str| {
        let mut db = web(1, tag);
        db.template.networks = vec![fixed.clone()];
        db.exclusive = true;
        let apps = [(key(Kind::App, "db"), db), (key(Kind::App, "api"), app(vec![beside.clone()]))];
        DesiredState { generation: 1, workloads: apps.into(), ..DesiredState::default() }
    };
    let mut observed = host(&["1", "2"]);
    observed.networks.clear();
    let observed = settled(&with("1"), observed);
    let address = |name: &str| {
        let mut all = observed.containers.values().filter(|c| c.state == ContainerState::Running);
        all.find(|c| c.replica.workload.name == name).and_then(|c| c.address.clone()).unwrap().1.to_string()
    };
    assert_eq!([address("db"), address("api")], ["10.99.0.2", "10.99.0.3"]);
    let next = plan(&with("2"), &observed);
    next.check(&observed).unwrap();
    let kinds: Vec<&str> = next.steps.iter().map(|step| step.action.name()).collect();
    let at = |name: &str| kinds.iter().position(|kind| *kind == name);
    assert!(at("StopContainer") < at("CreateContainer"), "{}", text(&next));
}

#[test]
fn the_stacks_own_network_by_name_is_the_same_as_without() {
    let image = digest("1");
    let plain = template_hash(&web(1, "1").template, &image);
    let mut named = on("default", true);
    named.aliases.insert("x".to_owned());
    assert_eq!(template_hash(&app(vec![named]).template, &image), plain);
    assert_ne!(template_hash(&app(vec![on("back", false)]).template, &image), plain);
}
