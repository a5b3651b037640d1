//! Giving rights up: capability sets, bounding set, ids, no_new_privs, seccomp filters. Of the calling thread only.
//!
//! Ids are set by bare system calls: glibc's own wrappers signal every thread it remembers, which a cloned child
//! does not have.

use std::io;

#[cfg(test)]
pub(crate) mod probe;

/// A classic BPF instruction (`struct sock_filter`, `linux/filter.h`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Opcode.
    pub code: u16,
    /// Jump if true, in instructions.
    pub jt: u8,
    /// Jump if false, in instructions.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

/// Installs a seccomp filter with `SECCOMP_FILTER_FLAG_*`. Needs no_new_privs or CAP_SYS_ADMIN in the own user namespace.
///
/// # Errors
/// `InvalidInput` for more than 65535 instructions; the kernel's.
pub fn install_seccomp(filter: &[Instruction], flags: u32) -> io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = Program { len, filter: filter.as_ptr() };
    // SAFETY: program points to `len` live instructions of the kernel's layout; the kernel checks their meaning.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program)) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `prctl(PR_SET_NO_NEW_PRIVS)`.
///
/// # Errors
/// The kernel's.
pub fn set_no_new_privs() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Removes from the bounding set every capability the kernel knows and `keep` (bit per capability) does not name.
///
/// # Errors
/// The kernel's.
pub fn limit_bounding_set(keep: u64) -> io::Result<()> {
    for capability in 0..64 {
        if keep & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: no pointers.
        let answer = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if answer == -1 {
            let error = io::Error::last_os_error();
            // The first number the kernel does not know ends the list (capabilities(7)).
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// Sets the effective, permitted and inheritable sets, one bit per capability. Clears the ambient set.
///
/// # Errors
/// The kernel's.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let header = Header { version: VERSION_3, pid: 0 };
    let data =
        [[low(effective), low(permitted), low(inheritable)], [high(effective), high(permitted), high(inheritable)]];
    // SAFETY: version 3 reads one header and two triples of u32, both live.
    let answer = unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_ref(&header), data.as_ptr()) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(rustix::thread::clear_ambient_capability_set()?)
}

/// The permitted set of the calling thread, one bit per capability.
///
/// # Errors
/// The kernel's.
pub fn permitted_capabilities() -> io::Result<u64> {
    Ok(rustix::thread::capabilities(None)?.permitted.bits())
}

/// Adds to the ambient set, one bit per capability; each must be permitted and inheritable.
///
/// # Errors
/// EPERM when one is not.
pub fn raise_ambient(set: u64) -> io::Result<()> {
    for capability in (0..64).filter(|capability| set & (1 << capability) != 0) {
        // SAFETY: no pointers.
        let answer = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) };
        if answer == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Keeps (or not) the permitted set over a change of the user id.
///
/// # Errors
/// The kernel's.
pub fn keep_capabilities(on: bool) -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(on)?)
}

/// Becomes this user with these groups, for good.
///
/// # Errors
/// EPERM, or EINVAL for an id that is not mapped.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: setgroups reads `len` live gid_t; the other two take no pointers. All act on this thread alone.
    unsafe {
        if libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) != 0
            || libc::syscall(libc::SYS_setresgid, gid, gid, gid) != 0
            || libc::syscall(libc::SYS_setresuid, uid, uid, uid) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Sets the NIS domain name of the UTS namespace.
///
/// # Errors
/// The kernel's.
pub fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: the kernel reads `len` live bytes.
    let answer = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the execution domain and its flags (personality(2)).
///
/// # Errors
/// The kernel's.
pub fn set_personality(persona: u32) -> io::Result<()> {
    // SAFETY: no pointers.
    let answer = unsafe { libc::personality(persona.into()) };
    if answer >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets from which memory nodes the calling thread allocates (set_mempolicy(2)): mode with flags, a bit for each node.
///
/// # Errors
/// The kernel's; EINVAL for what does not go together or is not there.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> io::Result<()> {
    // The kernel takes the number of bits plus one (get_nodes, mm/mempolicy.c).
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads `bits - 1` bits, which are live.
    let answer = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Keeps the calling thread on these CPUs, a bit for each (sched_setaffinity(2)).
///
/// # Errors
/// The kernel's; EINVAL when none of them is there.
pub fn set_affinity(cpus: &[u64]) -> io::Result<()> {
    // SAFETY: the kernel reads as many live bytes as it is told.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(cpus), cpus.as_ptr()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct sched_attr` (`linux/sched/types.h`, 48 bytes since 3.14).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Scheduling {
    /// Set by [`schedule`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For the time-sharing policies.
    pub nice: i32,
    /// For the real-time policies.
    pub priority: u32,
    /// Nanoseconds, for the deadline policy, as the next two.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// Schedules the calling thread (sched_setattr(2)).
///
/// # Errors
/// The kernel's; EPERM for what takes CAP_SYS_NICE.
pub fn schedule(mut how: Scheduling) -> io::Result<()> {
    how.size = u32::try_from(size_of::<Scheduling>()).expect("48");
    // SAFETY: the struct is live and of the size it says.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(&how), 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets class and level of the calling process's input and output (ioprio_set(2)).
///
/// # Errors
/// The kernel's; EPERM for the real-time class.
pub fn set_io_priority(class: u32, level: u32) -> io::Result<()> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: no pointers.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, class << 13 | level) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
