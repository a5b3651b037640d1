//! The keeper's own children: started from a sealed copy of the binary, restarted with back-off.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::error::{Doing, Result};
use crate::layout::Layout;
use crate::sys::daemon::{RawExit, prepare_child, sealed_copy};

const BACKOFF_MIN_MS: u64 = 50;
const BACKOFF_MAX_MS: u64 = 5_000;
/// Alive for so long, and the next death is a first one again.
const HEALTHY_MS: u64 = 10_000;

/// The binary all children run: a sealed memory file, so that nobody reaches the host's file through
/// `/proc/<pid>/exe` (CVE-2019-5736).
pub(super) struct Image {
    path: PathBuf,
    memory: File,
}

impl Image {
    pub(super) fn open() -> Result<Self> {
        let path = std::env::current_exe().doing(|| "find the own binary")?;
        let memory = sealed_copy(&path)?;
        Ok(Self { path, memory })
    }

    /// Takes a new copy of the file at the same path.
    pub(super) fn reload(&mut self) -> Result<()> {
        self.memory = sealed_copy(&self.path)?;
        Ok(())
    }
}

/// One of the three.
pub(super) struct Child {
    name: &'static str,
    pub(super) pid: Option<i32>,
    started_ms: u64,
    start_at_ms: u64,
    backoff_ms: u64,
    /// A stop was asked for; `kill_at_ms` once SIGTERM is out.
    stop_asked: bool,
    kill_at_ms: Option<u64>,
    /// It is not started again.
    dismissed: bool,
}

impl Child {
    pub(super) fn new(name: &'static str) -> Self {
        let (started_ms, start_at_ms, backoff_ms) = (0, 0, 0);
        Self {
            name,
            pid: None,
            started_ms,
            start_at_ms,
            backoff_ms,
            stop_asked: false,
            kill_at_ms: None,
            dismissed: false,
        }
    }

    /// Stops it for good.
    pub(super) fn dismiss(&mut self) {
        self.dismissed = true;
        self.stop_asked = true;
    }

    /// It was dismissed and is gone.
    pub(super) fn has_left(&self) -> bool {
        self.dismissed && self.pid.is_none()
    }

    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name
    }

    pub(super) fn stop_asked(&self) -> bool {
        self.stop_asked
    }

    pub(super) fn ask_stop(&mut self) {
        self.stop_asked = self.pid.is_some();
    }

    /// SIGTERM first, SIGKILL after `patience_ms`; returns when to come again.
    pub(super) fn stop(&mut self, now_ms: u64, patience_ms: u64) -> u64 {
        let (signal, next) = match self.kill_at_ms {
            None => (Some(libc::SIGTERM), now_ms + patience_ms),
            Some(at) if now_ms >= at => (Some(libc::SIGKILL), now_ms + patience_ms),
            Some(at) => (None, at),
        };
        if let (Some(signal), Some(pid)) = (signal, self.pid) {
            // our own unreaped child: its pid cannot belong to anybody else
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::try_from(signal).ok(),
            );
            self.kill_at_ms = Some(next);
        }
        next
    }

    /// Starts the process when its back-off is over; otherwise says when that is.
    pub(super) fn start_when_due(
        &mut self,
        now_ms: u64,
        image: &Image,
        layout: &Layout,
        extra: &[OsString],
    ) -> Option<u64> {
        if now_ms < self.start_at_ms {
            return Some(self.start_at_ms);
        }
        let mut command = Command::new(format!("/proc/self/fd/{}", image.memory.as_raw_fd()));
        command.arg0("boxship").arg(self.name).args(layout.to_args());
        if self.name == "controller" {
            command.args(extra);
        }
        let death_signal = if self.name == "controller" { libc::SIGTERM } else { libc::SIGKILL };
        prepare_child(&mut command, death_signal);
        self.started_ms = now_ms;
        match command.spawn() {
            Ok(child) => {
                self.pid = i32::try_from(child.id()).ok();
                (self.stop_asked, self.kill_at_ms) = (false, None);
                None
            }
            Err(error) => {
                tracing::error!(process = self.name, %error, "start failed");
                self.back_off(now_ms);
                Some(self.start_at_ms)
            }
        }
    }

    pub(super) fn ended(&mut self, now_ms: u64, exit: RawExit) {
        self.pid = None;
        if self.stop_asked || self.kill_at_ms.is_some() {
            (self.backoff_ms, self.start_at_ms) = (0, now_ms);
            return;
        }
        // SIGKILL comes from outside (a person, a test, the kernel short of memory): no reason to hold back
        if now_ms >= self.started_ms + HEALTHY_MS || exit.signal == Some(libc::SIGKILL) {
            self.backoff_ms = 0;
        }
        self.back_off(now_ms);
        tracing::warn!(process = self.name, code = ?exit.code, signal = ?exit.signal, again_in_ms = self.backoff_ms, "ended");
    }

    fn back_off(&mut self, now_ms: u64) {
        self.backoff_ms = (self.backoff_ms * 2).clamp(BACKOFF_MIN_MS, BACKOFF_MAX_MS);
        self.start_at_ms = now_ms + self.backoff_ms;
    }
}
