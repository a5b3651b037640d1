//! One example of every diagnostic of loading: code, place, suggestion. Each code of loading must be among them.
//!
//! A case is a manifest and what is said about it, one line each: `CODE line:column suggestion`.

use std::collections::BTreeSet;

use super::super::{LoadOptions, Look, load, render_all, to_json};
use crate::model::{Diagnostic, Loaded};

/// Without `apiVersion` on the first line, which is added: so line numbers begin at 2.
const CASES: &[(&str, &[&str])] = &[
    // --- YAML
    ("kind: App\nname: [a\nimage: x\n", &["BX0101 4:6"]),
    ("kind: App\n\tname: a\n", &["BX0101 3:1"]),
    (
        "kind: App\nname: a\nimage: a\n---\nkind: [\n---\napiVersion: boxship/v1\nkind: Volume\nname: V\n",
        &["BX0101 7:1", "BX0110 10:7 v"],
    ),
    ("kind: App\nname: a\nimage: a\nenv: {A: 1, A: 2}\n", &["BX0106 5:13"]),
    ("kind: App\nname: a\nname: b\nimage: a\n", &["BX0106 4:1"]),
    ("kind: App\nname: &n a\nimage: *n\n", &["BX0108 3:7", "BX0108 4:8"]),
    ("kind: App\nname: a\nimage: !!str a\n<<: {replicas: 2}\n", &["BX0108 4:8", "BX0108 5:1"]),
    // --- envelope
    ("name: a\nimage: a\n", &["BX0105 1:13"]),
    ("kind: Apps\nname: a\n", &["BX0103 2:7 App"]),
    ("kind: CronJob\nname: a\n", &["BX0103 2:7 Job"]),
    ("kind: Frobnicator\nname: a\n", &["BX0103 2:7"]),
    ("kind: Policy\nname: a\n", &["BX0119 2:7"]),
    ("kind: Network\nname: a\nsubnet: 10.0.0.0/8\n", &["BX0127 4:9"]),
    ("kind: Network\nname: a\nsubnet: 10.9.0.0/24\ngateway: 10.8.0.1\n", &["BX0127 5:10"]),
    ("kind: App\nname: a\nimage: a\nnetwork: host\nnetworks: [b]\n", &["BX0126 6:11"]),
    ("kind: App\nname: a\nimage: a\nnetworks: [b, {name: b, address: x}]\n", &["BX0127 5:34"]),
    ("kind: Volume\nname: a\n---\nkind: Volume\nname: b\n", &["BX0105 5:1"]),
    ("kind: Volume\nname: a\n---\na: 1\n", &["BX0105 5:1"]),
    ("kind: Volume\n", &["BX0105 1:1"]),
    ("kind: Volume\nname:\n", &["BX0105 3:1"]),
    // --- names and references
    ("kind: Volume\nname: My_Data\n", &["BX0110 3:7 my-data"]),
    ("kind: Image\nname: a\nref: Shop/Web:1\n", &["BX0112 4:6 shop/web:1"]),
    ("kind: Image\nname: a\nref: a:b:c\nkeep: -1\n", &["BX0112 4:6", "BX0107 5:7"]),
    ("kind: App\nname: a\nhostname: -x\nimage: a\n", &["BX0110 4:11"]),
    ("kind: Config\nname: a\ndata: {a/b: x}\n", &["BX0110 4:8"]),
    // --- fields and types
    ("kind: App\nname: a\nimgae: a\nreplcas: 2\n", &["BX0104 4:1 image", "BX0104 5:1 replicas"]),
    ("kind: App\nname: a\nimage: a\nmetadata: {name: a}\nvolumes: []\n", &["BX0104 5:1", "BX0104 6:1"]),
    ("kind: App\nname: a\nimage: a\ncommand: [x]\n", &["BX0111 5:1"]),
    (
        "kind: App\nname: a\nimage: a\nreplicas: many\ntty: maybe\nargs: x\n",
        &["BX0107 5:11", "BX0107 6:6", "BX0107 7:7"],
    ),
    ("kind: App\nname: a\nimage: a\nreplicas: 1001\n", &["BX0107 5:11"]),
    ("kind: App\nname: a\nimage: a\nargs: [1, x, true]\n", &["BX0107 5:8 \"1\"", "BX0107 5:14 \"true\""]),
    ("kind: Volume\nname: a\naccess: sharde\n", &["BX0107 4:9 shared"]),
    (
        "kind: App\nname: a\nimage: a\nmounts: {path: /x}\nenv: [A=1]\nresources: 256Mi\n",
        &["BX0107 5:10", "BX0107 6:6", "BX0107 7:12"],
    ),
    ("kind: App\nname: a\nimage: a\nenv: {A: }\n", &["BX0107 5:7"]),
    ("kind: App\nname: a\n", &["BX0105 3:7"]),
    ("kind: App\nname: a\nimage: a\nimageFrom: b\n", &["BX0126 5:12"]),
    // --- quantities, durations
    ("kind: App\nname: a\nimage: a\nresources: {memory: 256m, cpu: 0}\n", &["BX0113 5:21 256Mi", "BX0113 5:32"]),
    (
        "kind: App\nname: a\nimage: a\nresources: {memory: 64MB, pids: 0}\nshmSize: big\n",
        &["BX0113 5:21 64Mi", "BX0107 5:33", "BX0113 6:10"],
    ),
    ("kind: App\nname: a\nimage: a\nstopGracePeriod: 20\n", &["BX0114 5:18 20s"]),
    ("kind: App\nname: a\nimage: a\nhealthcheck: {tcp: 80, interval: often}\n", &["BX0114 5:34"]),
    ("kind: App\nname: a\nimage: a\nstrategy: {maxSurge: 0, maxUnavailable: 0}\n", &["BX0126 5:12"]),
    ("kind: App\nname: a\nimage: a\nstrategy: {maxSurge: 150%}\n", &["BX0113 5:22"]),
    // --- ports
    (
        "kind: App\nname: a\nimage: a\nports: [0, 80:x, {containerPort: 70000}]\n",
        &["BX0116 5:9", "BX0116 5:12", "BX0107 5:34"],
    ),
    (
        "kind: App\nname: a\nimage: a\nports: [web:8080:80, 53/sctp, 1-2]\n",
        &["BX0116 5:9", "BX0119 5:22", "BX0119 5:31"],
    ),
    ("kind: App\nname: a\nimage: a\nnetwork: host\nports: [8080:80]\n", &["BX0126 6:8"]),
    // --- mounts
    ("kind: App\nname: a\nimage: a\nmounts:\n- {path: /x}\n- {path: x, volume: v}\n", &["BX0115 7:10 /x"]),
    ("kind: App\nname: a\nimage: a\nmounts:\n- {path: /x}\n", &["BX0115 6:4"]),
    ("kind: App\nname: a\nimage: a\nmounts:\n- {path: /x, volume: v, bind: /y}\n", &["BX0115 6:31"]),
    ("kind: App\nname: a\nimage: a\nmounts:\n- {path: /x, volume: v, mode: \"0644\"}\n", &["BX0126 6:31"]),
    ("kind: App\nname: a\nimage: a\nmounts:\n- {path: /x, config: c, mode: 644}\n", &["BX0127 6:31 \"0644\""]),
    ("kind: App\nname: a\nimage: a\nmounts:\n- {path: /x, config: c, onChange: restart}\n", &["BX0119 6:35"]),
    ("kind: App\nname: a\nimage: a\nmounts:\n- {path: /x, volume: v}\n- {path: /x/, volume: w}\n", &["BX0126 7:10"]),
    (
        "kind: App\nname: a\nimage: a\nmounts:\n- {path: /x, file: ./nope}\n- {path: /y, file: /}\n",
        &["BX0125 6:20", "BX0125 7:20"],
    ),
    // --- health checks, schedules, the rest
    ("kind: App\nname: a\nimage: a\nhealthcheck: {interval: 5s}\n", &["BX0117 5:15"]),
    ("kind: App\nname: a\nimage: a\nhealthcheck: {tcp: 80, http: \":80\"}\n", &["BX0117 5:20"]),
    ("kind: App\nname: a\nimage: a\nhealthcheck: {http: /healthz}\n", &["BX0117 5:21"]),
    ("kind: App\nname: a\nimage: a\nhealthcheck: {http: \"x:y\", exec: []}\n", &["BX0117 5:21"]),
    ("kind: Job\nname: a\nimage: a\nschedule: 3 * * *\n", &["BX0118 5:11"]),
    ("kind: Job\nname: a\nimage: a\nschedule: 0 3 * * *\ntimeZone: Europe/Berln\n", &["BX0118 6:11 Europe/Berlin"]),
    ("kind: Job\nname: a\nimage: a\ntimeZone: UTC\n", &["BX0126 5:11"]),
    ("kind: App\nname: a\nimage: a\nnetwork: none\nnetworks: [default]\n", &["BX0126 6:11"]),
    ("kind: App\nname: a\nimage: a\nenv: {A: {config: c}}\n", &["BX0105 5:11"]),
    (
        "kind: App\nname: a\nimage: a\nsecurity: {capAdd: [NET_ADMN]}\nstopSignal: TREM\n",
        &["BX0127 5:21 NET_ADMIN", "BX0127 6:13 SIGTERM"],
    ),
    ("kind: App\nname: a\nimage: \"${REG}/a\"\nargs: [\"$${OK}\", \"x${B:?say B}\"]\n", &["BX0120 4:9", "BX0120 5:20"]),
    ("kind: App\nname: a\nimage: a\nargs: ['${']\n", &["BX0120 5:9"]),
    // --- nothing is wrong
    ("kind: App\nname: a\nimage: a\nports: [80, 8080:80, \"[::]:81:81\"]\nargs: [\"$$HOME $X\"]\n", &[]),
    (
        "kind: App\nname: a\nimage: a\nmounts:\n- {path: /x, config: c, mode: 0600}\n- {path: /y, tmpfs: true}\n- {path: /z, tmpfs: 1Mi}\n",
        &[],
    ),
    ("kind: App\nname: a\nimage: a\nreplicas:\nenv: {A: 1.20, B: yes, C: 0777, D: \"\"}\nuser: 1000\n", &[]),
];

