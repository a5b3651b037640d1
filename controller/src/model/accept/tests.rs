//! Absence deletes, an error never does: each way something can go wrong, and what stays.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::{Accepted, Confirmation, Notice, accept};
use crate::manifest::{LoadOptions, load};
use crate::model::{ObjectKey, object::Loaded};

/// A manifest directory and what was accepted of it so far.
struct Host {
    root: tempfile::TempDir,
    accepted: Accepted,
}

impl Host {
    fn new(files: &[(&str, &str)]) -> Self {
        let host = Self { root: tempfile::tempdir().expect("a temporary directory"), accepted: Accepted::default() };
        let mut host = files.iter().fold(host, |host, (name, text)| {
            host.write(name, text);
            host
        });
        assert_eq!(host.pass(Confirmation::None), [""; 0]);
        host
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.root.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.root.path().join(name)).expect("remove");
    }

    fn loaded(&self) -> Loaded {
        load(self.root.path(), &LoadOptions::default())
    }

    /// Loads and accepts; the codes of all notices.
    fn pass(&mut self, confirmation: Confirmation) -> Vec<String> {
        self.take(&self.loaded(), confirmation).into_iter().map(|notice| notice.code).collect()
    }

    fn take(&mut self, loaded: &Loaded, confirmation: Confirmation) -> Vec<Notice> {
        let (accepted, notices) = accept(&self.accepted, loaded, confirmation);
        // The same load again changes nothing, and what was accepted survives being stored.
        assert_eq!(accept(&accepted, loaded, confirmation).0, accepted, "not idempotent");
        let stored = serde_json::to_string(&accepted).expect("it can be stored");
        assert_eq!(serde_json::from_str::<Accepted>(&stored).expect("it can be read back"), accepted);
        self.accepted = accepted;
        notices
    }

    fn generation(&self) -> u64 {
        self.accepted.desired.generation
    }

    /// `web=2 db=1`: the Apps that should run.
    fn runs(&self) -> String {
        let apps = self.accepted.desired.workloads.iter().map(|(key, w)| format!("{}={}", key.name, w.replicas));
        apps.collect::<Vec<_>>().join(" ")
    }

    fn held(&self) -> Vec<Option<&str>> {
        self.accepted.desired.holds.iter().map(|hold| hold.file.as_deref()).collect()
    }
}

fn app(name: &str, more: &str) -> String {
    format!("apiVersion: boxship/v1\nkind: App\nname: {name}\nimage: a\n{more}\n")
}

#[test]
fn what_is_removed_is_removed_and_what_is_the_same_is_no_revision() {
    let mut host = Host::new(&[("a.yaml", &app("web", "")), ("b.yaml", &app("db", ""))]);
    assert_eq!((host.generation(), host.runs().as_str()), (1, "db=1 web=1"));
    host.write("a.yaml", &format!("# moved down\n\n{}", app("web", "")));
    assert_eq!(host.pass(Confirmation::None), [""; 0]);
    assert_eq!(host.generation(), 1, "places are not content");
    assert_eq!(host.accepted.desired.workloads[&key("default/app/web")].source.line, 5, "but they are kept up to date");
    host.remove("b.yaml");
    host.pass(Confirmation::None);
    assert_eq!((host.generation(), host.runs().as_str()), (2, "web=1"));
}

fn key(text: &str) -> ObjectKey {
    text.parse().expect("a key")
}

#[test]
fn a_broken_file_keeps_its_objects_and_stops_nobody_else() {
    let both = format!("{}---\n{}", app("web", ""), app("api", ""));
    let mut host = Host::new(&[("a.yaml", &both), ("b.yaml", &app("db", ""))]);
    host.write("a.yaml", "apiVersion: boxship/v1\nkind: App\n  name: web\n");
    host.write("b.yaml", &app("db", "replicas: 2"));
    assert_eq!(host.pass(Confirmation::None), ["BX0101", "BX0150"]);
    assert_eq!((host.generation(), host.runs().as_str()), (2, "api=1 db=2 web=1"));
    assert_eq!(host.held(), [Some("a.yaml")]);
    // Repaired, with one object less: now absence means what it says.
    host.write("a.yaml", &app("web", ""));
    assert_eq!(host.pass(Confirmation::None), [""; 0]);
    assert_eq!((host.generation(), host.runs().as_str(), host.held().len()), (3, "db=2 web=1", 0));
}

