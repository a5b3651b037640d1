//! `commit`, `image import` and the two `diff`s: what is asked for, and how changes are shown.

use std::io::Write as _;
use std::path::Path;

use runtime::image::{Change, Notes};

use super::archive::Spool;
use super::list::tame;
use crate::api::images::ImageRequest;
use crate::cli::args::{CommitArgs, ImportArgs, NoteArgs};
use crate::cli::context::{Failure, absolute};

pub(super) fn commit_request(args: &CommitArgs) -> ImageRequest {
    ImageRequest::Commit {
        container: args.container.clone(),
        name: args.name.clone(),
        notes: notes(&args.notes, args.author.clone()),
        pause: !args.no_pause,
    }
}

/// What to import, and the file that holds what came by stdin as long as it is needed.
pub(super) fn import_request(args: &ImportArgs) -> Result<(ImageRequest, Option<Spool>), Failure> {
    let (path, spool) = if args.source == "-" {
        let spool = Spool::of_stdin()?;
        (spool.0.clone(), Some(spool))
    } else {
        (absolute(Path::new(&args.source)), None)
    };
    Ok((ImageRequest::Import { path, name: args.name.clone(), notes: notes(&args.notes, None) }, spool))
}

fn notes(args: &NoteArgs, author: Option<String>) -> Notes {
    Notes { reference: None, message: args.message.clone(), author, changes: args.changes.clone() }
}

/// `A /etc/new`, one a line.
pub(super) fn print_changes(changes: &[Change]) {
    let mut out = anstream::AutoStream::auto(std::io::stdout().lock());
    for change in changes {
        // a reader that went away (`| head`) is no error of ours
        if writeln!(out, "{} {}", change.kind.letter(), tame(&change.path, true)).is_err() {
            return;
        }
    }
}