fn load_text(text: &str) -> Loaded {
    let root = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(root.path().join("a.yaml"), text).expect("a file");
    load(root.path(), &LoadOptions::default())
}

fn line(diagnostic: &Diagnostic) -> String {
    let place = diagnostic.span.as_ref().map_or_else(String::new, |span| format!("{}:{}", span.line, span.column));
    let suggestion = diagnostic.suggestion.as_deref().unwrap_or("");
    format!("{} {place} {suggestion}", diagnostic.code).trim_end().to_owned()
}

#[test]
fn every_diagnostic_of_loading() {
    let mut failed = Vec::new();
    let mut seen = BTreeSet::new();
    for (text, expected) in CASES {
        let text = format!("apiVersion: boxship/v1\n{text}");
        let loaded = load_text(&text);
        let mut said: Vec<String> = loaded.diagnostics.iter().map(line).collect();
        seen.extend(loaded.diagnostics.iter().map(|d| d.code.clone()));
        let mut expected: Vec<&str> = expected.to_vec();
        said.sort();
        expected.sort_unstable();
        if said != expected {
            let look = Look::plain(&loaded);
            failed.push(format!(
                "{text}said {said:?}\nnot  {expected:?}\n{}",
                render_all(&loaded.diagnostics, &loaded.sources, &look)
            ));
        }
        // What programs get is the same.
        for diagnostic in &loaded.diagnostics {
            let json = to_json(diagnostic, &Look::default());
            assert_eq!(json["code"], diagnostic.code.as_str());
            assert_eq!(json["span"]["line"], diagnostic.span.as_ref().map_or(0, |span| span.line));
        }
    }
    assert!(failed.is_empty(), "{}\n{} of {} failed", failed.join("\n"), failed.len(), CASES.len());
    let missing: Vec<String> = (101..=127).map(|n| format!("BX0{n}")).filter(|code| !seen.contains(code)).collect();
    // Of a single file: other versions, limits and clashes between objects have tests of their own.
    assert_eq!(missing, ["BX0102", "BX0109", "BX0121", "BX0122", "BX0123", "BX0124"]);
}

