//! `image login|logout`: the password comes from stdin or the terminal, never from an argument, where `ps` shows it.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::args::{LoginArgs, LogoutArgs};
use crate::cli::context::{Context, Failure, absolute};
use crate::cli::terminal::without_echo;

/// Longest password read, in bytes.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;

pub(super) fn login(context: &Context, args: &LoginArgs) -> Result<ExitCode, Failure> {
    let user = match &args.username {
        Some(user) => user.clone(),
        None if args.password_stdin => return Err(Failure::Usage("--password-stdin needs --username".to_owned())),
        None => ask("user: ", false)?,
    };
    let password = if args.password_stdin { from_stdin()? } else { ask("password: ", true)? };
    if user.is_empty() || password.is_empty() {
        return Err(Failure::Usage("the user name or the password is empty".to_owned()));
    }
    let options = context.place.store_options();
    let file = file(context, args.authfile.as_ref());
    let kept = runtime::image::sign_in(&options, &args.registry, &user, &password, &file).map_err(Failure::from)?;
    if context.json() {
        context.print_json(&serde_json::json!({ "registry": args.registry, "user": user, "kept": kept }));
    } else {
        anstream::println!("signed in to {} as {user}; kept in {kept}", args.registry);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn logout(context: &Context, args: &LogoutArgs) -> Result<ExitCode, Failure> {
    let file = file(context, args.authfile.as_ref());
    let was_there = runtime::image::sign_out(&args.registry, &file).map_err(Failure::from)?;
    if !was_there {
        let message = format!("there is no login to {} in {}", args.registry, file.display());
        return Err(Failure::new("BX0903", message, Some("boxship image login REGISTRY")));
    }
    anstream::println!("signed out of {}", args.registry);
    Ok(ExitCode::SUCCESS)
}

fn file(context: &Context, given: Option<&PathBuf>) -> PathBuf {
    given.map_or_else(|| context.layout.auth_file(), |file| absolute(file))
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(PASSWORD_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|e| Failure::Usage(format!("no password can be read from stdin: {e}")))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn ask(prompt: &str, is_secret: bool) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("stdin is no terminal: give --username and --password-stdin".to_owned()));
    }
    anstream::eprint!("{prompt}");
    let mut line = String::new();
    let read = {
        let _quiet = is_secret.then(without_echo);
        std::io::stdin().lock().read_line(&mut line)
    };
    if is_secret {
        anstream::eprintln!();
    }
    read.map_err(|e| Failure::Usage(format!("nothing can be read from the terminal: {e}")))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
