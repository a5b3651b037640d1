//! What a service asks of the kernel besides limits and security: `ulimits`, `sysctls`, `group_add` and the like.

use super::project::Project;
use super::{keys, merge};
use crate::manifest::format::Format as _;
use crate::manifest::keys::Entries;
use crate::manifest::native::dns::DnsName;
use crate::manifest::native::tuning::{DnsOption, HostAddress, LimitText, SOFT_ABOVE_HARD, SysctlName, UlimitName};
use crate::manifest::tree::{Extent, Node, Value};
use crate::model::{Tuning, codes};

pub(super) fn lower(project: &mut Project<'_>, service: &Entries<'_>) -> Tuning {
    let mut tuning = Tuning::default();
    if let Some(node) = service.get("ulimits") {
        ulimits(project, node, &mut tuning);
    }
    if let Some(node) = service.get("sysctls") {
        let node = merge::as_map(node.clone(), "sysctls");
        for entry in project.reader.map("sysctls", &node) {
            let value = project.reader.text(&entry.key, &entry.value);
            match SysctlName::parse(&entry.key) {
                Ok(name) => tuning.sysctls.extend(value.map(|value| (name.0, value))),
                Err(bad) => project.reader.bad("sysctls", bad, entry.key_extent),
            }
        }
    }
    if let Some(node) = service.get("group_add") {
        tuning.groups.extend(project.reader.texts("group_add", node));
    }
    if let Some(node) = service.get("extra_hosts") {
        hosts(project, node, &mut tuning);
    }
    // One word or a list of them.
    for item in service.get("dns_search").map(words).unwrap_or_default() {
        tuning.dns_search.extend(project.reader.format::<DnsName>("dns_search", item).map(|name| name.0));
    }
    for item in service.get("dns_opt").map(words).unwrap_or_default() {
        tuning.dns_options.extend(project.reader.format::<DnsOption>("dns_opt", item).map(|option| option.0));
    }
    tuning.oom_score_adj = service.get("oom_score_adj").and_then(|node| score(project, node));
    tuning.domainname = service.get("domainname").and_then(|node| project.reader.text("domainname", node));
    tuning.stdin = service.get("stdin_open").is_some_and(|node| project.reader.flag("stdin_open", node));
    tuning
}

fn words(node: &Node) -> Vec<&Node> {
    match &node.value {
        Value::List(items) => items.iter().collect(),
        Value::Scalar(_) | Value::Map(_) | Value::Unknown => vec![node],
    }
}

/// `NAME=ADDRESS` or `NAME:ADDRESS`, or a mapping of names to an address or several.
fn hosts(project: &mut Project<'_>, node: &Node, tuning: &mut Tuning) {
    let mut add = |project: &mut Project<'_>, name: &str, address: &str, extent: Extent| match (
        DnsName::parse(name),
        HostAddress::parse(address),
    ) {
        (Ok(name), Ok(address)) => drop(tuning.hosts.insert((name.0, address.0))),
        (Err(bad), _) | (_, Err(bad)) => project.reader.bad("extra_hosts", bad, extent),
    };
    if let Value::Map(entries) = &node.value {
        for entry in entries {
            for item in words(&entry.value) {
                if let Some(address) = project.reader.text(&entry.key, item) {
                    add(project, &entry.key, &address, item.extent);
                }
            }
        }
        return;
    }
    for item in project.reader.list("extra_hosts", node) {
        let Some(text) = project.reader.text("extra_hosts", item) else { continue };
        match text.split_once('=').or_else(|| text.split_once(':')) {
            Some((name, address)) => add(project, name, address, item.extent),
            None => project.reader.wrong("extra_hosts", "NAME:ADDRESS", item),
        }
    }
}

fn score(project: &mut Project<'_>, node: &Node) -> Option<i16> {
    let number = node.scalar().and_then(|scalar| scalar.text.parse::<i16>().ok());
    let number = number.filter(|number| (-1000..=1000).contains(number));
    if number.is_none() {
        project.reader.wrong("oom_score_adj", "a whole number from -1000 to 1000", node);
    }
    number
}

fn ulimits(project: &mut Project<'_>, node: &Node, tuning: &mut Tuning) {
    for entry in project.reader.map("ulimits", node) {
        let name = match UlimitName::parse(&entry.key) {
            Ok(name) => name.0,
            Err(bad) => {
                project.reader.bad("ulimits", bad, entry.key_extent);
                continue;
            }
        };
        let both = match &entry.value.value {
            Value::Map(_) => {
                let found = project.reader.keys(&entry.value, &keys::ULIMIT);
                let mut value = |key| found.get(key).and_then(|node| project.reader.format::<LimitText>(key, node));
                let (soft, hard) = (value("soft"), value("hard"));
                soft.or(hard).zip(hard.or(soft)).map(|(soft, hard)| (soft.0, hard.0))
            }
            _ => project.reader.format::<LimitText>(&entry.key, &entry.value).map(|both| (both.0, both.0)),
        };
        let Some((soft, hard)) = both else { continue };
        if soft > hard {
            project.reader.error(codes::VALUE, entry.value.extent, format!("`{name}`: {SOFT_ABOVE_HARD}"));
        }
        tuning.ulimits.insert(name, (soft, hard));
    }
}
