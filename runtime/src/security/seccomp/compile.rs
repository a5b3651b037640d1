//! From an OCI seccomp object to classic BPF: a binary search over ranges of call numbers, with the conditions of a
//! call at its leaf. The kernel walks it once per number when it is installed and caches "always allowed" (5.11).

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use super::numbers;
use crate::sys::privilege::Instruction;
use crate::{Error, Result};

/// `AUDIT_ARCH_*` (`linux/audit.h`): the ELF machine, 64 bit, little endian.
pub(super) const X86_64_ARCH: u32 = 0xc000_003e;
pub(super) const AARCH64_ARCH: u32 = 0xc000_00b7;

/// Whose calls a program tells apart.
pub(super) struct Machine {
    pub(super) arch: u32,
    /// The number of a call; `None` where the machine or this build does not have it.
    pub(super) number: fn(&str) -> Option<u32>,
    /// What lies above is newer than this build.
    pub(super) highest: fn() -> u32,
}

/// The machine we are built for.
pub(super) const NATIVE: Machine = Machine {
    arch: if cfg!(target_arch = "aarch64") { AARCH64_ARCH } else { X86_64_ARCH },
    number: numbers::number,
    highest: numbers::highest,
};

// Offsets in struct seccomp_data (`linux/seccomp.h`).
pub(super) const AT_NUMBER: u32 = 0;
pub(super) const AT_ARCH: u32 = 4;
pub(super) const AT_ARGS: u32 = 16;

// Opcodes (`linux/bpf_common.h`): class | size/operation | mode/source.
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JEQ: u16 = 0x15;
pub(super) const JGT: u16 = 0x25;
pub(super) const JGE: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_TRAP: u32 = 0x0003_0000;
const RET_KILL_THREAD: u32 = 0x0000_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;

/// Most instructions the kernel takes (BPF_MAXINSNS).
const INSTRUCTIONS_MAX: usize = 4096;

/// What happens with one call number.
#[derive(Clone, PartialEq, Eq)]
struct Leaf<'a> {
    rules: Vec<(&'a [LinuxSeccompArg], u32)>,
    otherwise: u32,
}

/// Compiles an object for this machine.
///
/// # Errors
/// `Unsupported` for `SCMP_ACT_NOTIFY` and for programs longer than the kernel takes; `BadContainer` for an argument
/// index above 5.
pub fn compile(object: &LinuxSeccomp) -> Result<Vec<Instruction>> {
    compile_for(&NATIVE, object)
}

/// The same for any machine, so that the programs of all of them can be tested on one.
pub(super) fn compile_for(machine: &Machine, object: &LinuxSeccomp) -> Result<Vec<Instruction>> {
    let otherwise = action(object.default_action(), object.default_errno_ret())?;
    let rules = object.syscalls().as_deref().unwrap_or_default();
    let leaves = leaves(machine, rules, otherwise)?;
    let enosys = RET_ERRNO | libc::ENOSYS.cast_unsigned();
    let mut program = vec![
        op(LOAD, AT_ARCH),
        jump(JEQ, machine.arch, 1, 0),
        op(RETURN, enosys),
        op(LOAD, AT_NUMBER),
        jump(JGT, (machine.highest)(), 0, 1),
        op(RETURN, enosys),
    ];
    program.extend(search(&ranges(leaves, otherwise))?);
    if program.len() > INSTRUCTIONS_MAX {
        return Err(Error::Unsupported(format!("a seccomp filter of {} instructions is too long", program.len())));
    }
    Ok(program)
}

fn leaves<'a>(machine: &Machine, rules: &'a [LinuxSyscall], otherwise: u32) -> Result<BTreeMap<u32, Leaf<'a>>> {
    let mut leaves: BTreeMap<u32, Leaf<'a>> = BTreeMap::new();
    for rule in rules {
        let verdict = action(rule.action(), rule.errno_ret())?;
        let args = rule.args().as_deref().unwrap_or_default();
        if args.iter().any(|arg| arg.index() > 5) {
            return Err(Error::BadContainer("a seccomp condition names an argument above 5".into()));
        }
        for number in rule.names().iter().filter_map(|name| (machine.number)(name)) {
            let leaf = leaves.entry(number).or_insert(Leaf { rules: Vec::new(), otherwise });
            leaf.rules.push((args, verdict));
        }
    }
    for leaf in leaves.values_mut() {
        // Nothing after an unconditional rule can decide.
        if let Some(at) = leaf.rules.iter().position(|(args, _)| args.is_empty()) {
            leaf.otherwise = leaf.rules[at].1;
            leaf.rules.truncate(at);
        }
    }
    Ok(leaves)
}

/// Ranges of equal leaves as (first number, leaf); the first begins at 0, each ends where the next begins. Not empty.
fn ranges<'a>(leaves: BTreeMap<u32, Leaf<'a>>, otherwise: u32) -> Vec<(u32, Leaf<'a>)> {
    let unknown = Leaf { rules: Vec::new(), otherwise };
    let mut ranges: Vec<(u32, Leaf<'a>)> = Vec::new();
    let mut push = |first: u32, leaf: Leaf<'a>| {
        if ranges.last().is_none_or(|(_, last)| *last != leaf) {
            ranges.push((first, leaf));
        }
    };
    let mut next = 0;
    for (number, leaf) in leaves {
        if number > next {
            push(next, unknown.clone());
        }
        push(number, leaf);
        next = number + 1;
    }
    push(next, unknown);
    ranges
}

