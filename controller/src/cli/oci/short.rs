//! The command lines engines write, read without the parser: building it takes longer than many a verb. Whatever is not
//! one of these, and every mistake, is the parser's.

use std::ffi::OsString;

use super::args::{Bundle, Create, Delete, Id, Kill, LogFormat, Oci, Run, Verb};

/// The words of a line, or `None` for a line that is not one of the usual ones.
pub(super) fn parse(arguments: &[OsString]) -> Option<Oci> {
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str()).collect::<Option<_>>()?;
    let mut words = words.into_iter();
    let mut oci = Oci {
        root: "/run/boxship-oci".into(),
        log: None,
        log_format: LogFormat::Text,
        debug: false,
        systemd_cgroup: false,
        rootless_mode: None,
        verb: Verb::Features,
    };
    let verb = loop {
        match words.next()? {
            "--root" => oci.root = value(&mut words)?.into(),
            "--log" => oci.log = Some(value(&mut words)?.into()),
            "--log-format" => {
                oci.log_format = match words.next()? {
                    "json" => LogFormat::Json,
                    "text" => LogFormat::Text,
                    _ => return None,
                };
            }
            word => break word,
        }
    };
    oci.verb = match verb {
        "create" => bundled(words).map(|(id, bundle)| Verb::Create(Create { id, bundle }))?,
        "run" => bundled(words)
            .map(|(id, bundle)| Verb::Run(Run { id, bundle, detach: false, keep: false, no_subreaper: false }))?,
        "start" => Verb::Start(Id { id: only(words)? }),
        "state" => Verb::State(Id { id: only(words)? }),
        "delete" => {
            let mut rest: Vec<&str> = words.collect();
            let force = rest.first() == Some(&"--force");
            rest.drain(..usize::from(force));
            Verb::Delete(Delete { id: only(rest.into_iter())?, force })
        }
        "kill" => {
            let id = positional(words.next()?)?;
            let signal = words.next().map_or(Some("SIGTERM".to_owned()), positional)?;
            words.next().is_none().then_some(Verb::Kill(Kill { id, signal, all: false }))?
        }
        _ => return None,
    };
    Some(oci)
}

/// A value of an option; one that looks like an option itself is for the parser to judge.
fn value<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<&'a str> {
    words.next().filter(|word| !word.is_empty() && !word.starts_with('-'))
}

fn positional(word: &str) -> Option<String> {
    (!word.starts_with('-')).then(|| word.to_owned())
}

fn only<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<String> {
    let id = positional(words.next()?)?;
    words.next().is_none().then_some(id)
}

/// Id and options of `create` and `run`.
fn bundled<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<(String, Bundle)> {
    let mut bundle = Bundle {
        bundle: ".".into(),
        pid_file: None,
        console_socket: None,
        preserve_fds: 0,
        no_pivot: false,
        no_new_keyring: false,
    };
    let mut id = None;
    while let Some(word) = words.next() {
        match word {
            "--bundle" | "-b" => bundle.bundle = value(&mut words)?.into(),
            "--pid-file" => bundle.pid_file = Some(value(&mut words)?.into()),
            "--console-socket" => bundle.console_socket = Some(value(&mut words)?.into()),
            word if id.is_none() => id = Some(positional(word)?),
            _ => return None,
        }
    }
    Some((id?, bundle))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn it_reads_what_the_parser_reads() {
        for (line, short) in [
            ("--root /r run --bundle b x", true),
            ("create x", true),
            ("--root /r create x --bundle b", true),
            ("--root /r --log l --log-format json create --bundle b --pid-file p --console-socket s x", true),
            ("start x", true),
            ("state x", true),
            ("delete x", true),
            ("delete --force x", true),
            ("kill x", true),
            ("kill x KILL", true),
            ("--root /r kill x 9", true),
            ("run -d x", false),
            ("--debug start x", false),
            ("exec x true", false),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let named = std::iter::once(OsString::from("boxship oci")).chain(words.iter().cloned());
            let read = parse(&words).map(|oci| format!("{oci:?}"));
            assert_eq!(read.is_some(), short, "{line}");
            let full = format!("{:?}", Oci::try_parse_from(named).unwrap());
            assert!(read.is_none_or(|read| read == full), "{line}: {full}");
        }
        for wrong in [
            "",
            "run",
            "start",
            "start x y",
            "start -x",
            "--root",
            "--root --log run x",
            "kill x 9 9",
            "create --bundle",
            "nosuch x",
        ] {
            let words: Vec<OsString> = wrong.split(' ').map(OsString::from).collect();
            assert!(parse(&words).is_none(), "{wrong}");
        }
    }
}
