//! A disk that logs what reaches it: an ext4 on a loop device over a file that `qemu-storage-daemon` serves, with its
//! `blklogwrites` in between (the format is dm-log-writes', Documentation/admin-guide/device-mapper/log-writes.rst). And
//! the disk as it may look after a cut at any point of that log.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::lab::wait_until;

const DISK_BYTES: u64 = 192 << 20;
const SECTOR: usize = 512;
/// What a disk writes at once.
const PAGE: usize = 4096;
const FLUSH: u64 = 1;
const FUA: u64 = 2;

/// splitmix64: the same cuts for the same seed.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % bound.max(1) as u64).expect("smaller than the bound")
    }
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(program).args(args).env("PATH", path).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

/// A file mounted as a disk.
pub(super) struct Mounted {
    device: String,
    at: PathBuf,
}

impl Mounted {
    pub(super) fn new(image: &Path, at: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|e| e.to_string())?;
        let device = run("losetup", &["--find", "--show", text(image)])?;
        match run("mount", &["-t", "ext4", &device, text(at)]) {
            Ok(_) => Ok(Self { device, at: at.to_owned() }),
            Err(why) => {
                let _ = run("losetup", &["--detach", &device]);
                Err(why)
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("umount", &[text(&self.at)]);
        let _ = run("losetup", &["--detach", &self.device]);
    }
}

/// The disk at work.
pub(super) struct Disk {
    /// Unmounted before its server ends.
    pub(super) mounted: Mounted,
    _server: Server,
    /// As it was before the first logged write.
    blank: Vec<u8>,
    log: PathBuf,
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

impl Disk {
    /// `Err` where there can be none.
    pub(super) fn new(dir: &Path) -> Result<Self, String> {
        let [image, log, export] = ["disk.img", "disk.log", "disk"].map(|name| dir.join(name));
        for (file, bytes) in [(&image, DISK_BYTES), (&log, 0), (&export, 0)] {
            std::fs::File::create(file).and_then(|f| f.set_len(bytes)).map_err(|e| e.to_string())?;
        }
        let whole = "lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q", "-F", "-O", "has_journal", "-J", "size=8", "-N", "8192", "-E", whole, text(&image)])?;
        let blank = std::fs::read(&image).map_err(|e| e.to_string())?;
        let file = |name, path: &Path| format!("driver=file,node-name={name},filename={}", text(path));
        let server = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &file("disk", &image), "--blockdev", &file("log", &log)])
            .args(["--blockdev", "driver=blklogwrites,node-name=logged,file=disk,log=log"])
            .arg("--export")
            .arg(format!("type=fuse,id=export,node-name=logged,mountpoint={},writable=on", text(&export)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("qemu-storage-daemon: {e}"))?;
        let mut server = Server(server);
        let mut ended = false;
        wait_until("the disk is served", || {
            ended = server.0.try_wait().expect("a child of ours").is_some();
            ended || std::fs::metadata(&export).is_ok_and(|meta| meta.len() == DISK_BYTES)
        });
        if ended {
            return Err("qemu-storage-daemon serves no disk here (FUSE)".to_owned());
        }
        Ok(Self { mounted: Mounted::new(&export, &dir.join("mounted"))?, _server: server, blank, log })
    }

    /// Length of the log now: what is in it has reached the disk, flushed or not.
    pub(super) fn log_bytes(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |meta| meta.len())
    }

    /// Takes the disk away and gives what it logged.
    pub(super) fn end(self) -> Log {
        let Self { mounted, _server: server, blank, log } = self;
        drop(mounted);
        drop(server);
        Log { blank, writes: parse(&std::fs::read(log).expect("read the log")) }
    }
}

/// One thing that reached the disk.
#[derive(Clone)]
struct Write {
    /// Where the log stood after it.
    log_bytes: u64,
    at: usize,
    flags: u64,
    bytes: Vec<u8>,
}

fn parse(log: &[u8]) -> Vec<Write> {
    let number = |at: usize| u64::from_le_bytes(log[at..at + 8].try_into().expect("eight bytes"));
    let size = |number: u64| usize::try_from(number).expect("fits");
    assert_eq!(&log[..8], b"rhswfsj\0", "not a log of writes");
    let (mut at, mut writes) = (SECTOR, Vec::new());
    while at + SECTOR <= log.len() {
        let (sector, sectors, flags, data) = (number(at), number(at + 8), number(at + 16), number(at + 24));
        at += SECTOR;
        assert_eq!(data, 0, "no marks");
        let end = at + size(sectors) * SECTOR;
        if end > log.len() {
            break;
        }
        let bytes = log[at..end].to_vec();
        at = end;
        writes.push(Write { log_bytes: at as u64, at: size(sector) * SECTOR, flags, bytes });
    }
    writes
}

/// Everything that reached a disk, in order.
pub(super) struct Log {
    blank: Vec<u8>,
    writes: Vec<Write>,
}

/// What of the unflushed writes a cut takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loses {
    Everything,
    /// Some of them, and of others some pages.
    Some,
    Nothing,
}

impl Log {
    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }

    /// A write that no flush followed at once.
    pub(super) fn point(&self, dice: &mut Dice) -> usize {
        let points: Vec<usize> = (0..self.len()).filter(|n| self.writes[*n].flags & (FLUSH | FUA) == 0).collect();
        points[dice.below(points.len())]
    }

    pub(super) fn bytes_at(&self, point: usize) -> u64 {
        self.writes[point].log_bytes
    }

    /// The same on a disk whose flushes do nothing.
    pub(super) fn without_flushes(&self) -> Self {
        let writes = self.writes.iter().map(|write| Write { flags: 0, ..write.clone() }).collect();
        Self { blank: self.blank.clone(), writes }
    }

    /// A file in `dir` as the disk may look when the power goes after write `point`, and how many writes it forgot.
    pub(super) fn disk_at(&self, dir: &Path, point: usize, loses: Loses, dice: &mut Dice) -> (PathBuf, usize) {
        let mut disk = self.blank.clone();
        let done = &self.writes[..=point];
        let flushed = done.iter().rposition(|write| write.flags & FLUSH != 0).map_or(0, |at| at + 1);
        let mut forgotten = 0;
        for (n, write) in done.iter().enumerate() {
            let is_safe = n < flushed || write.flags & FUA != 0 || loses == Loses::Nothing;
            if is_safe {
                disk[write.at..write.at + write.bytes.len()].copy_from_slice(&write.bytes);
                continue;
            }
            let some = loses == Loses::Some && dice.below(2) == 0;
            let torn = some && dice.below(4) == 0;
            forgotten += usize::from(!some || torn);
            for (page, bytes) in write.bytes.chunks(PAGE).enumerate().filter(|_| some) {
                if !torn || dice.below(2) == 0 {
                    let at = write.at + page * PAGE;
                    disk[at..at + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
        let path = dir.join("cut.img");
        let mut file = std::fs::File::create(&path).expect("create a file");
        file.set_len(disk.len() as u64).expect("a sparse file");
        for (n, chunk) in disk.chunks(64 << 10).enumerate().filter(|(_, chunk)| chunk.iter().any(|b| *b != 0)) {
            file.seek(SeekFrom::Start((n * (64 << 10)) as u64)).expect("seek");
            file.write_all(chunk).expect("write a file");
        }
        (path, forgotten)
    }
}
