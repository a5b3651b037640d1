//! `cp`: files between host and containers, by the rules of `docker cp`. The host's files are read and written by this
//! process, with its own rights; the container's side is the desk's.

use std::io::{IsTerminal as _, PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use runtime::archive::{self, Copied, Copy, Kind, Owner};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::args::CopyArgs;
use super::context::{Context, Failure};
use super::image::desk::Desk;
use crate::api::client::ClientError;
use crate::api::copy::{CopyAnswer, CopyRequest};
use crate::api::types::{EXEC_FRAME_BYTES_MAX, ExecFrame};

/// Pieces of an archive that wait for a slow controller.
const FRAMES_MAX: usize = 8;

/// One end of a copy.
enum End {
    Container {
        name: String,
        path: String,
    },
    Host(PathBuf),
    /// stdin or stdout.
    Pipe,
}

pub(super) async fn run(context: &Context, args: &CopyArgs) -> Result<ExitCode, Failure> {
    let owner = if args.archive { Owner::AsSaid } else { Owner::Maker };
    let copied = match (end(&args.from), end(&args.to)) {
        (End::Container { name, path }, to @ (End::Host(_) | End::Pipe)) => {
            let desk = Desk::open(context).await?;
            out(&desk, &Inside { name, path, owner, follow: args.follow_link }, &to).await?
        }
        (from @ (End::Host(_) | End::Pipe), End::Container { name, path }) => {
            let desk = Desk::open(context).await?;
            into(&desk, &from, &Inside { name, path, owner, follow: args.follow_link }).await?
        }
        (End::Container { .. }, End::Container { .. }) => {
            let help = "copy through a pipe: boxship cp A:/path - | boxship cp - B:/path";
            return Err(Failure::Usage(format!("one of the two must be on the host; {help}")));
        }
        _ => return Err(Failure::Usage("neither of the two is CONTAINER:PATH".to_owned())),
    };
    if copied.left_out > 0 && !args.quiet {
        anstream::eprintln!("{} sockets and devices were left out", copied.left_out);
    }
    Ok(ExitCode::SUCCESS)
}

/// As Docker reads them: what begins with `.` or `/` is on the host, whatever else it holds.
fn end(text: &str) -> End {
    match text.split_once(':') {
        _ if text == "-" => End::Pipe,
        Some((name, path)) if !name.is_empty() && !text.starts_with(['.', '/']) => {
            End::Container { name: name.to_owned(), path: path.to_owned() }
        }
        _ => End::Host(PathBuf::from(text)),
    }
}

/// The container's end.
struct Inside {
    name: String,
    path: String,
    owner: Owner,
    follow: bool,
}

impl Inside {
    /// From the root, which is where a relative path begins.
    fn absolute(&self) -> PathBuf {
        PathBuf::from(format!("/{}", self.path.trim_start_matches('/')))
    }

    fn request(&self, copy: Copy) -> CopyRequest {
        CopyRequest { container: self.name.clone(), copy }
    }

    async fn kind(&self, desk: &Desk<'_>, path: &Path, follow: bool) -> Result<Option<Kind>, Failure> {
        let look = Copy::Look { path: path.to_owned(), follow };
        match desk.copy(&self.request(look), Box::new(std::io::empty()), &mut std::io::sink()).await? {
            CopyAnswer::Found(kind) => Ok(kind),
            other => done(other).map(|_| None),
        }
    }
}

/// Where something goes: a directory that is there, and the name it gets in it; without a name only what is in it goes.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    directory: PathBuf,
    name: String,
}

/// The rules of `docker cp`: `to` as written, and what is there and above it.
fn place(from: &str, is_directory: bool, to: &str, there: Option<Kind>) -> Result<Place, String> {
    let path = PathBuf::from(to);
    let only_content = is_directory && (from.ends_with("/.") || from == ".");
    let own = Path::new(from).components().next_back().map(|name| name.as_os_str().to_string_lossy().into_owned());
    let own = own.filter(|name| !matches!(name.as_str(), "/" | ".." | ".")).unwrap_or_default();
    match there {
        Some(Kind::Directory) if only_content => Ok(Place { directory: path, name: String::new() }),
        Some(Kind::Directory) => Ok(Place { directory: path, name: own }),
        Some(_) if is_directory => {
            Err(format!("{to} is there and no directory, so no directory can be copied over it"))
        }
        Some(_) | None => {
            if there.is_none() && to.ends_with('/') && !is_directory {
                return Err(format!("{to} is not there, and no directory is made for a single file"));
            }
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let name = name.ok_or_else(|| format!("{to} is no place for a file"))?;
            let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(Place { directory: above.to_owned(), name })
        }
    }
}

fn refuse(why: String) -> Failure {
    Failure::new("BX0903", format!("{why}; nothing was copied"), Some("boxship cp --help"))
}

