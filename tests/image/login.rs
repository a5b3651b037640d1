//! Getting in: Basic, Bearer, wrong credentials, and that nobody else ever sees them. TLS with an own authority.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Case;
use crate::fake::{Answer, Asked, Duplex, Fake};
use crate::lab::{Archive, Image, Lab, gzip, pull, refusal};

pub(crate) const CASES: &[Case] = &[
    ("login_basic", basic),
    ("login_basic_wrong_names_user_and_file", basic_wrong),
    ("login_bearer_with_and_without_credentials", bearer),
    ("login_bearer_token_is_used_again", bearer_is_kept),
    ("login_never_follows_a_redirect", redirect),
    ("login_is_not_sent_to_a_plain_foreign_realm", foreign_realm),
    ("tls_with_a_given_authority", tls),
];

fn image() -> Image {
    let tar = Archive::new().file("a", b"x").bytes();
    Image::new(&[(&tar, gzip)])
}

/// A lab with one user's credentials for a registry.
fn lab_with_login(host: &str, user_and_password: &str) -> Lab {
    let mut lab = Lab::new();
    let file = lab.dir.path().join("auth.json");
    let auth = STANDARD.encode(user_and_password);
    std::fs::write(&file, format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#)).expect("write credentials");
    lab.options.auth_files = Some(vec![file]);
    lab
}

fn wants_basic(asked: &Asked, good: Answer) -> Answer {
    if asked.header("authorization") == format!("Basic {}", STANDARD.encode("ci:secret")) {
        return good;
    }
    Answer::new(401, "").with("www-authenticate", r#"Basic realm="test""#)
}

fn basic() -> Result<(), String> {
    let fake = Fake::with(wants_basic);
    fake.push("a", "1", &image());
    let lab = lab_with_login(&fake.address, "ci:secret");
    pull(&lab.store(), &fake.name("a:1")).expect("it lets us in");
    let refused = fake.log().iter().filter(|a| a.header("authorization").is_empty()).count();
    assert_eq!(refused, 1, "asked once without, then with credentials");
    Ok(())
}

fn basic_wrong() -> Result<(), String> {
    let fake = Fake::with(wants_basic);
    fake.push("a", "1", &image());
    let lab = lab_with_login(&fake.address, "ci:wrong");
    let (code, message) = refusal(&lab.store(), &fake.name("a:1"));
    assert_eq!(code, "BX0304");
    assert!(message.contains("user ci (from ") && message.contains("auth.json"), "{message}");
    assert!(!message.contains("wrong"), "the secret is not shown: {message}");
    let (code, message) = refusal(&Lab::new().store(), &fake.name("a:1"));
    assert_eq!(code, "BX0303", "{message}");
    assert!(message.contains("none is configured"), "{message}");
    Ok(())
}

/// A token server, and a registry that wants its tokens.
fn bearer_pair(user: Option<&'static str>) -> (Fake, Fake) {
    let tokens = Fake::with(move |asked, _| {
        let wanted = user.map_or(String::new(), |u| format!("Basic {}", STANDARD.encode(u)));
        if asked.header("authorization") != wanted {
            return Answer::new(401, "");
        }
        assert!(asked.path.contains("service=reg%20one&scope=repository:shop/a:pull"), "{}", asked.path);
        Answer::new(200, r#"{"token":"T0KEN","expires_in":300}"#)
    });
    let realm = format!("http://{}/token", tokens.address);
    let fake = Fake::with(move |asked, good| {
        if asked.header("authorization") == "Bearer T0KEN" {
            return good;
        }
        let challenge = format!(r#"Bearer realm="{realm}",service="reg one",scope="repository:shop/a:pull""#);
        Answer::new(401, "").with("www-authenticate", challenge)
    });
    (tokens, fake)
}

fn bearer() -> Result<(), String> {
    let (_tokens, fake) = bearer_pair(Some("ci:secret"));
    fake.push("shop/a", "1", &image());
    let lab = lab_with_login(&fake.address, "ci:secret");
    pull(&lab.store(), &fake.name("shop/a:1")).expect("it lets us in");
    let (code, _) = refusal(&lab_with_login(&fake.address, "ci:wrong").store(), &fake.name("shop/a:1"));
    assert_eq!(code, "BX0304");
    let (_tokens, fake) = bearer_pair(None);
    fake.push("shop/a", "1", &image());
    pull(&Lab::new().store(), &fake.name("shop/a:1")).expect("anonymous is fine");
    Ok(())
}

fn bearer_is_kept() -> Result<(), String> {
    let (tokens, fake) = bearer_pair(None);
    fake.push("shop/a", "1", &image());
    pull(&Lab::new().store(), &fake.name("shop/a:1")).expect("it lets us in");
    assert_eq!(tokens.log().len(), 1, "one token for manifest, config and layer");
    Ok(())
}

fn redirect() -> Result<(), String> {
    let storage = Fake::start();
    storage.push("a", "1", &image());
    let to = storage.address.clone();
    let fake = Fake::with(move |asked, good| match wants_basic(asked, good) {
        Answer { status: 200, .. } if asked.path.contains("/blobs/") => {
            Answer::new(307, "").with("location", format!("http://{to}{}", asked.path))
        }
        other => other,
    });
    fake.push("a", "1", &image());
    let lab = lab_with_login(&fake.address, "ci:secret");
    pull(&lab.store(), &fake.name("a:1")).expect("it follows");
    let log = storage.log();
    assert!(!log.is_empty() && log.iter().all(|a| a.header("authorization").is_empty()), "{log:?}");
    let endless = Fake::with(|asked, _| Answer::new(302, "").with("location", asked.path.clone()));
    let (code, message) = refusal(&Lab::new().store(), &endless.name("a:1"));
    assert_eq!(code, "BX0301");
    assert!(message.contains("redirects more than"), "{message}");
    Ok(())
}

fn foreign_realm() -> Result<(), String> {
    let fake = Fake::with(|_, _| {
        Answer::new(401, "").with("www-authenticate", r#"Bearer realm="http://auth.example/token",service="x""#)
    });
    let lab = lab_with_login(&fake.address, "ci:secret");
    let (code, message) = refusal(&lab.store(), &fake.name("a:1"));
    assert_eq!(code, "BX0304");
    assert!(message.contains("http://auth.example, which is not encrypted"), "{message}");
    Ok(())
}

/// An authority and a server certificate for `registry.test`, made by openssl.
fn certificates(dir: &Path) -> Result<(), String> {
    let script = r#"set -e; cd "$1"
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem
        openssl req -newkey rsa:2048 -nodes -subj /CN=registry.test -keyout key.pem -out req.pem
        printf 'subjectAltName=DNS:registry.test\nbasicConstraints=CA:FALSE\n' > ext
        openssl x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem"#;
    let made = Command::new("sh").args(["-c", script, "sh"]).arg(dir).output();
    match made {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("openssl failed: {}", String::from_utf8_lossy(&output.stderr))),
        Err(_) => Err("there is no openssl".into()),
    }
}

fn tls() -> Result<(), String> {
    let mut lab = Lab::new();
    let dir = lab.dir.path().to_owned();
    certificates(&dir)?;
    let pem = |name: &str| std::io::BufReader::new(std::fs::File::open(dir.join(name)).expect(name));
    let chain = rustls_pemfile::certs(&mut pem("cert.pem")).map(|c| c.expect("a certificate")).collect();
    let key = rustls_pemfile::private_key(&mut pem("key.pem")).expect("a file").expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(chain, key))
        .expect("a server's configuration");
    let config = Arc::new(config);
    let fake = Fake::served(
        |_, good| good,
        move |stream: TcpStream| {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).ok()?;
            Some(Box::new(rustls::StreamOwned::new(session, stream)) as Box<dyn Duplex>)
        },
    );
    let big = Archive::new().file("big", &crate::lab::noise(2_000_000, 3)).bytes();
    fake.push("a", "1", &Image::new(&[(&big, gzip)]));
    let port = fake.address.rsplit_once(':').expect("it has a port").1;
    let hosts = dir.join("hosts");
    std::fs::write(&hosts, "127.0.0.1 registry.test other.test\n").expect("write a hosts file");
    lab.options.hosts_file = hosts;
    let (code, message) = refusal(&lab.store(), &format!("registry.test:{port}/a:1"));
    assert_eq!(code, "BX0301");
    assert!(message.contains("is not trusted (UnknownIssuer)"), "{message}");
    lab.options.ca_files = vec![dir.join("ca.pem")];
    let store = lab.store();
    pull(&store, &format!("registry.test:{port}/a:1")).expect("it is trusted now");
    let (_, message) = refusal(&store, &format!("other.test:{port}/a:1"));
    assert!(message.contains("is not trusted (NotValidForName"), "{message}");
    Ok(())
}
