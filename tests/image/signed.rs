//! Images that must be signed: keys and signatures are made with openssl, kept as cosign keeps them, and asked for by a
//! policy as podman knows it.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use runtime::image::Digest;
use runtime::runtime::{NoProgress, PullRequest};
use serde_json::json;

use crate::Case;
use crate::fake::Fake;
use crate::lab::{Archive, Image, Lab, gzip, names, pull, reference, refusal};

pub(crate) const CASES: &[Case] = &[
    ("signed_images_come_and_others_do_not", signed),
    ("signed_images_keep_their_digest_when_the_next_is_not", next_is_unsigned),
    ("followed_tags_do_not_go_back", followed_tags_do_not_go_back),
];

struct Signer {
    dir: PathBuf,
}

impl Signer {
    fn new(dir: &Path, name: &str) -> Result<Self, String> {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).expect("make a directory");
        let signer = Self { dir };
        signer.openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key"])?;
        signer.openssl(&["ec", "-in", "key", "-pubout", "-out", "key.pub"])?;
        Ok(signer)
    }

    fn openssl(&self, args: &[&str]) -> Result<(), String> {
        let output = Command::new("openssl").args(args).current_dir(&self.dir).output();
        let output = output.map_err(|e| format!("openssl: {e}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        output.status.success().then_some(()).ok_or_else(|| format!("openssl: {said}"))
    }

    /// The image cosign would put beside the signed one.
    fn sign(&self, repository: &str, digest: &Digest) -> Image {
        let payload = json!({"critical": {"identity": {"docker-reference": repository},
            "image": {"docker-manifest-digest": digest}, "type": "cosign container image signature"}, "optional": null});
        let payload = serde_json::to_vec(&payload).expect("encode");
        std::fs::write(self.dir.join("payload"), &payload).expect("write a file");
        self.openssl(&["dgst", "-sha256", "-sign", "key", "-out", "signature", "payload"]).expect("it signed before");
        let signature = std::fs::read(self.dir.join("signature")).expect("the signature");
        let signature = base64::engine::general_purpose::STANDARD.encode(signature);
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(b"{}"), "size": 2},
            "layers": [{"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": Digest::of(&payload),
                "size": payload.len(), "annotations": {"dev.cosignproject.cosign/signature": signature}}]});
        Image {
            manifest: serde_json::to_vec(&manifest).expect("encode"),
            config: b"{}".to_vec(),
            layers: vec![payload],
        }
    }

    /// A policy that asks for this key where names begin with `scope`.
    fn policy(&self, scope: &str) -> PathBuf {
        let policy = json!({"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {scope: [
            {"type": "sigstoreSigned", "keyPath": self.dir.join("key.pub"),
                "signedIdentity": {"type": "matchRepository"}}]}}});
        let file = self.dir.join("policy.json");
        std::fs::write(&file, policy.to_string()).expect("write a file");
        file
    }
}

fn image(text: &str) -> Image {
    Image::new(&[(&Archive::new().file("text", text.as_bytes()).bytes(), gzip)])
}

fn beside(digest: &Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}