fn host_kind(path: &Path) -> Option<Kind> {
    let meta = std::fs::metadata(path).ok()?;
    Some(if meta.is_dir() { Kind::Directory } else { Kind::File })
}

async fn out(desk: &Desk<'_>, inside: &Inside, to: &End) -> Result<Copied, Failure> {
    let path = inside.absolute();
    let follow = inside.follow || inside.path.ends_with('/') || inside.path.ends_with("/.");
    let missing = || refuse(format!("there is no {} in container `{}`", path.display(), inside.name));
    let kind = inside.kind(desk, &path, follow).await?.ok_or_else(missing)?;
    let text = path.to_string_lossy().into_owned();
    let to = match to {
        End::Host(to) => to,
        End::Pipe | End::Container { .. } => {
            let mut stdout = std::io::stdout();
            if stdout.is_terminal() {
                return Err(Failure::Usage("stdout is a terminal: name a file, or use a pipe".to_owned()));
            }
            let inside_of = Place { directory: PathBuf::new(), name: String::new() };
            let here = place(&text, kind == Kind::Directory, "x", Some(Kind::Directory)).unwrap_or(inside_of);
            let copy = Copy::Out { path, name: here.name, follow };
            return done(desk.copy(&inside.request(copy), Box::new(std::io::empty()), &mut stdout).await?);
        }
    };
    let there = host_kind(to);
    let place = place(&text, kind == Kind::Directory, &to.to_string_lossy(), there).map_err(refuse)?;
    if host_kind(&place.directory) != Some(Kind::Directory) {
        return Err(refuse(format!("there is no directory {}", place.directory.display())));
    }
    let (reader, mut writer) = pipe()?;
    let (directory, owner) = (place.directory, inside.owner);
    let unpacking = tokio::task::spawn_blocking(move || archive::unpack(&directory, owner, &mut { reader }));
    let copy = Copy::Out { path, name: place.name, follow };
    let answer = desk.copy(&inside.request(copy), Box::new(std::io::empty()), &mut writer).await;
    drop(writer);
    let unpacked = unpacking.await.map_err(|panic| Failure::new("BX0902", panic.to_string(), None))?;
    match (answer, unpacked) {
        // half an archive is no fault of who unpacks it
        (Ok(CopyAnswer::Failed(error)), _) => Err(Failure::Other(error)),
        // what could not be written here explains why the other side could not go on
        (_, Err(error)) => Err(error.into()),
        (answer, Ok(_)) => done(answer?),
    }
}

async fn into(desk: &Desk<'_>, from: &End, inside: &Inside) -> Result<Copied, Failure> {
    let to = inside.absolute();
    let there = inside.kind(desk, &to, true).await?;
    let End::Host(from) = from else {
        if there != Some(Kind::Directory) {
            return Err(refuse(format!("{} is no directory in container `{}`", to.display(), inside.name)));
        }
        let copy = Copy::In { directory: to, owner: Owner::AsSaid };
        let request = inside.request(copy);
        return done(desk.copy(&request, Box::new(std::io::stdin()), &mut std::io::sink()).await?);
    };
    let text = from.to_string_lossy().into_owned();
    let follow = inside.follow || text.ends_with('/') || text.ends_with("/.");
    let meta = if follow { std::fs::metadata(from) } else { std::fs::symlink_metadata(from) };
    let meta = meta.map_err(|error| refuse(format!("{text}: {error}")))?;
    let place = place(&text, meta.is_dir(), &to.to_string_lossy(), there).map_err(refuse)?;
    let (reader, mut writer) = pipe()?;
    let (source, name) = (from.clone(), place.name);
    let packing = tokio::task::spawn_blocking(move || archive::pack(&source, &name, follow, &mut writer));
    let request = inside.request(Copy::In { directory: place.directory, owner: inside.owner });
    let answer = desk.copy(&request, Box::new(reader), &mut std::io::sink()).await;
    let packed = packing.await.map_err(|panic| Failure::new("BX0902", panic.to_string(), None))?;
    let copied = done(answer?)?;
    let packed = packed?;
    Ok(Copied { left_out: copied.left_out + packed.left_out })
}

/// The controller's part of a copy, over its socket.
pub(super) async fn by_controller(
    context: &Context,
    request: &CopyRequest,
    input: Input,
    out: Output<'_>,
) -> Result<CopyAnswer, Failure> {
    let stream = context.client.upgrade("/v1/copy", "boxship-copy", request).await?;
    let (mut from, mut to) = tokio::io::split(stream);
    let (frames, mut outgoing) = mpsc::channel::<Vec<u8>>(FRAMES_MAX);
    if matches!(request.copy, Copy::In { .. }) {
        send(input, frames);
    }
    let sending = tokio::spawn(async move {
        while let Some(frame) = outgoing.recv().await {
            if to.write_all(&frame).await.is_err() {
                break;
            }
        }
        // the write half stays open until the answer is here: closing it would end the connection
        std::future::pending::<()>().await;
    });
    let answer = receive(&mut from, out).await;
    sending.abort();
    answer
}

