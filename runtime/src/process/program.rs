//! The last steps before a program runs, the same for init and exec: who it is, where it is, what it may do.
//!
//! Works from inside the container's root; reads the container's own files and treats them as hostile text.

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use oci_spec::runtime::{
    Capabilities, IOPriorityClass, Linux, LinuxCapabilities, LinuxPersonalityDomain, Process, Scheduler, Spec,
};
use rustix::fs::{CWD, Mode, OFlags};

use super::memory_policy;
use crate::error::{Doing as _, Error, Result};
use crate::security::{capabilities, seccomp};
use crate::spec::launch::Launch;
use crate::sys::privilege::{self, Instruction, Scheduling};
use crate::sys::{clone, path};
use crate::user::{self, User};

/// Largest passwd or group file that is read: directories of whole companies fit, a trap does not.
const USER_FILE_BYTES_MAX: u64 = 16 << 20;
/// Largest beginning of a script that is looked at for its interpreter (BINPRM_BUF_SIZE).
const SHEBANG_BYTES: usize = 256;

/// A program, ready to be executed.
pub(super) struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    name: String,
}

/// What a program runs as and with.
pub(super) struct Privileges {
    user: User,
    sets: Sets,
    no_new_privileges: bool,
    filter: Option<Vec<Instruction>>,
    /// `SECCOMP_FILTER_FLAG_*`.
    filter_flags: u32,
    umask: u32,
}

/// Capability sets as bits.
#[derive(Default)]
struct Sets {
    bounding: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
}

impl Sets {
    fn of(sets: &LinuxCapabilities) -> Self {
        let bits = |set: &Option<Capabilities>| set.as_ref().map_or(0, capabilities::bits);
        Self {
            bounding: bits(sets.bounding()),
            effective: bits(sets.effective()),
            permitted: bits(sets.permitted()),
            inheritable: bits(sets.inheritable()),
            ambient: bits(sets.ambient()),
        }
    }
}

impl Privileges {
    /// Compiles the filter and reads the numbers of a spec; the user is looked up later, inside.
    pub(super) fn of(spec: &Spec) -> Result<Self> {
        let process = spec.process().as_ref();
        let sets = process.and_then(|process| process.capabilities().as_ref());
        let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let filter = seccomp.map(seccomp::compile).transpose()?;
        Ok(Self {
            user: User { uid: 0, gid: 0, groups: Vec::new(), home: "/".into() },
            sets: sets.map(Sets::of).unwrap_or_default(),
            no_new_privileges: process.and_then(Process::no_new_privileges).unwrap_or(false),
            filter,
            filter_flags: seccomp.map_or(0, seccomp::flags),
            umask: process.and_then(|process| process.user().umask()).unwrap_or(0o022),
        })
    }

    /// Looks the user up in the container's files: the one that is named, or where a launch says that the spec's own
    /// numbers count, those, and only the home directory is looked up.
    pub(super) fn look_up_user(
        &mut self,
        root: BorrowedFd<'_>,
        launch: &Launch,
        named: Option<&str>,
        process: &Process,
    ) -> Result<&User> {
        let read = |name: &str| -> Result<String> {
            let bytes = path::read_in_root(root, Path::new(name), USER_FILE_BYTES_MAX)
                .doing(|| format!("read the container's {name}"))?;
            Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
        };
        if launch.numeric_user && named.is_none() {
            let user = process.user();
            let groups = user.additional_gids().clone().unwrap_or_default();
            let home = user::lookup(Some(&user.uid().to_string()), &read("/etc/passwd")?, "")?.home;
            self.user = User { uid: user.uid(), gid: user.gid(), groups, home };
        } else {
            let named = named.or(launch.user.as_deref());
            let group = read("/etc/group")?;
            self.user = user::lookup(named, &read("/etc/passwd")?, &group)?;
            self.user.add_groups(&launch.groups, &group)?;
        }
        Ok(&self.user)
    }

