//! Finding and reading files below a root: which there are, which stack each belongs to, what cannot be read.
//!
//! Hidden files and directories are skipped (which also skips `..data` directories behind symlinks and `.git`);
//! symlinks are followed, each directory once. Everything is bounded and sorted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use super::yaml::FILE_BYTES_MAX;

/// The stack of files directly in the root.
pub const DEFAULT_STACK: &str = "default";
/// Most files of a root: beyond this somebody has named the wrong directory.
const FILES_MAX: usize = 10_000;
/// Deepest directory below a root.
const DEPTH_MAX: usize = 32;

/// What is below a root.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The root itself cannot be read: why.
    pub(crate) root_error: Option<String>,
    /// YAML files, sorted by their relative path.
    pub(crate) files: BTreeMap<String, PathBuf>,
    /// Directories to watch, absolute, symlinks as written.
    pub(crate) directories: BTreeSet<PathBuf>,
    /// Directories and files that cannot be listed, relative, and why.
    pub(crate) unreadable: BTreeMap<String, String>,
    /// The stack of files directly in the root.
    pub(crate) stack: String,
}

/// Lists a directory recursively, or takes a file as it is.
pub(crate) fn find(root: &Path) -> Found {
    let root = match std::path::absolute(root) {
        Ok(root) => normal(&root),
        Err(error) => return Found { root_error: Some(error.to_string()), ..Found::default() },
    };
    let mut found = Found { stack: DEFAULT_STACK.to_owned(), ..Found::default() };
    match std::fs::metadata(&root) {
        Err(error) => found.root_error = Some(why(&error)),
        Ok(metadata) if metadata.is_dir() => {
            let mut finder = Finder { found: &mut found, visited: BTreeSet::new() };
            if let Err(error) = finder.directory(&root, "", 0) {
                found.root_error = Some(why(&error));
            }
        }
        Ok(_) => {
            let name = root.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            if let Some(parent) = root.parent() {
                found.stack = stack_name(parent);
                found.directories.insert(parent.to_owned());
            }
            found.files.insert(name, root);
        }
    }
    found
}

struct Finder<'a> {
    found: &'a mut Found,
    visited: BTreeSet<PathBuf>,
}

impl Finder<'_> {
    fn directory(&mut self, path: &Path, relative: &str, depth: usize) -> std::io::Result<()> {
        // A symlink that leads back up must not make us run in circles.
        if !self.visited.insert(std::fs::canonicalize(path)?) {
            return Ok(());
        }
        self.found.directories.insert(path.to_owned());
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            entries.push(entry?);
        }
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                let relative = if relative.is_empty() { name } else { format!("{relative}/{name}") };
                self.entry(&entry, relative, depth);
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &std::fs::DirEntry, relative: String, depth: usize) {
        let path = entry.path();
        let is_yaml = is_yaml(&path);
        let too_many = "more than 10,000 files or 32 levels of directories".to_owned();
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            // A dangling link that could be a manifest or a directory of them: the moment within a swap.
            Err(error) if is_yaml || is_dangling_directory(&path) => {
                self.found.unreadable.insert(relative, why(&error));
                return;
            }
            Err(_) => return,
        };
        if metadata.is_dir() {
            let result = if depth < DEPTH_MAX {
                self.directory(&path, &relative, depth + 1).map_err(|e| why(&e))
            } else {
                Err(too_many)
            };
            if let Err(error) = result {
                self.found.unreadable.insert(relative, error);
            }
        } else if is_yaml && self.found.files.len() >= FILES_MAX {
            self.found.unreadable.insert(relative, too_many);
        } else if is_yaml {
            self.found.files.insert(relative, path);
        }
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// A broken link without an extension may stand for a directory.
fn is_dangling_directory(path: &Path) -> bool {
    path.extension().is_none() && std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_symlink())
}

/// What the kernel said, without the number.
pub(crate) fn why(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Without `.`, `..` and doubled slashes, by text alone.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            Component::RootDir | Component::Normal(_) | Component::Prefix(_) => out.push(component),
        }
    }
    out
}

/// A directory's name as a stack: what cannot be in a name becomes `-`.
fn stack_name(directory: &Path) -> String {
    let name = directory.file_name().map_or_else(String::new, |name| name.to_string_lossy().to_lowercase());
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { DEFAULT_STACK.to_owned() } else { name.to_owned() }
}

/// Reads at most one byte more than a manifest may have, and never blocks on a pipe.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(|e| why(&e))?;
    let metadata = file.metadata().map_err(|e| why(&e))?;
    if metadata.is_dir() {
        return Err("it is a directory".to_owned());
    }
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|e| why(&e))?;
    Ok(bytes)
}
