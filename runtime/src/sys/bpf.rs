//! The few calls of bpf(2) that shut devices to a v2 cgroup: load a program, attach it, take earlier ones off.
//!
//! Knows nothing of rules: `cgroup::devices` writes the program.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

/// An eBPF instruction (`struct bpf_insn`, `linux/bpf.h`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Opcode.
    pub code: u8,
    /// Destination register in the lower half, source in the upper.
    pub registers: u8,
    /// Distance of a jump, or offset of a load.
    pub offset: i16,
    /// Operand.
    pub immediate: i32,
}

// linux/bpf.h: commands, program and attach types, flags.
const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_FD_BY_ID: i32 = 13;
const PROG_QUERY: i32 = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
/// More than anybody attaches to one cgroup (BPF_CGROUP_MAX_PROGS).
const PROGRAMS_MAX: usize = 64;

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD; what is left out is zero to the kernel.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// For BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// For BPF_PROG_QUERY.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// For BPF_PROG_GET_FD_BY_ID.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// Makes a program decide about devices in a v2 cgroup, in the place of those attached to the directory before.
///
/// # Errors
/// The kernel's: EPERM without CAP_BPF, EINVAL for a program that is none, ENOSYS.
pub fn shut_devices(directory: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let earlier = attached(directory)?;
    let program = load(program)?;
    change(PROG_ATTACH, directory, program.as_raw_fd(), ALLOW_MULTI)?;
    for id in earlier {
        let mut attr = ById { id, ..Default::default() };
        // One that went meanwhile needs no detaching.
        if let Ok(fd) = call(PROG_GET_FD_BY_ID, &mut attr) {
            // SAFETY: the kernel just made this descriptor for us.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            change(PROG_DETACH, directory, fd.as_raw_fd(), 0)?;
        }
    }
    Ok(())
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attr = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..Default::default()
    };
    let fd = call(PROG_LOAD, &mut attr)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn change(command: i32, directory: BorrowedFd<'_>, program: RawFd, flags: u32) -> io::Result<()> {
    let number = |fd: RawFd| u32::try_from(fd).map_err(|_| io::ErrorKind::InvalidInput);
    let kind = ATTACH_CGROUP_DEVICE;
    let mut attr = Attach { target: number(directory.as_raw_fd())?, program: number(program)?, kind, flags };
    call(command, &mut attr).map(drop)
}

/// Ids of the programs attached to the directory itself.
fn attached(directory: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; PROGRAMS_MAX];
    let mut attr = Query {
        target: u32::try_from(directory.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?,
        kind: ATTACH_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(PROGRAMS_MAX).expect("64"),
        ..Default::default()
    };
    call(PROG_QUERY, &mut attr)?;
    ids.truncate(attr.count as usize);
    Ok(ids)
}

fn call<T>(command: i32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: attr is live, of the size given, and what it points to lives as long as it does.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(answer).unwrap_or(0)) }
}