fn search(ranges: &[(u32, Leaf<'_>)]) -> Result<Vec<Instruction>> {
    if let [(_, leaf)] = ranges {
        return decide(leaf);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (pivot, low, high) = (high[0].0, search(low)?, search(high)?);
    let skip = u32::try_from(low.len()).expect("far below 4 GiB");
    // Conditional jumps reach 255 instructions, the unconditional one any distance.
    let mut program = match u8::try_from(skip) {
        Ok(near) => vec![jump(JGE, pivot, near, 0)],
        Err(_) => vec![jump(JGE, pivot, 0, 1), op(JUMP, skip)],
    };
    program.extend(low);
    program.extend(high);
    Ok(program)
}

fn decide(leaf: &Leaf<'_>) -> Result<Vec<Instruction>> {
    let mut program = Vec::new();
    for (args, verdict) in &leaf.rules {
        // Written backwards: what follows a condition is known when it is written.
        let mut rule = vec![op(RETURN, *verdict)];
        for arg in args.iter().rev() {
            let mut condition = condition(arg, rule.len())?;
            condition.extend(rule);
            rule = condition;
        }
        program.extend(rule);
    }
    program.push(op(RETURN, leaf.otherwise));
    Ok(program)
}

/// Where a step of a condition goes.
#[derive(Clone, Copy)]
enum To {
    Next,
    Pass,
    Fail,
}

/// The instructions of one condition; `rest` instructions of the same rule follow, and failing skips them.
fn condition(arg: &LinuxSeccompArg, rest: usize) -> Result<Vec<Instruction>> {
    use LinuxSeccompOperator as Op;
    use To::{Fail, Next, Pass};
    let at = AT_ARGS + u32::try_from(arg.index()).expect("checked to be at most 5") * 8;
    let (value, mask) = match arg.op() {
        Op::ScmpCmpMaskedEq => (arg.value_two().unwrap_or(0), Some(arg.value())),
        Op::ScmpCmpNe | Op::ScmpCmpLt | Op::ScmpCmpLe | Op::ScmpCmpEq | Op::ScmpCmpGe | Op::ScmpCmpGt => {
            (arg.value(), None)
        }
    };
    let (high, low) = ((value >> 32) as u32, value as u32);
    let masked = |half: u32| mask.map(|mask| op(AND, (mask >> half) as u32));
    let high_step = |program: &mut Vec<(Instruction, Option<(To, To)>)>| {
        program.push((op(LOAD, at + 4), None));
        program.extend(masked(32).map(|and| (and, None)));
    };
    let mut steps = Vec::new();
    high_step(&mut steps);
    let low_load: Vec<_> = [Some(op(LOAD, at)), masked(0)].into_iter().flatten().map(|one| (one, None)).collect();
    match arg.op() {
        Op::ScmpCmpEq | Op::ScmpCmpMaskedEq => {
            steps.push((op(JEQ, high), Some((Next, Fail))));
            steps.extend(low_load);
            steps.push((op(JEQ, low), Some((Pass, Fail))));
        }
        Op::ScmpCmpNe => {
            steps.push((op(JEQ, high), Some((Next, Pass))));
            steps.extend(low_load);
            steps.push((op(JEQ, low), Some((Fail, Pass))));
        }
        Op::ScmpCmpGt | Op::ScmpCmpGe => {
            let code = if arg.op() == Op::ScmpCmpGt { JGT } else { JGE };
            steps.push((op(JGT, high), Some((Pass, Next))));
            steps.push((op(JEQ, high), Some((Next, Fail))));
            steps.extend(low_load);
            steps.push((op(code, low), Some((Pass, Fail))));
        }
        Op::ScmpCmpLt | Op::ScmpCmpLe => {
            let code = if arg.op() == Op::ScmpCmpLt { JGE } else { JGT };
            steps.push((op(JGT, high), Some((Fail, Next))));
            steps.push((op(JEQ, high), Some((Next, Pass))));
            steps.extend(low_load);
            steps.push((op(code, low), Some((Fail, Pass))));
        }
    }
    let count = steps.len();
    let place = |step: usize, to: To| {
        let after = count - step - 1;
        let distance = match to {
            Next => 0,
            Pass => after,
            Fail => after + rest,
        };
        u8::try_from(distance).map_err(|_| Error::Unsupported("a seccomp rule has too many conditions".into()))
    };
    steps
        .into_iter()
        .enumerate()
        .map(|(step, (instruction, jumps))| {
            let Some((yes, no)) = jumps else { return Ok(instruction) };
            Ok(Instruction { jt: place(step, yes)?, jf: place(step, no)?, ..instruction })
        })
        .collect()
}

/// An action as the kernel's return value.
pub(super) fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32> {
    let data = errno.unwrap_or(libc::EPERM.cast_unsigned()) & 0xffff;
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => RET_KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => RET_TRAP,
        LinuxSeccompAction::ScmpActErrno => RET_ERRNO | data,
        LinuxSeccompAction::ScmpActTrace => RET_TRACE | data,
        LinuxSeccompAction::ScmpActLog => RET_LOG,
        LinuxSeccompAction::ScmpActAllow => RET_ALLOW,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(Error::Unsupported("seccomp notification has no listener here".into()));
        }
    })
}

fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}
