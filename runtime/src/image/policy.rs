//! Which images may come from a registry: `policy.json` (containers-policy.json(5)), and the signatures it asks for, as
//! cosign keeps them (an image `sha256-HEX.sig` beside the signed one). Only ECDSA P-256 keys in files; what else a policy
//! may ask for cannot be checked here, and what cannot be checked is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::manifest::{Descriptor, MANIFEST_BYTES_MAX};
use super::pull::Origin;
use super::{Digest, ImageRef};
use crate::error::{Error, Result};

mod signature;

use signature::Key;

/// Largest policy and key file read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Signatures of one image that are looked at.
const SIGNATURES_MAX: usize = 64;
/// Largest signed payload, in bytes.
const PAYLOAD_BYTES_MAX: u64 = 64 << 10;

/// What the file says.
#[derive(Debug, Deserialize)]
pub(super) struct Policy {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// One thing an image has to meet.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Requirement {
    #[serde(rename = "type")]
    kind: String,
    key_path: Option<PathBuf>,
    #[serde(default)]
    key_paths: Vec<PathBuf>,
    /// What else it says, `signedIdentity` apart, changes what it means.
    signed_identity: Option<Identity>,
    #[serde(flatten)]
    more: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, Deserialize)]
struct Identity {
    #[serde(rename = "type")]
    kind: String,
}

impl Policy {
    /// `None` where there is no file: everything may come then.
    ///
    /// # Errors
    /// `Registry` `BX0308` naming the file that cannot be understood.
    pub(super) fn read(file: &Path) -> Result<Option<Self>> {
        let Some(bytes) = read_bounded(file)? else { return Ok(None) };
        let bad = |e: serde_json::Error| refused(format!("{} is not valid: {e}", file.display()));
        serde_json::from_slice(&bytes).map(Some).map_err(bad)
    }

    /// Refuses an image that does not meet all that is asked of its name. `signed` is the digest its tag stands for.
    ///
    /// # Errors
    /// `Registry`: `BX0308`, or why the signatures could not be fetched.
    pub(super) fn check(&self, origin: &dyn Origin, reference: &ImageRef, signed: &Digest) -> Result<()> {
        let requirements = self.requirements(reference);
        if requirements.is_empty() {
            return Err(refused(format!(
                "`{}`: policy.json asks for nothing, which accepts nothing",
                reference.familiar()
            )));
        }
        for requirement in requirements {
            match requirement.kind.as_str() {
                "insecureAcceptAnything" => {}
                "reject" => return Err(refused(format!("`{}` is rejected by policy.json", reference.familiar()))),
                "sigstoreSigned" => requirement.check(origin, reference, signed)?,
                other => {
                    let what =
                        format!("`{}`: policy.json asks for `{other}`, which is not supported", reference.familiar());
                    return Err(refused(what));
                }
            }
        }
        Ok(())
    }

    /// Those of the longest scope that fits: name with tag or digest, repository, what is above it, host, `*.domain`, all.
    fn requirements(&self, reference: &ImageRef) -> &[Requirement] {
        let Some(scopes) = self.transports.get("docker") else { return &self.default };
        let name = format!("{}/{}", reference.host(), reference.repository());
        let mut wanted = vec![reference.to_string()];
        wanted.extend(reference.tag().map(|tag| format!("{name}:{tag}")));
        let mut part = name.as_str();
        wanted.push(part.to_owned());
        while let Some((above, _)) = part.rsplit_once('/') {
            wanted.push(above.to_owned());
            part = above;
        }
        let mut host = reference.host();
        while let Some((_, domain)) = host.split_once('.') {
            wanted.push(format!("*.{domain}"));
            host = domain;
        }
        wanted.push(String::new());
        wanted.iter().find_map(|scope| scopes.get(scope)).unwrap_or(&self.default)
    }
}

impl Requirement {
    /// One good signature by one of the keys is enough.
    fn check(&self, origin: &dyn Origin, reference: &ImageRef, signed: &Digest) -> Result<()> {
        let name = reference.familiar();
        if let Some(other) = self.more.keys().next() {
            return Err(refused(format!("`{name}`: policy.json says `{other}`, which is not supported")));
        }
        if let Some(identity) = self.signed_identity.as_ref().map(|i| i.kind.as_str())
            && !matches!(identity, "matchRepository" | "matchRepoDigestOrExact")
        {
            return Err(refused(format!("`{name}`: policy.json says `{identity}`, which is not supported")));
        }
        let keys = self.key_path.iter().chain(&self.key_paths).map(|path| key(path)).collect::<Result<Vec<_>>>()?;
        if keys.is_empty() {
            return Err(refused(format!("`{name}`: policy.json asks for signatures and names no key (keyPath)")));
        }
        let mut why = "it has no signature".to_owned();
        for layer in signatures(origin, reference, signed)? {
            let Some(signature) = layer.annotations.as_ref().and_then(|notes| notes.get(signature::ANNOTATION)) else {
                continue;
            };
            match signature::check(&payload(origin, reference, &layer)?, signature, &keys, reference, signed) {
                Ok(()) => return Ok(()),
                Err(bad) => why = bad,
            }
        }
        Err(refused(format!("`{name}` ({signed}) is not signed as policy.json asks: {why}")))
    }
}

/// The layers of the image that holds the signatures of `signed`; none where there is no such image.
fn signatures(origin: &dyn Origin, reference: &ImageRef, signed: &Digest) -> Result<Vec<Descriptor>> {
    #[derive(Deserialize)]
    struct Signatures {
        #[serde(default)]
        layers: Vec<Descriptor>,
    }
    let at = format!("{}/{}:sha256-{}.sig", reference.host(), reference.repository(), signed.hex());
    let at: ImageRef = at.parse().map_err(|e: super::RefError| refused(e.to_string()))?;
    let fetched = match origin.manifest(&at) {
        Ok(fetched) => fetched,
        Err(Error::Registry { code: "BX0302", .. }) => return Ok(Vec::new()),
        Err(other) => return Err(other),
    };
    let mut found: Signatures =
        serde_json::from_slice(&fetched.bytes).map_err(|e| refused(format!("`{at}` cannot be read: {e}")))?;
    found.layers.truncate(SIGNATURES_MAX);
    Ok(found.layers)
}

fn payload(origin: &dyn Origin, reference: &ImageRef, layer: &Descriptor) -> Result<Vec<u8>> {
    use std::io::Read as _;
    if layer.size > PAYLOAD_BYTES_MAX {
        return Err(refused(format!(
            "a signature of `{}` is larger than {PAYLOAD_BYTES_MAX} bytes",
            reference.familiar()
        )));
    }
    let mut bytes = Vec::new();
    let read = origin.blob(reference, layer, 0)?.take(layer.size + 1).read_to_end(&mut bytes);
    read.map_err(super::unpack::unwrap_io)?;
    super::pull::check_digest(&bytes, &layer.digest, "a signature's payload")?;
    Ok(bytes)
}

fn key(path: &Path) -> Result<Key> {
    let missing = || refused(format!("the key {} that policy.json names is not there", path.display()));
    let bytes = read_bounded(path)?.ok_or_else(missing)?;
    Key::parse(&bytes).ok_or_else(|| refused(format!("{} is no public key in PEM for ECDSA P-256", path.display())))
}

fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX.min(MANIFEST_BYTES_MAX)).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(refused(format!("{} cannot be read: {e}", path.display()))),
    }
}

fn refused(message: String) -> Error {
    Error::Registry { code: "BX0308", message, retry: false }
}

#[cfg(test)]
mod tests;
