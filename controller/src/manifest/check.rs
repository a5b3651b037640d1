//! Checking without doing: every problem of every file in one run. Needs no root, no controller, no network.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::render::{Look, prefix_of, render_all, to_json};
use super::{LoadOptions, find, load_found};
use crate::model::{DesiredState, Diagnostic, FileKind, Loaded, Severity, resolve_with};

/// sysexits' EX_DATAERR: a manifest is invalid.
pub const EXIT_INVALID: u8 = 65;

/// What a check found, by root.
#[derive(Debug, Default)]
pub struct Report {
    pub(super) roots: Vec<Loaded>,
}

/// Loads and resolves each path by itself; files of one directory are taken together, as a shell's `*.yaml` means.
#[must_use]
pub fn check(paths: &[PathBuf], options: &LoadOptions) -> Report {
    let mut roots: BTreeMap<String, find::Found> = BTreeMap::new();
    for path in paths {
        let found = find::find(path);
        let shown = path.display().to_string();
        let is_file = found.root_error.is_none() && path.is_file();
        if !is_file {
            roots.insert(shown, found);
            continue;
        }
        let directory = path.parent().map_or_else(String::new, |parent| parent.display().to_string());
        let directory = if directory.is_empty() { ".".to_owned() } else { directory };
        roots.entry(directory).and_modify(|all| all.files.extend(found.files.clone())).or_insert(found);
    }
    let loads = roots.iter().map(|(root, found)| {
        let mut loaded = load_found(root, found, options);
        // What names an object that is broken is not a second problem: `declared` says which those are.
        let declared = loaded.diagnostics.iter().filter_map(|d| d.object.clone()).collect();
        let resolution = resolve_with(&loaded.objects, &DesiredState::default(), &declared);
        loaded.diagnostics.extend(resolution.diagnostics);
        loaded
    });
    Report { roots: loads.collect() }
}

impl Report {
    /// Takes every warning as an error: a key that is not honoured, a variable that is not set.
    #[must_use]
    pub fn strict(mut self) -> Self {
        for diagnostic in self.roots.iter_mut().flat_map(|loaded| &mut loaded.diagnostics) {
            diagnostic.severity = Severity::Error;
        }
        self
    }

    /// 0, or [`EXIT_INVALID`] when anything is wrong.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.errors() > 0 { EXIT_INVALID } else { 0 }
    }

    /// How many problems keep something from being applied.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.diagnostics().filter(|d| d.is_error()).count()
    }

    /// All diagnostics, in the order of roots, files and lines.
    pub fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.roots.iter().flat_map(|loaded| &loaded.diagnostics)
    }

    /// The files that hold manifests, broken ones too.
    pub fn manifests(&self) -> impl Iterator<Item = PathBuf> {
        self.roots.iter().flat_map(|loaded| {
            let is_one = |kind: &FileKind| !matches!(kind, FileKind::NotAManifest | FileKind::Empty);
            let files = loaded.files.iter().filter(move |(_, kind)| is_one(kind));
            files.map(|(file, _)| PathBuf::from(&loaded.root).join(file))
        })
    }

    /// For people: every problem, then one line that sums up.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let mut out = String::new();
        for loaded in &self.roots {
            let look = Look { color, prefix: prefix_of(&loaded.root) };
            out.push_str(&render_all(&loaded.diagnostics, &loaded.sources, &look));
        }
        out.push_str(&self.summary());
        out.push('\n');
        out
    }

    fn summary(&self) -> String {
        let files: usize = self.roots.iter().map(|loaded| loaded.files.len()).sum();
        let objects: usize = self.roots.iter().map(|loaded| loaded.objects.len()).sum();
        let others = self.roots.iter().flat_map(|loaded| loaded.files.values());
        let others = others.filter(|kind| matches!(kind, FileKind::NotAManifest | FileKind::Empty)).count();
        let (errors, all) = (self.errors(), self.diagnostics().count());
        let places = self.diagnostics().filter(|d| d.is_error()).filter_map(|d| d.span.as_ref());
        let broken: std::collections::BTreeSet<&str> = places.map(|span| span.file.as_str()).collect();
        let plural =
            |count: usize, word: &str| if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") };
        let aside = if others > 0 { format!(", {} not a manifest", plural(others, "file")) } else { String::new() };
        if errors > 0 {
            let broken = broken.len().max(1);
            return format!("note: {} in {broken} of {}{aside}", plural(errors, "problem"), plural(files, "file"));
        }
        let warnings = if all > 0 { format!(", {}", plural(all, "warning")) } else { String::new() };
        format!("ok: {} in {}{aside}{warnings}", plural(objects, "object"), plural(files, "file"))
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let roots = self.roots.iter().map(|loaded| {
            let look = Look { color: false, prefix: prefix_of(&loaded.root) };
            let diagnostics: Vec<Json> = loaded.diagnostics.iter().map(|d| to_json(d, &look)).collect();
            json!({ "root": loaded.root, "files": loaded.files, "diagnostics": diagnostics })
        });
        json!({ "apiVersion": super::native::API_VERSION, "kind": "CheckReport", "errors": self.errors(),
            "roots": roots.collect::<Vec<_>>() })
    }
}
