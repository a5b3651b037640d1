//! Front-ends: text to objects. Three dialects lower to the model and share nothing else.
//!
//! `find` lists files, `yaml` makes trees with places, `document` tells the dialects apart, `native`, `compose` (by
//! `projects`, since several files make one) and `kubernetes` lower, `render` prints what is wrong. Nothing here knows the planner, the runtime's verbs or the network. Parsing never stops at the
//! first error, never panics, and never lets an error look like an absence.

mod advice;
mod check;
mod compose;
mod convert;
mod document;
mod duration;
mod explain;
mod find;
mod fingerprint;
mod fmt;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod interpolate;
mod keys;
mod kubernetes;
mod native;
mod projects;
mod quantity;
mod render;
mod schema;
mod shape;
mod tree;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use document::{Dialect, Document};
use find::Found;

use crate::model::object::{FileContent, MountWhatSpec, TemplateSpec};
use crate::model::{Diagnostic, FileKind, Loaded, Object, ObjectSpec, Span, codes};

pub use check::{EXIT_INVALID, Report, check};
pub use convert::{Conversion, convert};
pub use explain::{Explanation, Unknown, explain};
pub use find::DEFAULT_STACK;
pub use fingerprint::{Scan, scan};
pub use fmt::{NotFormatted, fmt};
pub use render::{Look, render, render_all, to_json};
pub use schema::schemas;

/// Most problems kept of one file: nobody reads more, and a 1 MiB list can have half a million.
const DIAGNOSTICS_MAX: usize = 1_000;

/// Encrypts what Secrets hold as they are read: nothing behind a load has the values.
pub trait Seal: std::fmt::Debug + Send + Sync {
    /// A text that the values' key opens again, the same for the same name and value.
    ///
    /// # Errors
    /// A sentence for people.
    fn seal(&self, name: &str, value: &[u8]) -> Result<String, String>;
}

/// What a load needs besides the files.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Seals secrets; `None`: they are left as they are, for who keeps and shows nothing (`check`) or is asked to show
    /// them (`convert`).
    pub seal: Option<Arc<dyn Seal>>,
    /// Values for `${VAR}`.
    pub variables: BTreeMap<String, String>,
    /// The stack of files directly in the root; `None`: [`DEFAULT_STACK`], for a single file its directory's name.
    pub root_stack: Option<String>,
}

impl LoadOptions {
    /// With the variables of this process's environment that are text.
    #[must_use]
    pub fn from_environment() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { variables: std::env::vars_os().filter_map(text).collect(), ..Self::default() }
    }
}

/// Reads everything below a directory, or one file. Never fails: what is wrong is in the result.
#[must_use]
pub fn load(root: &Path, options: &LoadOptions) -> Loaded {
    load_found(&root.display().to_string(), &find::find(root), options)
}

fn load_found(root: &str, found: &Found, options: &LoadOptions) -> Loaded {
    let contents = fingerprint::read_all(found);
    let mut loaded = Loaded {
        root: root.to_owned(),
        root_unreadable: found.root_error.clone(),
        unreadable: found.unreadable.clone(),
        ..Loaded::default()
    };
    if let Some(why) = &found.root_error {
        let what = format!("{root} cannot be read: {why}");
        loaded.diagnostics.push(Diagnostic::error(codes::UNREADABLE, what));
    }
    for (name, why) in &found.unreadable {
        let what = format!("{name} cannot be read: {why}");
        loaded.diagnostics.push(Diagnostic::error(codes::UNREADABLE, what).at(Span::file(name.clone())));
        // A link to a manifest that leads nowhere: its objects stay, as those of a directory do.
        loaded.files.insert(name.clone(), FileKind::Broken);
    }
    for (name, bytes) in &contents {
        let directory = found.files.get(name).and_then(|path| path.parent()).unwrap_or(Path::new("/"));
        let root_stack = options.root_stack.as_ref().unwrap_or(&found.stack);
        let file = File { name, directory, stack: stack_of(name, root_stack), options };
        let before = loaded.diagnostics.len();
        let kind = file.load(bytes, &mut loaded);
        let place = |d: &Diagnostic| d.span.as_ref().map(|span| (span.line, span.column));
        loaded.diagnostics[before..].sort_by_key(place);
        let failed = loaded.diagnostics[before..].iter().any(Diagnostic::is_error);
        loaded.diagnostics.truncate(before + DIAGNOSTICS_MAX);
        loaded.files.insert(name.clone(), if failed { FileKind::Broken } else { kind });
    }
    projects::load(found, options, &mut loaded);
    loaded.fingerprint = fingerprint::hash(found, &contents, &loaded.file_refs);
    loaded
}

/// The first path component; of files directly in the root, the root's.
fn stack_of(file: &str, root_stack: &str) -> String {
    file.split_once('/').map_or(root_stack, |(first, _)| first).to_owned()
}

/// One file being loaded.
struct File<'a> {
    name: &'a str,
    directory: &'a Path,
    stack: String,
    options: &'a LoadOptions,
}

