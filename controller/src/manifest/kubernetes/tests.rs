//! Kubernetes objects to the model: what they mean, what is said, the same application in three dialects.

mod keys;

use proptest::prelude::*;

use crate::manifest::tests::without_places;
use crate::manifest::{LoadOptions, Look, load, render_all};
use crate::model::object::EnvSpec;
use crate::model::{
    DesiredState, EnvValue, FileKind, Healthcheck, Loaded, MountWhat, ObjectSpec, Probe, accept, resolve,
};

fn load_files(files: &[(&str, &str)]) -> Loaded {
    let root = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(root.path().join("shop")).expect("a directory");
    for (name, text) in files {
        std::fs::write(root.path().join("shop").join(name), text).expect("a file");
    }
    load(root.path(), &LoadOptions::default())
}

fn shown(loaded: &Loaded) -> String {
    render_all(&loaded.diagnostics, &loaded.sources, &Look::plain(loaded))
}

fn said(loaded: &Loaded) -> Vec<String> {
    let line = |d: &crate::model::Diagnostic| {
        let place = d.span.as_ref().map_or_else(String::new, |span| format!("{}:{}", span.line, span.column));
        let mark = if d.is_error() { "" } else { "w" };
        format!("{}{mark} {place} {}", d.code, d.suggestion.as_deref().unwrap_or("")).trim_end().to_owned()
    };
    loaded.diagnostics.iter().map(line).collect()
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: c\n    image: i\n";

/// What follows [`POD`] (lines from 8 on), and what is said.
const CASES: &[(&str, &[&str])] = &[
    ("", &[]),
    ("    imagePullPolicy: Never\n", &[]),
    ("    imagePullPolicy: always\n", &["BX0127 8:22 Always"]),
    ("    imgae: x\n", &["BX0104 8:5 image"]),
    ("    livenessProbe: {tcpSocket: {port: 1}}\n    stdin: false\n", &[]),
    ("    securityContext: {privileged: true, runAsNonRoot: true}\n", &["BX0142w 8:23", "BX0142w 8:55"]),
    ("    securityContext: {privileged: false, runAsNonRoot: true, runAsUser: 0}\n", &["BX0126 8:56"]),
    (
        "    securityContext: {seccompProfile: {type: RuntimeDefault}, capabilities: {add: [NET_ADMN]}}\n",
        &["BX0127 8:84 NET_ADMIN"],
    ),
    (
        "    resources: {requests: {cpu: 1}, limits: {nvidia.com/gpu: 1, memory: 64MB}}\n",
        &["BX0142w 8:17", "BX0142w 8:46", "BX0113 8:73 64Mi"],
    ),
    (
        "    readinessProbe: {httpGet: {path: /, port: web}}\n    ports: [{name: wep, containerPort: 80}]\n",
        &["BX0116 8:47 wep"],
    ),
    ("    readinessProbe: {periodSecond: 1}\n", &["BX0104 8:22 periodSeconds", "BX0117 8:22"]),
    ("    volumeMounts: [{name: v, mountPath: /x}]\n", &["BX0121 8:27"]),
    (
        "    env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, {name: A=B}]\n",
        &["BX0142w 8:55", "BX0110 8:73"],
    ),
    ("  - {name: second, image: j}\n  initContainers: [{name: first, image: k}]\n", &[]),
    ("  nodeSelector: {a: b}\n  hostPID: true\n  dnsPolicy: ClusterFirst\n", &["BX0142w 8:3", "BX0142w 9:3"]),
    ("  volumes: [{name: v, nfs: {server: x}}, {name: w, emptyDri: {}}]\n", &["BX0142w 8:23", "BX0104 8:52 emptyDir"]),
    ("  volumes: [{name: v, hostPath: {path: /var/run/docker.sock}}]\n", &["BX0142w 8:40"]),
    ("  restartPolicy: Sometimes\n", &["BX0107 8:18"]),
    (
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: x}, ports: [{port: 80}], tpye: NodePort}\n",
        &["BX0104 12:49 type"],
    ),
    ("---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: '?'}\n", &["BX0127 12:11"]),
    ("---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: s}\n", &["BX0141w 10:7"]),
    (
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {selector: {matchLabels: {a: b}}, template: {spec: {containers: [{name: c, image: i}]}}}\n",
        &["BX0126 12:36"],
    ),
    (
        "---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: j}\nspec: {schedule: x, jobTemplate: {}}\n",
        &["BX0118 12:18"],
    ),
    ("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: Big}\n", &["BX0110 11:18 big"]),
];

