//! `explain`: what a field of any dialect, or a code of a message, means. Needs no controller and no root.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::args::ExplainArgs;
use super::context::{Context, Failure};
use crate::manifest::{Explanation, explain};

pub(super) fn run(context: &Context, args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let found = explain(&args.what).map_err(|unknown| {
        let near = unknown.near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let help = "boxship explain   lists what there is";
        Failure::new("BX0903", format!("{}{near}", unknown.what), Some(help))
    })?;
    if context.json() {
        context.print_json(&found.to_json());
    } else {
        anstream::print!("{}", text(&found));
    }
    Ok(ExitCode::SUCCESS)
}

fn text(found: &Explanation) -> String {
    let mut out = format!("{}\n", found.name);
    for line in &found.about {
        let _ = writeln!(out, "  {line}");
    }
    let width = found.parts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    if width > 0 {
        out.push('\n');
    }
    for (name, about) in &found.parts {
        let _ = writeln!(out, "  {name:width$}  {about}");
    }
    out
}
