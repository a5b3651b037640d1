//! References, clashes and circles: what is said, where, and what is left.

use crate::manifest::{LoadOptions, Look, load, render_all};
use crate::model::{DesiredState, Diagnostic, resolve};

/// Resolves one file; the codes with line and column, in the order they are reported.
fn check(text: &str) -> (DesiredState, Vec<String>) {
    let (desired, diagnostics, _) = all(text);
    let place = |d: &Diagnostic| {
        let span = d.span.as_ref().expect("a place");
        format!("{} {}:{} {}", d.code, span.line, span.column, d.suggestion.clone().unwrap_or_default())
            .trim()
            .to_owned()
    };
    (desired, diagnostics.iter().map(place).collect())
}

fn all(text: &str) -> (DesiredState, Vec<Diagnostic>, String) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let text: Vec<String> = text.split("---\n").map(|document| format!("apiVersion: boxship/v1\n{document}")).collect();
    std::fs::write(root.path().join("a.yaml"), text.join("---\n")).expect("a file");
    let loaded = load(root.path(), &LoadOptions::default());
    assert_eq!(loaded.diagnostics, [], "the objects are good by themselves");
    let (desired, diagnostics) = resolve(loaded.objects.clone());
    let look = Look { color: false, prefix: String::new() };
    let text = render_all(&diagnostics, &loaded.sources, &look);
    (desired, diagnostics, text)
}

#[test]
fn references_to_nothing_name_the_nearest() {
    let (desired, said) = check(
        "kind: Image\nname: web-image\nref: a\n---\nkind: Volume\nname: data\n---\nkind: Config\nname: conf\ndata: {k1: v}\n---\n\
         kind: App\nname: a\nimageFrom: web-imge\n---\nkind: App\nname: b\nimage: a\nmounts: [{path: /x, volume: dta}]\n---\n\
         kind: App\nname: c\nimage: a\nmounts: [{path: /x, config: cnf}, {path: /y, config: conf, key: k2}]\n\
         env: {A: {config: conf, key: kk}}\ndependsOn: {dd: ready}\n",
    );
    assert_eq!(desired.workloads.len(), 0);
    assert_eq!(
        said,
        [
            "BX0121 18:12 web-image",
            "BX0121 24:29 data",
            "BX0121 31:11 k1",
            "BX0121 30:29 conf",
            "BX0121 30:54 k1",
            "BX0121 32:13"
        ]
    );
}

#[test]
fn dependencies_find_apps_and_jobs_and_fit_their_condition() {
    let (desired, said) = check(
        "kind: App\nname: web\nimage: a\ndependsOn: {migrate: completed, db: ready, cache: started}\n---\n\
         kind: Job\nname: migrate\nimage: a\n---\nkind: App\nname: db\nimage: a\n---\nkind: App\nname: cache\nimage: a\n",
    );
    assert_eq!(said, [""; 0]);
    let web = &desired.workloads[&"default/app/web".parse().expect("a key")];
    let on: Vec<String> = web.depends_on.keys().map(ToString::to_string).collect();
    assert_eq!(on, ["default/app/cache", "default/app/db", "default/job/migrate"]);
    let (_, said) = check(
        "kind: App\nname: web\nimage: a\ndependsOn: {db: completed}\n---\nkind: App\nname: db\nimage: a\n---\n\
         kind: Job\nname: j\nimage: a\ndependsOn: {job/j: completed}\n",
    );
    assert_eq!(said, ["BX0127 5:13 ready", "BX0124 16:13"]);
}

