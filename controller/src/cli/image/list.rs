//! `image ls|history`: tables in the manner of Docker's, so that eyes and scripts find what they know.

use runtime::clock::unix_ms;
use runtime::image::{HistoryStep, ImageRef};

use crate::api::types::ImageView;
use crate::cli::args::ListArgs;
use crate::cli::format::{age, bytes};
use crate::cli::table::Table;
use crate::cli::up::short;

const NONE: &str = "<none>";
/// Characters of a command shown.
const COMMAND_CHARS: usize = 60;

/// One line: an image under one of its names.
struct Line<'a> {
    repository: String,
    tag: String,
    view: &'a ImageView,
}

/// The table, or with `--quiet` the ids.
pub(super) fn table(views: &[ImageView], args: &ListArgs) -> String {
    let wanted = args.repository.as_deref().and_then(|text| text.parse::<ImageRef>().ok());
    let has_tag = args.repository.as_deref().is_some_and(|text| text.rsplit('/').next().unwrap_or("").contains(':'));
    let fits = |reference: &ImageRef| match &wanted {
        Some(w) => {
            let same = w.host() == reference.host() && w.repository() == reference.repository();
            same && (!has_tag || w.tag() == reference.tag())
        }
        None => args.repository.is_none(),
    };
    let mut lines: Vec<Line<'_>> =
        views.iter().flat_map(|view| names(view, &fits, &args.repository, has_tag)).collect();
    lines.retain(|line| !args.dangling || line.tag == NONE);
    lines.sort_by(|a, b| (&a.repository, &a.tag).cmp(&(&b.repository, &b.tag)));
    if args.quiet {
        let mut ids: Vec<String> = lines.iter().map(|line| id(line.view, args.no_trunc)).collect();
        ids.dedup();
        return ids.join("\n");
    }
    let mut head = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "UNIQUE", "SHARED", "USED BY"];
    if args.digests {
        head.insert(2, "DIGEST");
    }
    let mut table = Table::new(&head);
    for line in lines {
        let view = line.view;
        let mut row = vec![
            line.repository,
            line.tag,
            id(view, args.no_trunc),
            created(view.image.created.as_deref()),
            bytes(view.image.size_bytes),
            bytes(view.sizes.unique_bytes),
            bytes(view.sizes.shared_bytes),
            users(view),
        ];
        if args.digests {
            row.insert(2, view.image.digest.to_string());
        }
        table.row(row);
    }
    table.render()
}

/// A line for each tag; what has none, or lost it to another image, is `<none>`.
fn names<'a>(
    view: &'a ImageView,
    fits: &dyn Fn(&ImageRef) -> bool,
    wanted: &Option<String>,
    wants_tag: bool,
) -> Vec<Line<'a>> {
    let references = &view.image.references;
    let has_tag = references.iter().any(|r| r.digest().is_none());
    let mut tags: Vec<Line<'a>> = references
        .iter()
        .filter(|r| r.digest().is_none() && fits(r))
        .map(|r| Line { repository: r.familiar_repository(), tag: r.tag().unwrap_or(NONE).to_owned(), view })
        .collect();
    if !has_tag && !wants_tag {
        let pinned = references.iter().find(|r| r.digest().is_some() && fits(r));
        tags.extend(pinned.map(|r| Line { repository: r.familiar_repository(), tag: NONE.to_owned(), view }));
    }
    if references.is_empty() && wanted.is_none() {
        tags.push(Line { repository: NONE.to_owned(), tag: NONE.to_owned(), view });
    }
    tags
}

fn id(view: &ImageView, whole: bool) -> String {
    if whole { view.image.id.to_string() } else { view.image.id.short().to_owned() }
}

fn users(view: &ImageView) -> String {
    let objects: Vec<String> = view.used_by.iter().map(short).collect();
    if objects.is_empty() { view.containers.join(",") } else { objects.join(",") }
}

/// How long ago, as the image says itself; tools that build the same bytes twice date them 1970 or not at all.
fn created(said: Option<&str>) -> String {
    let then = said.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let then_ms = then.and_then(|t| u64::try_from(t.as_millisecond()).ok()).unwrap_or(0);
    age(unix_ms(), then_ms)
}

/// The steps of an image, latest first.
pub(super) fn history(steps: &[HistoryStep], whole: bool) -> String {
    let mut table = Table::new(&["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    for step in steps {
        let layer = step.layer.as_ref().map(|l| if whole { l.to_string() } else { l.short().to_owned() });
        table.row([
            layer.unwrap_or_default(),
            created(step.created.as_deref()),
            tame(&step.created_by, whole),
            bytes(step.size_bytes),
            tame(&step.comment, whole),
        ]);
    }
    table.render()
}

/// Text of an image on one line, without what a terminal would obey.
pub(in crate::cli) fn tame(text: &str, whole: bool) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if !whole && let Some((at, _)) = line.char_indices().nth(COMMAND_CHARS) {
        line.truncate(at);
        line.push('…');
    }
    line
}
