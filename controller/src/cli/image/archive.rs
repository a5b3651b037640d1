//! `image save|load`: files and pipes are this process's business, so that whoever asks needs only rights of their own to
//! write the archive.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use runtime::image::SaveFormat;

use super::desk::Desk;
use crate::api::images::{ImageRequest, SaveRequest};
use crate::cli::args::{ArchiveFormat, LoadArgs, SaveArgs};
use crate::cli::context::{Context, Failure, absolute};

pub(super) async fn save(context: &Context, args: &SaveArgs) -> Result<ExitCode, Failure> {
    let format = match args.format {
        ArchiveFormat::Docker => SaveFormat::Docker,
        ArchiveFormat::Oci => SaveFormat::Oci,
    };
    let request = SaveRequest { names: args.images.clone(), format };
    let Some(path) = &args.file else {
        let mut stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(Failure::Usage("stdout is a terminal: name a file with --file, or use a pipe".to_owned()));
        }
        let desk = Desk::open(context).await?;
        desk.save(&request, &mut stdout).await?;
        stdout.flush().map_err(|e| failed("write to stdout", &e))?;
        return Ok(ExitCode::SUCCESS);
    };
    let desk = Desk::open(context).await?;
    // under another name until it is whole: half an archive is none
    let staged = staged(path);
    let mut file = File::create(&staged).map_err(|e| failed(&format!("create {}", staged.display()), &e))?;
    let saved = desk.save(&request, &mut file).await;
    let saved = saved.and_then(|()| {
        let kept = file.sync_all().and_then(|()| std::fs::rename(&staged, path));
        kept.map_err(|e| failed(&format!("write {}", path.display()), &e))
    });
    if saved.is_err() {
        let _ = std::fs::remove_file(&staged);
    }
    saved.map(|()| ExitCode::SUCCESS)
}

fn staged(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.part", std::process::id()))
}

fn failed(what: &str, error: &std::io::Error) -> Failure {
    Failure::new("BX0902", format!("{what}: {error}"), None)
}

/// What to load, and the file that holds what came by stdin as long as it is needed.
pub(super) fn load_request(args: &LoadArgs) -> Result<(ImageRequest, Option<Spool>), Failure> {
    let name = args.tag.clone();
    if args.source == "-" {
        let spool = Spool::of_stdin()?;
        return Ok((ImageRequest::Load { path: spool.0.clone(), tag: None, name }, Some(spool)));
    }
    let (path, tag) = match args.source.strip_prefix("oci:") {
        Some(rest) if !Path::new(rest).exists() => match rest.split_once(':') {
            Some((dir, tag)) => (dir, Some(tag.to_owned())),
            None => (rest, None),
        },
        Some(rest) => (rest, None),
        None => (args.source.as_str(), None),
    };
    Ok((ImageRequest::Load { path: absolute(Path::new(path)), tag, name }, None))
}

/// A copy of stdin: an archive is read more than once.
pub(super) struct Spool(pub(super) PathBuf);

impl Spool {
    pub(super) fn of_stdin() -> Result<Self, Failure> {
        let mut stdin = std::io::stdin();
        if stdin.is_terminal() {
            return Err(Failure::Usage("stdin is a terminal: name an archive, or use a pipe".to_owned()));
        }
        let path = std::env::temp_dir().join(format!("boxship-load-{}.tar", std::process::id()));
        let spool = Self(path);
        let mut file = File::options().write(true).create_new(true).open(&spool.0);
        let copied = file.as_mut().map_err(|e| std::io::Error::new(e.kind(), e.to_string()));
        copied
            .and_then(|file| std::io::copy(&mut stdin, file))
            .map_err(|e| failed(&format!("copy stdin to {}", spool.0.display()), &e))?;
        Ok(spool)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
