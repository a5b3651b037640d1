//! Certificates of one registry, where Docker and Podman look for them (containers-certs.d(5)):
//! `/etc/containers/certs.d/HOST[:PORT]/` with authorities `*.crt` and a client's `*.cert` with its `*.key`.

use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::super::endpoint::Endpoint;
use super::super::failure::message;
use crate::error::{Doing, Error, Result};

/// Who we are to a registry: certificates, the client's first, and its key.
type Client = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What there is for one registry.
#[derive(Default)]
pub(super) struct Own {
    pub(super) authorities: Vec<PathBuf>,
    pub(super) client: Option<Client>,
}

impl Own {
    /// From the first directory that there is for this registry.
    pub(super) fn of(dirs: &[PathBuf], to: &Endpoint) -> Result<Self> {
        let named = [format!("{}:{}", to.host, to.port), to.authority(), hub(to).to_owned()];
        let candidates = dirs.iter().flat_map(|dir| named.iter().map(|name| dir.join(name)));
        match candidates.into_iter().find(|dir| dir.is_dir()) {
            Some(dir) => Self::read(&dir),
            None => Ok(Self::default()),
        }
    }

    fn read(dir: &Path) -> Result<Self> {
        let entries = std::fs::read_dir(dir).doing(|| format!("read {}", dir.display()))?;
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|e| e.path())).collect();
        files.sort();
        let is = |file: &Path, kind: &str| file.extension().is_some_and(|e| e == kind);
        let authorities = files.iter().filter(|file| is(file, "crt")).cloned().collect();
        let client = match files.iter().find(|file| is(file, "cert")) {
            Some(cert) => Some((read(cert)?, key(&cert.with_extension("key"))?)),
            None => None,
        };
        Ok(Self { authorities, client })
    }
}

/// References name Docker Hub otherwise than its API does.
fn hub(to: &Endpoint) -> &str {
    if to.host == "registry-1.docker.io" { "docker.io" } else { &to.host }
}

/// The certificates of a PEM file.
pub(super) fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let doing = || format!("read {}", file.display());
    let mut reader = std::io::BufReader::new(std::fs::File::open(file).doing(doing)?);
    rustls_pemfile::certs(&mut reader).collect::<std::io::Result<_>>().doing(doing)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    let doing = || format!("read {}", file.display());
    let mut reader = std::io::BufReader::new(std::fs::File::open(file).doing(doing)?);
    let key = rustls_pemfile::private_key(&mut reader).doing(doing)?;
    let none = || -> Error { message("BX0304", format!("{} holds no private key", file.display())) };
    key.ok_or_else(none)
}
