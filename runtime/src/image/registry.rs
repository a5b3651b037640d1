//! A client of the OCI distribution API (distribution-spec 1.1; Docker registry v2): manifests, blobs, tags, uploads.
//!
//! Credentials belong to one origin (scheme, host, port): a redirect or a token server elsewhere never sees what was
//! meant for the registry. Every body has a bound, every wait a deadline. Failures are told apart by code, `BX0301` to
//! `BX0307`. Knows nothing of the store.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::Method;

use super::manifest::{ACCEPT, Descriptor, MANIFEST_BYTES_MAX};
use super::pull::{Fetched, Origin, check_digest};
use super::store::lock;
use super::unpack::unwrap_io;
use super::{Digest, ImageRef, StoreOptions};
use crate::clock;
use crate::error::{Doing, Error, Result};

mod challenge;
mod conf;
mod connect;
mod credentials;
mod ecdsa;
mod endpoint;
mod failure;
mod http;
mod mirrors;
mod proxy;
mod push;
mod resolve;
mod signin;
mod token;

#[cfg(any(test, fuzzing))]
pub(crate) use challenge::fuzz as fuzz_challenges;
use connect::Connector;
use credentials::Login;
use endpoint::Endpoint;
use failure::{Asked, Failure};
use http::{Answer, Call};

pub(super) use credentials::usual_files;
pub(super) use ecdsa::is_signed_by_p256;
pub(super) use mirrors::Mirrors;
pub use proxy::Proxies;
pub(super) use push::Sent;
pub use signin::{sign_in, sign_out};

/// Redirects followed for one request.
const REDIRECTS_MAX: usize = 5;
/// A rate limit that passes within this is waited for, in seconds; a longer one is told.
const RATE_WAIT_S_MAX: u64 = 10;
/// Below this a server that ignores ranges is let send everything anew, in bytes.
const SKIP_BYTES_FREE: u64 = 256 << 10;
/// Largest list of tags read, in bytes.
const TAGS_BYTES_MAX: u64 = 1 << 20;

/// One registry, with what was learned about getting in.
pub(super) struct Registry {
    /// As in references.
    host: String,
    api: Endpoint,
    connector: Connector,
    auth_files: Vec<PathBuf>,
    /// The registry itself has a public address: then nothing it says leads us into a private network.
    is_public: AtomicBool,
    /// By scope.
    grants: Mutex<BTreeMap<String, Grant>>,
}

/// An `Authorization` header for one scope, until a boot time in milliseconds.
#[derive(Clone)]
struct Grant {
    header: String,
    until_ms: u64,
}

impl Registry {
    pub(super) fn new(host: &str, options: &StoreOptions) -> Result<Self> {
        Ok(Self {
            host: host.to_owned(),
            api: Endpoint::of_registry(host, &options.insecure)?,
            connector: Connector::new(options),
            auth_files: options.auth_files.clone().unwrap_or_default(),
            is_public: AtomicBool::new(false),
            grants: Mutex::default(),
        })
    }

    /// One call of the API, with log-in and redirects; any status that is not an error of ours to explain comes back.
    fn ask(&self, asked: &Asked<'_>, call: &Call<'_>) -> Result<Answer> {
        self.ask_at(asked, &self.api.clone(), call)
    }

    /// The same at an address the registry gave us.
    fn ask_at(&self, asked: &Asked<'_>, at: &Endpoint, call: &Call<'_>) -> Result<Answer> {
        let scope = asked.scope();
        let granted = self.grant(&scope);
        let answer = self.follow(at, call, granted.as_deref())?;
        if answer.status != 401 || *at != self.api {
            return Ok(answer);
        }
        let login = credentials::find(&self.auth_files, &self.host, asked.reference.repository())?;
        let grant = self.log_in(asked, &answer, login.as_ref())?;
        let answer = self.follow(at, call, Some(&grant.header))?;
        if answer.status == 401 {
            return Err(failure::refused(asked, login.as_ref()));
        }
        lock(&self.grants).insert(scope, grant);
        Ok(answer)
    }