    /// Gives up everything but what the spec grants. What follows may only execute, report or end.
    pub(super) fn apply(&self) -> Result<()> {
        let doing = || "give up privileges";
        let sets = &self.sets;
        rustix::process::umask(Mode::from_raw_mode(self.umask));
        if !self.no_new_privileges {
            // Without no_new_privs a filter takes CAP_SYS_ADMIN, which is gone a few lines further on.
            self.install_filter()?;
        }
        privilege::limit_bounding_set(sets.bounding).doing(doing)?;
        privilege::keep_capabilities(true).doing(doing)?;
        privilege::become_user(self.user.uid, self.user.gid, &self.user.groups).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EINVAL) => Error::BadContainer(format!(
                    "user {}:{} is outside of the container's range of ids",
                    self.user.uid, self.user.gid
                )),
                _ => Error::io(format!("become user {}:{}", self.user.uid, self.user.gid), error),
            }
        })?;
        privilege::keep_capabilities(false).doing(doing)?;
        // What the caller itself does not have, nobody can be given: it is left out, as every runtime does.
        let granted = privilege::permitted_capabilities().doing(doing)?;
        let (permitted, inheritable) = (sets.permitted & granted, sets.inheritable & granted);
        privilege::set_capabilities(sets.effective & permitted, permitted, inheritable).doing(doing)?;
        privilege::raise_ambient(sets.ambient & permitted & inheritable).doing(doing)
    }

    /// The last step before the program: from here on its filter holds for us too, so as little as possible follows.
    pub(super) fn seal(&self) -> Result<()> {
        if self.no_new_privileges {
            privilege::set_no_new_privs().doing(|| "set no_new_privs")?;
            self.install_filter()?;
        }
        Ok(())
    }

    fn install_filter(&self) -> Result<()> {
        self.filter.as_deref().map_or(Ok(()), |filter| {
            privilege::install_seccomp(filter, self.filter_flags).doing(|| "install the seccomp filter")
        })
    }
}

/// Sets how the kernel schedules the program and its input and output, and which execution domain it sees.
pub(super) fn schedule(process: &Process, linux: Option<&Linux>) -> Result<()> {
    if let Some(how) = process.scheduler() {
        privilege::schedule(scheduling(how)).doing(|| "set the scheduling policy")?;
    }
    if let Some(priority) = process.io_priority() {
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let level = u32::try_from(priority.priority()).unwrap_or(u32::MAX).min(7);
        privilege::set_io_priority(class, level).doing(|| "set the priority of input and output")?;
    }
    if let Some(policy) = linux.and_then(|linux| linux.memory_policy().as_ref()) {
        memory_policy::apply(&memory_policy::lower(policy)?)?;
    }
    if let Some(persona) = linux.and_then(|linux| linux.personality().as_ref()) {
        let domain = match persona.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        };
        privilege::set_personality(domain).doing(|| "set the personality")?;
    }
    Ok(())
}

fn scheduling(how: &Scheduler) -> Scheduling {
    use oci_spec::runtime::{LinuxSchedulerFlag as Flag, LinuxSchedulerPolicy as Policy};
    let policy = match how.policy() {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIso => 4,
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
    };
    let flags = how.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                Flag::SchedResetOnFork => 0x01,
                Flag::SchedFlagReclaim => 0x02,
                Flag::SchedFlagDLOverrun => 0x04,
                Flag::SchedFlagKeepPolicy => 0x08,
                Flag::SchedFlagKeepParams => 0x10,
                Flag::SchedFlagUtilClampMin => 0x20,
                Flag::SchedFlagUtilClampMax => 0x40,
            }
    });
    Scheduling {
        size: 0,
        policy,
        flags,
        nice: how.nice().unwrap_or(0),
        priority: how.priority().and_then(|priority| u32::try_from(priority).ok()).unwrap_or(0),
        runtime: how.runtime().unwrap_or(0),
        deadline: how.deadline().unwrap_or(0),
        period: how.period().unwrap_or(0),
    }
}

/// Lets programs of any user open /dev/stdout and its like again when they are anonymous pipes, which belong to the
/// host's root. Nobody can reach such a pipe but through these descriptors. To be called with the host's ids.
pub(super) fn share_pipes() {
    const PIPEFS: i64 = 0x5049_5045;
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        if rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type == PIPEFS) {
            // A pipe of another user stays as it is.
            let _ = rustix::fs::fchmod(fd, Mode::from_raw_mode(0o666));
        }
    }
}

/// Makes the working directory, owned by root as Docker does, where it is missing.
pub(super) fn make_directory(root: BorrowedFd<'_>, directory: &Path) -> Result<()> {
    let shown = directory.display();
    path::make_directories(root, directory).map(drop).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOTDIR | libc::ELOOP) => no_directory(directory),
        Some(libc::EROFS) => Error::BadContainer(format!(
            "the working directory {shown} does not exist and cannot be made: the file system is read-only"
        )),
        _ => Error::io(format!("make the working directory {shown}"), error),
    })
}

/// Goes to the working directory.
pub(super) fn enter_directory(root: BorrowedFd<'_>, directory: &Path) -> Result<()> {
    let shown = directory.display();
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let fd = path::open_in_root(root, directory, flags).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOTDIR | libc::ELOOP | libc::ENOENT) => no_directory(directory),
        _ => Error::io(format!("open the working directory {shown}"), error),
    })?;
    rustix::process::fchdir(fd).doing(|| format!("go to the working directory {shown}"))
}

