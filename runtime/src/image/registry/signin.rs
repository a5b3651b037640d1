//! Signing in and out of a registry: the login is tried first and kept only when the registry takes it.

use std::path::Path;

use super::credentials::{self, Login};
use super::http::Call;
use super::{Registry, challenge, failure, token};
use crate::error::{Error, Result};
use crate::image::StoreOptions;

/// Tries a login at a registry (`registry.example[:5000]`, `docker.io`) and keeps it in `file`, or in the credential
/// helper that `file` names. Returns where it is kept.
///
/// # Errors
/// `Registry` `BX0301` when the registry does not answer, `BX0304` when it refuses the login; `Io`, `Conflict` when the
/// file cannot be changed. Nothing is kept on error.
pub fn sign_in(options: &StoreOptions, host: &str, user: &str, password: &str, file: &Path) -> Result<String> {
    let host = known_as(host)?;
    let login = Login::typed(user, password);
    Registry::new(&host, options)?.try_login(&login)?;
    credentials::save(file, &host, &login)
}

/// Forgets the login of a registry; whether there was one.
///
/// # Errors
/// `Io`, `Conflict`; `Registry` `BX0304` when the helper the file names fails.
pub fn sign_out(host: &str, file: &Path) -> Result<bool> {
    credentials::remove(file, &known_as(host)?)
}

/// What people copy from a browser is a host as well.
fn known_as(text: &str) -> Result<String> {
    let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = text.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    let host =
        if ["index.docker.io", "registry-1.docker.io", "hub.docker.com"].contains(&host) { "docker.io" } else { host };
    super::Endpoint::of_registry(host, &std::collections::BTreeSet::new())?;
    if host.contains('/') {
        return Err(Error::Unsupported(format!("`{text}` is not a registry: give its host, without a repository")));
    }
    Ok(host.to_ascii_lowercase())
}

impl Registry {
    /// Whether the registry takes this login.
    fn try_login(&self, login: &Login) -> Result<()> {
        let answer = self.follow(&self.api, &Call::get("/v2/", &[]), None)?;
        match answer.status {
            // it asks nobody for anything: the login is kept as given
            200 => return Ok(()),
            401 => {}
            status => {
                let text = format!("{} answered {status} to /v2/: it is no image registry", self.host);
                return Err(failure::message("BX0301", text));
            }
        }
        let challenges: Vec<_> = answer.all("www-authenticate").flat_map(challenge::parse).collect();
        if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
            return token::fetch(self, bearer, &[], Some(login), &|| self.refuses(login)).map(|_| ());
        }
        let answer = self.follow(&self.api, &Call::get("/v2/", &[]), Some(&login.basic()))?;
        if answer.status == 200 { Ok(()) } else { Err(self.refuses(login)) }
    }

    fn refuses(&self, login: &Login) -> Error {
        failure::message("BX0304", format!("{} refused the login of user {}", self.host, login.user))
    }
}