    /// A question that may be asked again: where the registry says that it is too busy for a moment, it is.
    fn get(&self, asked: &Asked<'_>, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let mut waited_s = 0;
        loop {
            let answer = self.ask(asked, &Call::get(path, headers))?;
            let after_s = answer.one("retry-after").and_then(|after| after.trim().parse::<u64>().ok());
            match after_s.filter(|_| matches!(answer.status, 429 | 503)).map(|after_s| after_s.max(1)) {
                Some(after_s) if waited_s + after_s <= RATE_WAIT_S_MAX => {
                    tracing::debug!(host = %self.host, after_s, "told to wait");
                    std::thread::sleep(std::time::Duration::from_secs(after_s));
                    waited_s += after_s;
                }
                Some(_) | None => return Ok(answer),
            }
        }
    }

    fn grant(&self, scope: &str) -> Option<String> {
        let grants = lock(&self.grants);
        let grant = grants.get(scope).filter(|g| g.until_ms > clock::boot_ms())?;
        Some(grant.header.clone())
    }

    /// Answers the registry's challenge: Bearer where offered, else Basic.
    fn log_in(&self, asked: &Asked<'_>, answer: &Answer, login: Option<&Login>) -> Result<Grant> {
        let challenges: Vec<_> = answer.all("www-authenticate").flat_map(challenge::parse).collect();
        if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
            let refused = || failure::refused(asked, login);
            let token = token::fetch(self, bearer, &asked.scopes(), login, &refused)?;
            return Ok(Grant { header: format!("Bearer {}", token.text), until_ms: token.until_ms });
        }
        let offers_basic = challenges.iter().any(|c| c.scheme == "basic");
        match login {
            Some(login) if offers_basic => Ok(Grant { header: login.basic(), until_ms: u64::MAX }),
            Some(_) | None => Err(failure::refused(asked, login)),
        }
    }

    /// One call and where it is redirected to. Only the registry itself sees `authorization`.
    fn follow(&self, at: &Endpoint, call: &Call<'_>, authorization: Option<&str>) -> Result<Answer> {
        let mut at = at.clone();
        let mut path = call.path.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let authorization = authorization.filter(|_| at == self.api).map(|value| ("authorization", value));
            let call = Call { path: &path, method: call.method.clone(), ..*call };
            let answer = self.send(&at, &call, authorization.as_slice())?;
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            if !matches!(call.method, Method::GET | Method::HEAD) {
                let text = format!("{} redirects an upload, which no registry has reason to do", self.host);
                return Err(failure::message("BX0301", text));
            }
            let location = answer.one("location").unwrap_or_default().to_owned();
            let (next, next_path) = at.join(&location)?;
            if !next.is_tls && self.api.is_tls {
                return Err(failure::message("BX0301", format!("{} redirects to plain HTTP at {next}", self.host)));
            }
            (at, path) = (next, next_path);
        }
        Err(failure::message("BX0301", format!("{} redirects more than {REDIRECTS_MAX} times", self.host)))
    }

    /// One request to any origin the registry led us to.
    fn send(&self, to: &Endpoint, call: &Call<'_>, more: &[(&str, &str)]) -> Result<Answer> {
        let is_ours = *to == self.api;
        let only_public = !is_ours && self.is_public.load(Ordering::Relaxed);
        let wire = self.connector.connect(to, only_public)?;
        if is_ours {
            self.is_public.store(wire.is_public, Ordering::Relaxed);
        }
        http::call(wire, to, call, more)
    }

    /// Turns a status that is no success into the error that says what to do.
    fn explain(&self, asked: &Asked<'_>, mut answer: Answer) -> Error {
        let failure = Failure::read(&mut answer);
        let login = credentials::find(&self.auth_files, &self.host, asked.reference.repository()).ok().flatten();
        match answer.status {
            404 if asked.is_manifest => self.explain_missing(asked, &failure),
            _ => failure.explain(asked, &answer, login.as_ref()),
        }
    }

    /// No such manifest: is it the tag or the repository that is unknown?
    fn explain_missing(&self, asked: &Asked<'_>, failure: &Failure) -> Error {
        let Some(tag) = asked.reference.tag().filter(|_| asked.reference.digest().is_none()) else {
            return failure::no_digest(asked);
        };
        if failure.code == "NAME_UNKNOWN" {
            return failure::no_repository(asked);
        }
        match self.tags(asked.reference) {
            Ok(tags) => failure::no_tag(asked, tag, &tags),
            Err(Error::Registry { code: "BX0303", .. }) => failure::no_repository(asked),
            Err(_) => failure::no_tag(asked, tag, &[]),
        }
    }

    /// Tags of the reference's repository, as the registry orders them; at most its first thousand.
    pub(super) fn tags(&self, reference: &ImageRef) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Tags {
            tags: Option<Vec<String>>,
        }
        let asked = Asked::pull(&self.host, reference);
        let mut answer = self.get(&asked, &format!("/v2/{}/tags/list?n=1000", reference.repository()), &[])?;
        if answer.status != 200 {
            return Err(Failure::read(&mut answer).explain(&asked, &answer, None));
        }
        let bytes = answer.bytes(TAGS_BYTES_MAX)?;
        let tags: Tags =
            serde_json::from_slice(&bytes).map_err(std::io::Error::from).doing(|| "read the list of tags")?;
        Ok(tags.tags.unwrap_or_default())
    }
}

