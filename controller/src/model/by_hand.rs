//! How a container made by hand is told from a replica: labels of its own, never those of an object, so that no plan can name
//! it. Also what it takes that replicas must not be given: a network and host ids. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use runtime::runtime::ContainerConfig;
use runtime::{Error, Result};

use super::{ObservedContainer, ReplicaKey};

/// The name people gave it, or the one it got; there on every container made by hand and on no other.
pub const NAME: &str = "boxship.run.name";
/// The image as it was named.
pub const IMAGE: &str = "boxship.run.image";
/// It goes when it has ended.
pub const AUTO_REMOVE: &str = "boxship.run.rm";
/// `always`, `unless-stopped`, `on-failure`, `on-failure:3`.
pub const RESTART: &str = "boxship.run.restart";
/// How long a stop waits, in milliseconds.
pub const STOP_MS: &str = "boxship.run.stop-ms";
/// On an anonymous volume: the id of the container it goes with.
pub const VOLUME_OF: &str = "boxship.run.volume-of";
/// No label of a user may begin so.
pub const OURS: &str = "boxship.";

/// The network of containers made by hand.
pub const NETWORK: &str = "boxship-run";

/// Host ids that containers made by hand get, 64 Ki each: the last quarter of the pool that objects are given theirs from.
pub const IDS: (u32, u32) = (0x7c00_0000, 0x03fe_0000);

/// The name of a container made by hand; `None` when it was not.
#[must_use]
pub fn name_of(labels: &BTreeMap<String, String>) -> Option<&str> {
    labels.get(NAME).map(String::as_str)
}