fn no_directory(path: &Path) -> Error {
    Error::BadContainer(format!("the working directory {} is no directory", path.display()))
}

impl Program {
    /// Finds a program the way `execvp` does, in the container's PATH and relative to its working directory, which
    /// must be the current one.
    pub(super) fn find(args: &[String], mut env: Vec<String>, home: &str) -> Result<Self> {
        if !env.iter().any(|line| line.starts_with("HOME=")) {
            env.push(format!("HOME={home}"));
        }
        let name = args.first().ok_or_else(|| Error::BadContainer("there is nothing to run".into()))?.clone();
        let search = env.iter().find_map(|line| line.strip_prefix("PATH=")).unwrap_or_default().to_owned();
        let path = find_executable(&name, &search)?;
        let text = |text: &String| {
            CString::new(text.as_str())
                .map_err(|_| Error::BadContainer("an argument or variable contains a zero byte".into()))
        };
        Ok(Self {
            path: text(&path)?,
            args: args.iter().map(text).collect::<Result<_>>()?,
            env: env.iter().map(text).collect::<Result<_>>()?,
            name,
        })
    }

    /// Executes it; returns only with the reason why not.
    pub(super) fn execute(&self) -> Error {
        let error = clone::execve(&self.path, &self.args, &self.env);
        let path = self.path.to_string_lossy();
        let why = match error.raw_os_error() {
            Some(libc::ENOENT) => match interpreter(&path) {
                Some(interpreter) => format!("its interpreter `{interpreter}` is not in the image"),
                None => "not found (is its interpreter or dynamic loader in the image?)".to_owned(),
            },
            Some(libc::EACCES) => "permission denied for this user".to_owned(),
            Some(libc::ENOEXEC) => {
                "it is neither a program of this machine nor a script with an interpreter line".to_owned()
            }
            Some(libc::E2BIG) => "its arguments and environment are too long".to_owned(),
            Some(libc::ETXTBSY) => "it is being written".to_owned(),
            _ => return Error::io(format!("execute `{}`", self.name), error),
        };
        Error::BadContainer(format!("cannot execute `{}`: {why}", self.name))
    }
}

/// Checks as container root; whether the user may execute it, execve says.
fn find_executable(name: &str, search: &str) -> Result<String> {
    let is_program = |path: &str| {
        rustix::fs::stat(path).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
                && stat.st_mode & 0o111 != 0
        })
    };
    if name.contains('/') {
        return match rustix::fs::stat(name) {
            Ok(_) if is_program(name) => Ok(name.to_owned()),
            Ok(_) => Err(Error::BadContainer(format!("`{name}` is not executable"))),
            Err(_) => Err(Error::BadContainer(format!("no executable `{name}`: no such file or directory"))),
        };
    }
    search
        .split(':')
        .map(|directory| if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") })
        .find(|path| is_program(path))
        .ok_or_else(|| Error::BadContainer(format!("no executable `{name}` in PATH ({search})")))
}

/// The interpreter a script's first line names.
fn interpreter(path: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?;
    let mut start = [0_u8; SHEBANG_BYTES];
    let count = rustix::io::read(&file, &mut start).ok()?;
    let line = start[..count].strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let name = String::from_utf8_lossy(line).split_whitespace().next()?.to_owned();
    rustix::fs::stat(&name).is_err().then_some(name)
}

/// The environment of a further program: the container's, with `over` on top.
pub(super) fn merge_env<'a>(base: &[String], over: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<String> {
    let mut env = base.to_vec();
    for (name, value) in over {
        let prefix = format!("{name}=");
        env.retain(|line| !line.starts_with(&prefix));
        env.push(format!("{prefix}{value}"));
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_path_or_named() {
        assert_eq!(find_executable("sh", "/nowhere:/bin:/usr/bin").unwrap(), "/bin/sh");
        assert_eq!(find_executable("/bin/sh", "").unwrap(), "/bin/sh");
        let error = find_executable("nginxx", "/bin").unwrap_err();
        assert_eq!(error.to_string(), "no executable `nginxx` in PATH (/bin)");
        assert_eq!(find_executable("/etc/passwd", "").unwrap_err().to_string(), "`/etc/passwd` is not executable");
        assert_eq!(
            find_executable("/x/y", "").unwrap_err().to_string(),
            "no executable `/x/y`: no such file or directory"
        );
    }

    #[test]
    fn variables_are_replaced_by_name() {
        let over = std::collections::BTreeMap::from([("A".to_owned(), "3".to_owned())]);
        let env = merge_env(&["A=1".into(), "AB=2".into()], over.iter());
        assert_eq!(env, ["AB=2", "A=3"]);
    }
}