fn signed() -> Result<(), String> {
    let (fake, mut lab) = (Fake::start(), Lab::new());
    let (ours, theirs) = (Signer::new(lab.dir.path(), "ours")?, Signer::new(lab.dir.path(), "theirs")?);
    lab.options.policy = Some(ours.policy(&fake.name("shop")));
    let repository = fake.name("shop/web");
    let [good, none, other, elsewhere, moved] = ["good", "none", "other", "elsewhere", "moved"].map(image);
    for (tag, image) in
        [("good", &good), ("none", &none), ("other", &other), ("elsewhere", &elsewhere), ("moved", &moved)]
    {
        fake.push("shop/web", tag, image);
        fake.push("free/web", tag, image);
    }
    let sign = |signer: &Signer, at: &Digest, named: &str, digest: &Digest| {
        fake.push("shop/web", &beside(at), &signer.sign(named, digest));
    };
    sign(&ours, &good.digest(), &repository, &good.digest());
    sign(&theirs, &other.digest(), &repository, &other.digest());
    sign(&ours, &elsewhere.digest(), &fake.name("shop/db"), &elsewhere.digest());
    sign(&ours, &moved.digest(), &repository, &good.digest());
    let store = lab.store();
    assert_eq!(pull(&store, &format!("{repository}:good")).expect("it is signed").digest, good.digest());
    let cases = [
        ("none", "it has no signature"),
        ("other", "by another key"),
        ("elsewhere", "it is signed as"),
        ("moved", "what is signed is another image"),
    ];
    for (tag, why) in cases {
        let (code, message) = refusal(&store, &format!("{repository}:{tag}"));
        assert!(code == "BX0308" && message.contains(why), "{tag}: {code} {message}");
    }
    let by_digest = format!("{repository}@{}", none.digest());
    assert_eq!(refusal(&store, &by_digest).0, "BX0308", "a digest is no way round");
    pull(&store, &fake.name("free/web:none")).expect("nothing is asked of it");
    let fetched = |image: &Image| {
        let blob = Digest::of(&image.layers[0]);
        fake.log().iter().filter(|asked| asked.path.contains("shop/web") && asked.path.ends_with(blob.as_str())).count()
    };
    assert_eq!([&good, &none, &other, &elsewhere].map(fetched), [1, 0, 0, 0], "nothing of the refused ones is fetched");
    Ok(())
}

fn next_is_unsigned() -> Result<(), String> {
    let (fake, mut lab) = (Fake::start(), Lab::new());
    let ours = Signer::new(lab.dir.path(), "ours")?;
    lab.options.policy = Some(ours.policy(&fake.address));
    let (first, second) = (image("first"), image("second"));
    let name = fake.name("shop/web:live");
    fake.push("shop/web", "live", &first);
    fake.push("shop/web", &beside(&first.digest()), &ours.sign(&fake.name("shop/web"), &first.digest()));
    let store = lab.store();
    pull(&store, &name).expect("it is signed");
    fake.push("shop/web", "live", &second);
    let request = PullRequest { reference: reference(&name), refresh: true, newer_only: false };
    let refused = store.pull(&request, &NoProgress).expect_err("it is not signed").to_string();
    assert!(refused.contains(second.digest().as_str()) && refused.contains("it has no signature"), "{refused}");
    assert_eq!(store.resolve(&reference(&name)).expect("it is here").digest, first.digest());
    fake.push("shop/web", &beside(&second.digest()), &ours.sign(&fake.name("shop/web"), &second.digest()));
    assert_eq!(store.pull(&request, &NoProgress).expect("now it is").digest, second.digest());
    Ok(())
}

/// A registry that plays old content back: what was pulled before, and what never was here.
fn followed_tags_do_not_go_back() -> Result<(), String> {
    let (fake, lab) = (Fake::start(), Lab::new());
    let [older, old, new] = ["2024-05-01T00:00:00Z", "2025-05-01T00:00:00.5+02:00", "2025-05-02T00:00:00Z"]
        .map(|created| image(created).made(created));
    let name = fake.name("shop/web:live");
    let store = lab.store();
    let followed = PullRequest { reference: reference(&name), refresh: true, newer_only: true };
    let serve = |image: &Image| {
        fake.push("shop/web", "live", image);
        store.pull(&followed, &NoProgress)
    };
    assert_eq!(serve(&old).expect("nothing is here").digest, old.digest());
    assert_eq!(serve(&new).expect("it is newer").digest, new.digest());
    let layers = names(&lab.images().join("layers"));
    for back in [&old, &older] {
        let refused = serve(back).expect_err("it is older").to_string();
        assert!(refused.contains("went back") && refused.contains("made 2025-05-02"), "{refused}");
        assert_eq!(store.resolve(&reference(&name)).expect("it is here").digest, new.digest());
        assert_eq!(names(&lab.images().join("layers")), layers, "nothing of it was fetched");
    }
    let (again, undated) = (image("again").made("2025-05-02T00:00:00Z"), image("undated"));
    for good in [&again, &undated, &old] {
        assert_eq!(serve(good).expect("it is not older, or nobody can say").digest, good.digest());
    }
    fake.push("shop/web", "live", &older);
    let by_hand = PullRequest { newer_only: false, ..followed };
    assert_eq!(store.pull(&by_hand, &NoProgress).expect("whoever asks by hand gets it").digest, older.digest());
    Ok(())
}
