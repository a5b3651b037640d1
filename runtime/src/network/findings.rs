//! What of this host stands in the way of container networks although everything of ours is in place.
//!
//! Reads only. Must not change a foreign rule, ever.

use super::{forward, nftables, ruleset};
use crate::error::Doing;
use crate::layout::Layout;
use crate::runtime::Finding;
use crate::{Error, Result};

/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;

/// Looks for obstacles. Empty on a plain host, and where no network of ours could meet one.
///
/// # Errors
/// `Io`.
pub fn findings(layout: &Layout) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    let networks = super::record::all(layout)?;
    if networks.is_empty() {
        return Ok(found);
    }
    match in_the_way() {
        Ok(chains) => found.extend(foreign_drops(layout, &chains, bridge_nf()?)),
        Err(Error::Unsupported(what)) => found.push(Finding {
            what,
            effect: "containers reach each other and published ports work, but nothing outside is reached".to_owned(),
            fix: "load the kernel module nf_tables and run as root".to_owned(),
        }),
        Err(other) => return Err(other),
    }
    if std::fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|names| names.lines().any(|n| n == "filter")) {
        found.push(Finding {
            what: "legacy iptables filter rules are loaded; they are invisible to nftables".to_owned(),
            effect: "a DROP in their FORWARD chain stops egress".to_owned(),
            fix: "check `iptables-legacy -S FORWARD`".to_owned(),
        });
    }
    if !forward::is_on()? {
        found.push(Finding {
            what: "net.ipv4.ip_forward is 0 although networks need it".to_owned(),
            effect: "containers reach nothing outside their network, nor services inside".to_owned(),
            fix: "sysctl net.ipv4.ip_forward=1".to_owned(),
        });
    }
    Ok(found)
}

/// Chains on the input and forward hooks but for those that somebody made accept what is ours.
fn in_the_way() -> Result<Vec<nftables::ForeignChain>> {
    let mut chains = nftables::filter_chains()?;
    let mut error = None;
    chains.retain(|chain| {
        let lets_through = chain.drops && chain.hook == FORWARD;
        let accepts = if lets_through { nftables::accepts(chain, ruleset::BRIDGES) } else { Ok(false) };
        !accepts.unwrap_or_else(|e| {
            error = Some(e);
            false
        })
    });
    error.map_or(Ok(chains), Err)
}

/// Whether some foreign chain drops by policy what is forwarded.
///
/// # Errors
/// `Unsupported` without nf_tables; `Io`.
pub(super) fn foreign_forward_drop(layout: &Layout) -> Result<bool> {
    let chains = in_the_way()?;
    Ok(foreign(layout, &chains).any(|chain| chain.hook == FORWARD))
}

/// Chains of others whose policy drops.
fn foreign<'a>(
    layout: &Layout,
    chains: &'a [nftables::ForeignChain],
) -> impl Iterator<Item = &'a nftables::ForeignChain> {
    let own = ruleset::table_name(&super::tag(layout));
    let is_ours = move |table: &str| table == own || table == ruleset::FORWARD_GUARD_TABLE;
    chains.iter().filter(move |c| c.drops && c.family != "ip6" && !is_ours(&c.table))
}

/// Chains of others whose policy drops: our accept cannot overrule them, each hook's chains must all agree.
fn foreign_drops(layout: &Layout, chains: &[nftables::ForeignChain], bridge_nf: bool) -> Vec<Finding> {
    foreign(layout, chains)
        .map(|c| {
            let what = format!("chain `{}` of table `{} {}` drops what it does not accept", c.chain, c.family, c.table);
            let at = format!("{} {} {}", c.family, c.table, c.chain);
            if c.hook != FORWARD {
                let effect = "published ports answer only where that chain accepts them".to_owned();
                return Finding { what, effect, fix: format!("nft insert rule {at} tcp dport PORT accept") };
            }
            let inside = if bridge_nf || c.family == "bridge" {
                ", nor their neighbours (bridge-nf-call-iptables is 1)"
            } else {
                ""
            };
            Finding {
                what,
                effect: format!(
                    "containers reach nothing outside their network{inside}; names lead to replicas, not to service \
                     addresses"
                ),
                fix: format!(
                    "nft insert rule {at} iifname \"bx-*\" accept; nft insert rule {at} oifname \"bx-*\" accept"
                ),
            }
        })
        .collect()
}

/// Whether bridged packets pass the host's IP rules.
fn bridge_nf() -> Result<bool> {
    let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        other => Ok(other.doing(|| format!("read {path}"))?.trim() == "1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(family: &'static str, table: &str, chain: &str, hook: u32, drops: bool) -> nftables::ForeignChain {
        nftables::ForeignChain { family, table: table.into(), chain: chain.into(), hook, drops }
    }

    #[test]
    fn dropping_chains_of_others_are_named_exactly() {
        let layout = Layout::new("/d", "/r");
        let ours = ruleset::table_name(&crate::network::tag(&layout));
        let chains = [
            chain("inet", &ours, "forward", 2, true),
            chain("ip", "filter", "FORWARD", 2, true),
            chain("ip", "filter", "INPUT", 1, false),
            chain("inet", "firewalld", "filter_INPUT", 1, true),
        ];
        let found = foreign_drops(&layout, &chains, true);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].what, "chain `FORWARD` of table `ip filter` drops what it does not accept");
        assert!(found[0].effect.contains("nor their neighbours"), "{found:?}");
        assert!(foreign_drops(&layout, &chains[1..2], false)[0].effect.contains("outside their network; names"));
        assert!(found[1].fix.starts_with("nft insert rule inet firewalld filter_INPUT"), "{found:?}");
    }
}
