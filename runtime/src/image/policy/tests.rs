//! Which requirement counts for which name, and that no bytes are too odd.

use proptest::prelude::*;

use super::signature::{Key, check};
use super::*;

fn policy(text: &str) -> Policy {
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_longest_scope_decides() {
    let all = policy(
        r#"{"default": [{"type": "reject"}], "transports": {"docker": {
            "r.example": [{"type": "1"}], "r.example/shop": [{"type": "2"}], "r.example/shop/web": [{"type": "3"}],
            "r.example/shop/web:2": [{"type": "4"}], "*.example": [{"type": "5"}], "*.b.example": [{"type": "6"}]}}}"#,
    );
    let found = |name: &str| all.requirements(&name.parse().unwrap())[0].kind.clone();
    let cases = [
        ("r.example/other:1", "1"),
        ("r.example/shop/db:1", "2"),
        ("r.example/shop/web:1", "3"),
        ("r.example/shop/web:2", "4"),
        ("r.example/shopping/web:2", "1"),
        ("q.example/x", "5"),
        ("a.b.example/x", "6"),
        ("q.test/x", "reject"),
    ];
    for (name, kind) in cases {
        assert_eq!(found(name), kind, "{name}");
    }
}

#[test]
fn what_cannot_be_checked_is_refused() {
    struct Nobody;
    impl Origin for Nobody {
        fn manifest(&self, _: &ImageRef) -> Result<super::super::pull::Fetched> {
            Err(Error::Registry { code: "BX0302", message: String::new(), retry: false })
        }
        fn blob(&self, _: &ImageRef, _: &Descriptor, _: u64) -> Result<Box<dyn std::io::Read + '_>> {
            Err(Error::Registry { code: "BX0302", message: String::new(), retry: false })
        }
    }
    let cases = [
        (r#"{"type": "insecureAcceptAnything"}"#, None),
        (r#"{"type": "reject"}"#, Some("rejected")),
        (r#"{"type": "signedBy", "keyType": "GPGKeys"}"#, Some("`signedBy`")),
        (r#"{"type": "sigstoreSigned"}"#, Some("names no key")),
        (r#"{"type": "sigstoreSigned", "fulcio": {}}"#, Some("`fulcio`")),
        (r#"{"type": "sigstoreSigned", "keyPath": "/nowhere/key"}"#, Some("not there")),
    ];
    for (requirement, expected) in cases {
        let policy = policy(&format!(r#"{{"default": [{requirement}]}}"#));
        let found = policy.check(&Nobody, &"r.example/x:1".parse().unwrap(), &Digest::of(b""));
        match expected {
            None => assert!(found.is_ok()),
            Some(words) => assert!(found.unwrap_err().to_string().contains(words), "{requirement}"),
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_no_key_and_no_signature(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,80}") {
        prop_assert!(Key::parse(&bytes).is_none());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----");
        prop_assert!(Key::parse(pem.as_bytes()).is_none());
        let reference: ImageRef = "r.example/x:1".parse().unwrap();
        prop_assert!(check(&bytes, &text, &[], &reference, &Digest::of(&bytes)).is_err());
    }
}
