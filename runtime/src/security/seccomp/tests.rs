//! The compiled program, run by an interpreter, against the meaning of the object it was compiled from.

use oci_spec::runtime::{
    Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscallBuilder,
};
use proptest::prelude::*;

use super::compile::{self, AND, AT_ARCH, AT_ARGS, AT_NUMBER, JEQ, JGE, JGT, JUMP, LOAD, NATIVE, RETURN};
use super::{numbers, profile};
use crate::sys::privilege::Instruction;

mod aarch64;
mod golden;

const NATIVE_ARCH: u32 = NATIVE.arch;
const ALLOW: u32 = 0x7fff_0000;
const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;
const EPERM: u32 = 0x0005_0000 | libc::EPERM as u32;
const EAFNOSUPPORT: u32 = 0x0005_0000 | libc::EAFNOSUPPORT as u32;

/// Runs a program as the kernel would, one instruction at a time.
fn interpret(program: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let mut branch = |yes: bool| at += usize::from(if yes { jt } else { jf });
        match code {
            LOAD if k == AT_NUMBER => accumulator = number,
            LOAD if k == AT_ARCH => accumulator = arch,
            LOAD => {
                let (arg, half) = ((k - AT_ARGS) / 8, (k - AT_ARGS) % 8);
                accumulator = (args[arg as usize] >> (half * 8)) as u32;
            }
            AND => accumulator &= k,
            JUMP => at += k as usize,
            JEQ => branch(accumulator == k),
            JGT => branch(accumulator > k),
            JGE => branch(accumulator >= k),
            RETURN => return k,
            other => panic!("opcode {other:#x}"),
        }
    }
}

/// What the module's documentation says an object means.
fn meaning(object: &LinuxSeccomp, arch: u32, number: u32, args: [u64; 6]) -> u32 {
    if arch != NATIVE_ARCH || number > numbers::highest() {
        return ENOSYS;
    }
    let holds = |arg: &LinuxSeccompArg| {
        let (have, value) = (args[arg.index()], arg.value());
        match arg.op() {
            LinuxSeccompOperator::ScmpCmpNe => have != value,
            LinuxSeccompOperator::ScmpCmpLt => have < value,
            LinuxSeccompOperator::ScmpCmpLe => have <= value,
            LinuxSeccompOperator::ScmpCmpEq => have == value,
            LinuxSeccompOperator::ScmpCmpGe => have >= value,
            LinuxSeccompOperator::ScmpCmpGt => have > value,
            LinuxSeccompOperator::ScmpCmpMaskedEq => have & value == arg.value_two().unwrap_or(0),
        }
    };
    let rules = object.syscalls().as_deref().unwrap_or_default();
    let first = rules.iter().find(|rule| {
        rule.names().iter().any(|name| numbers::number(name) == Some(number))
            && rule.args().as_deref().unwrap_or_default().iter().all(holds)
    });
    match first {
        Some(rule) => compile::action(rule.action(), rule.errno_ret()).unwrap(),
        None => compile::action(object.default_action(), object.default_errno_ret()).unwrap(),
    }
}

fn check(capabilities: &[Capability], name: &str, args: &[u64], expect: u32) {
    let object = profile(&capabilities.iter().copied().collect::<Capabilities>());
    let program = super::compile(&object).unwrap();
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let number = numbers::number(name).unwrap();
    assert_eq!(interpret(&program, NATIVE_ARCH, number, all), expect, "{name} {args:x?}");
    assert_eq!(meaning(&object, NATIVE_ARCH, number, all), expect, "{name} {args:x?}");
}

#[test]
fn the_profile_keeps_its_promises() {
    for name in ["read", "execve", "openat", "futex", "exit_group", "close_range", "ptrace", "setresuid"] {
        check(&[], name, &[], ALLOW);
    }
    for name in ["bpf", "io_uring_setup", "userfaultfd", "keyctl", "add_key", "perf_event_open", "mount", "reboot"] {
        check(&[], name, &[], EPERM);
    }
    check(&[Capability::SysAdmin], "mount", &[], ALLOW);
    check(&[], "chroot", &[], EPERM);
    check(&[Capability::SysChroot], "chroot", &[], ALLOW);
    check(&[], "clone3", &[], ENOSYS);
}

