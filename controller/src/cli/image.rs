//! `image …`: one function a verb. Who does the work is the desk's business.

mod archive;
pub(super) mod desk;
mod list;
mod login;
mod made;

use std::process::ExitCode;

use runtime::image::{ImageRef, PruneRequest, Pruned};
use runtime::linux::Removed;

use super::args::{DiffArgs, ImageVerb, ListArgs, PruneArgs};
use super::context::{Context, Failure, absolute};
use super::format::bytes;
use crate::api::images::{ImageAnswer, ImageRequest};
use desk::Desk;
pub(super) use list::tame;

pub(super) async fn run(context: &Context, verb: &ImageVerb) -> Result<ExitCode, Failure> {
    let mut spool = None;
    let request = match verb {
        ImageVerb::Login(args) => return login::login(context, args),
        ImageVerb::Logout(args) => return login::logout(context, args),
        ImageVerb::Ls(args) if !args.remote => return ls(context, args).await,
        ImageVerb::Inspect { images } => return inspect(context, images).await,
        ImageVerb::Ls(args) => ImageRequest::RemoteTags(args.repository.clone().unwrap_or_default()),
        ImageVerb::Pull { reference } => ImageRequest::Pull(reference.clone()),
        ImageVerb::Push { image, to } => ImageRequest::Push { name: image.clone(), to: to.clone() },
        ImageVerb::History { image, .. } => ImageRequest::History(image.clone()),
        ImageVerb::Tag { image, new } => ImageRequest::Tag { name: image.clone(), new: new.clone() },
        ImageVerb::Rm { images, force } => ImageRequest::Remove { names: images.clone(), force: *force },
        ImageVerb::Prune(args) => ImageRequest::Prune(prune_request(args)),
        ImageVerb::Scrub => ImageRequest::Scrub,
        ImageVerb::Save(args) => return archive::save(context, args).await,
        ImageVerb::Load(args) => {
            let (request, held) = archive::load_request(args)?;
            spool = held;
            request
        }
        ImageVerb::Commit(args) => made::commit_request(args),
        ImageVerb::Import(args) => {
            let (request, held) = made::import_request(args)?;
            spool = held;
            request
        }
        ImageVerb::Diff(args) => ImageRequest::Diff { name: args.image.clone(), other: args.other.clone() },
        ImageVerb::Unpack { image, dest } => ImageRequest::Unpack { name: image.clone(), to: absolute(dest) },
    };
    let desk = Desk::open(context).await?;
    if let ImageRequest::Prune(request) = &request
        && *request != (PruneRequest { dry_run: request.dry_run, ..PruneRequest::default() })
        && desk.is_blind(context)
    {
        let message = "manifests were accepted here and no controller runs: which images they need is not known";
        return Err(Failure::new("BX0904", message, Some("boxship up DIR   (starts one), then prune again")));
    }
    let answer = desk.ask(&request).await;
    drop(spool);
    let answer = answer?;
    if context.json() {
        print_json(context, &answer);
        return Ok(exit_code(&answer));
    }
    print(verb, &answer);
    Ok(exit_code(&answer))
}

