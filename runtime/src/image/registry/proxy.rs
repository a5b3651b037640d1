//! Proxies, as curl and Go programs find them: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in either case. Loopback is
//! never asked through one.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::endpoint::{Endpoint, is_loopback};
use super::failure::{message, unreachable};
use crate::error::Result;

/// Largest head of a proxy's answer, in bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Which proxy is asked for what; URLs as people write them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For registries spoken to by TLS.
    pub https: Option<String>,
    /// For plain ones.
    pub http: Option<String>,
    /// Hosts asked directly: `host`, `.domain`, `10.0.0.0/8`, `*`, comma-separated.
    pub direct: String,
}

/// One proxy.
pub(super) struct Proxy {
    pub(super) endpoint: Endpoint,
    /// The value of a `Proxy-Authorization` header.
    pub(super) authorization: Option<String>,
}

impl Proxies {
    /// What the environment says.
    #[must_use]
    pub fn from_env() -> Self {
        let var = |name: &str| {
            let both = [name.to_ascii_lowercase(), name.to_owned()];
            both.iter().find_map(|n| std::env::var(n).ok()).filter(|value| !value.trim().is_empty())
        };
        Self { https: var("HTTPS_PROXY"), http: var("HTTP_PROXY"), direct: var("NO_PROXY").unwrap_or_default() }
    }

    /// The proxy to ask for an origin; `None`: it is asked directly.
    pub(super) fn of(&self, to: &Endpoint) -> Result<Option<Proxy>> {
        let url = if to.is_tls { &self.https } else { &self.http };
        match url {
            Some(url) if !is_loopback(&to.host) && !self.is_direct(to) => parse(url.trim()).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    fn is_direct(&self, to: &Endpoint) -> bool {
        self.direct.split([',', ' ']).map(str::trim).filter(|rule| !rule.is_empty()).any(|rule| fits(rule, to))
    }
}

fn fits(rule: &str, to: &Endpoint) -> bool {
    let rule = rule.to_ascii_lowercase();
    if rule == "*" {
        return true;
    }
    if let (Some((network, bits)), Ok(address)) = (rule.split_once('/'), to.host.parse::<IpAddr>()) {
        return is_within(network, bits, address).unwrap_or(false);
    }
    let (host, port) = match rule.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, port.parse::<u16>().ok()),
        _ => (rule.as_str(), None),
    };
    let domain = host.trim_start_matches("*.").trim_start_matches('.');
    let is_below = to.host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    is_below && port.is_none_or(|port| port == to.port)
}

fn is_within(network: &str, bits: &str, address: IpAddr) -> Option<bool> {
    let network: IpAddr = network.parse().ok()?;
    let bits: u32 = bits.parse().ok()?;
    let (ours, theirs, width) = match (network, address) {
        (IpAddr::V4(n), IpAddr::V4(a)) => (u128::from(n.to_bits()), u128::from(a.to_bits()), 32),
        (IpAddr::V6(n), IpAddr::V6(a)) => (n.to_bits(), a.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return Some(false),
    };
    let rest = u32::checked_sub(width, bits)?;
    Some(rest == 128 || ours >> rest == theirs >> rest)
}

/// `[http://][USER:PASSWORD@]HOST[:PORT]`. Its secret is in no message.
fn parse(url: &str) -> Result<Proxy> {
    let rest = match url.split_once("://") {
        None => url,
        Some(("http", rest)) => rest,
        Some((scheme, _)) => {
            return Err(message("BX0301", format!("a proxy of the kind `{scheme}` is not supported, only http")));
        }
    };
    let rest = rest.split('/').next().unwrap_or_default();
    let (login, host) = rest.rsplit_once('@').map_or((None, rest), |(login, host)| (Some(login), host));
    let endpoint = Endpoint::plain(host)
        .ok_or_else(|| message("BX0301", format!("the proxy `{host}` is not a host with an optional port")))?;
    let authorization = login.map(|login| format!("Basic {}", STANDARD.encode(decode(login))));
    Ok(Proxy { endpoint, authorization })
}

/// Percent-encoding taken away (RFC 3986 §2.1).
fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        let hex = bytes.as_slice().get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()).filter(|_| byte == b'%') {
            Some(value) => {
                out.push(value);
                bytes.nth(1);
            }
            None => out.push(byte),
        }
    }
    out
}

/// Asks the proxy for a tunnel (RFC 9110 §9.3.6). The socket has its time-outs.
pub(super) fn tunnel(socket: &mut TcpStream, proxy: &Proxy, to: &Endpoint) -> Result<()> {
    let failed = |e: std::io::Error| unreachable(format!("the proxy {}: {e}", proxy.endpoint));
    let host = if to.host.contains(':') { format!("[{}]", to.host) } else { to.host.clone() };
    let target = format!("{host}:{}", to.port);
    let login = proxy.authorization.as_ref().map(|a| format!("Proxy-Authorization: {a}\r\n")).unwrap_or_default();
    write!(socket, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n").map_err(failed)?;
    let mut head = Vec::new();
    // byte by byte: what follows the head is the tunnel's
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).map_err(failed)?;
        head.push(byte[0]);
        if head.len() > HEAD_BYTES_MAX {
            return Err(message("BX0301", format!("the proxy {} answers without end", proxy.endpoint)));
        }
    }
    let line = String::from_utf8_lossy(&head);
    match line.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        Some("407") => Err(message("BX0304", format!("the proxy {} wants a login, or another one", proxy.endpoint))),
        status => {
            let status: String = status.unwrap_or("nonsense").chars().filter(char::is_ascii_alphanumeric).collect();
            Err(unreachable(format!("the proxy {} answered {status} when asked for {to}", proxy.endpoint)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(text: &str) -> Endpoint {
        Endpoint::of_registry(text, &std::collections::BTreeSet::new()).unwrap()
    }

    #[test]
    fn rules_for_direct_hosts_are_curls() {
        let direct = |rule: &str, host: &str| {
            let all = Proxies { https: Some("http://p:1".into()), direct: rule.into(), ..Proxies::default() };
            all.of(&to(host)).unwrap().is_none()
        };
        assert!(direct("a.example, reg.example", "reg.example") && direct(".example", "reg.example:5000"));
        assert!(direct("example", "reg.example") && direct("*", "x.test") && direct("10.0.0.0/8", "10.1.2.3"));
        assert!(!direct("eg.example", "reg.example") && !direct("10.0.0.0/8", "11.1.2.3"));
        assert!(!direct("", "reg.example") && !direct("reg.example:1", "reg.example"));
    }

    #[test]
    fn a_proxys_url_is_read_and_its_login_is_kept_from_messages() {
        let proxy = parse("http://me:p%40ss@proxy.example:3128/").unwrap();
        assert_eq!(proxy.endpoint.to_string(), "http://proxy.example:3128");
        assert_eq!(proxy.authorization.unwrap(), format!("Basic {}", STANDARD.encode("me:p@ss")));
        assert_eq!(parse("proxy:8080").unwrap().endpoint.port, 8080);
        let said = parse("socks5://me:secret@x").err().unwrap().to_string();
        assert!(said.contains("socks5") && !said.contains("secret"), "{said}");
    }
}
