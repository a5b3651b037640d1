//! `convert`: manifests of any dialect, written in the native one. Needs no controller and no root.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::args::ConvertArgs;
use super::context::{Context, Failure, absolute};
use super::up::default_stack;
use crate::manifest::{Conversion, LoadOptions, convert};

pub(super) fn run(context: &Context, args: &ConvertArgs) -> Result<ExitCode, Failure> {
    let root_stack = Some(default_stack(&args.path));
    let options = LoadOptions { root_stack, ..LoadOptions::from_environment() };
    let conversion = convert(&absolute(&args.path), &options);
    // What is not honoured in the originals is not in the result either.
    if conversion.report.diagnostics().next().is_some() {
        anstream::eprint!("{}", conversion.report.render(std::io::stderr().is_terminal()));
    }
    if conversion.report.errors() > 0 {
        return Err(Failure::Manifests("nothing was written".to_owned()));
    }
    for lost in &conversion.lost {
        anstream::eprintln!("lost: {lost}");
    }
    if context.json() {
        context.print_json(&json!({ "files": conversion.files, "lost": conversion.lost }));
    }
    match &args.to {
        Some(directory) => write_all(directory, &conversion)?,
        None if context.json() => {}
        None if conversion.files.len() > 1 => {
            let stacks: Vec<&str> = conversion.files.keys().map(String::as_str).collect();
            let what = format!("these manifests are of several stacks: {}", stacks.join(", "));
            return Err(Failure::Usage(format!("{what}; write them to directories with --to DIR")));
        }
        None => conversion.files.values().for_each(|text| anstream::print!("{text}")),
    }
    Ok(ExitCode::SUCCESS)
}

/// One file a stack, none of which may be there.
fn write_all(directory: &Path, conversion: &Conversion) -> Result<(), Failure> {
    for (stack, text) in &conversion.files {
        let path = directory.join(stack).join("boxship.yaml");
        let written = std::fs::create_dir_all(directory.join(stack))
            .and_then(|()| std::fs::File::create_new(&path))
            .and_then(|mut file| file.write_all(text.as_bytes()));
        if let Err(error) = written {
            return Err(Failure::Usage(format!("write {}: {error}; it was not changed", path.display())));
        }
        anstream::eprintln!("wrote {}", path.display());
    }
    Ok(())
}
