//! Addresses that stand for Apps and for Kubernetes' Services: which there are, what they are called and where they lead.
//!
//! An App's own address leads to its replicas by any port; a Service's by the Service's ports. A Service that is called
//! as an App it leads to is one with it: its ports first, all others as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use runtime::id::NetworkName;
use runtime::runtime::{EndpointTable, Protocol, Service, ServicePort};

use super::pass::Pass;
use crate::model::{ObjectKey, Workload};

/// Those of one table while it is made, by network and by who they stand for.
#[derive(Default)]
pub(super) struct Services {
    all: BTreeMap<(NetworkName, String), Draft>,
    /// Further names, and the Apps that have them.
    aliases: BTreeMap<(NetworkName, String), BTreeSet<String>>,
}

#[derive(Default)]
struct Draft {
    address: Option<Ipv4Addr>,
    /// The first one tells it apart from the others.
    names: Vec<String>,
    ports: BTreeMap<(Protocol, u16), Vec<SocketAddrV4>>,
    backends: Vec<Ipv4Addr>,
}

impl Services {
    /// An App's own service on one of its networks, and its part in others'.
    pub(super) fn add(
        &mut self,
        pass: &mut Pass<'_>,
        key: &ObjectKey,
        app: &Workload,
        network: &NetworkName,
        ready: &[IpAddr],
    ) {
        let ready: Vec<Ipv4Addr> = ready
            .iter()
            .filter_map(|address| match address {
                IpAddr::V4(v4) => Some(*v4),
                IpAddr::V6(_) => None,
            })
            .collect();
        if !app.headless {
            let draft = self.draft(pass, network, &key.name);
            draft.backends.extend(&ready);
        }
        for (name, service) in &app.services {
            let is_own = *name == key.name;
            if is_own && app.headless {
                continue;
            }
            // An App that is called so and is not led to keeps its name.
            let namesake = ObjectKey { name: name.clone(), ..key.clone() };
            let other = pass.desired.workloads.get(&namesake).filter(|_| !is_own);
            let is_other = other.is_some_and(|other| !other.services.contains_key(name));
            let first = if is_other { format!("{name}.{}.svc", key.stack) } else { name.clone() };
            let draft = self.draft(pass, network, &first);
            let further = service.names.iter().filter(|further| !is_other || *further != name);
            for further in further {
                if !draft.names.contains(further) {
                    draft.names.push(further.clone());
                }
            }
            for (protocol, port, target) in &service.ports {
                let backends = ready.iter().map(|address| SocketAddrV4::new(*address, *target));
                draft.ports.entry((*protocol, *port)).or_default().extend(backends);
            }
        }
    }

    /// A further name of an App.
    pub(super) fn alias(&mut self, network: &NetworkName, app: &str, alias: &str) {
        self.aliases.entry((network.clone(), alias.to_owned())).or_default().insert(app.to_owned());
    }

    /// Finished. A further name leads to a service's address when no other App shares it.
    pub(super) fn into_table(mut self) -> Vec<Service> {
        let named: BTreeSet<(NetworkName, String)> = self
            .all
            .iter()
            .flat_map(|((network, _), draft)| draft.names.iter().map(|name| (network.clone(), name.clone())))
            .collect();
        for ((network, alias), apps) in self.aliases {
            let mut apps = apps.into_iter();
            if let (Some(app), None) = (apps.next(), apps.next())
                && !named.contains(&(network.clone(), alias.clone()))
                && let Some(draft) = self.all.get_mut(&(network, app))
            {
                draft.names.push(alias);
            }
        }
        let service = |((network, _), draft): ((NetworkName, String), Draft)| {
            let port = |((protocol, port), mut backends): ((Protocol, u16), Vec<SocketAddrV4>)| {
                backends.sort_unstable();
                ServicePort { protocol, port, backends }
            };
            let ports = draft.ports.into_iter().map(port).collect();
            Some(Service { network, address: draft.address?, names: draft.names, ports, backends: draft.backends })
        };
        self.all.into_iter().filter_map(service).collect()
    }

    fn draft(&mut self, pass: &mut Pass<'_>, network: &NetworkName, name: &str) -> &mut Draft {
        self.all.entry((network.clone(), name.to_owned())).or_insert_with(|| {
            let in_force = pass.observed.published.as_ref();
            let had = in_force.and_then(|table| had(table, network, name));
            let address = pass.networks.service_address(network, name, had);
            Draft { address, names: vec![name.to_owned()], ..Draft::default() }
        })
    }
}

/// The address that a service has in a table.
fn had(table: &EndpointTable, network: &NetworkName, name: &str) -> Option<Ipv4Addr> {
    let is_it = |service: &&Service| service.network == *network && service.names.first().is_some_and(|n| n == name);
    table.services.iter().find(is_it).map(|service| service.address)
}