#[test]
fn a_file_that_lost_its_bytes_keeps_its_objects() {
    let mut host = Host::new(&[("a.yaml", &app("web", "")), ("b.yaml", &app("db", "")), ("c.yaml", "")]);
    assert_eq!(host.held().len(), 0, "an empty file that never defined anything is nothing to speak of");
    for lost in ["", "\0\0\0\0"] {
        host.write("a.yaml", lost);
        assert!(host.pass(Confirmation::None).contains(&"BX0150".to_owned()));
        assert_eq!((host.generation(), host.runs().as_str(), host.held()), (1, "db=1 web=1", vec![Some("a.yaml")]));
    }
    host.write("a.yaml", "# nothing any more\n");
    assert_eq!(host.pass(Confirmation::None), [""; 0]);
    assert_eq!((host.generation(), host.runs().as_str()), (2, "db=1"));
}

#[test]
fn a_broken_object_keeps_its_version_and_its_neighbours_are_taken() {
    let mut host = Host::new(&[("a.yaml", &format!("{}---\n{}", app("web", ""), app("api", "")))]);
    host.write("a.yaml", &format!("{}---\n{}", app("web", "replcas: 5"), app("api", "replicas: 2")));
    assert_eq!(host.pass(Confirmation::None), ["BX0104", "BX0150"]);
    assert_eq!((host.generation(), host.runs().as_str()), (2, "api=2 web=1"));
}

#[test]
fn an_object_that_does_not_resolve_keeps_its_version_even_when_what_it_named_is_gone() {
    let conf = "apiVersion: boxship/v1\nkind: Config\nname: c\ndata: {k: v}\n";
    let web = app("web", "env: {A: {config: c, key: k}}");
    let mut host = Host::new(&[("c.yaml", conf), ("web.yaml", &web)]);
    host.remove("c.yaml");
    assert_eq!(host.pass(Confirmation::None), ["BX0121", "BX0150"]);
    assert_eq!((host.runs().as_str(), host.held()), ("web=1", vec![Some("web.yaml")]));
    let env = &host.accepted.desired.workloads[&key("default/app/web")].template.env;
    assert_eq!(env.len(), 1, "the last good version, with the value it had");
    assert_eq!(host.pass(Confirmation::None), ["BX0121", "BX0150"]);
    assert_eq!(host.generation(), 1);
}

#[test]
fn who_clashes_keeps_what_it_had_and_a_newcomer_does_not_win() {
    let mut host = Host::new(&[("web.yaml", &app("web", "ports: [8080:80]"))]);
    host.write("api.yaml", &app("api", "ports: [8080:80]"));
    host.write("web.yaml", &app("web", "ports: [8080:80]\nreplicas: 2"));
    assert_eq!(host.pass(Confirmation::None), ["BX0123", "BX0150"]);
    assert_eq!(host.runs(), "web=1", "both are refused until somebody says which one is meant");
    host.write("api.yaml", &app("api", "ports: [8081:80]"));
    assert_eq!(host.pass(Confirmation::None), [""; 0]);
    assert_eq!(host.runs(), "api=1 web=2");
}

#[test]
fn two_objects_of_one_name_keep_the_one_there_was() {
    let mut host = Host::new(&[("a.yaml", &app("web", "replicas: 2"))]);
    host.write("b.yaml", &app("web", "replicas: 7"));
    assert_eq!(host.pass(Confirmation::None), ["BX0122", "BX0150"]);
    assert_eq!((host.runs().as_str(), host.generation()), ("web=2", 1));
}

#[test]
fn a_chain_of_fallbacks_ends() {
    // web moves to 8081; api cannot leave 8081 since it has an error: so web must stay on 8080.
    let mut host =
        Host::new(&[("web.yaml", &app("web", "ports: [8080:80]")), ("api.yaml", &app("api", "ports: [8081:80]"))]);
    host.write("web.yaml", &app("web", "ports: [8081:80]"));
    host.write("api.yaml", &app("api", "ports: [8082:80]\nimageFrom: nowhere"));
    host.pass(Confirmation::None);
    let port = |name: &str| host.accepted.desired.workloads[&key(name)].ports[0].at.port;
    assert_eq!((port("default/app/web"), port("default/app/api")), (8080, 8081));
}

