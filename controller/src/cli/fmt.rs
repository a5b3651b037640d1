//! `fmt`: manifests in one layout, written in place. Needs no controller and no root.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::args::FmtArgs;
use super::context::{Context, Failure};
use crate::manifest::{LoadOptions, NotFormatted, check, fmt};

/// What a run did; paths as they were given.
#[derive(Default)]
struct Done {
    changed: BTreeSet<PathBuf>,
    /// With why.
    left: Vec<String>,
}

pub(super) fn run(context: &Context, args: &FmtArgs) -> Result<ExitCode, Failure> {
    if args.paths == [Path::new("-")] {
        return from_stdin(args.check);
    }
    let mut done = Done::default();
    for path in files(&args.paths)? {
        one(&path, args.check, &mut done)?;
    }
    if context.json() {
        context.print_json(&json!({ "changed": done.changed, "left": done.left, "checked": args.check }));
    } else {
        done.changed.iter().for_each(|path| anstream::println!("{}", path.display()));
    }
    done.left.iter().for_each(|why| anstream::eprintln!("warning: {why}; it was not changed"));
    if !done.left.is_empty() {
        return Err(Failure::Manifests(format!("{} of the files could not be laid out", done.left.len())));
    }
    Ok(ExitCode::from(u8::from(args.check && !done.changed.is_empty())))
}

fn from_stdin(is_check: bool) -> Result<ExitCode, Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|e| Failure::Usage(format!("read stdin: {e}")))?;
    let formatted = fmt(&text).map_err(|why| Failure::Manifests(format!("stdin{}", explained(&why))))?;
    if is_check {
        return Ok(ExitCode::from(u8::from(formatted != text)));
    }
    anstream::print!("{formatted}");
    Ok(ExitCode::SUCCESS)
}

/// The files named, and the manifests in the directories named: other people's YAML is not ours to lay out.
fn files(paths: &[PathBuf]) -> Result<BTreeSet<PathBuf>, Failure> {
    let mut files = BTreeSet::new();
    for path in paths {
        if path.is_dir() {
            files.extend(check(std::slice::from_ref(path), &LoadOptions::from_environment()).manifests());
        } else if path.exists() {
            files.insert(path.clone());
        } else {
            return Err(Failure::Usage(format!("{} is not there; nothing was changed", path.display())));
        }
    }
    Ok(files)
}

fn one(path: &Path, is_check: bool, done: &mut Done) -> Result<(), Failure> {
    let failed = |what: &str, error: &std::io::Error| {
        Failure::Usage(format!("{what} {}: {error}; it was not changed", path.display()))
    };
    let bytes = std::fs::read(path).map_err(|error| failed("read", &error))?;
    let Ok(text) = String::from_utf8(bytes) else {
        done.left.push(format!("{} is not UTF-8 text", path.display()));
        return Ok(());
    };
    match fmt(&text) {
        Err(why) => done.left.push(format!("{}{}", path.display(), explained(&why))),
        Ok(formatted) if formatted == text => {}
        Ok(formatted) => {
            if !is_check {
                replace(path, &formatted).map_err(|error| failed("write", &error))?;
            }
            done.changed.insert(path.to_owned());
        }
    }
    Ok(())
}

fn explained(why: &NotFormatted) -> String {
    match why {
        NotFormatted::Broken { line, column, why } => format!(":{line}:{column}: {why}"),
        NotFormatted::Unusual => ": it is written in a way that would change its meaning when laid out".to_owned(),
    }
}

/// Whole or not at all, with the file's own mode and owner; a link stays one.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let path = path.canonicalize()?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staged = directory.join(format!(".{name}.fmt-{}", std::process::id()));
    let written = std::fs::File::create_new(&staged).and_then(|mut file| {
        let like = std::fs::metadata(&path)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(like.permissions())?;
        let (user, group) = (std::os::unix::fs::MetadataExt::uid(&like), std::os::unix::fs::MetadataExt::gid(&like));
        std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
        file.sync_all()?;
        std::fs::rename(&staged, &path)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&staged);
    }
    written
}
