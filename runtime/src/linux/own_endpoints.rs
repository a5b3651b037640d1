//! Names and ports of containers that publish them by themselves, merged into the one table the switchboard has: whoever
//! plans gives his whole table and never sees these. Who has a port keeps it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use super::{LinuxRuntime, durable};
use crate::error::{Error, Result, chain};
use crate::id::ContainerId;
use crate::network;
use crate::runtime::{ContainerConfig, ContainerState, DnsView, EndpointTable, HostPort, Listener, NetworkMode};

/// How long a new connection waits for a program that is just starting, in milliseconds.
const PARK_MS: u32 = 10_000;

impl LinuxRuntime {
    /// Puts a plan's table in force together with what runs and publishes by itself.
    ///
    /// # Errors
    /// Those of [`crate::Runtime::publish_endpoints`]; a port that such a container has is in use.
    pub(super) fn publish_with_own(&self, planned: &EndpointTable) -> Result<()> {
        *self.planned.lock().unwrap_or_else(PoisonError::into_inner) = Some(planned.clone());
        if let Err(error) = crate::supervisor::write_record(&self.planned_file(), planned) {
            tracing::warn!(error = chain(&error), "the table of ports is in force, but not written down");
        }
        let planned = &self.with_services(planned.clone())?;
        let own = self.live_own(None)?;
        if own.is_empty() {
            return self.switchboard.set_table(planned);
        }
        let (mut table, mut clashes) = merge(planned, &own);
        loop {
            match self.switchboard.set_table(&table) {
                Err(Error::PortInUse { at, holder }) if !planned.listeners.iter().any(|listener| listener.at == at) => {
                    tracing::warn!(%at, holder, "a container's port is in use by somebody else");
                    table.listeners.retain(|listener| listener.at != at);
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        match clashes.pop() {
            Some((at, holder)) => Err(Error::PortInUse { at, holder: format!(" by container `{holder}`") }),
            None => Ok(()),
        }
    }

    /// Puts in force what runs now. `starting` is about to run: its ports must be had.
    ///
    /// # Errors
    /// `PortInUse` for a port of `starting`, without which the rest is in force; `Unreachable`.
    pub fn refresh_own(&self, starting: Option<&ContainerId>) -> Result<()> {
        let publishes = |config: &Arc<ContainerConfig>| config.extras.endpoints.is_some();
        if !self.containers.list()?.iter().any(publishes) {
            return Ok(());
        }
        let planned = self.with_services(self.planned_table())?;
        let own = self.live_own(starting)?;
        let is_it = |config: &Arc<ContainerConfig>| Some(&config.id) == starting;
        let wanted: Vec<HostPort> =
            own.iter().filter(|config| is_it(config)).flat_map(|config| ports(config)).collect();
        for at in &wanted {
            let other = own.iter().find(|config| !is_it(config) && ports(config).any(|port| port == *at));
            let is_planned = planned.listeners.iter().any(|listener| listener.at == *at);
            if other.is_some() || is_planned {
                let holder = other.map_or("an object of a manifest".to_owned(), |config| config.id.to_string());
                return Err(Error::PortInUse { at: *at, holder: format!(" by {holder}") });
            }
        }
        let (mut table, _) = merge(&planned, &own);
        let mut refused = None;
        loop {
            match self.switchboard.set_table(&table) {
                Ok(()) => break,
                Err(Error::PortInUse { at, holder }) => {
                    table.listeners.retain(|listener| listener.at != at);
                    if wanted.contains(&at) {
                        refused = Some(Error::PortInUse { at, holder });
                    }
                }
                Err(error) => return Err(error),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// A table whose service addresses are in force; without them where the host cannot have them, so that names lead to
    /// replicas.
    fn with_services(&self, mut table: EndpointTable) -> Result<EndpointTable> {
        if !network::services::publish(&self.layout, &table.services)? {
            table.services.clear();
        }
        Ok(table)
    }

    /// Containers that publish by themselves and run, or are about to; `last` comes last.
    fn live_own(&self, last: Option<&ContainerId>) -> Result<Vec<Arc<ContainerConfig>>> {
        let mut own = self.containers.list()?;
        own.retain(|config| config.extras.endpoints.is_some());
        if own.is_empty() {
            return Ok(own);
        }
        let known = self.supervisor.list()?;
        let lives = |state: ContainerState| matches!(state, ContainerState::Created | ContainerState::Running);
        own.retain(|config| known.iter().any(|status| status.id == config.id && lives(status.state)));
        own.sort_by_key(|config| Some(&config.id) == last);
        Ok(own)
    }

    /// The table that whoever plans published last; it may be of an earlier process of this boot.
    #[must_use]
    pub fn planned_table(&self) -> EndpointTable {
        let known = self.planned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.or_else(|| durable::read_file(&self.planned_file()).ok().flatten()).unwrap_or_default()
    }

    /// In the run directory: a reboot takes it with the sockets it describes.
    fn planned_file(&self) -> PathBuf {
        self.layout.run_dir.join("planned.table.json")
    }
}

fn ports(config: &ContainerConfig) -> impl Iterator<Item = HostPort> + '_ {
    config.extras.endpoints.iter().flat_map(|own| own.ports.iter().map(|port| port.at))
}

/// One table of both, and the ports wanted twice with who has them: the first of `own`, before the plan, before later ones.
fn merge(planned: &EndpointTable, own: &[Arc<ContainerConfig>]) -> (EndpointTable, Vec<(HostPort, String)>) {
    let mut table = EndpointTable { listeners: Vec::new(), ..planned.clone() };
    let mut clashes = Vec::new();
    let mut holders: Vec<(HostPort, String)> = Vec::new();
    for config in own {
        let NetworkMode::Bridge { network, address, .. } = &config.network else { continue };
        let address = IpAddr::V4(*address);
        let view = DnsView { networks: vec![network.clone()], forward: true };
        table.views.insert(config.id.clone(), view);
        let zone = table.zones.entry(network.clone()).or_default();
        let Some(endpoints) = &config.extras.endpoints else { continue };
        for name in &endpoints.names {
            zone.insert(name.clone(), vec![address]);
        }
        for port in &endpoints.ports {
            if let Some((_, holder)) = holders.iter().find(|(at, _)| *at == port.at) {
                clashes.push((port.at, holder.clone()));
                continue;
            }
            holders.push((port.at, config.id.to_string()));
            let backends = vec![SocketAddr::new(address, port.container_port)];
            table.listeners.push(Listener { at: port.at, backends, park_ms: PARK_MS });
        }
    }
    for listener in &planned.listeners {
        match holders.iter().find(|(at, _)| *at == listener.at) {
            Some((at, holder)) => clashes.push((*at, holder.clone())),
            None => table.listeners.push(listener.clone()),
        }
    }
    table.listeners.sort();
    (table, clashes)
}
