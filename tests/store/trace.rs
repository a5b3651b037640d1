//! What `strace` recorded of the writer, as a list of what it did to files.

use std::collections::BTreeMap;

/// One thing done to the disk, in order of its end.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// A file exists under this name; `truncate` empties it.
    Open {
        path: String,
        truncate: bool,
    },
    /// Bytes at an offset.
    Write {
        path: String,
        offset: usize,
        bytes: Vec<u8>,
    },
    /// A new length.
    Truncate {
        path: String,
        len: usize,
    },
    /// Everything written to the file is on the disk.
    Sync {
        path: String,
    },
    MakeDir {
        path: String,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        path: String,
    },
    /// The writer said that this batch is acknowledged.
    Acknowledged(u64),
}

/// The system calls to record.
pub(crate) const CALLS: &str = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,\
                                mkdir,mkdirat,rmdir,lseek,close";

/// Parses `strace -f -y -xx` output.
pub(crate) fn parse(text: &str) -> Vec<Op> {
    let mut unfinished: BTreeMap<&str, String> = BTreeMap::new();
    let mut offsets: BTreeMap<String, usize> = BTreeMap::new();
    let mut ops = Vec::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let whole = if let Some(begin) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid, begin.to_owned());
            continue;
        } else if rest.starts_with("<... ") {
            let end = rest.split_once(" resumed>").map_or("", |(_, end)| end);
            unfinished.remove(pid).unwrap_or_default() + end
        } else {
            rest.to_owned()
        };
        if let Some(call) = Call::parse(&whole) {
            ops.extend(call.op(&mut offsets));
        }
    }
    ops
}

/// `name(args) = result`, with strings and paths decoded.
struct Call {
    name: String,
    args: Vec<Arg>,
    result: i64,
    /// The path behind a returned descriptor.
    result_path: Option<String>,
}

#[derive(Debug)]
enum Arg {
    Text(Vec<u8>),
    /// A descriptor and what it is.
    Fd(String, String),
    Other(String),
}

impl Call {
    fn parse(line: &str) -> Option<Self> {
        let (name, rest) = line.split_once('(')?;
        let (args, result) = rest.rsplit_once(" = ")?;
        let args = args.trim_end().strip_suffix(')')?;
        let number: String = result.chars().take_while(|c| c.is_ascii_digit() || *c == '-').collect();
        let result_path =
            result.split_once('<').and_then(|(_, path)| path.strip_suffix('>')).map(|path| text(path.as_bytes()));
        Some(Self {
            name: name.to_owned(),
            args: args.split(", ").map(Arg::parse).collect(),
            result: number.parse().ok()?,
            result_path,
        })
    }

    fn text(&self, index: usize) -> Option<String> {
        match self.args.get(index)? {
            Arg::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Arg::Fd(..) | Arg::Other(_) => None,
        }
    }

    fn fd(&self) -> Option<(&String, &String)> {
        match self.args.first()? {
            Arg::Fd(fd, path) => Some((fd, path)),
            Arg::Text(_) | Arg::Other(_) => None,
        }
    }

    fn number(&self, index: usize) -> Option<usize> {
        match self.args.get(index)? {
            Arg::Other(text) => text.parse().ok(),
            Arg::Text(_) | Arg::Fd(..) => None,
        }
    }

    /// What it did; `offsets` are the positions of descriptors that are written without one.
    fn op(self, offsets: &mut BTreeMap<String, usize>) -> Option<Op> {
        if self.result < 0 {
            return None;
        }
        match self.name.as_str() {
            "openat" => {
                let flags = self.args.iter().find_map(|arg| match arg {
                    Arg::Other(text) if text.contains("O_") => Some(text.clone()),
                    Arg::Text(_) | Arg::Fd(..) | Arg::Other(_) => None,
                })?;
                let path = self.result_path.clone()?;
                offsets.insert(self.result.to_string(), 0);
                flags.contains("O_CREAT").then(|| Op::Open { path, truncate: flags.contains("O_TRUNC") })
            }
            "write" | "pwrite64" => self.write(offsets),
            "ftruncate" => Some(Op::Truncate { path: self.fd()?.1.clone(), len: self.number(1)? }),
            "fsync" | "fdatasync" => Some(Op::Sync { path: self.fd()?.1.clone() }),
            "lseek" => {
                offsets.insert(self.fd()?.0.clone(), usize::try_from(self.result).ok()?);
                None
            }
            "rename" => Some(Op::Rename { from: self.text(0)?, to: self.text(1)? }),
            "renameat" | "renameat2" => Some(Op::Rename { from: self.text(1)?, to: self.text(3)? }),
            "unlink" | "rmdir" => Some(Op::Remove { path: self.text(0)? }),
            "unlinkat" => Some(Op::Remove { path: self.text(1)? }),
            "mkdir" => Some(Op::MakeDir { path: self.text(0)? }),
            "mkdirat" => Some(Op::MakeDir { path: self.text(1)? }),
            _ => None,
        }
    }

    fn write(&self, offsets: &mut BTreeMap<String, usize>) -> Option<Op> {
        let (fd, path) = self.fd()?;
        let Arg::Text(bytes) = self.args.get(1)? else { return None };
        let written = usize::try_from(self.result).ok()?;
        if fd == "1" {
            return String::from_utf8_lossy(bytes).trim().parse().ok().map(Op::Acknowledged);
        }
        let offset = match self.number(3) {
            Some(offset) => offset,
            None => {
                let at = offsets.entry(fd.clone()).or_default();
                *at += written;
                *at - written
            }
        };
        Some(Op::Write { path: path.clone(), offset, bytes: bytes[..written.min(bytes.len())].to_vec() })
    }
}

impl Arg {
    fn parse(word: &str) -> Self {
        if let Some(inner) = word.strip_prefix('"') {
            return Self::Text(decode(inner.split('"').next().unwrap_or("").as_bytes()));
        }
        match word.split_once('<') {
            Some((fd, path)) if path.ends_with('>') => {
                Self::Fd(fd.to_owned(), text(&path.as_bytes()[..path.len() - 1]))
            }
            _ => Self::Other(word.to_owned()),
        }
    }
}

fn text(escaped: &[u8]) -> String {
    String::from_utf8_lossy(&decode(escaped)).into_owned()
}

/// Undoes `\xNN`.
fn decode(escaped: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(escaped.len() / 4);
    let mut at = 0;
    while at < escaped.len() {
        if escaped[at..].starts_with(b"\\x")
            && let Some(hex) = escaped.get(at + 2..at + 4)
            && let Ok(byte) = u8::from_str_radix(&String::from_utf8_lossy(hex), 16)
        {
            bytes.push(byte);
            at += 4;
        } else {
            bytes.push(escaped[at]);
            at += 1;
        }
    }
    bytes
}