/// Reads on a thread of its own, since a blocking read cannot be cancelled.
fn send(mut input: Input, frames: mpsc::Sender<Vec<u8>>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; EXEC_FRAME_BYTES_MAX];
        loop {
            let count = input.read(&mut buffer).unwrap_or(0);
            if frames.blocking_send(super::exec::frame(ExecFrame::Stdin, &buffer[..count])).is_err() || count == 0 {
                return;
            }
        }
    });
}

async fn receive(from: &mut (impl tokio::io::AsyncRead + Unpin), out: Output<'_>) -> Result<CopyAnswer, Failure> {
    let broken = |why: String| Failure::Client(ClientError::Broken(why));
    loop {
        let kind = from.read_u8().await.map_err(|e| broken(e.to_string()))?;
        let len = from.read_u32().await.map_err(|e| broken(e.to_string()))? as usize;
        if len > EXEC_FRAME_BYTES_MAX {
            return Err(broken(format!("a frame of {len} bytes")));
        }
        let mut payload = vec![0; len];
        from.read_exact(&mut payload).await.map_err(|e| broken(e.to_string()))?;
        match ExecFrame::from_byte(kind) {
            Some(ExecFrame::Stdout) => {
                out.write_all(&payload).map_err(|e| broken(format!("the archive could not be written: {e}")))?;
            }
            Some(ExecFrame::Exit) => {
                out.flush().map_err(|e| broken(format!("the archive could not be written: {e}")))?;
                return serde_json::from_slice(&payload).map_err(|e| broken(format!("not an answer: {e}")));
            }
            Some(ExecFrame::Stdin | ExecFrame::Stderr | ExecFrame::Resize) | None => {
                return Err(broken(format!("a frame of kind {kind}")));
            }
        }
    }
}

fn pipe() -> Result<(PipeReader, PipeWriter), Failure> {
    std::io::pipe().map_err(|error| Failure::new("BX0902", format!("make a pipe: {error}"), None))
}

fn done(answer: CopyAnswer) -> Result<Copied, Failure> {
    match answer {
        CopyAnswer::Done(copied) => Ok(copied),
        CopyAnswer::Failed(error) => Err(Failure::Other(error)),
        CopyAnswer::Found(_) => Err(Failure::new("BX0902", "nothing was copied", Some("boxship cp --help"))),
    }
}

/// What may be read on a thread of its own.
pub(super) type Input = Box<dyn Read + Send>;
/// What takes an archive.
pub(super) type Output<'o> = &'o mut (dyn Write + Send);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_rules_say_where_things_go() {
        let at = |from: &str, is_directory, to: &str, there| {
            place(from, is_directory, to, there).map(|place| (place.directory.display().to_string(), place.name))
        };
        let (dir, file) = (Some(Kind::Directory), Some(Kind::File));
        let ok = |directory: &str, name: &str| Ok((directory.to_owned(), name.to_owned()));
        assert_eq!(at("a/f", false, "/srv/g", None), ok("/srv", "g"));
        assert_eq!(at("a/f", false, "/srv/g", file), ok("/srv", "g"));
        assert_eq!(at("a/f", false, "/srv", dir), ok("/srv", "f"));
        assert_eq!(at("a/f", false, "g", None), ok(".", "g"));
        assert!(at("a/f", false, "/srv/g/", None).is_err());
        assert_eq!(at("a/d", true, "/srv/e", None), ok("/srv", "e"));
        assert_eq!(at("a/d", true, "/srv/e/", None), ok("/srv", "e"));
        assert_eq!(at("a/d", true, "/srv", dir), ok("/srv", "d"));
        assert_eq!(at("a/d/", true, "/srv", dir), ok("/srv", "d"));
        assert_eq!(at("a/d/.", true, "/srv", dir), ok("/srv", ""));
        assert_eq!(at("a/d/.", true, "/srv/e", None), ok("/srv", "e"));
        assert!(at("a/d", true, "/srv/f", file).is_err());
        assert_eq!(at("/", true, "/srv", dir), ok("/srv", ""));
    }

    #[test]
    fn a_container_is_told_from_a_path() {
        let is_inside = |text: &str| matches!(end(text), End::Container { .. });
        assert!(is_inside("web-1:/etc") && is_inside("shop/web-1:etc") && is_inside("a1b2:"));
        assert!(!is_inside("./a:b") && !is_inside("/a:b") && !is_inside("file") && !is_inside("-"));
    }
}
