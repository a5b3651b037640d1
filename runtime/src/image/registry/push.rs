//! Uploads (distribution-spec §Push): what is there is not sent, what another repository of the registry has is mounted
//! from it, the rest goes up in one piece. The manifest comes last, so that a tag never names half an image.

use std::fs::File;
use std::path::PathBuf;

use bytes::Bytes;
use hyper::Method;

use super::failure::{self, Asked, Failure};
use super::http::{Answer, Call, Payload};
use super::{Registry, credentials};
use crate::error::{Doing, Error, Result};
use crate::image::manifest::Descriptor;
use crate::image::{Digest, ImageRef};

/// Tries of one upload; a registry that restarts is back by the last.
const TRIES_MAX: u32 = 3;

/// How a blob got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Sent {
    /// It was there.
    Present,
    /// The registry took it over from another of its repositories.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

impl Registry {
    /// Makes a blob present in the repository of `to`. `from` is a repository of the same registry that may have it; `file`
    /// makes its bytes present, and is asked only when they are sent.
    pub(in crate::image) fn push_blob(
        &self,
        to: &ImageRef,
        blob: &Descriptor,
        file: &dyn Fn() -> Result<PathBuf>,
        from: Option<&str>,
    ) -> Result<Sent> {
        let mut tries = 1;
        loop {
            match self.push_once(to, blob, file, from) {
                Err(Error::Registry { retry: true, code: "BX0301", .. }) if tries < TRIES_MAX => tries += 1,
                other => return other,
            }
        }
    }

    fn push_once(
        &self,
        to: &ImageRef,
        blob: &Descriptor,
        file: &dyn Fn() -> Result<PathBuf>,
        from: Option<&str>,
    ) -> Result<Sent> {
        let asked = Asked { is_push: true, from, ..Asked::pull(&self.host, to) };
        let repository = to.repository();
        let there = self.ask(&asked, &Call::plain(Method::HEAD, &format!("/v2/{repository}/blobs/{}", blob.digest)))?;
        match there.status {
            200 => return Ok(Sent::Present),
            404 => {}
            _ => return Err(self.refused(&asked, there)),
        }
        let mount = from.map(|from| format!("?mount={}&from={from}", blob.digest)).unwrap_or_default();
        let begun = self.ask(&asked, &Call::plain(Method::POST, &format!("/v2/{repository}/blobs/uploads/{mount}")))?;
        match begun.status {
            201 => return Ok(Sent::Mounted),
            202 => {}
            _ => return Err(self.refused(&asked, begun)),
        }
        let (at, path) = self.api.join(begun.one("location").unwrap_or_default())?;
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{joint}digest={}", blob.digest);
        let file = file()?;
        let payload = || {
            let file = File::open(&file).doing(|| format!("open {}", file.display()))?;
            Ok(Payload::file(file, blob.size))
        };
        let headers = [("content-type", "application/octet-stream")];
        let call = Call { method: Method::PUT, path: &path, headers: &headers, payload: &payload };
        let done = self.ask_at(&asked, &at, &call)?;
        if done.status == 201 { Ok(Sent::Uploaded) } else { Err(self.refused(&asked, done)) }
    }

    /// Puts a manifest under the tag of `to`, or under its own digest where that has none.
    pub(in crate::image) fn push_manifest(&self, to: &ImageRef, bytes: &[u8], media_type: &str) -> Result<()> {
        let asked = Asked { is_push: true, ..Asked::pull(&self.host, to) };
        let digest = Digest::of(bytes);
        let path = format!("/v2/{}/manifests/{}", to.repository(), to.tag().unwrap_or(digest.as_str()));
        let payload = || Ok(Payload::bytes(Bytes::copy_from_slice(bytes)));
        let headers = [("content-type", media_type)];
        let call = Call { method: Method::PUT, path: &path, headers: &headers, payload: &payload };
        let done = self.ask(&asked, &call)?;
        if done.status != 201 {
            return Err(self.refused(&asked, done));
        }
        match done.one("docker-content-digest").and_then(|d| d.parse::<Digest>().ok()) {
            Some(said) if said != digest => {
                let message = format!("{} took {digest} for {said}: it changed the manifest", self.host);
                Err(Error::Registry { code: "BX0307", message, retry: false })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn refused(&self, asked: &Asked<'_>, mut answer: Answer) -> Error {
        let said = Failure::read(&mut answer);
        let login = credentials::find(&self.auth_files, &self.host, asked.reference.repository()).ok().flatten();
        if answer.status == 405 {
            let text = format!("{} takes no uploads (it answered 405): a mirror or a read-only registry", self.host);
            return failure::message("BX0301", text);
        }
        said.explain(asked, &answer, login.as_ref())
    }
}
