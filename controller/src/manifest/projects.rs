//! Which compose files make up which project: a file with one of the four names stands for its directory, with its
//! override beside it; where there is none, each compose file stands for itself. What another file includes or extends
//! is part of that one.

use std::collections::BTreeMap;
use std::path::Path;

use super::find::Found;
use super::{DIAGNOSTICS_MAX, LoadOptions, compose, document, read_contents, stack_of};
use crate::model::{Diagnostic, FileKind, Loaded, Span, codes};

/// Names that stand for their directory, the first that is there, with the names of its override.
const CANONICAL: [(&str, [&str; 2]); 4] = [
    ("compose.yaml", ["compose.override.yaml", "compose.override.yml"]),
    ("compose.yml", ["compose.override.yaml", "compose.override.yml"]),
    ("docker-compose.yml", ["docker-compose.override.yml", "docker-compose.override.yaml"]),
    ("docker-compose.yaml", ["docker-compose.override.yml", "docker-compose.override.yaml"]),
];

/// Lowers all compose files that were recognised.
pub(super) fn load(found: &Found, options: &LoadOptions, loaded: &mut Loaded) {
    let mut directories: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, kind) in &loaded.files {
        let is_broken = matches!(kind, FileKind::Broken | FileKind::Empty) && document::is_compose_name(name);
        if (*kind == FileKind::Compose || is_broken) && found.files.contains_key(name) {
            let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
            directories.entry(directory.to_owned()).or_default().push(name.clone());
        }
    }
    let mut projects: Vec<Project> = Vec::new();
    let mut aside: Vec<(String, String)> = Vec::new();
    for (directory, names) in directories {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let there = |name: &&str| names.contains(&format!("{prefix}{name}"));
        let lists: Vec<Vec<String>> = match CANONICAL.iter().find(|(name, _)| there(name)) {
            Some((main, overrides)) => {
                let over = overrides.iter().copied().find(|name| there(name));
                let files: Vec<String> =
                    [Some(*main), over].into_iter().flatten().map(|name| format!("{prefix}{name}")).collect();
                let others = names.iter().filter(|name| !files.contains(name));
                aside.extend(others.map(|name| (name.clone(), format!("{prefix}{main}"))));
                vec![files]
            }
            None => names.into_iter().map(|name| vec![name]).collect(),
        };
        projects.extend(lists.into_iter().map(|files| {
            let output = project(found, options, loaded, &files);
            Project { files, output, is_part: false }
        }));
    }
    // What another project includes or extends is part of that one; of two that include each other the last one stands.
    let path = |name: &str| found.files.get(name).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let reads =
        |other: &Project, path: &str| other.output.as_ref().is_some_and(|output| output.file_refs.contains(path));
    for i in 0..projects.len() {
        let path = path(&projects[i].files[0]);
        let others = projects.iter().enumerate().filter(|(j, other)| *j != i && !other.is_part);
        projects[i].is_part = others.map(|(_, other)| other).any(|other| reads(other, &path));
    }
    for (name, by) in aside {
        if !projects.iter().any(|other| reads(other, &path(&name))) {
            unused(loaded, &name, &by);
        }
    }
    for project in projects.into_iter().filter(|project| !project.is_part) {
        match project.output {
            Some(output) => take(loaded, &project.files, output, options),
            None => break_all(loaded, &project.files),
        }
    }
}

/// A project before it is known whether it stands for itself.
struct Project {
    /// The compose file, then its override.
    files: Vec<String>,
    /// `None`: one of the files cannot be read, which was told.
    output: Option<compose::Output>,
    /// Another project has it.
    is_part: bool,
}

/// `None`: one of its files cannot be read, which was told.
fn project(found: &Found, options: &LoadOptions, loaded: &Loaded, files: &[String]) -> Option<compose::Output> {
    if files.iter().any(|name| loaded.files.get(name) != Some(&FileKind::Compose)) {
        return None;
    }
    let texts: Option<Vec<(&str, &str)>> =
        files.iter().map(|name| Some((name.as_str(), loaded.sources.get(name)?.as_ref()))).collect();
    let first = files.first()?;
    let root_stack = options.root_stack.as_ref().unwrap_or(&found.stack);
    Some(compose::lower(&compose::Input {
        files: &texts?,
        directory: found.files.get(first)?.parent().unwrap_or(Path::new("/")),
        stack: &stack_of(first, root_stack),
        variables: &options.variables,
    }))
}

fn take(loaded: &mut Loaded, files: &[String], output: compose::Output, options: &LoadOptions) {
    loaded.file_refs.extend(output.file_refs);
    loaded.sources.extend(output.sources);
    let before = loaded.diagnostics.len();
    loaded.diagnostics.extend(output.diagnostics);
    let mut broken = loaded.diagnostics[before..].iter().any(Diagnostic::is_error);
    for mut object in output.objects {
        if read_contents(&mut object, options, loaded) {
            loaded.objects.push(object);
        } else {
            broken = true;
        }
    }
    let place = |d: &Diagnostic| d.span.as_ref().map(|span| (span.file.clone(), span.line, span.column));
    loaded.diagnostics[before..].sort_by_key(place);
    loaded.diagnostics.truncate(before + DIAGNOSTICS_MAX);
    if broken {
        break_all(loaded, files);
    }
}

/// What a project defined stays when any of its files is wrong.
fn break_all(loaded: &mut Loaded, files: &[String]) {
    for name in files {
        // One that is empty stays so: it keeps what it defined as well, and another reason is told.
        if loaded.files.get(name) != Some(&FileKind::Empty) {
            loaded.files.insert(name.clone(), FileKind::Broken);
        }
    }
}

fn unused(loaded: &mut Loaded, name: &str, by: &str) {
    let what = format!("this compose file is not applied: {by} stands for its directory");
    let help = "name the file itself, or `include` it";
    loaded.diagnostics.push(Diagnostic::warning(codes::COMPOSE, what).at(Span::file(name)).help(help));
}
