//! One-line texts.

use crate::model::PublishedPort;
use crate::plan::WaitingOn;

/// Characters of foreign text in a status line.
const SHORT_CHARS_MAX: usize = 120;

/// What is waited for, one line.
#[must_use]
pub fn waiting_text(on: &WaitingOn) -> String {
    match on {
        WaitingOn::Image { reference } => format!("Waiting for image {reference}"),
        WaitingOn::AbsentImage { reference } => format!(
            "image {reference} is not here and `pullPolicy: never` forbids to fetch it: `boxship image load` or `boxship \
             image pull {reference}` brings it"
        ),
        WaitingOn::Dependency { on } => format!("Waiting for {}/{}", on.kind, on.name),
        WaitingOn::Ready { id } => format!("Waiting for {id} to be ready"),
        WaitingOn::BackOff { failures, message, .. } => format!("Backoff after {failures} failures: {message}"),
        WaitingOn::Dependant { id } => format!("Waiting for {id}, which depends on it, to end"),
        WaitingOn::Exclusive { id } => format!("Waiting for {id} to let go of its volume"),
        WaitingOn::Held { reason } => format!("held: {reason}"),
        WaitingOn::LostImage { digest } => format!("image {digest} is gone"),
        WaitingOn::Exhausted { what } => format!("no more {what}"),
    }
}

/// `127.0.0.1:8080->3000`.
pub(super) fn port_text(port: &PublishedPort) -> String {
    let protocol = if port.at.protocol.is_tcp() { "" } else { "/udp" };
    format!("{}->{}{protocol}", port.at.socket_address(), port.container_port)
}

/// Foreign text cut to a length that fits a status line.
pub(super) fn short(text: &str) -> String {
    if text.chars().count() <= SHORT_CHARS_MAX {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(SHORT_CHARS_MAX).collect();
    short.push('…');
    short
}