#[test]
fn a_circle_is_printed_and_who_waits_for_it_waits_in_vain() {
    let (desired, diagnostics, text) = all(
        "kind: App\nname: a\nimage: a\ndependsOn: {b: ready}\n---\nkind: App\nname: b\nimage: a\ndependsOn: {c: ready}\n---\n\
         kind: App\nname: c\nimage: a\ndependsOn: {a: ready}\n---\nkind: App\nname: d\nimage: a\ndependsOn: {a: ready}\n---\n\
         kind: App\nname: e\nimage: a\n",
    );
    assert_eq!(desired.workloads.keys().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["e"]);
    assert_eq!(diagnostics.len(), 1);
    expect_test::expect![[r#"
        error[BX0124]: objects wait for each other: app/a -> app/b -> app/c -> app/a
          --> a.yaml:5:13
           |
         5 | dependsOn: {b: ready}
           |             ^^^^^^^^ this closes the circle
        ...
        11 | dependsOn: {c: ready}
           |             -------- App `b` waits for `c` here
        ...
        17 | dependsOn: {a: ready}
           |             -------- App `c` waits for `a` here
           |
           = help: remove one of these `dependsOn`

    "#]]
    .assert_eq(&text);
}

#[test]
fn ports_clash_by_address() {
    let clash = |a: &str, b: &str| {
        let text = format!(
            "kind: App\nname: a\nimage: a\nports: [{{containerPort: 1, publish: \"{a}\"}}]\n---\n\
             kind: App\nname: b\nimage: a\nports: [{{containerPort: 1, publish: \"{b}\"}}]\n"
        );
        let (desired, said) = check(&text);
        assert_eq!(desired.workloads.is_empty(), !said.is_empty());
        !said.is_empty()
    };
    assert!(clash("80", "80"));
    assert!(clash("0.0.0.0:80", "127.0.0.1:80"));
    assert!(clash("[::]:80", "127.0.0.1:80"));
    assert!(!clash("0.0.0.0:80", "[::1]:80"));
    assert!(!clash("127.0.0.1:80", "127.0.0.2:80"));
    assert!(!clash("80", "81"));
}

#[test]
fn both_places_of_a_clash_are_shown() {
    let (_, _, text) = all(
        "kind: App\nname: a\nimage: a\nports: [8080:80]\n---\nkind: App\nname: b\nimage: a\nports: [\"0.0.0.0:8080:80\"]\n---\n\
         kind: App\nname: b\nimage: a\n",
    );
    expect_test::expect![[r#"
        error[BX0122]: two objects are called App `b` in stack `default`
          --> a.yaml:15:7
           |
         9 | name: b
           |       - the first one is here
        ...
        15 | name: b
           |       ^ the second one
           |
           = help: rename one of them, or remove it

    "#]]
    .assert_eq(&text);
    let (_, _, text) = all(
        "kind: App\nname: a\nimage: a\nports: [8080:80]\n---\nkind: App\nname: b\nimage: a\nports: [\"0.0.0.0:8080:80\"]\n",
    );
    expect_test::expect![[r#"
        error[BX0123]: port 8080 on 0.0.0.0 is published twice
          --> a.yaml:11:9
           |
         5 | ports: [8080:80]
           |         ------- and by App `a` on 127.0.0.1 here
        ...
        11 | ports: ["0.0.0.0:8080:80"]
           |         ^^^^^^^^^^^^^^^^^ by App `b` here
           |
           = help: give one of them another host port

    "#]]
    .assert_eq(&text);
}

#[test]
fn a_volume_has_one_writer_unless_it_is_shared() {
    let text = |access: &str, replicas: u32, mount: &str| {
        format!(
            "kind: Volume\nname: v\naccess: {access}\n---\nkind: App\nname: a\nimage: a\nreplicas: {replicas}\n\
             mounts: [{{path: /v, volume: v{mount}}}]\n"
        )
    };
    let exclusive = |text: &str| {
        let (desired, said) = check(text);
        assert_eq!(said, [""; 0]);
        desired.workloads.values().next().expect("an App").exclusive
    };
    assert!(exclusive(&text("single", 1, "")));
    assert!(!exclusive(&text("single", 3, ", readOnly: true")));
    assert!(!exclusive(&text("shared", 3, "")));
    assert_eq!(check(&text("single", 3, "")).1, ["BX0128 11:29"]);
    let two =
        format!("{}---\nkind: App\nname: b\nimage: a\nmounts: [{{path: /v, volume: v}}]\n", text("single", 1, ""));
    assert_eq!(check(&two).1, ["BX0128 17:29"]);
    let job = two.replace("kind: App\nname: b", "kind: Job\nname: b");
    assert_eq!(check(&job).1, [""; 0], "a Job before the App is the usual way to migrate");
    assert!(exclusive("kind: App\nname: a\nimage: a\nmounts: [{path: /v, bind: /srv}]\n"));
}