impl Origin for Registry {
    fn manifest(&self, reference: &ImageRef) -> Result<Fetched> {
        let asked = Asked { is_manifest: true, ..Asked::pull(&self.host, reference) };
        let name = reference.digest().map_or_else(|| reference.tag().unwrap_or("latest"), Digest::as_str);
        let path = format!("/v2/{}/manifests/{name}", reference.repository());
        let mut answer = self.get(&asked, &path, &[("accept", ACCEPT)])?;
        if answer.status != 200 {
            return Err(self.explain(&asked, answer));
        }
        let media_type = answer.one("content-type").unwrap_or_default().to_owned();
        let said = answer.one("docker-content-digest").and_then(|d| d.parse::<Digest>().ok());
        let bytes = answer.bytes(MANIFEST_BYTES_MAX)?;
        if let Some(said) = said {
            check_digest(&bytes, &said, "the manifest")?;
        }
        Ok(Fetched { bytes, media_type })
    }

    fn blob(&self, reference: &ImageRef, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + '_>> {
        let asked = Asked::pull(&self.host, reference);
        let path = format!("/v2/{}/blobs/{}", reference.repository(), blob.digest);
        let range = format!("bytes={from}-");
        let headers = [("range", range.as_str())];
        let headers = if from > 0 { &headers[..] } else { &[] };
        let mut answer = self.get(&asked, &path, headers)?;
        if answer.status == 200 && from > SKIP_BYTES_FREE {
            // one of several servers behind a name may not know ranges: ask once more before all of it is sent again
            answer = self.get(&asked, &path, headers)?;
        }
        match answer.status {
            206 if answer.one("content-range").is_some_and(|r| r.starts_with(&format!("bytes {from}-"))) => {}
            // a server that does not know ranges sends all of it: pass over what is here
            200 => {
                let skipped = std::io::copy(&mut (&mut answer.body).take(from), &mut std::io::sink());
                skipped.map_err(unwrap_io)?;
            }
            206 | 416 => return Err(failure::unreachable(format!("{} sent another range than asked", self.host))),
            404 => return Err(failure::no_blob(&asked, &blob.digest)),
            _ => return Err(self.explain(&asked, answer)),
        }
        Ok(Box::new(answer.body))
    }

    fn part(&self, reference: &ImageRef, blob: &Descriptor, from: u64, to: u64) -> Result<Option<Box<dyn Read + '_>>> {
        let asked = Asked::pull(&self.host, reference);
        let path = format!("/v2/{}/blobs/{}", reference.repository(), blob.digest);
        let range = format!("bytes={from}-{}", to.saturating_sub(1));
        let answer = self.get(&asked, &path, &[("range", &range)])?;
        let begins = format!("bytes {from}-");
        let is_part = answer.status == 206 && answer.one("content-range").is_some_and(|r| r.starts_with(&begins));
        Ok(if is_part { Some(Box::new(answer.body)) } else { None })
    }
}
