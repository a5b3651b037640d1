//! `registries.conf` version 2 (containers-registries.conf(5)): which registry a name really means, its mirrors, and
//! which of them speak plain HTTP. Names of images here never change: only where their bytes are asked for.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::failure::message;
use crate::error::{Doing, Error, Result};
use crate::image::ImageRef;

/// Largest file read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the files say.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Conf {
    #[serde(default)]
    registry: Vec<Rule>,
}

/// One `[[registry]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Rule {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

/// One `[[registry.mirror]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: PullFrom,
}

/// Which references a mirror is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// One place to ask, in the order they are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// `HOST[:PORT]/REPOSITORY`.
    pub(super) name: String,
    /// Asked by plain HTTP.
    pub(super) insecure: bool,
}

impl Conf {
    /// Reads the file and the directory of the same name with `.d`; what is not there says nothing.
    ///
    /// # Errors
    /// `Registry` `BX0301` naming the file that cannot be understood: asking the wrong registry would be worse.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let mut files = vec![file.to_owned()];
        let drop_ins = PathBuf::from(format!("{}.d", file.display()));
        if let Ok(entries) = std::fs::read_dir(&drop_ins) {
            let mut more: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
            more.retain(|path| path.extension().is_some_and(|e| e == "conf"));
            more.sort();
            files.extend(more);
        }
        let mut all = Self::default();
        for file in files {
            let text = match std::fs::metadata(&file) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Ok(meta) if meta.len() > FILE_BYTES_MAX => return Err(bad(&file, "it is too large")),
                Ok(_) | Err(_) => std::fs::read_to_string(&file).doing(|| format!("read {}", file.display()))?,
            };
            for rule in parse(&text).map_err(|why| bad(&file, &why))?.registry {
                // a later file's word about the same prefix is the last
                all.registry.retain(|known| known.prefix() != rule.prefix());
                all.registry.push(rule);
            }
        }
        Ok(all)
    }

    /// Where to ask for a reference: mirrors first, at last the registry itself.
    ///
    /// # Errors
    /// `Registry` `BX0301` when it is blocked.
    pub(super) fn places(&self, reference: &ImageRef) -> Result<Vec<Place>> {
        let name = format!("{}/{}", reference.host(), reference.repository());
        let fitting = self.registry.iter().filter(|rule| matches(rule.prefix(), &name));
        let Some(rule) = fitting.max_by_key(|rule| rule.prefix().len()) else {
            return Ok(vec![Place { name, insecure: false }]);
        };
        if rule.blocked {
            return Err(message("BX0301", format!("`{name}` is blocked by registries.conf")));
        }
        let by_digest = reference.digest().is_some();
        let is_asked = |mirror: &&Mirror| match mirror.pull_from_mirror {
            PullFrom::All => by_digest || !rule.mirror_by_digest_only,
            PullFrom::DigestOnly => by_digest,
            PullFrom::TagOnly => !by_digest,
        };
        let at = |location: &str| moved(&name, rule.prefix(), location);
        let mirrors = rule.mirror.iter().filter(is_asked);
        let mut places: Vec<Place> = mirrors.map(|m| Place { name: at(&m.location), insecure: m.insecure }).collect();
        let own = rule.location.as_deref().map_or_else(|| name.clone(), at);
        places.push(Place { name: own, insecure: rule.insecure });
        Ok(places)
    }
}

impl Rule {
    fn prefix(&self) -> &str {
        self.prefix.as_deref().or(self.location.as_deref()).unwrap_or_default()
    }
}

fn parse(text: &str) -> std::result::Result<Conf, String> {
    let conf: Conf = toml::from_str(text).map_err(|e| e.message().to_owned())?;
    match conf.registry.iter().find(|rule| rule.prefix().is_empty()) {
        Some(_) => Err("a [[registry]] has neither prefix nor location".to_owned()),
        None => Ok(conf),
    }
}

fn bad(file: &Path, why: &str) -> Error {
    message("BX0301", format!("{} is not valid: {why}", file.display()))
}

/// `host`, `host/path`, or `*.domain` for hosts below it.
fn matches(prefix: &str, name: &str) -> bool {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = name.split('/').next().unwrap_or_default();
        return domain.starts_with('.') && host.ends_with(domain);
    }
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The name with `location` in the place of its prefix.
fn moved(name: &str, prefix: &str, location: &str) -> String {
    let rest = match prefix.strip_prefix('*') {
        Some(_) => name.find('/').map_or("", |at| &name[at..]),
        None => name.strip_prefix(prefix).unwrap_or_default(),
    };
    format!("{}{rest}", location.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_refused_or_gives_a_place(text in "([a-z.*\\[\\]=\" \n]{0,80}|\\[\\[registry\\]\\]\nprefix=\"[a-z.*/:]{0,12}\"\nlocation=\"[a-z.*/:]{0,12}\"\n)") {
            if let Ok(places) = parse(&text).map(|conf| conf.places(&"a.b/c".parse().unwrap())) {
                prop_assert!(places.is_ok_and(|places| !places.is_empty()));
            }
        }
    }

    fn places(text: &str, reference: &str) -> Vec<String> {
        let found = parse(text).unwrap().places(&reference.parse().unwrap()).unwrap();
        found.into_iter().map(|p| format!("{}{}", p.name, if p.insecure { " plain" } else { "" })).collect()
    }

    #[test]
    fn the_longest_prefix_decides_and_mirrors_come_first() {
        let text = r#"
            unqualified-search-registries = ["docker.io"]
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror.example:5000/hub"
            insecure = true
            [[registry.mirror]]
            location = "digests.example"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "docker.io/shop"
            location = "own.example/shop"
            [[registry]]
            prefix = "*.test"
            location = "all.example"
        "#;
        assert_eq!(places(text, "nginx"), ["mirror.example:5000/hub/library/nginx plain", "docker.io/library/nginx"]);
        let pinned = format!("nginx@sha256:{}", "a".repeat(64));
        assert_eq!(places(text, &pinned)[1], "digests.example/library/nginx");
        assert_eq!(places(text, "shop/web:1"), ["own.example/shop/web"]);
        assert_eq!(places(text, "shopping/web:1").last().unwrap(), "docker.io/shopping/web");
        assert_eq!(places(text, "a.test/x/y"), ["all.example/x/y"]);
        assert_eq!(places(text, "test.example/x"), ["test.example/x"]);
    }

    #[test]
    fn blocked_and_broken_ones_are_refused() {
        let conf = parse("[[registry]]\nlocation = \"bad.example\"\nblocked = true").unwrap();
        assert!(conf.places(&"bad.example/x".parse().unwrap()).unwrap_err().to_string().contains("blocked"));
        assert!(parse("[[registry]]\ninsecure = true").is_err());
        assert!(parse("[[registry]").is_err());
    }
}
