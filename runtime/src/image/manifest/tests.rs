//! Manifests: what is read, what is refused, and which platform wins.

use proptest::prelude::*;

use super::*;

fn descriptor(platform: Option<&str>) -> Descriptor {
    let platform = platform.map(|text| {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next();
        Platform { os: next().unwrap(), architecture: next().unwrap(), variant: next() }
    });
    Descriptor {
        media_type: OCI_MANIFEST.into(),
        digest: Digest::of(format!("{platform:?}").as_bytes()),
        size: 1,
        platform,
        urls: None,
        annotations: None,
    }
}

fn pick(host: &str, offers: &[&str]) -> std::result::Result<String, String> {
    let host = descriptor(Some(host)).platform.unwrap();
    let list: Vec<_> = offers.iter().map(|o| descriptor(Some(o))).collect();
    let reference: ImageRef = "h.example/a:1".parse().unwrap();
    let picked = select_platform(&list, &host, &reference);
    picked.map(|d| d.platform.as_ref().unwrap().to_string()).map_err(|e| e.to_string())
}

#[test]
fn the_best_variant_wins() {
    let all = ["linux/amd64", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "windows/amd64"];
    assert_eq!(pick("linux/amd64", &all).unwrap(), "linux/amd64");
    assert_eq!(pick("linux/arm/v7", &all).unwrap(), "linux/arm/v7");
    assert_eq!(pick("linux/arm/v6", &all).unwrap(), "linux/arm/v6");
    assert_eq!(pick("linux/arm64/v8", &["linux/arm64"]).unwrap(), "linux/arm64");
    assert_eq!(pick("linux/amd64", &["linux/amd64/v3", "linux/amd64"]).unwrap(), "linux/amd64");
}

#[test]
fn no_platform_names_the_offers() {
    let message = pick("linux/amd64", &["linux/arm64/v8", "linux/s390x", "unknown/unknown"]).unwrap_err();
    let wanted = "`h.example/a:1` does not run on this host, which is linux/amd64: \
                  it is built for linux/arm64/v8, linux/s390x";
    assert_eq!(message, wanted);
}

#[test]
fn an_ambiguous_document_is_refused() {
    let d = format!(r#"{{"mediaType":"x.tar","digest":"sha256:{}","size":1}}"#, "a".repeat(64));
    let both = format!(r#"{{"schemaVersion":2,"manifests":[],"config":{d},"layers":[{d}]}}"#);
    assert!(parse(both.as_bytes(), "").is_err());
    let image = format!(r#"{{"schemaVersion":2,"config":{d},"layers":[{d}]}}"#);
    assert!(matches!(parse(image.as_bytes(), OCI_MANIFEST), Ok(Document::Manifest(_))));
    assert!(parse(image.as_bytes(), OCI_INDEX).is_err());
    let lying = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","config":{d},"layers":[{d}]}}"#);
    assert!(parse(lying.as_bytes(), OCI_MANIFEST).is_err());
    let twice = format!(r#"{{"schemaVersion":2,"config":{d},"config":{d},"layers":[{d}]}}"#);
    assert!(parse(twice.as_bytes(), OCI_MANIFEST).is_err());
}

#[test]
fn schema_1_foreign_layers_and_strange_layers_are_refused() {
    assert!(parse(br#"{"schemaVersion":1,"fsLayers":[]}"#, "").unwrap_err().to_string().contains("schema 1"));
    for (kind, urls) in [("application/x.tar", r#"["http://x"]"#), ("x.foreign.tar", "[]"), ("x.wasm", "[]")] {
        let hex = "a".repeat(64);
        let d = format!(r#"{{"mediaType":"{kind}","digest":"sha256:{hex}","size":1,"urls":{urls}}}"#);
        let text = format!(r#"{{"schemaVersion":2,"config":{d},"layers":[{d}]}}"#);
        assert!(parse(text.as_bytes(), "").is_err(), "{kind} {urls}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in ".{0,40}") {
        let _ = parse(&bytes, &kind);
        let _ = super::super::config::parse(&bytes);
    }

    /// Real documents with a few bytes changed get further into the parser than noise does.
    #[test]
    fn no_damaged_document_panics(places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let hex = "a".repeat(64);
        let d = format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:{hex}","size":1}}"#);
        let image = format!(r#"{{"schemaVersion":2,"config":{d},"layers":[{d}]}}"#);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, d.replace("layer.v1.tar+gzip", "manifest.v1+json"));
        let config = format!(r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:{hex}"]}},"config":{{"Env":["a=b"]}}}}"#);
        for text in [image, index, config] {
            let mut bytes = text.into_bytes();
            for (at, byte) in &places {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            let _ = parse(&bytes, OCI_MANIFEST);
            let _ = parse(&bytes, OCI_INDEX);
            let _ = super::super::config::parse(&bytes);
        }
    }
}
