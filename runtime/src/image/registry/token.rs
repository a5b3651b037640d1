//! Bearer tokens (distribution's token authentication): a GET to the realm the registry names, with Basic when there
//! is a login.

use super::challenge::Challenge;
use super::credentials::Login;
use super::endpoint::is_loopback;
use super::failure;
use super::http::Call;
use super::{Endpoint, Registry};
use crate::clock;
use crate::error::{Error, Result};

/// Largest answer read, in bytes.
const TOKEN_BYTES_MAX: u64 = 64 << 10;
/// What a token without a lifetime lives, in seconds (distribution's documentation).
const LIFE_S: u64 = 60;
/// A token is not used in its last seconds.
const MARGIN_S: u64 = 10;

pub(super) struct Token {
    pub(super) text: String,
    /// Boot time in milliseconds.
    pub(super) until_ms: u64,
}

#[derive(serde::Deserialize)]
struct Body {
    token: Option<String>,
    access_token: Option<String>,
    /// A number; what else is sent means the default.
    #[serde(default)]
    expires_in: serde_json::Value,
}

/// Fetches a token for a scope (`repository:shop/web:pull`), or for nothing to try a login. `refused` says what it means
/// when there is none.
pub(super) fn fetch(
    registry: &Registry,
    challenge: &Challenge,
    scopes: &[String],
    login: Option<&Login>,
    refused: &dyn Fn() -> Error,
) -> Result<Token> {
    let realm = challenge.params.get("realm").map_or("", String::as_str);
    let (server, path) = registry.api.join(realm)?;
    if !may_ask(&registry.api, &server) {
        let text = format!("{} wants its login sent to {server}, which is not encrypted", registry.host);
        return Err(failure::message("BX0304", text));
    }
    let mut path = path;
    let mut query = |key: &str, value: &str| {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(key);
        path.push('=');
        encode(value, &mut path);
    };
    if let Some(service) = challenge.params.get("service") {
        query("service", service);
    }
    // never what the registry asks for, only what we came for
    for scope in scopes {
        query("scope", scope);
    }
    let basic = login.map(Login::basic);
    let headers: Vec<(&str, &str)> = basic.iter().map(|value| ("authorization", value.as_str())).collect();
    let mut answer = registry.send(&server, &Call::get(&path, &headers), &[])?;
    match answer.status {
        200 => {}
        401 | 403 => return Err(refused()),
        429 => {
            let text = format!("{server} limits the rate of tokens");
            return Err(Error::Registry { code: "BX0306", message: text, retry: true });
        }
        status => {
            let text = format!("{server} answered {status} when asked for a token");
            return Err(Error::Registry { code: "BX0301", message: text, retry: status >= 500 });
        }
    }
    let bytes = answer.bytes(TOKEN_BYTES_MAX)?;
    let body: Option<Body> = serde_json::from_slice(&bytes).ok();
    let life = body.as_ref().and_then(|b| b.expires_in.as_i64());
    let life = life.map_or(LIFE_S, |s| u64::try_from(s).unwrap_or(0)).min(86_400);
    let text = body.and_then(|b| b.token.or(b.access_token)).filter(|t| is_token(t));
    let text = text.ok_or_else(|| failure::message("BX0304", format!("{server} answered without a token")))?;
    Ok(Token { text, until_ms: clock::boot_ms() + life.saturating_sub(MARGIN_S) * 1_000 })
}

/// An encrypted realm always; a plain one only where the registry itself is plain and it is the same or this host.
fn may_ask(api: &Endpoint, server: &Endpoint) -> bool {
    server.is_tls || (!api.is_tls && (server.host == api.host || (is_loopback(&server.host) && is_loopback(&api.host))))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

fn encode(value: &str, out: &mut String) {
    use std::fmt::Write as _;
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes every write");
        }
    }
}
