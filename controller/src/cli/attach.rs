//! `attach`: in front of a container that runs already, without ending it when one leaves.

use std::process::ExitCode;

use super::args::AttachArgs;
use super::context::{Context, Failure};
use super::exec::converse_until;
use super::hand;
use super::image::desk::Desk;
use super::terminal::window_size;
use crate::api::look::{LookAnswer, LookRequest};
use crate::api::server::begin_attach;
use crate::api::types::AttachRequest;

pub(super) async fn run(context: &Context, args: &AttachArgs) -> Result<ExitCode, Failure> {
    let keys = keys(&args.detach_keys).map_err(Failure::Usage)?;
    let desk = hand::open(context, "attach").await?;
    let LookAnswer::Inspected(seen) = desk.look(&LookRequest::Inspect(args.container.clone())).await? else {
        return Err(Failure::new("BX0902", "the controller answered another question", Some("boxship ps")));
    };
    let name = seen["Name"].as_str().unwrap_or(&args.container).to_owned();
    if seen["State"]["Running"] != true {
        let help = format!("boxship start {name}   ·   boxship logs {name}");
        let state = seen["State"]["Status"].as_str().unwrap_or("no container");
        return Err(Failure::new("BX0900", format!("container `{name}` is not running: it is {state}"), Some(&help)));
    }
    let (tty, has_stdin) = (seen["Config"]["Tty"] == true, seen["Config"]["OpenStdin"] == true);
    let interactive = !args.no_stdin && (tty || has_stdin);
    if !args.no_stdin && !interactive {
        anstream::eprintln!("note: `{name}` was started without a stdin (run -i gives one): only its output is shown");
    }
    let id = seen["Id"].as_str().unwrap_or(&name).to_owned();
    let request = AttachRequest { name: id, start: false, stdin: interactive, tty: tty.then(window_size) };
    let code = match &desk {
        Desk::Controller(_) => {
            let stream = context.client.upgrade("/v1/containers/attach", "boxship-attach", &request).await?;
            drop(desk);
            converse_until(stream, tty, interactive, keys).await?
        }
        Desk::Here { linux, .. } => {
            let begun = begin_attach(linux, &request)?;
            // others may work with the data root meanwhile
            drop(desk);
            converse_until(hand::local(begun), tty, interactive, keys).await?
        }
    };
    Ok(code)
}

/// `ctrl-p,ctrl-q` as the bytes a terminal sends; none for an empty text.
pub(super) fn keys(text: &str) -> Result<Vec<u8>, String> {
    let refuse = |key: &str| {
        format!("`{key}` is no key: write a letter, or ctrl- and a letter or one of @ [ ] ^ _ and a backslash")
    };
    let one = |key: &str| {
        let bytes = key.strip_prefix("ctrl-").unwrap_or(key).as_bytes();
        match (key.starts_with("ctrl-"), bytes) {
            (true, [letter]) if letter.is_ascii_alphabetic() => Ok(letter.to_ascii_uppercase() - b'@'),
            (true, [sign @ (b'@' | b'[' | b']' | b'^' | b'_' | b'\\')]) => Ok(sign - b'@'),
            (false, [key]) if key.is_ascii_graphic() => Ok(*key),
            _ => Err(refuse(key)),
        }
    };
    text.split(',').filter(|key| !key.is_empty()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::keys;

    #[test]
    fn keys_are_read_as_docker_writes_them() {
        assert_eq!(keys("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(keys("ctrl-\\,a"), Ok(vec![28, b'a']));
        assert_eq!(keys(""), Ok(Vec::new()));
        for bad in ["ctrl-", "ctrl-1", "ab", "ctrl-p;q"] {
            assert!(keys(bad).is_err(), "{bad}");
        }
    }
}
