//! Other people's files: every one is classified, none makes us panic, none is mistaken for ours.

use std::path::{Path, PathBuf};

use super::super::{LoadOptions, load};
use crate::model::FileKind;

/// The corpus lies beside the project; from a worktree it is one level further up.
fn corpus() -> Option<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    ["../shared/corpus", "../../shared/corpus"].iter().map(|path| project.join(path)).find(|path| path.is_dir())
}

#[test]
fn other_peoples_files_are_classified() {
    let Some(corpus) = corpus() else {
        println!("skipped: no corpus");
        return;
    };
    let loaded = load(&corpus, &LoadOptions::default());
    assert!(loaded.files.len() > 100, "{}", loaded.files.len());
    let of = |directory: &str, kind: FileKind| {
        let files = loaded.files.iter().filter(|(name, k)| name.starts_with(directory) && **k == kind);
        files.map(|(name, _)| name.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of("", FileKind::Native), [""; 0]);
    assert_eq!(loaded.objects, []);
    assert!(
        !loaded.has_errors(),
        "none of these is meant for us: {:#?}",
        loaded.diagnostics.iter().find(|d| d.is_error())
    );
    let (compose, kubernetes) = (of("compose/", FileKind::Compose), of("kubernetes/", FileKind::Kubernetes));
    println!("compose {}, kubernetes {} of {} files", compose.len(), kubernetes.len(), loaded.files.len());
    println!("not ours: {:?}", of("", FileKind::NotAManifest));
    println!("unreadable: {:?}", of("", FileKind::Broken));
    let share = |found: usize, directory: &str| {
        let all = loaded.files.keys().filter(|name| name.starts_with(directory)).count();
        100 * found / all.max(1)
    };
    assert!(share(compose.len(), "compose/") >= 90);
    assert!(share(kubernetes.len(), "kubernetes/") >= 90);
    // Each of them is listed with what it is, since it is not silently ignored.
    for name in compose.iter().chain(&kubernetes) {
        let said = |code: &str| code == "BX0140" || code == "BX0141";
        assert!(loaded.diagnostics.iter().any(|d| said(&d.code) && d.span.as_ref().is_some_and(|s| s.file == *name)));
    }
}