/// A container as people name it: by its name (`brave_euler`), its id or a beginning of it that no other has, or as a replica
/// (`web-2`, `shop/web-2`), of which the latest attempt is meant.
///
/// # Errors
/// `NotFound`; `Conflict` naming those that are meant, when there are several.
pub fn find_container<'a>(all: &'a [Arc<ContainerConfig>], text: &str) -> Result<&'a Arc<ContainerConfig>> {
    let named = |config: &&Arc<ContainerConfig>| name_of(&config.labels) == Some(text);
    let exact = all.iter().find(named).or_else(|| all.iter().find(|config| config.id.as_str() == text));
    if let Some(found) = exact {
        return Ok(found);
    }
    let mut replicas: BTreeMap<ReplicaKey, (u32, &Arc<ContainerConfig>)> = BTreeMap::new();
    for config in all {
        let Some(observed) = ObservedContainer::from_config(config) else { continue };
        let key = observed.replica;
        if key.to_string() != text && format!("{}/{key}", key.workload.stack) != text {
            continue;
        }
        let latest = replicas.entry(key).or_insert((observed.attempt, config));
        if observed.attempt > latest.0 {
            *latest = (observed.attempt, config);
        }
    }
    let mut meant: Vec<&Arc<ContainerConfig>> = replicas.into_values().map(|(_, config)| config).collect();
    if meant.is_empty() && !text.is_empty() {
        meant = all.iter().filter(|config| config.id.as_str().starts_with(text)).collect();
    }
    match meant.as_slice() {
        [one] => Ok(one),
        [] => Err(Error::NotFound { what: "container", name: text.to_owned() }),
        several => {
            let ids: Vec<&str> = several.iter().map(|config| config.id.as_str()).collect();
            Err(Error::Conflict(format!("`{text}` may be {}: name one", ids.join(" or "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, ObjectKey, labels};

    fn container(id: &str, labels: &[(&str, &str)]) -> Arc<ContainerConfig> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Arc::new(ContainerConfig {
            id: id.parse().unwrap(),
            labels,
            hostname: String::new(),
            image: runtime::image::Digest::of(b"image"),
            entrypoint: None,
            args: None,
            env: BTreeMap::new(),
            sealed_env: BTreeMap::new(),
            working_dir: None,
            user: None,
            mounts: Vec::new(),
            network: runtime::runtime::NetworkMode::None,
            resources: runtime::runtime::Resources::default(),
            ids: runtime::runtime::IdRange { host_start: 0, len: 1 },
            security: runtime::runtime::SecurityConfig::default(),
            stop_signal: None,
            shm_bytes: 0,
            tty: false,
            init: false,
            dns_search: Vec::new(),
            pod: None,
            extras: runtime::runtime::Extras::default(),
            log: runtime::runtime::LogConfig::default(),
        })
    }

    fn replica(id: &str, stack: &str, attempt: &str) -> Arc<ContainerConfig> {
        let of = [(labels::STACK, stack), (labels::KIND, "app"), (labels::NAME, "web"), (labels::ORDINAL, "1")];
        let more = [(labels::TEMPLATE, "t"), (labels::ATTEMPT, attempt), (labels::SOURCE, "web.yaml")];
        container(id, &[&of[..], &more].concat())
    }

    #[test]
    fn a_container_is_found_by_name_id_and_replica() {
        let all = [
            container("3f09ab5d1e2c", &[(NAME, "brave_euler")]),
            container("3f10ab5d1e2c", &[(NAME, "web-2")]),
            replica("shop-web-1-aaaaaa", "shop", "0"),
            replica("shop-web-1-bbbbbb", "shop", "1"),
            replica("blog-web-1-cccccc", "blog", "0"),
        ];
        let found = |text: &str| find_container(&all, text).map(|config| config.id.to_string());
        assert_eq!(found("brave_euler").unwrap(), "3f09ab5d1e2c");
        assert_eq!(found("web-2").unwrap(), "3f10ab5d1e2c");
        assert_eq!(found("3f0").unwrap(), "3f09ab5d1e2c");
        assert_eq!(found("shop/web-1").unwrap(), "shop-web-1-bbbbbb", "the latest attempt");
        assert_eq!(found("shop-web-1-aaaaaa").unwrap(), "shop-web-1-aaaaaa");
        assert_eq!(found("3f").unwrap_err().to_string(), "`3f` may be 3f09ab5d1e2c or 3f10ab5d1e2c: name one");
        assert!(found("web-1").unwrap_err().to_string().contains("blog-web-1-cccccc or shop-web-1-bbbbbb"));
        assert!(found("nobody").unwrap_err().is_not_found() && found("").unwrap_err().is_not_found());
    }

    proptest::proptest! {
        /// Whatever labels people give: `run` refuses those that begin with ours, and no plan sees any other.
        #[test]
        fn no_labels_make_one_of_a_plan(
            own in proptest::collection::btree_map("[a-z.]{0,12}", "[a-z0-9]{0,6}", 0..6),
            ours in proptest::sample::subsequence(
                vec![IMAGE, AUTO_REMOVE, RESTART, STOP_MS], 0..4),
        ) {
            let mut given: Vec<(&str, &str)> = own
                .iter()
                .filter(|(label, _)| !label.starts_with(OURS))
                .map(|(label, value)| (label.as_str(), value.as_str()))
                .collect();
            given.extend(ours.iter().map(|label| (*label, "x")));
            given.push((NAME, "brave_euler"));
            let config = container("3f09ab5d1e2c", &given);
            proptest::prop_assert_eq!(ObservedContainer::from_config(&config), None);
            proptest::prop_assert_eq!(crate::model::ObservedVolume::from_labels(&config.labels), None);
        }
    }

    #[test]
    fn nothing_a_plan_looks_at_is_made_by_hand() {
        let own = container("3f09ab5d1e2c", &[(NAME, "brave_euler"), ("tier", "db")]);
        assert_eq!(ObservedContainer::from_config(&own), None);
        let key = ObjectKey { stack: NETWORK.to_owned(), kind: Kind::App, name: "web".to_owned() };
        assert_ne!(crate::plan::network_name(&key.stack).as_str(), NETWORK, "a stack that is called so");
    }
}