#[test]
fn an_unknown_version_names_the_known_one() {
    let loaded = load_text("apiVersion: boxship/v2\nkind: App\nname: a\n");
    assert_eq!(loaded.diagnostics.iter().map(line).collect::<Vec<_>>(), ["BX0102 1:13 boxship/v1"]);
}

#[test]
fn a_directory_that_cannot_be_a_stack() {
    let root = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(root.path().join("My Shop")).expect("a directory");
    std::fs::write(root.path().join("My Shop/a.yaml"), "apiVersion: boxship/v1\nkind: Volume\nname: a\n")
        .expect("a file");
    let loaded = load(root.path(), &LoadOptions::default());
    assert_eq!(loaded.diagnostics.iter().map(line).collect::<Vec<_>>(), ["BX0131 1:1"]);
    assert_eq!(loaded.objects, []);
}

#[test]
fn names_of_stacks() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let volume = |name: &str| format!("apiVersion: boxship/v1\nkind: Volume\nname: {name}\n");
    for (path, name) in
        [("a.yaml", "a"), ("shop/b.yml", "b"), ("shop/deep/er/c.yaml", "c"), (".git/d.yaml", "d"), ("x/.e.yaml", "e")]
    {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, volume(name)).expect("a file");
    }
    let keys = |root: &std::path::Path| {
        let loaded = load(root, &LoadOptions::default());
        loaded.objects.iter().map(|object| object.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys(root.path()), ["default/volume/a", "shop/volume/b", "shop/volume/c"]);
    assert_eq!(keys(&root.path().join("shop/b.yml")), ["shop/volume/b"]);
}