#[test]
fn every_message() {
    let mut failed = Vec::new();
    for (text, expected) in CASES {
        let loaded = load_files(&[("a.yaml", &format!("{POD}{text}"))]);
        let (mut said, mut expected) = (said(&loaded), expected.to_vec());
        said.sort();
        expected.sort_unstable();
        if said != expected {
            failed.push(format!("{text}said {said:?}\nnot  {expected:?}\n{}", shown(&loaded)));
        }
        assert_eq!(loaded.has_errors(), loaded.files["shop/a.yaml"] == FileKind::Broken);
    }
    assert!(failed.is_empty(), "{}\n{} of {} failed", failed.join("\n"), failed.len(), CASES.len());
}

const EXAMPLE: &str = include_str!("../../../../examples/kubernetes/guestbook.yaml");

fn resolved(loaded: &Loaded) -> DesiredState {
    let (desired, problems) = resolve(loaded.objects.clone());
    assert!(problems.iter().all(|problem| !problem.is_error()), "{problems:#?}");
    desired
}

#[test]
fn the_example_means_what_kubernetes_says() {
    let loaded = load_files(&[("guestbook.yaml", EXAMPLE)]);
    assert_eq!(said(&loaded), [""; 0], "{}", shown(&loaded));
    let desired = resolved(&loaded);
    let web = &desired.workloads[&"shop/app/frontend".parse().expect("a key")];
    assert_eq!((web.replicas, web.strategy.max_surge, web.strategy.max_unavailable), (3, 1, 0));
    assert_eq!(
        web.ports.iter().map(|p| (p.at.address.to_string(), p.at.port, p.container_port)).collect::<Vec<_>>(),
        [("0.0.0.0".to_owned(), 80, 80)]
    );
    assert_eq!(web.template.env["LOG_LEVEL"], EnvValue::Plain("info".to_owned()));
    assert!(
        matches!(&web.template.healthcheck, Some(check) if check.probe == Probe::Http { port: 80, path: "/healthz".to_owned(), with: crate::model::HttpWith::default() } && check.timeout_ms == 1_000)
    );
    assert_eq!(web.template.stop_grace_ms, 30_000);
    let redis = &desired.workloads[&"shop/app/redis".parse().expect("a key")];
    assert!(redis.exclusive && redis.aliases.contains("redis-leader"), "{redis:?}");
    assert_eq!((redis.strategy.max_surge, redis.strategy.max_unavailable), (0, 1));
}

#[test]
fn probes_have_the_defaults_of_kubernetes() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: c\n    image: i\n    \
        startupProbe: {exec: {command: [up]}, failureThreshold: 30}\n    livenessProbe: {tcpSocket: {port: 1}, \
        initialDelaySeconds: 4, periodSeconds: 5}\n";
    let desired = resolved(&load_files(&[("a.yaml", text)]));
    let template = &desired.workloads.values().next().expect("an App").template;
    let check = |probe, interval_ms, retries, start_period_ms| {
        Some(Healthcheck { probe, interval_ms, timeout_ms: 1_000, retries, start_period_ms, successes: 1 })
    };
    assert_eq!(template.startup, check(Probe::Exec(vec!["up".to_owned()]), 10_000, 30, 0));
    assert_eq!(template.liveness, check(Probe::Tcp { port: 1 }, 5_000, 3, 4_000));
    assert_eq!(template.healthcheck, check(Probe::Off, 10_000, 3, 0));
}

#[test]
fn kinds_and_their_defaults() {
    let text = "apiVersion: v1\nkind: List\nitems:\n\
        - {apiVersion: batch/v1, kind: Job, metadata: {name: j}, spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i, command: [a], args: ['$(X)-$$(Y)'], env: [{name: X, value: '1'}]}]}}}}\n\
        - {apiVersion: batch/v1, kind: CronJob, metadata: {name: n, namespace: other}, spec: {schedule: '@daily', jobTemplate: {spec: {template: {spec: {restartPolicy: OnFailure, containers: [{name: c, image: i}]}}}}}}\n\
        - {apiVersion: apps/v1, kind: DaemonSet, metadata: {name: d}, spec: {template: {spec: {containers: [{name: c, image: i, volumeMounts: [{name: e, mountPath: /e}, {name: m, mountPath: /m}, {name: h, mountPath: /h}, {name: s, mountPath: /s}]}], volumes: [{name: e, emptyDir: {}}, {name: m, emptyDir: {medium: Memory, sizeLimit: 1Mi}}, {name: h, hostPath: {path: /tmp}}, {name: s, secret: {secretName: s, items: [{key: a, path: b/c}], defaultMode: 256}}]}}}}\n\
        - {apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: aGk=}}\n\
        - {apiVersion: v1, kind: Namespace, metadata: {name: other}}\n";
    let loaded = load_files(&[("a.yaml", text)]);
    assert!(!loaded.has_errors(), "{}", shown(&loaded));
    let desired = resolved(&loaded);
    let job = &desired.jobs[&"shop/job/j".parse().expect("a key")];
    assert_eq!((job.backoff_limit, job.schedule.is_none()), (6, true));
    assert_eq!(job.template.args.as_deref(), Some(&["1-$(Y)".to_owned()][..]));
    let cron = desired.jobs[&"other/job/n".parse().expect("a key")].schedule.as_ref().map(|s| s.cron.clone());
    assert_eq!(cron.as_deref(), Some("0 0 * * *"));
    let daemon = &desired.workloads[&"shop/app/d".parse().expect("a key")];
    let mounts: Vec<_> = daemon.template.mounts.iter().map(|mount| (mount.path.as_str(), mount.what.clone())).collect();
    let tmpfs = MountWhat::Tmpfs { size_bytes: Some(1 << 20) };
    let value = crate::model::SecretUse { secret: "s".to_owned(), key: "a".to_owned(), sealed: "hi".to_owned() };
    let secret = MountWhat::Secret { value, mode: 0o400, owner: Some([0, 0]) };
    let bind = MountWhat::Bind("/tmp".to_owned());
    assert_eq!(mounts, [("/e", MountWhat::Anonymous), ("/m", tmpfs), ("/h", bind), ("/s/b/c", secret)]);
}

