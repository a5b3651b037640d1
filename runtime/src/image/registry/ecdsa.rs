//! ECDSA signatures, verified as TLS verifies them: with the library that is here for it. Knows nothing of images.

use rustls::pki_types::{SignatureVerificationAlgorithm, alg_id};

/// Whether `signature` (ASN.1) over the SHA-256 of `message` is by the key at this uncompressed point of P-256.
pub(in crate::image) fn is_signed_by_p256(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let all = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let fits = |a: &&&'static dyn SignatureVerificationAlgorithm| {
        a.public_key_alg_id() == alg_id::ECDSA_P256 && a.signature_alg_id() == alg_id::ECDSA_SHA256
    };
    all.iter().find(fits).is_some_and(|algorithm| algorithm.verify_signature(point, message, signature).is_ok())
}