impl File<'_> {
    fn error(&self, code: &str, what: String) -> Diagnostic {
        Diagnostic::error(code, what).at(Span::file(self.name))
    }

    /// What the file is, judged by its documents; errors are added to `loaded`.
    fn load(&self, bytes: &Result<Vec<u8>, String>, loaded: &mut Loaded) -> FileKind {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(why) => {
                let what = format!("{} cannot be read: {why}", self.name);
                loaded.diagnostics.push(self.error(codes::UNREADABLE, what));
                return FileKind::Broken;
            }
        };
        if bytes.is_empty() {
            return FileKind::Empty;
        }
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let ours = document::looks_native(text);
        let unusable = if bytes.len() > yaml::FILE_BYTES_MAX {
            Some((codes::LIMIT, format!("{} is larger than 1 MiB", self.name)))
        } else if std::str::from_utf8(bytes).is_err() {
            Some((codes::SYNTAX, format!("{} is not UTF-8 text", self.name)))
        } else {
            None
        };
        if let Some((code, what)) = unusable {
            let ours = ours || document::is_compose_name(self.name);
            loaded.diagnostics.push(unknown_content(self.error(code, what), ours));
            return FileKind::Broken;
        }
        loaded.sources.insert(self.name.to_owned(), Arc::from(text));
        let parsed = yaml::parse(text);
        let mut kinds = BTreeSet::new();
        let is_ours = |parsed: &yaml::Parsed1| document::classify(&parsed.root, self.name) == Dialect::Native;
        let among_ours = parsed.documents.iter().any(is_ours);
        // Kubernetes' documents may have anchors: they are read again with these replaced.
        let foreign = |parsed: &yaml::Parsed1| document::classify(&parsed.root, self.name) == Dialect::Kubernetes;
        let again = parsed.documents.iter().any(|d| foreign(d) && !d.problems.is_empty());
        let mut expanded = if again { yaml::parse_expanded(text) } else { yaml::Parsed::default() };
        for fatal in expanded.fatal.drain(..).filter(|_| parsed.fatal.is_empty()) {
            loaded.diagnostics.push(document::diagnostic(fatal, self.name));
            kinds.insert(FileKind::Broken);
        }
        let mut expanded = expanded.documents.into_iter();
        for document in parsed.documents {
            kinds.insert(self.document(document, expanded.next(), among_ours, loaded));
        }
        let ours = ours || kinds.contains(&FileKind::Native) || kinds.contains(&FileKind::Broken);
        let ours = ours || kinds.contains(&FileKind::Compose) || kinds.contains(&FileKind::Kubernetes);
        let ours = ours || document::is_compose_name(self.name);
        for fatal in parsed.fatal {
            loaded.diagnostics.push(unknown_content(document::diagnostic(fatal, self.name), ours));
            kinds.insert(FileKind::Broken);
        }
        if kinds.contains(&FileKind::Broken) {
            return FileKind::Broken;
        }
        kinds.into_iter().next().unwrap_or(FileKind::NotAManifest)
    }

    /// `among_ours`: another document of the file is native, so that a foreign one is worth a word.
    fn document(
        &self,
        parsed: yaml::Parsed1,
        expanded: Option<yaml::Parsed1>,
        among_ours: bool,
        loaded: &mut Loaded,
    ) -> FileKind {
        let dialect = document::classify(&parsed.root, self.name);
        match dialect {
            Dialect::Native => {}
            Dialect::Kubernetes => return self.kubernetes(expanded.as_ref().unwrap_or(&parsed), loaded),
            Dialect::Compose => return FileKind::Compose,
            Dialect::Other if among_ours && native::is_kind(parsed.root.text("kind").unwrap_or("")) => {}
            Dialect::Other => {
                if among_ours {
                    let what = "a document without `apiVersion` among manifests: nothing of it is applied";
                    let place = parsed.root.extent.in_file(self.name);
                    loaded.diagnostics.push(Diagnostic::warning(codes::MISSING_FIELD, what).at(place));
                }
                return FileKind::NotAManifest;
            }
        }
        if let Err(error) = runtime::id::check_name(&self.stack) {
            let what = format!("directory `{}` cannot be a stack: {}", self.stack, error.why);
            let diagnostic = self.error(codes::STACK, what).help("rename the directory: its name is the stack's");
            if !loaded.diagnostics.contains(&diagnostic) {
                loaded.diagnostics.push(diagnostic);
            }
        }
        let parsed = Document {
            file: self.name.to_owned(),
            stack: self.stack.clone(),
            root: parsed.root,
            problems: parsed.problems,
        };
        let context = native::Context { variables: &self.options.variables, directory: self.directory };
        let (object, diagnostics) = native::lower(parsed, &context);
        let mut broken = diagnostics.iter().any(Diagnostic::is_error);
        loaded.diagnostics.extend(diagnostics);
        if let Some(mut object) = object {
            broken |= !read_contents(&mut object, self.options, loaded);
            if !broken && runtime::id::check_name(&self.stack).is_ok() {
                loaded.objects.push(object);
            }
        }
        if broken { FileKind::Broken } else { FileKind::Native }
    }
}

