//! Options by example, and against a model: for each thing an option can decide, the last one that speaks of it does.

use oci_spec::runtime::MountBuilder;
use proptest::prelude::*;

use super::*;

fn of(options: &[&str]) -> Options {
    let options = options.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    Options::of(&MountBuilder::default().destination("/x").options(options).build().unwrap())
}

#[test]
fn attributes_and_options_are_told_apart() {
    let found = of(&["nosuid", "ro", "size=64k", "newinstance", "gid=5", "lazytime"]);
    assert_eq!(found.set, Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_RDONLY);
    assert_eq!(found.data, ["size=64k", "gid=5", "lazytime"]);
    assert_eq!((found.bind, found.propagation), (None, None));
}

#[test]
fn the_last_word_counts() {
    let found = of(&["ro", "rw", "noatime", "strictatime", "nosuid", "suid"]);
    assert_eq!(found.set, Attr::MOUNT_ATTR_STRICTATIME);
    assert!(found.clear.contains(Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR_NOSUID));
}

#[test]
fn recursive_ones_are_kept_apart() {
    let found = of(&["rbind", "rro", "rnoexec", "rslave", "rdev"]);
    assert_eq!(found.set, Attr::empty());
    assert_eq!(found.set_below, Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR_NOEXEC);
    assert_eq!(found.clear_below, Attr::MOUNT_ATTR_NODEV);
    assert_eq!(found.propagation, Some((Propagation::Slave, true)));
    assert_eq!(found.bind, Some(true));
    // Begins with an r, and is one of its own.
    assert_eq!(of(&["relatime"]).clear, ATIME);
    assert_eq!(of(&["private"]).propagation, Some((Propagation::Private, false)));
}