async fn ls(context: &Context, args: &ListArgs) -> Result<ExitCode, Failure> {
    let views = Desk::open(context).await?.list().await?;
    if context.json() {
        context.print_json(&views);
    } else {
        let text = list::table(&views, args);
        if !text.is_empty() {
            anstream::println!("{text}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a container changed of its image.
pub(super) async fn diff_container(context: &Context, args: &DiffArgs) -> Result<ExitCode, Failure> {
    let desk = Desk::open(context).await?;
    let answer = desk.ask(&ImageRequest::DiffContainer(args.container.clone())).await?;
    match &answer {
        ImageAnswer::Changes(changes) if !context.json() => made::print_changes(changes),
        other => print_json(context, other),
    }
    Ok(ExitCode::SUCCESS)
}

/// An array, as Docker prints one, however many there are.
async fn inspect(context: &Context, names: &[String]) -> Result<ExitCode, Failure> {
    let desk = Desk::open(context).await?;
    let mut found = Vec::new();
    for name in names {
        if let ImageAnswer::Inspected(value) = desk.ask(&ImageRequest::Inspect(name.clone())).await? {
            found.push(value);
        }
    }
    context.print_json(&found);
    Ok(ExitCode::SUCCESS)
}

fn prune_request(args: &PruneArgs) -> PruneRequest {
    PruneRequest {
        all: args.all,
        unused_for_ms: args.unused_for.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        budget_bytes: args.budget,
        dry_run: args.dry_run,
    }
}

/// A scrub that leaves damage behind has failed.
fn exit_code(answer: &ImageAnswer) -> ExitCode {
    match answer {
        ImageAnswer::Scrubbed(seen) if !seen.lost.is_empty() => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// The value without the name of its variant, which says nothing to who asked.
fn print_json(context: &Context, answer: &ImageAnswer) {
    match answer {
        ImageAnswer::Held(image) => context.print_json(image),
        ImageAnswer::Pushed(pushed) => context.print_json(pushed),
        ImageAnswer::Inspected(value) => context.print_json(value),
        ImageAnswer::History(steps) => context.print_json(steps),
        ImageAnswer::Tagged(name) => context.print_json(name),
        ImageAnswer::Removed(removed) => context.print_json(removed),
        ImageAnswer::Pruned(pruned) => context.print_json(pruned),
        ImageAnswer::Scrubbed(seen) => context.print_json(seen),
        ImageAnswer::Loaded(images) => context.print_json(images),
        ImageAnswer::Unpacked(digest) => context.print_json(digest),
        ImageAnswer::Tags(tags) => context.print_json(tags),
        ImageAnswer::Made(image) => context.print_json(image),
        ImageAnswer::Changes(changes) => context.print_json(changes),
    }
}

fn print(verb: &ImageVerb, answer: &ImageAnswer) {
    match answer {
        ImageAnswer::Held(image) => {
            let name = image.references.first().map(ImageRef::familiar).unwrap_or_default();
            let asked = if let ImageVerb::Pull { reference } = verb { reference } else { &name };
            anstream::println!("{asked} {} {}", image.digest, bytes(image.size_bytes));
        }
        ImageAnswer::Pushed(pushed) => anstream::println!(
            "pushed {} ({} sent, {} mounted, {} there already)",
            pushed.digest,
            bytes(pushed.uploaded_bytes),
            pushed.mounted,
            pushed.present
        ),
        ImageAnswer::Inspected(value) => anstream::println!("{value}"),
        ImageAnswer::History(steps) => {
            let whole = matches!(verb, ImageVerb::History { no_trunc: true, .. });
            anstream::println!("{}", list::history(steps, whole));
        }
        ImageAnswer::Tagged(name) => anstream::println!("tagged {}", name.familiar()),
        ImageAnswer::Removed(removed) => print_removed(removed),
        ImageAnswer::Pruned(pruned) => print_pruned(verb, pruned),
        ImageAnswer::Scrubbed(seen) => {
            seen.healed.iter().for_each(|digest| anstream::println!("healed {digest}"));
            seen.lost.iter().for_each(|(digest, why)| anstream::println!("damaged {digest}: {why}"));
            anstream::println!("{} checked, {} healed, {} damaged", seen.checked, seen.healed.len(), seen.lost.len());
        }
        ImageAnswer::Loaded(images) => {
            for image in images {
                let name = image.references.last().map(ImageRef::familiar).unwrap_or_default();
                anstream::println!("loaded {name} {} {}", image.digest, bytes(image.size_bytes));
            }
        }
        ImageAnswer::Unpacked(digest) => anstream::println!("unpacked {digest}"),
        ImageAnswer::Tags(tags) => tags.iter().for_each(|tag| anstream::println!("{tag}")),
        ImageAnswer::Made(image) => anstream::println!("{}", image.id),
        ImageAnswer::Changes(changes) => made::print_changes(changes),
    }
}

fn print_removed(removed: &Removed) {
    removed.untagged.iter().for_each(|name| anstream::println!("untagged {}", name.familiar()));
    removed.deleted.iter().for_each(|id| anstream::println!("deleted {id}"));
    if removed.freed.bytes > 0 {
        anstream::println!("freed {}", bytes(removed.freed.bytes));
    }
}

fn print_pruned(verb: &ImageVerb, pruned: &Pruned) {
    let is_dry = matches!(verb, ImageVerb::Prune(PruneArgs { dry_run: true, .. }));
    for image in &pruned.images {
        let names = image.references.iter().map(ImageRef::familiar).collect::<Vec<_>>().join(" ");
        anstream::println!("{} {} {names}", if is_dry { "would delete" } else { "deleted" }, image.id.short());
    }
    anstream::println!("{} {}", if is_dry { "would free" } else { "freed" }, bytes(pruned.freed.bytes));
}