/// A Service whose file does not parse any more keeps its name and port, whatever else changes meanwhile.
#[test]
fn a_broken_service_file_takes_no_name_away() {
    let (objects, workload) =
        EXAMPLE.split_at(EXAMPLE.find("---\napiVersion: apps/v1\nkind: Deployment").expect("one"));
    let good = load_files(&[("s.yaml", objects), ("w.yaml", workload)]);
    let (accepted, _) = accept(&accept::Accepted::default(), &good, accept::Confirmation::None);
    let broken =
        load_files(&[("s.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: frontend\n"), ("w.yaml", workload)]);
    let (after, _) = accept(&accepted, &broken, accept::Confirmation::None);
    let ports = |state: &DesiredState| state.workloads[&"shop/app/frontend".parse().expect("a key")].ports.len();
    assert_eq!((ports(&accepted.desired), ports(&after.desired)), (1, 1));
}

#[derive(Debug, Clone)]
struct Application {
    replicas: u32,
    port: u16,
    env: Vec<(String, String)>,
    args: Vec<String>,
    memory_mib: u32,
    read_only: bool,
    volume: bool,
    grace: u32,
}

fn applications() -> impl Strategy<Value = Application> {
    let env = proptest::collection::vec(("[A-Z]{1,3}", "[a-z0-9 .:/-]{0,6}"), 0..3);
    let args = proptest::collection::vec("[a-z0-9 =./-]{1,6}", 0..3);
    let parts = (1..4u32, 1..60_000u16, env, args, 6..2_000u32, any::<bool>(), any::<bool>(), 0..100u32);
    parts.prop_map(|(replicas, port, env, args, memory_mib, read_only, volume, grace)| Application {
        // A volume of the native dialect that several may write to is spelled otherwise.
        replicas,
        port,
        env: env.into_iter().collect::<std::collections::BTreeMap<_, _>>().into_iter().collect(),
        args,
        memory_mib,
        read_only,
        volume,
        grace,
    })
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("data")
}

impl Application {
    fn env_map(&self) -> String {
        json(&self.env.iter().cloned().collect::<std::collections::BTreeMap<_, _>>())
    }

    fn native(&self) -> String {
        let Self { replicas, port, memory_mib, read_only, grace, .. } = self;
        let mounts = if self.volume { "[{path: /data, volume: data}]" } else { "[]" };
        let unavailable = replicas / 4;
        format!(
            "{{apiVersion: boxship/v1, kind: Volume, name: data, access: any}}\n---\napiVersion: boxship/v1\nkind: App\nname: web\n\
             image: shop/web:1\nreplicas: {replicas}\nports: ['0.0.0.0:{port}:{port}']\nenv: {}\nargs: {}\nmounts: {mounts}\n\
             resources: {{memory: {memory_mib}Mi}}\nsecurity: {{readOnlyRoot: {read_only}}}\nstopGracePeriod: {grace}s\n\
             healthcheck: {{exec: [check], interval: 7s, timeout: 2s, retries: 4}}\n\
             strategy: {{maxSurge: 1, maxUnavailable: {unavailable}, onFailure: hold}}\n",
            self.env_map(),
            json(&self.args),
        )
    }

    fn compose(&self) -> String {
        let Self { replicas, port, memory_mib, read_only, grace, .. } = self;
        let volumes = if self.volume { "['data:/data']" } else { "[]" };
        format!(
            "services:\n  web:\n    image: shop/web:1\n    restart: always\n    ports: ['{port}:{port}']\n    environment: {}\n    \
             command: {}\n    volumes: {volumes}\n    mem_limit: {memory_mib}m\n    read_only: {read_only}\n    \
             stop_grace_period: {grace}s\n    healthcheck: {{test: [CMD, check], interval: 7s, timeout: 2s, retries: 4}}\n    \
             deploy: {{replicas: {replicas}, update_config: {{order: start-first}}}}\nvolumes: {{data: }}\n",
            self.env_map(),
            json(&self.args),
        )
    }

