//! An origin: scheme, host and port. What credentials are bound to.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use hyper::Uri;

use super::failure;
use crate::error::Result;

/// Longest URL followed, in bytes.
const URL_BYTES_MAX: usize = 8 << 10;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) is_tls: bool,
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Endpoint {
    /// The API of the registry that references call `host`. Plain HTTP for loopback and for `insecure` ones.
    pub(super) fn of_registry(host: &str, insecure: &BTreeSet<String>) -> Result<Self> {
        // Docker Hub's references name a host that does not speak the API
        let api = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let (name, port) = split_port(api)
            .ok_or_else(|| failure::message("BX0301", format!("`{host}` is not a host name with an optional port")))?;
        let is_tls = !(is_loopback(&name) || insecure.contains(host) || insecure.contains(&name));
        Ok(Self { port: port.unwrap_or(if is_tls { 443 } else { 80 }), host: name, is_tls })
    }

    /// Plain HTTP at `HOST[:PORT]`.
    pub(super) fn plain(text: &str) -> Option<Self> {
        let (host, port) = split_port(text)?;
        Some(Self { is_tls: false, host: host.to_ascii_lowercase(), port: port.unwrap_or(80) })
    }

    /// What a `Location` or a realm means, seen from here: the origin and the path with its query.
    pub(super) fn join(&self, location: &str) -> Result<(Self, String)> {
        let refuse = || failure::message("BX0301", format!("{self} sends us to an address that is none"));
        if location.len() > URL_BYTES_MAX || location.is_empty() {
            return Err(refuse());
        }
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok((self.clone(), location.to_owned()));
        }
        let uri: Uri = location.parse().map_err(|_| refuse())?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(refuse()),
        };
        // the parser of addresses takes `[]` for a host, and anything between the brackets
        let (host, _) = uri.host().and_then(split_port).ok_or_else(refuse)?;
        let host = host.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        Ok((Self { is_tls, host, port }, path))
    }

    /// The value of a `Host` header.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority())
    }
}

/// Whether the text names this host itself: then nobody can listen in.
pub(super) fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|a| a.is_loopback())
}

fn split_port(host: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = host.strip_prefix('[') {
        let (name, after) = rest.split_once(']')?;
        name.parse::<std::net::Ipv6Addr>().ok()?;
        return match after.strip_prefix(':') {
            Some(port) => Some((name.to_owned(), Some(port.parse().ok()?))),
            None => after.is_empty().then(|| (name.to_owned(), None)),
        };
    }
    match host.split_once(':') {
        Some((name, port)) => Some((name.to_owned(), Some(port.parse().ok()?))),
        None => Some((host.to_owned(), None)),
    }
    .filter(|(name, _)| !name.is_empty() && !name.contains(['[', ']', ':']))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn api(host: &str) -> String {
        let insecure = BTreeSet::from(["plain.example:5000".to_owned()]);
        Endpoint::of_registry(host, &insecure).unwrap().to_string()
    }

    #[test]
    fn plain_http_is_for_loopback_and_the_named() {
        assert_eq!(api("docker.io"), "https://registry-1.docker.io");
        assert_eq!(api("registry.example:5000"), "https://registry.example:5000");
        assert_eq!(api("plain.example:5000"), "http://plain.example:5000");
        assert_eq!(api("plain.example"), "https://plain.example");
        assert_eq!(api("localhost:5000"), "http://localhost:5000");
        assert_eq!(api("127.9.0.1"), "http://127.9.0.1");
        assert_eq!(api("[::1]:5000"), "http://[::1]:5000");
        assert_eq!(api("localhost.example"), "https://localhost.example");
    }

    proptest! {
        #[test]
        fn any_address_is_refused_or_an_origin_with_a_path(to in "(.{0,60}|(https?:)?//[a-z0-9@:.\\[\\]]{0,20}[/?#][a-z?#%]{0,9})") {
            let at = Endpoint::of_registry("r.example", &BTreeSet::new()).unwrap();
            if let Ok((next, path)) = at.join(&to) {
                prop_assert!(path.starts_with('/') || path.starts_with('?'), "{path}");
                prop_assert!(!next.host.is_empty() && !next.host.contains(['@', '/', '?', '#']), "{next}");
            }
        }
    }

    #[test]
    fn addresses_in_answers_are_joined_or_refused() {
        let at = Endpoint::of_registry("r.example", &BTreeSet::new()).unwrap();
        let join = |to: &str| at.join(to).map(|(e, path)| format!("{e} {path}")).ok();
        assert_eq!(join("/v2/x?y=z").as_deref(), Some("https://r.example /v2/x?y=z"));
        assert_eq!(join("https://CDN.example:8443/b?sig=1").as_deref(), Some("https://cdn.example:8443 /b?sig=1"));
        assert_eq!(join("https://r.example:443/b").as_deref(), Some("https://r.example /b"), "the same origin");
        for bad in [
            "",
            "//evil.example/x",
            "ftp://r.example/x",
            "file:///etc/passwd",
            "relative",
            "https://",
            "http://[]/",
            "http://[x]/",
        ] {
            assert_eq!(join(bad), None, "{bad}");
        }
    }
}
