//! What is converted says the same, for other people's files as well; what is lost is named.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{LoadOptions, convert, without_places};
use crate::manifest::load;
use crate::model::resolve;

/// Converts files that are written into a directory `shop`.
fn converted(files: &[(&str, &str)]) -> super::Conversion {
    let root = tempfile::tempdir().expect("a directory");
    let shop = root.path().join("shop");
    std::fs::create_dir(&shop).expect("a directory");
    for (name, text) in files {
        std::fs::write(shop.join(name), text).expect("a file");
    }
    let options = LoadOptions { root_stack: Some("shop".to_owned()), ..LoadOptions::default() };
    convert(&shop, &options)
}

#[test]
fn the_examples_lose_nothing() {
    let compose = include_str!("../../../../examples/compose/compose.yaml");
    let kubernetes = include_str!("../../../../examples/kubernetes/guestbook.yaml");
    for (name, text) in [("compose.yaml", compose), ("guestbook.yaml", kubernetes)] {
        let conversion = converted(&[(name, text)]);
        assert_eq!(conversion.lost, [""; 0], "{name}:\n{:?}", conversion.files);
        assert_eq!(conversion.files.len(), 1);
    }
}

#[test]
fn it_reads_as_written_by_hand() {
    let conversion = converted(&[(
        "compose.yaml",
        "services:\n  web:\n    image: nginx:1\n    ports: ['8080:80']\n    environment: {PRICE: 5$$, A: '$${B}'}\n    \
         depends_on: {db: {condition: service_healthy}}\n    volumes: ['data:/data', /cache]\n    \
         configs: [{source: c, target: /etc/c.conf}]\n    deploy: {resources: {limits: {memory: 64m, cpus: '0.5'}}}\n  \
         db:\n    image: pg:1\n    restart: on-failure:3\n    container_name: shop_db\n    healthcheck: {test: [CMD, ok], interval: 500ms}\n\
         volumes: {data: }\nconfigs: {c: {content: \"a\\nb\\n\"}}\n",
    )]);
    assert_eq!(conversion.lost, [""; 0]);
    expect_test::expect![[r#"
        apiVersion: boxship/v1
        kind: Config
        name: files
        data:
          c.conf: |
            a
            b
        ---
        apiVersion: boxship/v1
        kind: Volume
        name: data
        access: any
        ---
        apiVersion: boxship/v1
        kind: App
        name: db
        image: docker.io/library/pg:1
        healthcheck:
          exec:
          - ok
          interval: 500ms
          timeout: 30s
          retries: 3
        restart: on-failure:3
        aliases:
        - shop_db
        ---
        apiVersion: boxship/v1
        kind: App
        name: web
        image: docker.io/library/nginx:1
        env:
          A: $${B}
          PRICE: 5$
        mounts:
        - path: /data
          volume: data
        - path: /cache
          anonymous: true
        - path: /etc/c.conf
          config: files
          key: c.conf
          mode: '0444'
        resources:
          cpu: 500m
          memory: 64Mi
        ports:
        - containerPort: 80
          publish: 0.0.0.0:8080
        restart: never
        dependsOn:
          app/db: ready
    "#]]
    .assert_eq(&conversion.files["shop"]);
}

/// Every file of other people that loads: nothing is lost, or each thing is named.
#[test]
fn other_peoples_files_lose_little() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let corpus = ["../shared/corpus", "../../shared/corpus"].iter().map(|path| project.join(path));
    let Some(corpus) = corpus.into_iter().find(|path| path.is_dir()) else {
        println!("skipped: no corpus");
        return;
    };
    let (mut all, mut whole, mut said) = (0, 0, Vec::new());
    for directory in ["compose", "kubernetes"] {
        let entries = std::fs::read_dir(corpus.join(directory)).expect("the corpus has it");
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        for path in files {
            let options = LoadOptions { root_stack: Some("shop".to_owned()), ..LoadOptions::default() };
            let conversion = convert(&path, &options);
            if conversion.report.errors() == 0 {
                all += 1;
                whole += usize::from(conversion.lost.is_empty());
                said.extend(conversion.lost.iter().map(|lost| format!("{}: {lost}", path.display())));
            }
        }
    }
    println!("{whole} of {all} lose nothing");
    assert!(all > 100 && whole * 100 >= all * 90, "{whole} of {all}\n{}", said.join("\n"));
    assert!(said.iter().all(|lost| !lost.contains("cannot be read")), "{}", said.join("\n"));
}

/// What the three dialects can say alike of one App.
#[derive(Debug, Clone)]
struct Application {
    replicas: u32,
    entrypoint: Vec<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    port: Option<(u16, u16)>,
    memory_mi: Option<u32>,
    cpu_millis: Option<u32>,
    user: Option<u32>,
    grace_seconds: u32,
    read_only: bool,
    capability: Option<&'static str>,
    check: (String, u32, u32),
    tty: bool,
}

fn application() -> impl Strategy<Value = Application> {
    let words = || prop::collection::vec("[ -~]{1,12}", 1..4);
    let env = prop::collection::vec(("[A-Z][A-Z_]{0,8}", "[\\p{L}\\p{N}\\p{P}\\p{S} ]{0,16}"), 0..4);
    let first = (1..5_u32, words(), words(), env, prop::option::of((1024..u16::MAX, 1..u16::MAX)));
    let second = (prop::option::of(1..4_000_u32), prop::option::of(1..4_000_u32), prop::option::of(0..70_000_u32));
    let capability = prop::option::of(prop::sample::select(vec!["NET_ADMIN", "SYS_TIME"]));
    let third = (0..100_u32, any::<bool>(), capability, ("[ -~]{1,12}", 1..60_u32, 1..9_u32));
    (first, second, third, any::<bool>()).prop_map(|(first, second, third, tty)| {
        let (replicas, entrypoint, args, mut env, port) = first;
        env.sort();
        env.dedup_by(|a, b| a.0 == b.0);
        let (memory_mi, cpu_millis, user) = second;
        let (grace_seconds, read_only, capability, check) = third;
        Application {
            replicas,
            entrypoint,
            args,
            env,
            port,
            memory_mi,
            cpu_millis,
            user,
            grace_seconds,
            read_only,
            capability,
            check,
            tty,
        }
    })
}

impl Application {
    fn compose(&self) -> Json {
        let dollars = |text: &String| Json::from(text.replace('$', "$$"));
        let all = |words: &[String]| words.iter().map(dollars).collect::<Vec<_>>();
        let mut limits = json!({});
        if let Some(mi) = self.memory_mi {
            limits["memory"] = json!(format!("{mi}m"));
        }
        if let Some(millis) = self.cpu_millis {
            limits["cpus"] = json!(format!("{}.{:03}", millis / 1_000, millis % 1_000));
        }
        let mut service = json!({
            "image": "i:1", "restart": "always", "entrypoint": all(&self.entrypoint), "command": all(&self.args),
            "environment": self.env.iter().map(|(k, v)| (k.clone(), dollars(v))).collect::<serde_json::Map<_, _>>(),
            "stop_grace_period": format!("{}s", self.grace_seconds), "read_only": self.read_only, "tty": self.tty,
            "security_opt": ["no-new-privileges:false"],
            "deploy": {"replicas": self.replicas, "resources": {"limits": limits},
                "update_config": {"order": "start-first", "failure_action": "pause", "parallelism": 1}},
        });
        match self.port {
            Some((host, container)) => service["ports"] = json!([format!("{host}:{container}")]),
            None => service["expose"] = json!([]),
        }
        if let Some(user) = self.user {
            service["user"] = json!(user.to_string());
        }
        if let Some(name) = self.capability {
            service["cap_add"] = json!([name]);
        }
        let (word, every, retries) = &self.check;
        service["healthcheck"] = json!({"test": ["CMD", dollars(word)], "interval": format!("{every}s"),
            "timeout": "2s", "retries": retries});
        json!({ "services": { "web": service } })
    }

    fn kubernetes(&self) -> Json {
        // `$$` is one dollar sign here as well, and `$(NAME)` a variable
        let dollars = |text: &String| Json::from(text.replace('$', "$$"));
        let all = |words: &[String]| words.iter().map(dollars).collect::<Vec<_>>();
        let mut limits = json!({});
        if let Some(mi) = self.memory_mi {
            limits["memory"] = json!(format!("{mi}Mi"));
        }
        if let Some(millis) = self.cpu_millis {
            limits["cpu"] = json!(format!("{millis}m"));
        }
        let mut security = json!({"readOnlyRootFilesystem": self.read_only, "allowPrivilegeEscalation": true});
        if let Some(user) = self.user {
            security["runAsUser"] = json!(user);
        }
        if let Some(name) = self.capability {
            security["capabilities"] = json!({ "add": [name] });
        }
        let mut container = json!({
            "name": "c", "image": "i:1", "command": all(&self.entrypoint), "args": all(&self.args), "tty": self.tty,
            "env": self.env.iter().map(|(k, v)| json!({"name": k, "value": dollars(v)})).collect::<Vec<_>>(),
            "resources": {"limits": limits}, "securityContext": security,
        });
        if let Some((host, port)) = self.port {
            container["ports"] = json!([{"containerPort": port, "hostPort": host}]);
        }
        let (word, every, retries) = &self.check;
        container["readinessProbe"] = json!({"exec": {"command": [word]}, "periodSeconds": every,
            "timeoutSeconds": 2, "failureThreshold": retries});
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
            "replicas": self.replicas, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": self.grace_seconds, "containers": [container]}}}})
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// One application as a compose file, as a Deployment and as the native manifest made of it is one model.
    #[test]
    fn one_application_in_three_dialects_is_one_model(application in application()) {
        let model = |name: &str, text: &str| {
            let root = tempfile::tempdir().expect("a directory");
            std::fs::create_dir(root.path().join("shop")).expect("a directory");
            std::fs::write(root.path().join("shop").join(name), text).expect("a file");
            let loaded = load(root.path(), &LoadOptions::default());
            let errors: Vec<_> = loaded.diagnostics.iter().filter(|d| d.is_error()).collect();
            assert!(errors.is_empty(), "{errors:#?} in {text}");
            let (desired, problems) = resolve(loaded.objects);
            assert!(problems.is_empty(), "{problems:#?}");
            without_places(serde_json::to_value(desired.workloads).expect("data"))
        };
        let compose = application.compose().to_string();
        let of_compose = model("compose.yaml", &compose);
        prop_assert_eq!(&of_compose, &model("web.yaml", &application.kubernetes().to_string()));
        let conversion = converted(&[("compose.yaml", &compose)]);
        prop_assert_eq!(&conversion.lost, &[""; 0]);
        prop_assert_eq!(&of_compose, &model("native.yaml", &conversion.files["shop"]));
    }
}
