//! Other people's files: every one loads, none makes us panic, nothing is said twice.

use std::path::{Path, PathBuf};

use super::super::{LoadOptions, load};
use crate::model::{DesiredState, Diagnostic, Loaded, codes, resolve_with};

/// The corpus lies beside the project; from a worktree it is one level further up.
fn corpus() -> Option<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    ["../shared/corpus", "../../shared/corpus"].iter().map(|path| project.join(path)).find(|path| path.is_dir())
}

/// Loads every file by itself, as `boxship check FILE` does.
fn each(directory: &str) -> Option<Vec<(String, Loaded)>> {
    let Some(corpus) = corpus() else {
        println!("skipped: no corpus");
        return None;
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(corpus.join(directory))
        .expect("the corpus has it")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml"))
        .collect();
    files.sort();
    let name = |path: &Path| path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Some(files.iter().map(|path| (name(path), load(path, &LoadOptions::default()))).collect())
}

/// Nothing is said twice, and only what is not there keeps a file from being taken: files of other people name files
/// that the corpus does not have, and variables that nobody set.
fn is_whole(name: &str, loaded: &Loaded) -> bool {
    let mut said: Vec<_> = loaded.diagnostics.iter().map(|d| (&d.code, &d.span, &d.what)).collect();
    said.sort();
    let all = said.len();
    said.dedup();
    assert_eq!(said.len(), all, "{name}: something is said twice: {:#?}", loaded.diagnostics);
    let is_reference =
        |d: &Diagnostic| d.code == codes::REFERENCE && (d.what.contains('$') || d.what.contains("\":\""));
    let is_missing = |d: &Diagnostic| d.code == codes::FILE || is_reference(d);
    let errors: Vec<&Diagnostic> = loaded.diagnostics.iter().filter(|d| d.is_error()).collect();
    assert!(errors.iter().all(|d| is_missing(d)), "{name}: {errors:#?}");
    errors.is_empty()
}

#[test]
fn other_peoples_compose_files_load() {
    let Some(files) = each("compose") else { return };
    let whole = files.iter().filter(|(name, loaded)| is_whole(name, loaded)).count();
    println!("{whole} of {} compose files are whole", files.len());
    assert!(whole * 100 >= files.len() * 80, "{whole} of {}", files.len());
    for (name, loaded) in files {
        let declared = loaded.diagnostics.iter().filter_map(|d| d.object.clone()).collect();
        let resolution = resolve_with(&loaded.objects, &DesiredState::default(), &declared);
        let other: Vec<_> = resolution.diagnostics.iter().filter(|d| d.is_error() && d.code != codes::CYCLE).collect();
        assert!(other.is_empty(), "{name}: {other:#?}");
    }
}

#[test]
fn other_peoples_kubernetes_files_load() {
    let Some(files) = each("kubernetes") else { return };
    let whole = files.iter().filter(|(name, loaded)| is_whole(name, loaded)).count();
    println!("{whole} of {} Kubernetes files are whole", files.len());
    assert!(whole * 100 >= files.len() * 95, "{whole} of {}", files.len());
}