impl File<'_> {
    /// One document of the Kubernetes dialect.
    fn kubernetes(&self, parsed: &yaml::Parsed1, loaded: &mut Loaded) -> FileKind {
        let problems = parsed.problems.iter().map(|problem| document::diagnostic(problem.clone(), self.name));
        let mut output = kubernetes::lower(&parsed.root, self.name, &self.stack);
        output.diagnostics.extend(problems);
        let mut broken = output.diagnostics.iter().any(Diagnostic::is_error);
        loaded.diagnostics.append(&mut output.diagnostics);
        for mut object in output.objects {
            if read_contents(&mut object, self.options, loaded) {
                loaded.objects.push(object);
            } else {
                broken = true;
            }
        }
        if broken { FileKind::Broken } else { FileKind::Kubernetes }
    }
}

/// An error for what names our version; for any other file a warning, since it may be none of our business. Either
/// way the file counts as broken: what it defined before stays.
fn unknown_content(error: Diagnostic, ours: bool) -> Diagnostic {
    if ours {
        return error;
    }
    let severity = crate::model::Severity::Warning;
    Diagnostic { severity, ..error }.note("nothing in it says that it is a manifest; it is left alone")
}

/// Reads what `file:` names; whether all could be read.
fn read_contents(object: &mut Object, options: &LoadOptions, loaded: &mut Loaded) -> bool {
    let key = object.key.clone();
    let mut contents: Vec<&mut FileContent> = Vec::new();
    let mut template = |template: &mut TemplateSpec| {
        for mount in &template.mounts {
            if let MountWhatSpec::Bind(path) = &mount.what {
                loaded.bind_paths.insert(path.clone());
            }
        }
    };
    match &mut object.spec {
        ObjectSpec::Image(_) | ObjectSpec::Volume(_) | ObjectSpec::Service(_) | ObjectSpec::Network(_) => {}
        ObjectSpec::Config(config) => contents.extend(config.data.values_mut()),
        ObjectSpec::Secret(secret) => contents.extend(secret.data.values_mut()),
        ObjectSpec::App(app) => {
            template(&mut app.template);
            contents.extend(mounted_files(&mut app.template));
        }
        ObjectSpec::Job(job) => {
            template(&mut job.template);
            contents.extend(mounted_files(&mut job.template));
        }
    }
    let mut whole = true;
    for content in contents {
        let Some(path) = &content.path else { continue };
        loaded.file_refs.insert(path.clone());
        let result = match find::read(Path::new(path)) {
            Ok(bytes) if bytes.len() > yaml::FILE_BYTES_MAX => Err("it is larger than 1 MiB".to_owned()),
            other => other,
        };
        match result {
            Ok(bytes) => content.bytes = bytes.into(),
            Err(why) => {
                whole = false;
                let what = format!("{path} cannot be read: {why}");
                let diagnostic = Diagnostic::error(codes::FILE, what).at(content.span.clone()).of(&key);
                loaded.diagnostics.push(match why.as_str() {
                    "it is a directory" | "it is larger than 1 MiB" => {
                        diagnostic.help("mount it in place instead:  bind: PATH, readOnly: true")
                    }
                    _ => diagnostic,
                });
            }
        }
    }
    whole && seal(object, options, loaded)
}

/// Seals what a Secret holds; whether all of it is.
fn seal(object: &mut Object, options: &LoadOptions, loaded: &mut Loaded) -> bool {
    let ObjectSpec::Secret(secret) = &mut object.spec else { return true };
    for (name, content) in &mut secret.data {
        if std::str::from_utf8(&content.bytes).map_or(true, |text| text.contains('\0')) {
            secret.binary.insert(name.clone());
        }
        let Some(seal) = &options.seal else { continue };
        match seal.seal(&format!("{}/{name}", object.key), &content.bytes) {
            Ok(sealed) => content.bytes = sealed.into_bytes().into(),
            Err(why) => {
                content.bytes = Vec::new().into();
                let what = format!("{} cannot be kept: {why}", object.key);
                let help = "boxship controller --secret-key FILE";
                let diagnostic = Diagnostic::error(codes::FILE, what).at(object.span.clone()).of(&object.key);
                loaded.diagnostics.push(diagnostic.help(help));
                return false;
            }
        }
    }
    true
}

fn mounted_files(template: &mut TemplateSpec) -> impl Iterator<Item = &mut FileContent> {
    let members = template.pod.iter_mut().flat_map(|pod| &mut pod.members);
    let mounts = template.mounts.iter_mut().chain(members.flat_map(|member| &mut member.template.mounts));
    mounts.filter_map(|mount| match &mut mount.what {
        MountWhatSpec::File(content) => Some(content),
        MountWhatSpec::Volume(_)
        | MountWhatSpec::Config { .. }
        | MountWhatSpec::Secret { .. }
        | MountWhatSpec::Bind(_)
        | MountWhatSpec::Tmpfs { .. }
        | MountWhatSpec::Claim(_)
        | MountWhatSpec::Anonymous
        | MountWhatSpec::Scratch(_) => None,
    })
}

#[cfg(test)]
mod tests;
