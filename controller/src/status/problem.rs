//! What keeps an object from being as written, where it has a stable code: the cause, the place in the manifest that names
//! what cannot be had, and one command that helps.

use runtime::image::ImageRef;

use super::Page;
use crate::api::types::Problem;
use crate::model::{Failure, ObjectKey, SourceRef};
use crate::plan::Action;

/// The first problem of an object: its image, then its ports.
pub(super) fn problem(page: Page<'_>, key: &ObjectKey) -> Option<Problem> {
    image_problem(page, key).or_else(|| port_problem(page, key))
}

fn image_problem(page: Page<'_>, key: &ObjectKey) -> Option<Problem> {
    let desired = &page.view.desired;
    let app = desired.workloads.get(key).map(|app| &app.template.image);
    let image = app.or_else(|| desired.jobs.get(key).map(|job| &job.template.image));
    let declared = desired.images.get(key).map(|image| (&image.reference, &image.source));
    let (reference, place) = image.map(|image| (&image.reference, &image.source)).or(declared)?;
    let subject = Action::PullImage { reference: reference.clone(), refresh: false }.subject();
    let failure = page.view.seen.state.failures.get(&subject)?;
    let code = failure.code.clone()?;
    let help = image_help(&code, reference);
    Some(with_place(code, format!("image {reference}: {}", failure.message), place, help))
}

fn port_problem(page: Page<'_>, key: &ObjectKey) -> Option<Problem> {
    let ports = page.view.desired.workloads.get(key).map(|app| &app.ports)?;
    ports.iter().find_map(|port| {
        let subject = Action::listener_subject(port.at);
        let Failure { code, message, .. } = page.view.seen.state.failures.get(&subject)?;
        let help = format!("ss -l{}np 'sport = :{}'", if port.at.protocol.is_tcp() { "t" } else { "u" }, port.at.port);
        Some(with_place(code.clone()?, message.clone(), &port.source, help))
    })
}

fn with_place(code: String, message: String, place: &SourceRef, help: String) -> Problem {
    Problem { code, message, place: Some(place.clone()), help: Some(help) }
}

/// One command for each thing that can be wrong with an image. All that stays the same is tried again by itself.
fn image_help(code: &str, reference: &ImageRef) -> String {
    match code {
        "BX0303" | "BX0304" => {
            format!("boxship image login {}", reference.host())
        }
        "BX0306" => format!("boxship image login {}   (who signs in is limited less)", reference.host()),
        "BX0309" => format!("boxship image pull {reference}   (takes the older one, if that is meant)"),
        "BX0310" => "boxship image prune --all --dry-run".to_owned(),
        _ => format!("boxship image pull {reference}   (tries again now and shows each layer)"),
    }
}
