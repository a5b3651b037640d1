//! One cosign signature: "simple signing" of containers, a JSON payload that names an image, and an ECDSA signature over
//! its bytes. Knows neither files nor registries.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::image::registry::is_signed_by_p256;
use crate::image::{Digest, ImageRef};

/// Where the manifest keeps the signature of a payload, in base64.
pub(super) const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The only type of payload there is (containers-signature(5); cosign's SIGNATURE_SPEC).
const TYPE: &str = "cosign container image signature";
/// A public key of this kind begins so, whichever it is (RFC 5480: id-ecPublicKey, secp256r1, an uncompressed point).
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT_BYTES: usize = 65;

/// A point on P-256.
#[derive(Debug)]
pub(super) struct Key(Vec<u8>);

impl Key {
    /// From PEM, `BEGIN PUBLIC KEY`.
    pub(super) fn parse(pem: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(pem).ok()?;
        let (_, rest) = text.split_once("-----BEGIN PUBLIC KEY-----")?;
        let (body, _) = rest.split_once("-----END PUBLIC KEY-----")?;
        let body: String = body.split_whitespace().collect();
        let der = STANDARD.decode(body).ok()?;
        let point = der.strip_prefix(&P256_HEAD)?;
        (point.len() == POINT_BYTES && point[0] == 4).then(|| Self(point.to_vec()))
    }

    fn is_signer(&self, payload: &[u8], signature: &[u8]) -> bool {
        is_signed_by_p256(&self.0, payload, signature)
    }
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

/// Whether one of the keys signed that this digest is an image of this repository; else why not.
pub(super) fn check(
    payload: &[u8],
    signature: &str,
    keys: &[Key],
    reference: &ImageRef,
    signed: &Digest,
) -> Result<(), String> {
    let signature = STANDARD.decode(signature.trim()).map_err(|_| "its signature is no base64".to_owned())?;
    // nothing of the payload is looked at before it is known whose it is
    if !keys.iter().any(|key| key.is_signer(payload, &signature)) {
        return Err("its signature is by another key".to_owned());
    }
    let payload: Payload =
        serde_json::from_slice(payload).map_err(|e| format!("what is signed cannot be read: {e}"))?;
    let Critical { identity, image, kind } = payload.critical;
    if kind != TYPE {
        return Err(format!("what is signed is no image but a `{}`", kind.escape_debug()));
    }
    if image.digest != *signed {
        return Err(format!("what is signed is another image, {}", image.digest));
    }
    let is_ours = identity.reference.parse::<ImageRef>().is_ok_and(|named| {
        let (same_host, same_repository) =
            (named.host() == reference.host(), named.repository() == reference.repository());
        same_host && same_repository
    });
    is_ours.then_some(()).ok_or_else(|| format!("it is signed as `{}`", identity.reference.escape_debug()))
}
