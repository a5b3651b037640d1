//! The manifest in the design document means what the design says.

use std::path::Path;

use super::super::{LoadOptions, Look, check, load, render_all};
use crate::model::{DependsOn, EnvValue, MountWhat, OnFailure, Probe, VolumeAccess, resolve};

pub(in crate::manifest) const EXAMPLE: &str = r#"apiVersion: boxship/v1
kind: Image
name: shop-web
ref: registry.example/shop/web:1.5
keep: 2
---
apiVersion: boxship/v1
kind: App
name: web
replicas: 3
imageFrom: shop-web
env: {LOG_LEVEL: info, RATE: 1.20, ON: true, MODE: {config: web-conf, key: mode}}
ports: [{containerPort: 3000, publish: "0.0.0.0:8080"}]
mounts:
- {path: /etc/shop/app.toml, file: ./app.toml, onChange: roll}
- {path: /srv/uploads, volume: uploads}
- {path: /etc/conf.d, config: web-conf, mode: "0600"}
resources: {cpu: 500m, memory: 256Mi}
healthcheck: {http: ":3000/healthz", interval: 5s, retries: 3, startPeriod: 30s}
strategy: {maxSurge: 1, maxUnavailable: 0, minReady: 5s, progressDeadline: 2m, onFailure: undo}
stopGracePeriod: 20s
dependsOn: {db: ready}
---
apiVersion: boxship/v1
kind: App
name: db
image: postgres:16
mounts: [{path: /var/lib/postgresql/data, volume: data}]
---
apiVersion: boxship/v1
kind: Job
name: sweep
schedule: "15 3 * * *"
timeZone: Europe/Berlin
concurrencyPolicy: Forbid
imageFrom: shop-web
args: [sweep, --older-than, 30d]
mounts: [{path: /srv/uploads, volume: uploads}]
---
{apiVersion: boxship/v1, kind: Volume, name: uploads, access: shared}
---
{apiVersion: boxship/v1, kind: Volume, name: data}
---
apiVersion: boxship/v1
kind: Config
name: web-conf
data:
  mode: fast
  nginx.conf: "user ${nobody};\n"
"#;

#[test]
fn the_example_of_the_design() {
    let root = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(root.path().join("shop")).expect("a directory");
    std::fs::write(root.path().join("shop/all.yaml"), EXAMPLE).expect("a file");
    std::fs::write(root.path().join("shop/app.toml"), "x = 1\n").expect("a file");
    let loaded = load(root.path(), &LoadOptions::default());
    let text = render_all(&loaded.diagnostics, &loaded.sources, &Look::plain(&loaded));
    assert_eq!(text, "");
    let (desired, diagnostics) = resolve(loaded.objects.clone());
    assert_eq!(diagnostics, []);
    let web = &desired.workloads[&"shop/app/web".parse().expect("a key")];
    let template = &web.template;
    assert_eq!(web.replicas, 3);
    assert_eq!(template.image.reference.to_string(), "registry.example/shop/web:1.5");
    assert_eq!(template.env["RATE"], EnvValue::Plain("1.20".to_owned()));
    assert_eq!(template.env["ON"], EnvValue::Plain("true".to_owned()));
    assert_eq!(template.env["MODE"], EnvValue::Plain("fast".to_owned()));
    assert_eq!(web.ports[0].at.to_string(), "0.0.0.0:8080");
    assert_eq!(web.ports[0].source.to_string(), "shop/all.yaml:13:40");
    let paths: Vec<&str> = template.mounts.iter().map(|mount| mount.path.as_str()).collect();
    assert_eq!(paths, ["/etc/shop/app.toml", "/srv/uploads", "/etc/conf.d/mode", "/etc/conf.d/nginx.conf"]);
    let MountWhat::File { content, mode } = &template.mounts[3].what else { panic!("a file") };
    assert_eq!((content.as_ref(), *mode), (&b"user ${nobody};\n"[..], 0o600));
    assert_eq!((template.resources.cpu_millis, template.resources.memory_bytes), (Some(500), Some(256 << 20)));
    let check = template.healthcheck.as_ref().expect("a health check");
    assert_eq!(
        check.probe,
        Probe::Http { port: 3000, path: "/healthz".to_owned(), with: crate::model::HttpWith::default() }
    );
    assert_eq!((check.interval_ms, check.start_period_ms), (5_000, 30_000));
    assert_eq!((web.strategy.min_ready_ms, web.strategy.on_failure), (5_000, OnFailure::Undo));
    assert_eq!(template.stop_grace_ms, 20_000);
    assert_eq!(web.depends_on[&"shop/app/db".parse().expect("a key")], DependsOn::Ready);
    assert!(!web.exclusive, "uploads is shared");
    assert!(desired.workloads[&"shop/app/db".parse().expect("a key")].exclusive, "data is single");
    assert_eq!(desired.volumes[&"shop/volume/uploads".parse().expect("a key")].access, VolumeAccess::Shared);
    let sweep = &desired.jobs[&"shop/job/sweep".parse().expect("a key")];
    assert_eq!(sweep.schedule.as_ref().map(|s| s.time_zone.as_str()), Some("Europe/Berlin"));
    assert_eq!(desired.images.len(), 1);
}

#[test]
fn check_says_ok_and_counts() {
    let root = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(root.path().join("all.yaml"), EXAMPLE).expect("a file");
    std::fs::write(root.path().join("app.toml"), "x = 1\n").expect("a file");
    std::fs::write(root.path().join("values.yaml"), "a: &x 1\nb: *x\n").expect("a file");
    let report = check(&[root.path().to_owned()], &LoadOptions::default());
    assert_eq!(report.render(false), "ok: 7 objects in 2 files, 1 file not a manifest\n");
    assert_eq!(report.exit_code(), 0);
    assert_eq!(check(&[Path::new("/nonexistent/dir").to_owned()], &LoadOptions::default()).exit_code(), 65);
}
