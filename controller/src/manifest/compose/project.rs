//! The files of a project become one tree: the compose file, its override, what they include, and what services extend,
//! each with its own variables and its own directory for relative paths.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::interpolate::interpolate;
use super::merge::{merge, merge_entries};
use super::{Input, dotenv, keys};
use crate::manifest::keys::Reader;
use crate::manifest::tree::{Entry, Extent, Node, Style, Value};
use crate::manifest::{find, yaml};
use crate::model::{Diagnostic, codes};

/// Most files of one project: beyond this something includes itself.
const FILES_MAX: usize = 100;
/// Longest chain of includes, and of services that extend each other.
const CHAIN_MAX: usize = 16;

/// Variables by name.
pub(super) type Variables = BTreeMap<String, String>;

/// A project as it is gathered.
pub(super) struct Project<'a> {
    pub(super) input: &'a Input<'a>,
    pub(super) reader: Reader,
    /// Directories for relative paths, by [`Extent::file`].
    pub(super) directories: Vec<PathBuf>,
    /// Files that were read or looked for besides the manifests.
    pub(super) file_refs: BTreeSet<String>,
    /// Texts of included files, for carets.
    pub(super) sources: BTreeMap<String, Arc<str>>,
    /// Of the environment and `.env`.
    pub(super) variables: Variables,
    chain: usize,
}

impl<'a> Project<'a> {
    pub(super) fn new(input: &'a Input<'a>) -> Self {
        let mut project = Self {
            input,
            reader: Reader::default(),
            directories: Vec::new(),
            file_refs: BTreeSet::new(),
            sources: BTreeMap::new(),
            variables: Variables::new(),
            chain: 0,
        };
        project.variables = project.with_env_file(input.variables.clone(), &input.directory.join(".env"), None);
        project
    }

    /// The project's tree, or nothing when there is none.
    pub(super) fn tree(&mut self) -> Option<Node> {
        let mut whole: Option<Node> = None;
        let variables = self.variables.clone();
        for (name, text) in self.input.files {
            let Some(tree) = self.parse(name, text, self.input.directory, &variables) else { continue };
            whole = Some(match whole {
                Some(base) => merge(base, tree, ""),
                None => tree,
            });
        }
        let whole = self.extended(whole?);
        Some(self.included(whole))
    }

    /// Reads a text; several documents are put one over the other.
    fn parse(&mut self, name: &str, text: &str, directory: &Path, variables: &Variables) -> Option<Node> {
        if self.reader.files.len() >= FILES_MAX {
            let extent = Extent { line: 1, column: 1, end_line: 1, end_column: 1, file: 0 };
            self.reader.error(codes::LIMIT, extent, format!("more than {FILES_MAX} files in one project"));
            return None;
        }
        let file = u16::try_from(self.reader.files.len()).unwrap_or(u16::MAX);
        self.reader.files.push(name.to_owned());
        self.directories.push(directory.to_owned());
        let parsed = yaml::parse_expanded(text);
        let problems = parsed.documents.iter().flat_map(|document| &document.problems);
        for problem in problems.chain(&parsed.fatal) {
            self.reader.push(crate::manifest::document::diagnostic(problem.clone(), name));
        }
        let documents = parsed.documents.into_iter().map(|document| document.root);
        let mut tree = documents.reduce(|base, over| merge(base, over, ""))?;
        tree.set_file(file);
        self.substitute(&mut tree, variables);
        Some(tree)
    }

    fn substitute(&mut self, node: &mut Node, variables: &Variables) {
        match &mut node.value {
            Value::Map(entries) => entries.iter_mut().for_each(|entry| self.substitute(&mut entry.value, variables)),
            Value::List(items) => items.iter_mut().for_each(|item| self.substitute(item, variables)),
            Value::Unknown => {}
            Value::Scalar(scalar) if !scalar.text.contains('$') => {}
            Value::Scalar(scalar) => {
                let quote = usize::from(scalar.style == Style::Quoted);
                let one_line = node.extent.line == node.extent.end_line && !scalar.text.contains('\n');
                let in_place = one_line && scalar.style != Style::Block;
                let extent = node.extent;
                let place = |offset, len| if in_place { extent.part(offset + quote, len) } else { extent };
                match interpolate(&scalar.text, variables) {
                    Ok(done) => {
                        scalar.text = done.text;
                        for (name, offset, len) in done.unset {
                            let what = format!("variable `{name}` is not set: it is taken as empty");
                            let diagnostic = Diagnostic::warning(codes::VARIABLE, what);
                            let span = self.reader.span(place(offset, len));
                            let help = format!("set it in the environment or in .env, or write ${{{name}:-}}");
                            self.reader.push(diagnostic.at(span).help(help));
                        }
                    }
                    Err(bad) => {
                        self.reader.error(codes::VARIABLE, place(bad.offset, bad.len), bad.what);
                        node.value = Value::Unknown;
                    }
                }
            }
        }
    }

