//! Getting in: Basic, Bearer, wrong credentials, and that nobody else ever sees them. TLS with an own authority.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runtime::image::Proxies;

use crate::Case;
use crate::fake::{Answer, Asked, Duplex, Fake};
use crate::lab::{Archive, Image, Lab, gzip, names, pull, refusal};

pub(crate) const CASES: &[Case] = &[
    ("login_basic", basic),
    ("login_basic_wrong_names_user_and_file", basic_wrong),
    ("login_bearer_with_and_without_credentials", bearer),
    ("login_bearer_token_is_used_again", bearer_is_kept),
    ("login_never_follows_a_redirect", redirect),
    ("login_is_not_sent_to_a_plain_foreign_realm", foreign_realm),
    ("login_is_tried_before_it_is_kept", sign_in),
    ("login_keeps_what_other_tools_wrote", keeps_others),
    ("login_is_asked_of_a_credential_helper", helper),
    ("login_of_the_data_root_is_found_by_a_pull", own_file),
    ("tls_with_a_given_authority", tls),
    ("proxy_tunnels_tls_and_carries_plain_requests", proxy),
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
        // a pull asks for its repository, a sign-in for nothing
        let scope = asked.path.split_once("service=reg%20one").expect("the service is named").1;
        assert!(scope.is_empty() || scope == "&scope=repository:shop/a:pull", "{}", asked.path);
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

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

fn sign_in() -> Result<(), String> {
    let fake = Fake::with(wants_basic);
    let lab = Lab::new();
    let file = lab.dir.path().join("new/auth.json");
    let sign_in = |password| runtime::image::sign_in(&lab.options, &fake.address, "ci", password, &file);
    let refused = sign_in("wrong").expect_err("a wrong password").to_string();
    assert!(refused.contains("refused the login of user ci") && !refused.contains("wrong"), "{refused}");
    assert!(!file.exists(), "nothing is kept of a login that does not work");
    assert_eq!(sign_in("secret").expect("it is taken"), file.display().to_string());
    assert_eq!(mode(&file), 0o600);
    assert_eq!(names(file.parent().expect("a parent")), ["auth.json"], "nothing else is left");
    // the token server decides where there is one
    let (_tokens, fake) = bearer_pair(Some("ci:secret"));
    let sign_in = |password| runtime::image::sign_in(&lab.options, &fake.address, "ci", password, &file);
    assert!(sign_in("wrong").is_err());
    sign_in("secret").expect("the token server gives a token");
    let text = std::fs::read_to_string(&file).expect("the file");
    assert_eq!(text.matches("\"auth\"").count(), 2, "one entry a registry: {text}");
    Ok(())
}

fn keeps_others() -> Result<(), String> {
    let fake = Fake::with(wants_basic);
    let lab = Lab::new();
    let file = lab.dir.path().join("config.json");
    let before = r#"{"auths":{"other.example":{"auth":"eDp5"}},"HttpHeaders":{"A":"b"},"credHelpers":{}}"#;
    std::fs::write(&file, before).expect("write a file");
    runtime::image::sign_in(&lab.options, &fake.address, "ci", "secret", &file).expect("it is taken");
    assert!(runtime::image::sign_out(&fake.address, &file).expect("it is forgotten"));
    assert!(!runtime::image::sign_out(&fake.address, &file).expect("there is none"));
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    assert_eq!(json(&std::fs::read_to_string(&file).expect("the file")), json(before));
    std::fs::write(&file, "{").expect("write a file");
    let error = runtime::image::sign_in(&lab.options, &fake.address, "ci", "secret", &file);
    assert!(error.is_err(), "a file that is not understood is not written over");
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "{");
    Ok(())
}

/// Runs a case with a credential helper `docker-credential-test` on the path of this process, which keeps one login.
fn helper() -> Result<(), String> {
    let fake = Fake::with(wants_basic);
    fake.push("a", "1", &image());
    let mut lab = Lab::new();
    let dir = lab.dir.path().to_owned();
    let script = format!(
        r#"#!/bin/sh
kept={}/kept
case $1 in
store) cat > "$kept" ;;
erase) rm -f "$kept" ;;
get) read -r host; [ -f "$kept" ] && cat "$kept" || {{ echo "credentials not found in native keychain"; exit 1; }} ;;
esac"#,
        dir.display()
    );
    std::fs::create_dir(dir.join("bin")).expect("make a directory");
    let program = dir.join("bin/docker-credential-test");
    std::fs::write(&program, script).expect("write a helper");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("make it executable");
    let file = dir.join("config.json");
    std::fs::write(&file, r#"{"credsStore":"test"}"#).expect("write a file");
    lab.options.auth_files = Some(vec![file.clone()]);
    let case = Command::new(std::env::current_exe().expect("our own path"))
        .args(["helped", &fake.address])
        .arg(&dir)
        .env("PATH", format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap_or_default()))
        .output()
        .expect("run the case");
    assert!(case.status.success(), "{}", String::from_utf8_lossy(&case.stderr));
    Ok(())
}

/// `helped REGISTRY DIR`: what [`helper`] does where the helper is on the path.
pub(crate) fn helped(args: &[String]) -> std::process::ExitCode {
    let dir = Path::new(&args[1]);
    let file = dir.join("config.json");
    let mut lab = Lab::new();
    lab.options.auth_files = Some(vec![file.clone()]);
    let name = format!("{}/a:1", args[0]);
    let (code, message) = refusal(&lab.store(), &name);
    assert_eq!(code, "BX0303", "an empty helper is no login: {message}");
    let kept = runtime::image::sign_in(&lab.options, &args[0], "ci", "secret", &file).expect("it is taken");
    assert_eq!(kept, "docker-credential-test");
    pull(&lab.store(), &name).expect("the helper's login lets us in");
    assert!(runtime::image::sign_out(&args[0], &file).expect("it is forgotten"));
    assert!(!dir.join("kept").exists());
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), r#"{"credsStore":"test"}"#, "no secret in the file");
    std::fs::write(&file, r#"{"credsStore":"absent"}"#).expect("write a file");
    let (code, message) = refusal(&lab.store(), &name.replace(":1", ":2"));
    assert_eq!(code, "BX0304");
    assert!(message.contains("docker-credential-absent"), "{message}");
    std::process::ExitCode::SUCCESS
}

