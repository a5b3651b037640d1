//! Several files of one project: variables, overrides, includes, extends, anchors, profiles, names.

use super::{app, load_files, load_text, plain, said, shown};
use crate::model::object::EnvSpec;
use crate::model::{FileKind, ObjectSpec, resolve};

fn env(loaded: &crate::model::Loaded, key: &str, name: &str) -> Option<String> {
    app(loaded, key).template.env.get(name).map(|value| match value {
        EnvSpec::Plain(text) => text.clone(),
        EnvSpec::Config { .. } | EnvSpec::Secret { .. } => panic!("compose has no such values"),
    })
}

#[test]
fn variables_come_from_the_environment_then_env_then_defaults() {
    let compose = "services:\n  a:\n    image: img:${TAG:-9}\n    env_file: [a.env, {path: none.env, required: false}]\n    \
                   environment:\n    - X=${FROM_ENV}-${BOTH}\n    - Y\n    - Z=own\n    - NOT_THERE\n";
    let files = [
        ("compose.yaml", compose),
        (".env", "FROM_ENV=file\nBOTH=file\nY=from-dot-env\n"),
        ("a.env", "Z=file\nW='a b'\nV=${BOTH}\n"),
    ];
    let loaded = load_files(&files, &[("BOTH", "shell")]);
    assert_eq!(said(&loaded), [""; 0], "{}", shown(&loaded));
    let get = |name| env(&loaded, "shop/app/a", name);
    assert_eq!(get("X").as_deref(), Some("file-shell"));
    assert_eq!(get("Y").as_deref(), Some("from-dot-env"));
    assert_eq!(
        (get("Z").as_deref(), get("W").as_deref(), get("V").as_deref()),
        (Some("own"), Some("a b"), Some("shell"))
    );
    assert_eq!(get("NOT_THERE"), None);
    // What was read counts for "has anything changed", what is missing too.
    let refs: Vec<&str> = loaded.file_refs.iter().filter_map(|path| path.rsplit('/').next()).collect();
    assert_eq!(refs, [".env", "a.env", "none.env"]);
}

#[test]
fn an_override_joins_and_another_compose_file_is_told_not_to_count() {
    let files = [
        (
            "compose.yaml",
            "services:\n  a:\n    image: img:1\n    command: [x]\n    ports: ['80:80']\n    environment: [A=1, B=1]\n    \
             volumes: ['./x:/x', './y:/y']\n",
        ),
        (
            "compose.override.yaml",
            "services:\n  a:\n    image: img:2\n    command: [y]\n    ports: ['81:81']\n    environment: {B: 2}\n    \
             volumes: ['./z:/x']\n  b:\n    image: img:3\n",
        ),
        ("compose.prod.yaml", "services:\n  c:\n    image: img:4\n"),
    ];
    let loaded = load_files(&files, &[]);
    assert_eq!(plain(&loaded.objects).keys().collect::<Vec<_>>(), ["shop/app/a", "shop/app/b"]);
    let a = app(&loaded, "shop/app/a");
    assert_eq!(a.ports.iter().map(|port| port.host_port).collect::<Vec<_>>(), [80, 81]);
    assert_eq!(a.template.args.as_deref(), Some(&["y".to_owned()][..]));
    assert_eq!(
        (env(&loaded, "shop/app/a", "A").as_deref(), env(&loaded, "shop/app/a", "B").as_deref()),
        (Some("1"), Some("2"))
    );
    let paths: Vec<String> = a.template.mounts.iter().map(|mount| format!("{} {:?}", mount.path, mount.what)).collect();
    assert_eq!(paths, ["/x Bind(\"shop/z\")", "/y Bind(\"shop/y\")"]);
    let told: Vec<_> = loaded.diagnostics.iter().filter(|d| d.code == "BX0140").collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].span.as_ref().map(|span| span.file.as_str()), Some("shop/compose.prod.yaml"));
}