#[test]
fn what_it_looks_like() {
    let loaded = load_text(
        "apiVersion: boxship/v1\nkind: App\nname: web\nimgae: shop/web:1.5\nports:\n- containerPort: \"eighty\"\n",
    );
    let text = render_all(&loaded.diagnostics, &loaded.sources, &Look { color: false, prefix: "shop/".to_owned() });
    expect_test::expect![[r#"
        error[BX0104]: unknown field `imgae` in App `web`
         --> shop/a.yaml:4:1
          |
        3 | name: web
        4 | imgae: shop/web:1.5
          | ^^^^^ did you mean `image`?

        error[BX0107]: `ports[0].containerPort`: expected a port 1-65535, found "eighty"
         --> shop/a.yaml:6:18
          |
        5 | ports:
        6 | - containerPort: "eighty"
          |                  ^^^^^^^^

    "#]]
    .assert_eq(&text);
}

#[test]
fn nothing_in_a_manifest_reaches_the_terminal_as_a_control_sequence() {
    let loaded = load_text(
        "apiVersion: boxship/v1\nkind: App\nname: a\nimage: a\n\"x\\e[31m\": 1\nargs: [\"\\e]0;title\\a\", 1]\n",
    );
    assert!(!loaded.diagnostics.is_empty());
    let text = render_all(&loaded.diagnostics, &loaded.sources, &Look::plain(&loaded));
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}