#[test]
fn namespaces_are_refused() {
    let thread = 0x003d_0f00;
    check(&[], "clone", &[thread], ALLOW);
    check(&[], "clone", &[0x1000_0011], EPERM);
    check(&[], "unshare", &[0x0000_0400], ALLOW);
    check(&[], "unshare", &[0x1000_0000], EPERM);
    check(&[Capability::SysAdmin], "unshare", &[0x0002_0000], ALLOW);
    check(&[Capability::SysAdmin], "unshare", &[0x1002_0000], EPERM);
}

#[test]
fn socket_families_are_named() {
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        check(&[], "socket", &[family as u64], ALLOW);
    }
    check(&[], "socket", &[libc::AF_NETLINK as u64, 3, 0], ALLOW);
    check(&[], "socket", &[libc::AF_NETLINK as u64, 3, 9], EAFNOSUPPORT);
    for family in [libc::AF_PACKET, libc::AF_ALG, libc::AF_VSOCK, libc::AF_BLUETOOTH, 255] {
        check(&[], "socket", &[family as u64], EAFNOSUPPORT);
    }
    check(&[], "socketpair", &[1], ALLOW);
}

#[test]
fn typing_into_terminals_is_refused_with_any_upper_half() {
    check(&[], "ioctl", &[0, 0x5401], ALLOW);
    check(&[], "ioctl", &[0, 0x5412], EPERM);
    check(&[], "ioctl", &[0, 0xdead_0000_0000_5412], EPERM);
}

#[test]
fn other_machines_and_newer_calls_are_not_implemented() {
    let program = super::compile(&profile(&Capabilities::default())).unwrap();
    assert_eq!(interpret(&program, 0x4000_0003, 3, [0; 6]), ENOSYS);
    assert_eq!(interpret(&program, NATIVE_ARCH, 0x4000_0000, [0; 6]), ENOSYS);
    assert_eq!(interpret(&program, NATIVE_ARCH, numbers::highest() + 1, [0; 6]), ENOSYS);
    assert!(program.len() < 400, "{} instructions", program.len());
}

fn operator() -> impl Strategy<Value = LinuxSeccompOperator> {
    use LinuxSeccompOperator as Op;
    prop::sample::select(vec![
        Op::ScmpCmpNe,
        Op::ScmpCmpLt,
        Op::ScmpCmpLe,
        Op::ScmpCmpEq,
        Op::ScmpCmpGe,
        Op::ScmpCmpGt,
        Op::ScmpCmpMaskedEq,
    ])
}

/// Few values, so that equal ones meet; both halves matter.
fn word() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![0, 1, 2, 0xffff_ffff, 1 << 32, (1 << 32) + 1, 2 << 32, u64::MAX])
}

fn rule() -> impl Strategy<Value = oci_spec::runtime::LinuxSyscall> {
    let name = prop::sample::select(vec!["read", "write", "close", "fstat", "mmap", "no_such_call"]);
    let arg = (0..6_usize, word(), word(), operator()).prop_map(|(index, value, two, op)| {
        LinuxSeccompArgBuilder::default().index(index).value(value).value_two(two).op(op).build().unwrap()
    });
    let action = prop::sample::select(vec![
        LinuxSeccompAction::ScmpActAllow,
        LinuxSeccompAction::ScmpActErrno,
        LinuxSeccompAction::ScmpActKillProcess,
        LinuxSeccompAction::ScmpActLog,
    ]);
    (prop::collection::vec(name, 1..3), action, 1..200_u32, prop::collection::vec(arg, 0..4)).prop_map(
        |(names, action, errno, args)| {
            let names = names.into_iter().map(str::to_owned).collect::<Vec<_>>();
            LinuxSyscallBuilder::default().names(names).action(action).errno_ret(errno).args(args).build().unwrap()
        },
    )
}

proptest! {
    #[test]
    fn a_program_does_what_its_object_means(
        rules in prop::collection::vec(rule(), 0..12),
        number in 0..12_u32,
        args in prop::array::uniform6(word()),
    ) {
        let object = LinuxSeccompBuilder::default()
            .default_action(LinuxSeccompAction::ScmpActErrno)
            .default_errno_ret(1_u32)
            .syscalls(rules)
            .build()
            .unwrap();
        let program = super::compile(&object).unwrap();
        prop_assert_eq!(interpret(&program, NATIVE_ARCH, number, args), meaning(&object, NATIVE_ARCH, number, args));
    }
}
