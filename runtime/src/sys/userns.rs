//! User namespaces that exist only for their maps of ids: idmapped mounts take one by descriptor.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{WaitId, WaitIdOptions};

use super::clone;

/// A user namespace with these maps, lines of `inside outside count`, held by nothing but the descriptor.
///
/// # Errors
/// The kernel's; EINVAL for maps it does not take.
pub fn with_maps(uids: &str, gids: &str) -> io::Result<OwnedFd> {
    // SAFETY: whatever other threads hold does not matter: the child makes one system call that takes no lock, and
    // ends.
    match unsafe { clone::clone3(libc::CLONE_NEWUSER as u64, None) }? {
        clone::Cloned::Child => loop {
            // SAFETY: no pointers.
            unsafe { libc::pause() };
        },
        clone::Cloned::Parent { pid, pidfd } => {
            let made = open(pid, uids, gids);
            // It only waits to be killed; both calls can fail only if it is gone already.
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            let _ = rustix::process::waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)), WaitIdOptions::EXITED);
            made
        }
    }
}

fn open(pid: i32, uids: &str, gids: &str) -> io::Result<OwnedFd> {
    fs::write(format!("/proc/{pid}/uid_map"), uids)?;
    fs::write(format!("/proc/{pid}/gid_map"), gids)?;
    Ok(File::open(format!("/proc/{pid}/ns/user"))?.into())
}
