//! The compiled program, run by an interpreter, against the meaning of the object it was compiled from.

use oci_spec::runtime::{
    Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscallBuilder,
};
use proptest::prelude::*;

use super::compile::{self, AND, AT_ARCH, AT_ARGS, AT_NUMBER, JEQ, JGE, JGT, JUMP, LOAD, Machine, NATIVE, RETURN};
use super::{numbers, profile};
use crate::sys::privilege::{Instruction, probe};

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
fn meaning(machine: &Machine, object: &LinuxSeccomp, arch: u32, number: u32, args: [u64; 6]) -> u32 {
    if arch != machine.arch || number > (machine.highest)() {
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
        rule.names().iter().any(|name| (machine.number)(name) == Some(number))
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
    assert_eq!(meaning(&NATIVE, &object, NATIVE_ARCH, number, all), expect, "{name} {args:x?}");
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
        LinuxSeccompAction::ScmpActKill,
        LinuxSeccompAction::ScmpActKillThread,
        LinuxSeccompAction::ScmpActKillProcess,
        LinuxSeccompAction::ScmpActTrap,
        LinuxSeccompAction::ScmpActTrace,
        LinuxSeccompAction::ScmpActLog,
    ]);
    (prop::collection::vec(name, 1..3), action, 1..200_u32, prop::collection::vec(arg, 0..4)).prop_map(
        |(names, action, errno, args)| {
            let names = names.into_iter().map(str::to_owned).collect::<Vec<_>>();
            LinuxSyscallBuilder::default().names(names).action(action).errno_ret(errno).args(args).build().unwrap()
        },
    )
}

/// One that only allows and refuses and leaves the sixth argument alone, where questions to the kernel are marked.
fn plain_rule() -> impl Strategy<Value = oci_spec::runtime::LinuxSyscall> {
    rule().prop_map(|mut rule| {
        if rule.action() != LinuxSeccompAction::ScmpActAllow {
            rule.set_action(LinuxSeccompAction::ScmpActErrno);
        }
        let args = rule.args().iter().flatten().filter(|arg| arg.index() < 5).cloned().collect();
        rule.set_args(Some(args));
        rule
    })
}

fn default() -> impl Strategy<Value = (LinuxSeccompAction, u32)> {
    let actions = vec![
        LinuxSeccompAction::ScmpActAllow,
        LinuxSeccompAction::ScmpActErrno,
        LinuxSeccompAction::ScmpActKillProcess,
        LinuxSeccompAction::ScmpActTrace,
    ];
    (prop::sample::select(actions), 0..5_000_u32)
}

fn object(rules: Vec<oci_spec::runtime::LinuxSyscall>, default: (LinuxSeccompAction, u32)) -> LinuxSeccomp {
    LinuxSeccompBuilder::default()
        .default_action(default.0)
        .default_errno_ret(default.1)
        .syscalls(rules)
        .build()
        .unwrap()
}

proptest! {
    /// On both machines, by their own way in and by others.
    #[test]
    fn a_program_does_what_its_object_means(
        rules in prop::collection::vec(rule(), 0..12),
        default in default(),
        name in prop::sample::select(vec!["read", "write", "close", "fstat", "mmap", "openat"]),
        number in prop_oneof![0..12_u32, any::<u32>()],
        args in prop::array::uniform6(word()),
        foreign in any::<bool>(),
    ) {
        let object = object(rules, default);
        for machine in [NATIVE, aarch64::AARCH64] {
            let program = compile::compile_for(&machine, &object).unwrap();
            prop_assert!(program.len() <= 4_096);
            let arch = if foreign { machine.arch ^ 1 } else { machine.arch };
            for number in [number, (machine.number)(name).unwrap()] {
                prop_assert_eq!(
                    interpret(&program, arch, number, args),
                    meaning(&machine, &object, arch, number, args)
                );
            }
        }
    }

    /// The kernel is asked too, where a program only allows and refuses.
    #[test]
    fn the_kernel_does_what_an_object_means(
        rules in prop::collection::vec(plain_rule(), 0..12),
        args in prop::collection::vec(prop::array::uniform5(word()), 1..4),
    ) {
        let object = object(rules, (LinuxSeccompAction::ScmpActErrno, 7));
        let program = super::compile(&object).unwrap();
        let numbers = ["read", "write", "close", "fstat", "mmap"].map(|name| numbers::number(name).unwrap());
        let asked: Vec<_> = numbers.iter().flat_map(|number| args.iter().map(|args| (*number, *args))).collect();
        for ((number, [a, b, c, d, e]), answer) in asked.iter().zip(probe::verdicts(&program, &asked).unwrap()) {
            let meant = meaning(&NATIVE, &object, NATIVE_ARCH, *number, [*a, *b, *c, *d, *e, 0]);
            prop_assert_eq!(answer, if meant == ALLOW { None } else { Some(meant & 0xffff) });
        }
    }

    /// Whatever the rules and however many: a program the kernel takes, or an error.
    #[test]
    fn many_rules_are_a_program_or_an_error(rules in prop::collection::vec(rule(), 0..400)) {
        let object = object(rules, (LinuxSeccompAction::ScmpActAllow, 0));
        prop_assert!(super::compile(&object).map_or(true, |program| program.len() <= 4_096));
    }
}