    /// Reads a file beside the project, which then counts for "has anything changed".
    pub(super) fn read(&mut self, path: &Path) -> Result<String, String> {
        self.file_refs.insert(path.to_string_lossy().into_owned());
        let bytes = find::read(path)?;
        if bytes.len() > yaml::FILE_BYTES_MAX {
            return Err("it is larger than 1 MiB".to_owned());
        }
        String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
    }

    /// The path that is written at a place: relative ones begin at the directory of their file.
    pub(super) fn path(&self, text: &str, extent: Extent) -> PathBuf {
        let directory = self.directories.get(usize::from(extent.file)).map_or(Path::new("/"), PathBuf::as_path);
        match text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            Some(rest) => {
                let home = self.variables.get("HOME").map_or("/root", String::as_str);
                find::normal(&PathBuf::from(format!("{home}{rest}")))
            }
            None => find::normal(&directory.join(text)),
        }
    }

    /// A name for messages: relative to where the project's own file is, if below.
    fn shown(&self, path: &Path) -> String {
        let prefix = self.input.files.first().and_then(|(name, _)| name.rsplit_once('/')).map(|(prefix, _)| prefix);
        match (path.strip_prefix(self.input.directory), prefix) {
            (Ok(below), Some(prefix)) => format!("{prefix}/{}", below.display()),
            (Ok(below), None) => below.display().to_string(),
            (Err(_), _) => path.display().to_string(),
        }
    }

    /// Variables with those of an env file behind them. Without `at` the file may be missing.
    fn with_env_file(&mut self, variables: Variables, path: &Path, at: Option<Extent>) -> Variables {
        let mut all = variables;
        match (self.read(path), at) {
            (Ok(text), _) => match dotenv::read(&text, &all) {
                Ok(settings) => {
                    // The last of a file wins, but the environment over all of them.
                    let mut new = Variables::new();
                    new.extend(settings.into_iter().filter_map(|(name, value)| Some((name, value?))));
                    for (name, value) in new {
                        all.entry(name).or_insert(value);
                    }
                }
                Err((line, what)) => self.bad_line(path, line, &what),
            },
            (Err(_), None) => {}
            (Err(why), Some(extent)) => {
                self.reader.error(codes::FILE, extent, format!("{} cannot be read: {why}", path.display()));
            }
        }
        all
    }

    pub(super) fn bad_line(&mut self, path: &Path, line: u32, what: &str) {
        let extent = Extent { line, column: 1, end_line: line, end_column: 2, file: 0 };
        let span = extent.in_file(&self.shown(path));
        self.reader.push(Diagnostic::error(codes::VALUE, what).at(span));
    }

    /// Puts what `include` names under what the file says itself.
    fn included(&mut self, whole: Node) -> Node {
        let Some(include) = whole.get("include").map(|entry| entry.value.clone()) else { return whole };
        if self.chain >= CHAIN_MAX {
            self.reader.error(codes::LIMIT, include.extent, format!("includes go deeper than {CHAIN_MAX}"));
            return whole;
        }
        self.chain += 1;
        let mut whole = whole;
        for item in self.reader.list("include", &include) {
            if let Some(part) = self.include(item) {
                whole = self.join(whole, part, item.extent);
            }
        }
        self.chain -= 1;
        whole
    }

    fn include(&mut self, item: &Node) -> Option<Node> {
        let (paths, directory, env_files) = if item.is_map() {
            let found = self.reader.keys(item, &keys::INCLUDE);
            let mut texts = |key: &str| match found.get(key) {
                Some(node) if node.scalar().is_some() => self.reader.text(key, node).into_iter().collect(),
                Some(node) => self.reader.texts(key, node),
                None => Vec::new(),
            };
            let (paths, directory) = (texts("path"), texts("project_directory"));
            (paths, directory.into_iter().next(), texts("env_file"))
        } else {
            (self.reader.text("include", item).into_iter().collect::<Vec<_>>(), None, Vec::new())
        };
        let first = self.path(paths.first()?, item.extent);
        let directory = match directory {
            Some(text) => self.path(&text, item.extent),
            None => first.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned),
        };
        let mut variables = self.variables.clone();
        if env_files.is_empty() {
            variables = self.with_env_file(variables, &directory.join(".env"), None);
        }
        for text in env_files {
            let path = self.path(&text, item.extent);
            variables = self.with_env_file(variables, &path, Some(item.extent));
        }
        let mut tree: Option<Node> = None;
        for text in paths {
            let path = self.path(&text, item.extent);
            let Some(part) = self.other(&path, &directory, &variables, item.extent) else { continue };
            tree = Some(match tree {
                Some(base) => merge(base, part, ""),
                None => part,
            });
        }
        let tree = self.extended(tree?);
        Some(self.included(tree))
    }

    /// A further file of the project.
    fn other(&mut self, path: &Path, directory: &Path, variables: &Variables, at: Extent) -> Option<Node> {
        match self.read(path) {
            Ok(text) => {
                let name = self.shown(path);
                self.sources.insert(name.clone(), Arc::from(text.as_str()));
                self.parse(&name, &text, directory, variables)
            }
            Err(why) => {
                self.reader.error(codes::FILE, at, format!("{} cannot be read: {why}", path.display()));
                None
            }
        }
    }

    /// Adds what an included file defines; the same name twice is an error.
    fn join(&mut self, whole: Node, part: Node, at: Extent) -> Node {
        let (Value::Map(mut entries), Value::Map(more)) = (whole.value, part.value) else {
            self.reader.error(codes::WRONG_TYPE, at, "the included file is not a mapping");
            return Node { extent: whole.extent, value: Value::Map(Vec::new()) };
        };
        for section in more {
            if matches!(section.key.as_str(), "name" | "version" | "include") || section.key.starts_with("x-") {
                continue;
            }
            let Some(known) = entries.iter_mut().find(|known| known.key == section.key) else {
                entries.push(section);
                continue;
            };
            let (Value::Map(base), Value::Map(items)) = (&mut known.value.value, section.value.value) else { continue };
            for item in items {
                match base.iter().find(|known| known.key == item.key) {
                    Some(known) if section.key == "services" => {
                        let what = format!("service `{}` is also defined by what is included", item.key);
                        let diagnostic = Diagnostic::error(codes::SAME_NAME, what)
                            .at(self.reader.span(known.key_extent))
                            .also_at("the other one is here", self.reader.span(item.key_extent));
                        self.reader.push(diagnostic);
                    }
                    Some(_) => {}
                    None => base.push(item),
                }
            }
        }
        Node { extent: whole.extent, value: Value::Map(entries) }
    }

    /// Each service with what it extends below it.
    fn extended(&mut self, mut whole: Node) -> Node {
        let Value::Map(entries) = &mut whole.value else { return whole };
        let Some(services) = entries.iter_mut().find(|entry| entry.key == "services") else { return whole };
        let Value::Map(list) = &services.value.value else { return whole };
        if list.iter().all(|entry| entry.value.get("extends").is_none()) {
            return whole;
        }
        let all = services.value.clone();
        let names: Vec<String> = list.iter().map(|entry| entry.key.clone()).collect();
        let mut done = Vec::new();
        for (name, entry) in names.into_iter().zip(list.clone()) {
            // What cannot be extended is not read either: it would lack what it was to get.
            let nothing = Node { extent: entry.key_extent, value: Value::Unknown };
            let value = self.service(&all, &name, entry.key_extent, 0).unwrap_or(nothing);
            done.push(Entry { key: entry.key, key_extent: entry.key_extent, value });
        }
        services.value.value = Value::Map(done);
        whole
    }

    fn service(&mut self, services: &Node, name: &str, at: Extent, chain: usize) -> Option<Node> {
        if chain > CHAIN_MAX {
            self.reader.error(codes::CYCLE, at, format!("services extend each other, or more than {CHAIN_MAX} deep"));
            return None;
        }
        let Some(service) = services.get(name).map(|entry| entry.value.clone()) else {
            let names = services.entries().iter().map(|entry| entry.key.as_str());
            let near = crate::text::nearest(name, names).map(str::to_owned);
            let what = format!("`extends` names service `{name}`, which is not there");
            let diagnostic = Diagnostic::error(codes::DANGLING, what).at(self.reader.span(at));
            self.reader.push(diagnostic.suggest(near));
            return None;
        };
        let Some(extends) = service.get("extends").map(|entry| entry.value.clone()) else { return Some(service) };
        let (base_name, file) = if extends.is_map() {
            let found = self.reader.keys(&extends, &keys::EXTENDS);
            let mut text = |key| found.get(key).and_then(|node| self.reader.text(key, node));
            (text("service"), text("file"))
        } else {
            (self.reader.text("extends", &extends), None)
        };
        let base_name = base_name?;
        let base = match file {
            None => self.service(services, &base_name, extends.extent, chain + 1)?,
            Some(file) => {
                let path = self.path(&file, extends.extent);
                let directory = path.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
                let variables = self.variables.clone();
                let tree = self.other(&path, &directory, &variables, extends.extent)?;
                let services = tree.get("services").map(|entry| entry.value.clone())?;
                self.service(&services, &base_name, extends.extent, chain + 1)?
            }
        };
        let strip = |node: Node| -> Vec<Entry> {
            node.entries().iter().filter(|entry| entry.key != "extends").cloned().collect()
        };
        let entries = merge_entries(strip(base), strip(service));
        Some(Node { extent: at, value: Value::Map(entries) })
    }
}