/// What the kernel's attributes are called: set by the first, cleared by the second.
const PAIRS: [(&str, &str, Attr); 6] = [
    ("ro", "rw", Attr::MOUNT_ATTR_RDONLY),
    ("nosuid", "suid", Attr::MOUNT_ATTR_NOSUID),
    ("nodev", "dev", Attr::MOUNT_ATTR_NODEV),
    ("noexec", "exec", Attr::MOUNT_ATTR_NOEXEC),
    ("nodiratime", "diratime", Attr::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", "symfollow", Attr::MOUNT_ATTR_NOSYMFOLLOW),
];
const ACCESS_TIMES: [(&str, Attr); 6] = [
    ("noatime", Attr::MOUNT_ATTR_NOATIME),
    ("strictatime", Attr::MOUNT_ATTR_STRICTATIME),
    ("atime", Attr::empty()),
    ("relatime", Attr::empty()),
    ("norelatime", Attr::empty()),
    ("nostrictatime", Attr::empty()),
];
const SPREADS: [(&str, Propagation); 4] = [
    ("shared", Propagation::Shared),
    ("slave", Propagation::Slave),
    ("private", Propagation::Private),
    ("unbindable", Propagation::Unbindable),
];
const IGNORED: [&str; 11] = [
    "",
    "defaults",
    "async",
    "loud",
    "nomand",
    "noiversion",
    "nolazytime",
    "newinstance",
    "silent",
    "iversion",
    "bind",
];
const DATA: [&str; 8] = ["size=64k", "mode=755", "sync", "dirsync", "mand", "lazytime", "rro=1", "ro=recursive"];

fn option() -> impl Strategy<Value = String> {
    let known: Vec<String> = PAIRS
        .iter()
        .flat_map(|(set, clear, _)| [(*set).to_owned(), (*clear).to_owned(), format!("r{set}"), format!("r{clear}")])
        .chain(ACCESS_TIMES.iter().flat_map(|(name, _)| [(*name).to_owned(), format!("r{name}")]))
        .chain(SPREADS.iter().flat_map(|(name, _)| [(*name).to_owned(), format!("r{name}")]))
        .chain(IGNORED.iter().chain(&DATA).map(|name| (*name).to_owned()))
        .chain(["rbind", "idmap", "ridmap", "tmpcopyup", "remount"].map(str::to_owned))
        .collect();
    prop_oneof![8 => prop::sample::select(known), 1 => "[a-z]{1,8}(=[a-z0-9]{0,3})?"]
}

/// `relatime` is a word of its own, not what `elatime` does below.
fn says(option: &str, name: &str, below: bool) -> bool {
    if below { option.strip_prefix('r') == Some(name) && !is_plain(option) } else { option == name }
}

fn is_plain(option: &str) -> bool {
    PAIRS.iter().any(|(set, clear, _)| option == *set || option == *clear)
        || ACCESS_TIMES.iter().any(|(name, _)| option == *name)
}

proptest! {
    #[test]
    fn the_last_option_of_each_kind_decides(options in prop::collection::vec(option(), 0..14)) {
        let texts: Vec<&str> = options.iter().map(String::as_str).collect();
        let found = of(&texts);
        for below in [false, true] {
            let (set, clear) =
                if below { (found.set_below, found.clear_below) } else { (found.set, found.clear) };
            for (on, off, attribute) in PAIRS {
                let last = texts.iter().rfind(|text| says(text, on, below) || says(text, off, below));
                let expected = match last {
                    None => (false, false),
                    Some(text) => (says(text, on, below), says(text, off, below)),
                };
                prop_assert_eq!((set.contains(attribute), clear.contains(attribute)), expected, "{:?} {}", texts, on);
            }
            let times = |text: &&&str| ACCESS_TIMES.iter().any(|(name, _)| says(text, name, below));
            let last = texts.iter().rfind(times);
            let wanted = last.and_then(|text| ACCESS_TIMES.iter().find(|(name, _)| says(text, name, below)));
            prop_assert_eq!(set & ATIME, wanted.map_or(Attr::empty(), |(_, attribute)| *attribute));
            prop_assert_eq!(clear.contains(ATIME), wanted.is_some(), "the field is cleared before it is set");
        }
        let spread = texts.iter().rev().find_map(|text| {
            let find = |name: &str| SPREADS.iter().find(|(known, _)| *known == name).map(|(_, how)| *how);
            find(text).map(|how| (how, false)).or_else(|| find(text.strip_prefix('r')?).map(|how| (how, true)))
        });
        prop_assert_eq!(found.propagation, spread);
        let has = |name: &str| texts.contains(&name);
        let bind = if has("rbind") { Some(true) } else { has("bind").then_some(false) };
        prop_assert_eq!(found.bind, bind);
        let idmap = texts.iter().rev().find(|text| ["idmap", "ridmap"].contains(text)).map(|text| *text == "ridmap");
        prop_assert_eq!((found.idmap, found.copy_up, found.remount), (idmap, has("tmpcopyup"), has("remount")));
    }

    /// Whatever is no option of mounts goes to the file system, in its order and unchanged.
    #[test]
    fn the_rest_is_the_file_systems(options in prop::collection::vec(option(), 0..14)) {
        let texts: Vec<&str> = options.iter().map(String::as_str).collect();
        let is_ours = |text: &str| {
            let name = text.strip_prefix('r').filter(|_| !is_plain(text)).unwrap_or(text);
            let bare = ["bind", "idmap", "tmpcopyup", "remount", "rbind", "ridmap"];
            is_plain(name) || SPREADS.iter().any(|(known, _)| *known == name) || IGNORED.contains(&text) || bare.contains(&text)
        };
        let rest: Vec<&str> = texts.iter().copied().filter(|text| !is_ours(text)).collect();
        prop_assert_eq!(of(&texts).data, rest, "{:?}", texts);
    }

    #[test]
    fn any_text_is_an_option(options in prop::collection::vec("\\PC{0,12}", 0..6)) {
        let texts: Vec<&str> = options.iter().map(String::as_str).collect();
        of(&texts);
    }
}

/// Every option `features` names is understood by us, or is a flag of file systems.
#[test]
fn what_features_names_is_understood() {
    let features = crate::oci::features();
    for option in features["mountOptions"].as_array().unwrap() {
        let option = option.as_str().unwrap();
        assert!(of(&[option]).data.is_empty() || DATA.contains(&option), "{option}");
    }
}