#[test]
fn an_empty_source_holds_until_confirmed() {
    let mut host = Host::new(&[("a.yaml", &app("web", "")), ("b.yaml", &app("db", ""))]);
    host.remove("a.yaml");
    host.remove("b.yaml");
    let loaded = host.loaded();
    let notices = host.take(&loaded, Confirmation::None);
    assert_eq!(notices.iter().map(|n| n.code.as_str()).collect::<Vec<_>>(), ["BX0152"]);
    let command = notices[0].help.as_deref().expect("the command that confirms");
    assert_eq!(command, format!("boxship up {} --confirm-removal", host.root.path().display()));
    assert_eq!((host.runs().as_str(), host.held(), host.generation()), ("db=1 web=1", vec![None], 1));
    host.pass(Confirmation::Removal);
    assert_eq!((host.runs().as_str(), host.held().len(), host.generation()), ("", 0, 2));
    assert_eq!(host.pass(Confirmation::None), [""; 0], "once confirmed it is not asked again");
}

#[test]
fn what_cannot_be_read_deletes_nothing() {
    let mut host = Host::new(&[("shop/a.yaml", &app("web", "")), ("b.yaml", &app("db", ""))]);
    let good = host.loaded();
    // Permissions do not stop root, so the load is told what others would see.
    let mut loaded = good.clone();
    loaded.objects.retain(|object| !object.span.file.starts_with("shop/"));
    loaded.files.remove("shop/a.yaml");
    loaded.unreadable.insert("shop".to_owned(), "permission denied".to_owned());
    let codes: Vec<String> = host.take(&loaded, Confirmation::None).into_iter().map(|n| n.code).collect();
    assert_eq!(codes, ["BX0151"]);
    assert_eq!((host.runs().as_str(), host.generation(), host.held()), ("db=1 web=1", 1, vec![Some("shop/a.yaml")]));
    let gone = load(Path::new("/nonexistent/manifests"), &LoadOptions::default());
    host.take(&gone, Confirmation::Removal);
    assert_eq!((host.runs().as_str(), host.generation(), host.held()), ("db=1 web=1", 1, vec![None]));
    // With a lost database nothing is known of the directory: then nothing at all may be removed.
    let (fresh, _) = accept(&Accepted::default(), &loaded, Confirmation::None);
    assert_eq!(fresh.desired.holds.iter().map(|h| h.file.clone()).collect::<Vec<_>>(), [None]);
}

#[test]
fn a_directory_of_another_name_is_another_stack() {
    let mut host = Host::new(&[("one/a.yaml", &app("web", ""))]);
    std::fs::rename(host.root.path().join("one"), host.root.path().join("two")).expect("rename");
    host.pass(Confirmation::None);
    assert_eq!(host.accepted.desired.workloads.keys().map(ToString::to_string).collect::<Vec<_>>(), ["two/app/web"]);
    assert_eq!(host.generation(), 2);
}

/// What one file may look like in a random history.
#[derive(Debug, Clone, Copy, PartialEq)]
enum File {
    Absent,
    Good(u32),
    /// Does not parse.
    Broken,
    /// Parses, and names an image that does not exist.
    Dangling,
}

fn file() -> impl Strategy<Value = File> {
    prop_oneof![Just(File::Absent), (0..3u32).prop_map(File::Good), Just(File::Broken), Just(File::Dangling)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Over any history: an App that was ever good runs in its last good version until its file is absent or good
    /// without it; nothing else runs; generations grow by at most one and only with a change.
    #[test]
    fn an_error_never_deletes(history in proptest::collection::vec(proptest::array::uniform3(file()), 1..8)) {
        let mut host = Host::new(&[("keep.yaml", &app("keep", ""))]);
        let mut expected: BTreeMap<&str, u32> = BTreeMap::new();
        for state in history {
            for (name, file) in ["a", "b", "c"].into_iter().zip(state) {
                let path = format!("{name}.yaml");
                match file {
                    File::Absent => {
                        let _ = std::fs::remove_file(host.root.path().join(&path));
                        expected.remove(name);
                    }
                    File::Good(replicas) => {
                        host.write(&path, &app(name, &format!("replicas: {replicas}")));
                        expected.insert(name, replicas);
                    }
                    File::Broken => host.write(&path, "apiVersion: boxship/v1\nkind: [\n"),
                    File::Dangling => {
                        let text = app(name, "replicas: 9").replace("image: a", "imageFrom: nowhere");
                        host.write(&path, &text);
                    }
                }
            }
            let before = host.accepted.clone();
            host.pass(Confirmation::None);
            let runs: Vec<String> = expected.iter().map(|(name, n)| format!("{name}={n}")).chain(["keep=1".to_owned()]).collect();
            prop_assert_eq!(host.runs(), runs.join(" "));
            let changed = !super::same_content(&before.desired, &host.accepted.desired);
            prop_assert_eq!(host.generation(), before.desired.generation + u64::from(changed));
        }
    }
}