fn own_file() -> Result<(), String> {
    let fake = Fake::with(wants_basic);
    fake.push("a", "1", &image());
    let mut lab = Lab::new();
    lab.options.auth_files = None;
    let file = lab.layout().auth_file();
    runtime::image::sign_in(&lab.options, &format!("https://{}/", fake.address), "ci", "secret", &file).expect("taken");
    pull(&lab.store(), &fake.name("a:1")).expect("the data root's own login lets us in");
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

/// A registry behind TLS as `registry.test`, and its port.
fn behind_tls(dir: &Path) -> (Fake, String) {
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
    let port = fake.address.rsplit_once(':').expect("it has a port").1.to_owned();
    (fake, port)
}

fn tls() -> Result<(), String> {
    let mut lab = Lab::new();
    let dir = lab.dir.path().to_owned();
    certificates(&dir)?;
    let (fake, port) = behind_tls(&dir);
    let big = Archive::new().file("big", &crate::lab::noise(2_000_000, 3)).bytes();
    fake.push("a", "1", &Image::new(&[(&big, gzip)]));
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
    // where Docker and Podman keep the authorities of single registries
    let certs = dir.join("certs.d").join(format!("registry.test:{port}"));
    std::fs::create_dir_all(&certs).expect("make a directory");
    std::fs::copy(dir.join("ca.pem"), certs.join("ca.crt")).expect("copy the authority");
    let mut other = Lab::new();
    other.options.hosts_file.clone_from(&lab.options.hosts_file);
    other.options.certs_dirs = vec![dir.join("certs.d")];
    pull(&other.store(), &format!("registry.test:{port}/a:1")).expect("its own directory is enough");
    Ok(())
}

/// A proxy that wants a login and leads everything to one address. It says what it was asked for.
fn proxy_to(address: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
    let own = listener.local_addr().expect("an address").to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if client.read_exact(&mut byte).is_err() {
                    break;
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            log.lock().expect("nobody panics here").push(head.lines().next().unwrap_or_default().to_owned());
            // base64 of me:secret
            if !head.to_ascii_lowercase().contains("proxy-authorization: basic bwu6c2vjcmv0") {
                let _ = client.write_all(b"HTTP/1.1 407 X\r\ncontent-length: 0\r\n\r\n");
                continue;
            }
            let mut server = TcpStream::connect(&address).expect("the registry is there");
            if head.starts_with("CONNECT ") {
                client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").expect("answer");
            } else {
                let (_, path) =
                    head.split_once("://").and_then(|(_, rest)| rest.split_once('/')).expect("a whole address");
                write!(server, "GET /{path}").expect("hand on");
            }
            let (mut up, mut back) = (client.try_clone().expect("clone"), server.try_clone().expect("clone"));
            std::thread::spawn(move || std::io::copy(&mut up, &mut server));
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut back, &mut client);
                client.shutdown(std::net::Shutdown::Both)
            });
        }
    });
    (own, asked)
}

fn proxy() -> Result<(), String> {
    let mut lab = Lab::new();
    let dir = lab.dir.path().to_owned();
    certificates(&dir)?;
    let (fake, port) = behind_tls(&dir);
    fake.push("a", "1", &image());
    let (address, asked) = proxy_to(fake.address.clone());
    lab.options.ca_files = vec![dir.join("ca.pem")];
    // no hosts file knows the name: only the proxy does
    let login = |login: &str| Some(format!("http://{login}@{address}"));
    lab.options.proxies = Some(Proxies { https: login("me:secret"), ..Proxies::default() });
    pull(&lab.store(), &format!("registry.test:{port}/a:1")).expect("through the tunnel");
    let lines = asked.lock().expect("nobody panics here").clone();
    assert!(
        !lines.is_empty() && lines.iter().all(|l| l.starts_with(&format!("CONNECT registry.test:{port} "))),
        "{lines:?}"
    );
    lab.options.proxies = Some(Proxies { https: login("me:wrong"), ..Proxies::default() });
    let (code, message) = refusal(&lab.store(), &format!("registry.test:{port}/a:2"));
    assert!(code == "BX0304" && message.contains("wants a login") && !message.contains("wrong"), "{message}");
    let plain = Fake::start();
    plain.push("a", "1", &image());
    let (address, asked) = proxy_to(plain.address.clone());
    let mut lab = Lab::new();
    lab.options.insecure.insert("plain.test".to_owned());
    lab.options.proxies = Some(Proxies { http: Some(format!("me:secret@{address}")), ..Proxies::default() });
    pull(&lab.store(), "plain.test/a:1").expect("by whole addresses");
    let lines = asked.lock().expect("nobody panics here").clone();
    assert!(lines[0].starts_with("GET http://plain.test/v2/a/manifests/1 "), "{lines:?}");
    assert!(plain.log().iter().all(|a| a.header("authorization").is_empty()));
    // loopback is never asked through a proxy
    lab.options.proxies = Some(Proxies { http: Some("127.0.0.1:1".into()), ..Proxies::default() });
    pull(&lab.store(), &plain.name("a:1")).expect("directly");
    Ok(())
}