#[test]
fn includes_and_extends_bring_their_own_directories_and_variables() {
    let files = [
        (
            "compose.yaml",
            "include: [sub/inner.yaml]\nservices:\n  a:\n    extends: {file: base/base.yaml, service: base}\n    image: img:2\n",
        ),
        ("sub/inner.yaml", "services:\n  b:\n    image: img:${TAG}\n    volumes: ['./data:/data']\n"),
        ("sub/.env", "TAG=from-sub\n"),
        (
            "base/base.yaml",
            "services:\n  base:\n    extends: {service: root}\n    environment: {B: 2}\n  root:\n    image: img:1\n    environment: {A: 1, B: 1}\n    volumes: ['./x:/x']\n",
        ),
    ];
    let loaded = load_files(&files, &[]);
    assert!(!loaded.has_errors(), "{}", shown(&loaded));
    let a = app(&loaded, "shop/app/a");
    assert_eq!(format!("{:?}", a.template.mounts[0].what), "Bind(\"shop/base/x\")");
    assert_eq!(env(&loaded, "shop/app/a", "B").as_deref(), Some("2"));
    assert!(format!("{:?}", a.template.image).contains("img"), "{:?}", a.template.image);
    let b = app(&loaded, "shop/app/b");
    assert!(format!("{:?}", b.template.image).contains("from-sub"), "{:?}", b.template.image);
    assert_eq!(format!("{:?}", b.template.mounts[0].what), "Bind(\"shop/sub/data\")");
    // What came from elsewhere is kept by the name of the compose file when that breaks.
    assert!(loaded.objects.iter().all(|object| object.span.file == "shop/compose.yaml"));
}

#[test]
fn a_chain_that_has_no_end_is_an_error_and_not_a_hang() {
    let circles: [&[(&str, &str)]; 3] = [
        &[("compose.yaml", "include: [compose.yaml]\nservices: {a: {image: i}}\n")],
        &[(
            "compose.yaml",
            "services:\n  a: {image: i, extends: {service: b}}\n  b: {image: i, extends: {service: a}}\n",
        )],
        &[("compose.yaml", "services:\n  a: {image: i, extends: {service: a, file: compose.yaml}}\n")],
    ];
    for files in circles {
        assert!(load_files(files, &[]).has_errors(), "{files:?}");
    }
}

#[test]
fn anchors_and_merges_mean_what_they_stand_for() {
    let loaded = load_text(
        "x-base: &base\n  image: img:1\n  environment: &env {A: 1}\nservices:\n  a:\n    <<: *base\n    command: x\n  b:\n    \
         <<: [*base, {init: true}]\n    environment: {<<: *env, B: 2}\n",
    );
    assert_eq!(said(&loaded), [""; 0], "{}", shown(&loaded));
    assert_eq!(env(&loaded, "shop/app/a", "A").as_deref(), Some("1"));
    assert_eq!(env(&loaded, "shop/app/b", "A").as_deref(), Some("1"));
    assert_eq!(env(&loaded, "shop/app/b", "B").as_deref(), Some("2"));
    assert!(app(&loaded, "shop/app/b").template.init);
    // A problem in what is repeated is one problem.
    let text = "x-: &x {image: i, labels: {a: b}, imgae: i}\nservices:\n  a: *x\n  b: *x\n";
    assert_eq!(said(&load_text(text)), ["BX0142w 1:19", "BX0104 1:35 image"]);
}

#[test]
fn names_profiles_and_what_waits_for_completion() {
    let text = "name: my_shop\nservices:\n  my_web: {image: i, depends_on: {migrate: {condition: service_completed_successfully}}}\n  \
                migrate: {image: i}\n  debug: {image: i, profiles: [dev]}\n";
    let loaded = load_text(text);
    assert_eq!(plain(&loaded.objects).keys().collect::<Vec<_>>(), ["my-shop/app/my-web", "my-shop/job/migrate"]);
    assert!(app(&loaded, "my-shop/app/my-web").aliases.contains("my_web"));
    let (desired, problems) = resolve(loaded.objects.clone());
    assert_eq!((desired.workloads.len(), desired.jobs.len(), problems), (1, 1, vec![]));
    let with = load_files(&[("compose.yaml", text)], &[("COMPOSE_PROFILES", "dev,x")]);
    assert_eq!(with.objects.len(), 3);
    let job = with.objects.iter().find(|object| object.key.name == "migrate").map(|object| &object.spec);
    assert!(matches!(job, Some(ObjectSpec::Job(job)) if job.backoff_limit == 0));
}