    fn kubernetes(&self) -> String {
        let Self { replicas, port, memory_mib, read_only, grace, .. } = self;
        let env: Vec<_> = self.env.iter().map(|(k, v)| serde_json::json!({"name": k, "value": v})).collect();
        let mounts = if self.volume { "[{name: d, mountPath: /data}]" } else { "[]" };
        format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: data}}, spec: {{accessModes: [ReadWriteOnce]}}}}\n---\n\
             {{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{type: LoadBalancer, selector: {{app: web}}, ports: [{{port: {port}}}]}}}}\n---\n\
             apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  strategy: {{rollingUpdate: {{maxSurge: 1}}}}\n  \
             template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: {grace}\n      \
             volumes: [{{name: d, persistentVolumeClaim: {{claimName: data}}}}]\n      containers:\n      - name: c\n        image: shop/web:1\n        \
             ports: [{{containerPort: {port}}}]\n        env: {}\n        args: {}\n        volumeMounts: {mounts}\n        \
             resources: {{limits: {{memory: {memory_mib}Mi}}}}\n        securityContext: {{readOnlyRootFilesystem: {read_only}}}\n        \
             readinessProbe: {{exec: {{command: [check]}}, periodSeconds: 7, timeoutSeconds: 2, failureThreshold: 4}}\n",
            json(&env),
            json(&self.args),
        )
    }
}

/// The desired state without places, and without what dialects cannot help to differ in.
fn meaning(file: &str, text: &str) -> serde_json::Value {
    let loaded = load_files(&[(file, text)]);
    assert!(loaded.diagnostics.is_empty(), "{}\n{text}", shown(&loaded));
    let mut desired = resolved(&loaded);
    for workload in desired.workloads.values_mut() {
        // Kubernetes has names of its own form besides.
        workload.aliases.retain(|alias| !alias.contains(".svc"));
    }
    let nowhere = |value: serde_json::Value| without_sources(value);
    nowhere(serde_json::to_value(&desired).expect("data"))
}

fn without_sources(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Json::Object(map) if map.contains_key("column") => Json::Null,
        Json::Object(map) => map.into_iter().map(|(key, value)| (key, without_sources(value))).collect(),
        Json::Array(items) => items.into_iter().map(without_sources).collect(),
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_application_in_three_dialects_is_the_same(app in applications()) {
        let native = meaning("a.yaml", &app.native());
        prop_assert_eq!(&native, &meaning("compose.yaml", &app.compose()));
        let mut kubernetes = meaning("a.yaml", &app.kubernetes());
        // An empty list of arguments is none, in Kubernetes' own words too.
        if app.args.is_empty() {
            prop_assert_eq!(kubernetes.pointer("/workloads/shop~1app~1web/template/args"), native.pointer("/workloads/shop~1app~1web/template/args"));
        }
        if let Some(slot) = kubernetes.pointer_mut("/workloads/shop~1app~1web/strategy/max_unavailable") {
            *slot = native.pointer("/workloads/shop~1app~1web/strategy/max_unavailable").cloned().expect("there");
        }
        prop_assert_eq!(&native, &kubernetes);
    }

    #[test]
    fn any_text_gives_objects_or_words_and_never_a_panic(
        at in 0..EXAMPLE.len(), cut in 0..12usize,
        splice in prop_oneof!["[ \\n\\t:{}\\[\\],\"'|>&*!%@#$<-]{0,6}", Just("*a".to_owned()), Just("\n---\n".to_owned()), ".{0,3}"],
    ) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        bytes.splice(at..(at + cut).min(EXAMPLE.len()), splice.bytes());
        let loaded = load_files(&[("a.yaml", &String::from_utf8_lossy(&bytes))]);
        let _ = shown(&loaded);
        let _ = resolve(loaded.objects.clone());
        prop_assert_eq!(loaded.has_errors(), loaded.files["shop/a.yaml"] == FileKind::Broken);
    }
}

#[test]
fn one_key_of_a_config_is_one_variable() {
    let text = format!("{POD}    env: [{{name: A, valueFrom: {{configMapKeyRef: {{name: c, key: k}}}}}}]\n");
    let loaded = load_files(&[("a.yaml", &text)]);
    let Some(ObjectSpec::App(app)) = loaded.objects.first().map(|object| &object.spec) else { panic!("one App") };
    assert!(matches!(&app.template.env["A"], EnvSpec::Config { name, key, .. } if name == "c" && key == "k"));
    let _ = without_places(&loaded.objects[0].spec);
}
