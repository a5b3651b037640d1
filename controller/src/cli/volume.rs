//! `volume`: a volume's data as one archive, and back. Done by this process on the data root itself, so that it works
//! whether or not a controller runs.

use std::fs::File;
use std::io::{IsTerminal as _, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use runtime::archive::Copied;
use runtime::linux::{list_volumes, volume_backup};
use runtime::runtime::VolumeConfig;

use super::args::{VolumeBackupArgs, VolumeRestoreArgs, VolumeVerb};
use super::context::{Context, Failure};
use crate::model::{Kind, ObjectKey, ObservedVolume};
use crate::plan::declared_volume;

pub(super) fn run(context: &Context, verb: &VolumeVerb) -> Result<ExitCode, Failure> {
    super::require_root("read and write volumes")?;
    match verb {
        VolumeVerb::Backup(args) => backup(context, args),
        VolumeVerb::Restore(args) => restore(context, args),
    }
}

fn backup(context: &Context, args: &VolumeBackupArgs) -> Result<ExitCode, Failure> {
    let config = find(context, &args.name)?.ok_or_else(|| missing(context, &args.name))?;
    let users = volume_backup::users(&context.layout, &config.name)?;
    let writers: Vec<&str> = users.iter().filter(|user| user.writes).map(|user| user.id.as_str()).collect();
    if !writers.is_empty() && !args.live {
        let message =
            format!("{} may write to volume {} while it is read; nothing was written", writers.join(", "), args.name);
        return Err(Failure::new("BX0606", message, Some("boxship scale APP 0   ·   boxship volume backup --live …")));
    }
    let copied = if args.file == Path::new("-") {
        let mut out = std::io::stdout().lock();
        if std::io::stdout().is_terminal() {
            return Err(Failure::Usage("stdout is a terminal: name a file, or use a pipe".to_owned()));
        }
        volume_backup::save(&context.layout, &config.name, &mut out)?
    } else {
        to_file(context, &config, &args.file)?
    };
    told(&copied);
    Ok(ExitCode::SUCCESS)
}

/// Beside it first: a backup of the same name stays until the new one is whole and on the disk.
fn to_file(context: &Context, config: &VolumeConfig, file: &Path) -> Result<Copied, Failure> {
    let failed =
        |error: std::io::Error| Failure::new("BX0606", format!("write {}: {error}", file.display()), Some("df -h"));
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = file.with_file_name(name);
    let made = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial).map_err(failed)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, made);
    let saved = volume_backup::save(&context.layout, &config.name, &mut out);
    let written = saved.map_err(Failure::from).and_then(|copied| {
        out.flush().and_then(|()| out.get_ref().sync_all()).map_err(failed)?;
        std::fs::rename(&partial, file).map_err(failed)?;
        Ok(copied)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written
}

fn restore(context: &Context, args: &VolumeRestoreArgs) -> Result<ExitCode, Failure> {
    let config = match find(context, &args.name)? {
        Some(config) => config,
        None => new(&args.name)?,
    };
    let mut input: Box<dyn Read> = if args.file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let opened = File::open(&args.file);
        let file = opened.map_err(|error| {
            let message = format!("read {}: {error}; nothing was changed", args.file.display());
            Failure::new("BX0606", message, Some("boxship volume restore --help"))
        })?;
        Box::new(std::io::BufReader::with_capacity(1 << 20, file))
    };
    let restored = volume_backup::restore(&context.layout, &config, args.replace, &mut *input);
    let copied = restored.map_err(|error| match error {
        runtime::Error::Conflict(why) => {
            let help = "boxship scale APP 0   ·   boxship volume restore --replace …";
            Failure::new("BX0606", format!("{why}; nothing was changed"), Some(help))
        }
        other => other.into(),
    })?;
    told(&copied);
    Ok(ExitCode::SUCCESS)
}

fn told(copied: &Copied) {
    if copied.left_out > 0 {
        anstream::eprintln!("note: {} sockets and devices were left out", copied.left_out);
    }
}

/// A volume by its object (`uploads`, `shop/uploads`), or by its name on disk.
fn find(context: &Context, name: &str) -> Result<Option<VolumeConfig>, Failure> {
    let volumes = list_volumes(&context.layout)?;
    let is_meant = |config: &VolumeConfig| {
        let owner = ObservedVolume::from_labels(&config.labels).filter(|volume| volume.anonymous_of.is_none());
        let owner = owner.map(|volume| volume.owner);
        config.name.as_str() == name
            || owner.is_some_and(|owner| owner.name == name || format!("{}/{}", owner.stack, owner.name) == name)
    };
    let mut found = volumes.into_iter().map(|volume| volume.config).filter(is_meant);
    let first = found.next();
    if let (Some(first), Some(second)) = (&first, found.next()) {
        let message = format!("`{name}` is {} or {}; name the stack too", first.name, second.name);
        return Err(Failure::Usage(message));
    }
    Ok(first)
}

/// One that is not there yet: a manifest's, made as its plan would make it.
fn new(name: &str) -> Result<VolumeConfig, Failure> {
    let (stack, volume) = name.split_once('/').ok_or_else(|| {
        Failure::Usage(format!("there is no volume `{name}` yet: say whose it will be, STACK/{name}"))
    })?;
    for part in [stack, volume] {
        runtime::id::check_name(part).map_err(|error| Failure::Usage(format!("`{part}`: {}", error.why)))?;
    }
    Ok(declared_volume(&ObjectKey { stack: stack.to_owned(), kind: Kind::Volume, name: volume.to_owned() }))
}

fn missing(context: &Context, name: &str) -> Failure {
    let known = list_volumes(&context.layout).unwrap_or_default();
    let known: Vec<String> = known.iter().map(|volume| volume.config.name.to_string()).take(12).collect();
    let known = if known.is_empty() { "there are none".to_owned() } else { known.join(" ") };
    Failure::Usage(format!("there is no volume `{name}`: {known}"))
}
