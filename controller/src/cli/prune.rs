//! `prune`: what no manifest declares any more. Nothing goes before it was shown.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::args::VolumePruneArgs;
use super::context::{Context, Failure};
use super::format::bytes;
use super::table::Table;
use super::up::short;
use crate::api::types::Applied;
use crate::model::{Kind, ObjectKey, ObservedVolume};

/// A volume that may go.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unneeded {
    key: ObjectKey,
    path: PathBuf,
    /// On disk.
    size_bytes: u64,
}

pub(super) async fn run(context: &Context, args: &VolumePruneArgs) -> Result<ExitCode, Failure> {
    // who declares what is known by the controller alone
    let started = super::ensure_running(context).await?;
    let pruned = prune(context, args).await;
    // only what was started for this: who started another controller wants it to go on
    if started && context.status().await?.sources.is_empty() {
        super::shut_down(context).await?;
    }
    pruned
}

async fn prune(context: &Context, args: &VolumePruneArgs) -> Result<ExitCode, Failure> {
    let unneeded = unneeded(context, args).await?;
    if args.dry_run || !context.json() {
        show(context, &unneeded);
    }
    if args.dry_run || unneeded.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes && !agreed(context, unneeded.len())? {
        anstream::eprintln!("nothing was removed");
        return Ok(ExitCode::FAILURE);
    }
    let freed: u64 = unneeded.iter().map(|volume| volume.size_bytes).sum();
    for volume in &unneeded {
        let _: Applied = context.client.delete(&format!("/v1/objects/{}", volume.key)).await?;
    }
    if context.json() {
        context.print_json(&serde_json::json!({ "removed": unneeded, "freedBytes": freed }));
    } else {
        anstream::println!("{} removed, {} freed", unneeded.len(), bytes(freed));
    }
    Ok(ExitCode::SUCCESS)
}

/// Volumes with a name of their own that nobody declares. The anonymous ones go with their App.
async fn unneeded(context: &Context, args: &VolumePruneArgs) -> Result<Vec<Unneeded>, Failure> {
    let volumes = runtime::linux::list_volumes(&context.layout)?;
    let named = volumes.into_iter().filter_map(|volume| match ObservedVolume::from_labels(&volume.config.labels) {
        Some(ObservedVolume { owner, anonymous_of: None, .. }) => Some((owner, volume.path)),
        Some(_) | None => None,
    });
    let mut paths: BTreeMap<ObjectKey, PathBuf> = named.collect();
    let of_stack = |key: &ObjectKey| args.stack.as_ref().is_none_or(|stack| *stack == key.stack);
    let objects = context.status().await?.objects;
    let undeclared = objects.into_iter().filter(|o| o.key.kind == Kind::Volume && o.source.is_none());
    let chosen = undeclared.filter(|object| of_stack(&object.key)).filter_map(|object| {
        let path = paths.remove(&object.key)?;
        Some(Unneeded { size_bytes: disk_bytes(&path), key: object.key, path })
    });
    Ok(chosen.collect())
}

fn show(context: &Context, unneeded: &[Unneeded]) {
    if context.json() {
        return context.print_json(&serde_json::json!({ "unneeded": unneeded }));
    }
    if unneeded.is_empty() {
        return anstream::println!("every volume is declared by a manifest");
    }
    let mut table = Table::new(&["STACK", "VOLUME", "SIZE", "PATH"]);
    for volume in unneeded {
        let name = short(&volume.key);
        table.row([volume.key.stack.clone(), name, bytes(volume.size_bytes), volume.path.display().to_string()]);
    }
    anstream::println!("{}", table.render());
}

fn agreed(context: &Context, count: usize) -> Result<bool, Failure> {
    if context.json() || !std::io::stdin().is_terminal() {
        let what = "nobody can be asked here: --dry-run shows what would go, --yes removes it; nothing was removed";
        return Err(Failure::Usage(what.to_owned()));
    }
    anstream::eprint!("remove {count} with all data? [y/N] ");
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|e| Failure::Usage(format!("nothing can be read from the terminal: {e}")))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Bytes on disk of a directory and all below; what cannot be read does not count. Follows no link.
fn disk_bytes(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(data) = entry.metadata() else { continue };
            bytes += data.blocks() * 512;
            if data.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    bytes
}