#[test]
fn a_broken_file_keeps_what_the_project_defined() {
    for broken in ["services: [", "services: {a: {image: i}}\n\tx: 1\n", "services: {a: {imgae: i}}\n"] {
        let loaded = load_files(&[("compose.yaml", broken), ("compose.override.yaml", "services: {}\n")], &[]);
        assert!(loaded.has_errors(), "{broken}");
        assert_eq!(loaded.files["shop/compose.yaml"], FileKind::Broken, "{broken}");
        assert_eq!(loaded.files["shop/compose.override.yaml"], FileKind::Broken, "{broken}");
    }
}

#[test]
fn bombs_are_bounded() {
    let mut bomb = "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n".to_owned();
    for level in 1..20 {
        bomb.push_str(&format!("x{level}: &x{level} [{}]\n", vec![format!("*x{}", level - 1); 10].join(", ")));
    }
    bomb.push_str("services: {a: {image: i}}\n");
    let loaded = load_text(&bomb);
    assert!(loaded.diagnostics.iter().any(|d| d.code == "BX0109"), "{}", shown(&loaded));
    let deep = format!("services: {{a: {}1{}}}\n", "[".repeat(200), "]".repeat(200));
    assert!(load_text(&deep).has_errors());
    let long = format!("services: {{a: {{image: i, command: \"{}\"}}}}\n", "${A}".repeat(2_000));
    assert!(load_files(&[("compose.yaml", &long)], &[("A", &"x".repeat(10_000))]).has_errors());
}

#[test]
fn a_label_asks_for_restarts_of_what_is_unhealthy() {
    let text = "services:\n  a: {image: i, labels: {autoheal: true}, healthcheck: {test: x}}\n  \
                b: {image: i, healthcheck: {test: x}}\n  c: {image: i, labels: {autoheal: true}}\n";
    let loaded = load_text(text);
    let (desired, problems) = crate::model::resolve(loaded.objects);
    assert!(problems.is_empty(), "{problems:?}");
    let of = |name: &str| {
        let found = desired.workloads.iter().find(|(key, _)| key.name == name);
        let template = &found.expect("an App").1.template;
        (template.liveness.is_some(), template.liveness.is_some() && template.liveness == template.healthcheck)
    };
    assert_eq!((of("a"), of("b"), of("c")), ((true, true), (false, false), (false, false)));
}

#[test]
fn what_is_in_another_services_network_is_a_container_of_its_replica() {
    let text = "services:\n  vpn:\n    image: vpn:1\n    ports: ['9091:9091']\n    restart: always\n  torrent:\n    image: t:1\n    \
                network_mode: service:vpn\n    depends_on: [vpn, db]\n    restart: always\n    stop_grace_period: 1m\n  \
                seeder:\n    image: s:1\n    network_mode: service:torrent\n    restart: always\n  db:\n    image: db:1\n  \
                web:\n    image: w:1\n    depends_on: [torrent]\n";
    let loaded = load_text(text);
    assert_eq!(said(&loaded), [""; 0], "{}", shown(&loaded));
    assert_eq!(plain(&loaded.objects).keys().collect::<Vec<_>>(), ["shop/app/db", "shop/app/vpn", "shop/app/web"]);
    let vpn = app(&loaded, "shop/app/vpn");
    let pod = vpn.template.pod.as_ref().expect("several containers");
    let members: Vec<&str> = pod.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!((pod.main.as_str(), members), ("vpn", vec!["seeder", "torrent"]));
    assert_eq!(vpn.aliases.iter().map(String::as_str).collect::<Vec<_>>(), ["seeder", "torrent"]);
    let waits =
        |app: &crate::model::object::AppSpec| app.depends_on.iter().map(|on| on.name.clone()).collect::<Vec<_>>();
    assert_eq!((waits(vpn), waits(app(&loaded, "shop/app/web"))), (vec!["db".to_owned()], vec!["vpn".to_owned()]));
    assert_eq!(vpn.template.stop_grace_ms, 60_000);
    let (_, problems) = resolve(loaded.objects.clone());
    assert_eq!(problems, []);
}
