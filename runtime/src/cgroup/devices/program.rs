//! The same rules as an eBPF program, for hosts whose cgroups are v2 only (cgroup-v2.rst, "Device controller"). Pure.
//!
//! The last rule that speaks of a device decides, so the program asks them from the last to the first. A rule that
//! allows speaks of a request all of whose rights it gives, one that denies of a request any of whose rights it takes.

use oci_spec::runtime::LinuxDeviceCgroup;

use super::{ALWAYS, line};
use crate::sys::bpf::Instruction;

// linux/bpf.h: BPF_DEVCG_ACC_* and BPF_DEVCG_DEV_*.
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

// linux/bpf_common.h, linux/bpf.h: class | operation | source.
const LOAD_WORD: u8 = 0x61;
const AND_IMMEDIATE: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xbc;
const MOVE_IMMEDIATE: u8 = 0xb4;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_IF_NOT: u8 = 0x55;
const JUMP_IF_NOT_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// Registers: the answer, the context (and later room to work in), and what the context says.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// One rule as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    /// `None` is any.
    pub(super) kind: Option<i32>,
    pub(super) major: Option<i32>,
    pub(super) minor: Option<i32>,
    pub(super) access: i32,
}

/// The program for rules in the order of the spec.
#[must_use]
pub fn v2(rules: &[LinuxDeviceCgroup]) -> Vec<Instruction> {
    let mut program = vec![
        // struct bpf_cgroup_dev_ctx: access and kind in one word, major, minor.
        step(LOAD_WORD, KIND, CONTEXT, 0, 0),
        step(MOVE, ACCESS, KIND, 0, 0),
        step(AND_IMMEDIATE, KIND, 0, 0, 0xffff),
        step(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        step(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        step(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    lower(rules).iter().rev().for_each(|rule| ask(&mut program, rule));
    answer(&mut program, false);
    program
}

/// What is in force after another: the rules of the spec, then what every container may always use.
pub(super) fn lower(rules: &[LinuxDeviceCgroup]) -> Vec<Rule> {
    let own = rules.iter().map(|rule| read(rule.allow(), &line(rule)));
    own.chain(ALWAYS.iter().map(|line| read(true, line))).collect()
}

/// From the line v1 takes.
fn read(allow: bool, line: &str) -> Rule {
    let mut words = line.split([' ', ':']);
    let kind = match words.next() {
        Some("b") => Some(BLOCK),
        Some("c") => Some(CHARACTER),
        Some(_) | None => return Rule { allow, kind: None, major: None, minor: None, access: MKNOD | READ | WRITE },
    };
    let mut number = || words.next().and_then(|word| word.parse::<u32>().ok()).map(u32::cast_signed);
    let (major, minor) = (number(), number());
    let access = words.next().unwrap_or_default().bytes().fold(0, |access, letter| {
        access
            | match letter {
                b'm' => MKNOD,
                b'r' => READ,
                b'w' => WRITE,
                _ => 0,
            }
    });
    Rule { allow, kind, major, minor, access }
}

/// Answers when the rule speaks of the request, else goes on behind it.
fn ask(program: &mut Vec<Instruction>, rule: &Rule) {
    let mut conditions = Vec::new();
    conditions.extend(rule.kind.map(|kind| step(JUMP_IF_NOT, KIND, 0, 0, kind)));
    if rule.access != MKNOD | READ | WRITE {
        conditions.push(step(MOVE, CONTEXT, ACCESS, 0, 0));
        conditions.push(step(AND_IMMEDIATE, CONTEXT, 0, 0, rule.access));
        conditions.push(match rule.allow {
            true => step(JUMP_IF_NOT_REGISTER, CONTEXT, ACCESS, 0, 0),
            false => step(JUMP_IF_EQUAL, CONTEXT, 0, 0, 0),
        });
    }
    conditions.extend(rule.major.map(|major| step(JUMP_IF_NOT, MAJOR, 0, 0, major)));
    conditions.extend(rule.minor.map(|minor| step(JUMP_IF_NOT, MINOR, 0, 0, minor)));
    // Behind the conditions come the two instructions of an answer.
    let end = conditions.len() + 2;
    for (at, condition) in conditions.iter_mut().enumerate() {
        if matches!(condition.code, JUMP_IF_EQUAL | JUMP_IF_NOT | JUMP_IF_NOT_REGISTER) {
            condition.offset = i16::try_from(end - at - 1).expect("a rule has at most 8 instructions");
        }
    }
    program.extend(conditions);
    answer(program, rule.allow);
}

fn answer(program: &mut Vec<Instruction>, allow: bool) {
    program.push(step(MOVE_IMMEDIATE, ANSWER, 0, 0, i32::from(allow)));
    program.push(step(EXIT, 0, 0, 0, 0));
}

fn step(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The machine, as far as these programs use it.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0_u64; 6];
        let mut at = 0;
        loop {
            let Instruction { code, registers: pair, offset, immediate } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let word = u64::from(immediate.cast_unsigned());
            // Jumps compare 64 bits with the sign of the operand.
            let long = i64::from(immediate).cast_unsigned();
            let mut jump = false;
            match code {
                LOAD_WORD => registers[to] = u64::from(context[offset as usize / 4]),
                AND_IMMEDIATE => registers[to] &= word,
                SHIFT_RIGHT => registers[to] >>= word,
                MOVE => registers[to] = registers[from] & 0xffff_ffff,
                MOVE_IMMEDIATE => registers[to] = word,
                JUMP_IF_EQUAL => jump = registers[to] == long,
                JUMP_IF_NOT => jump = registers[to] != long,
                JUMP_IF_NOT_REGISTER => jump = registers[to] != registers[from],
                EXIT => return registers[0] != 0,
                other => panic!("no such instruction: {other:#x}"),
            }
            at += 1 + if jump { offset as usize } else { 0 };
        }
    }

    /// What the rules mean, said once more without jumps.
    fn meaning(rules: &[LinuxDeviceCgroup], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let is = |wanted: Option<i32>, have: u32| wanted.is_none_or(|wanted| wanted.cast_unsigned() == have);
        let speaks = |rule: &&Rule| {
            let rights = rule.access.cast_unsigned();
            let touched = if rule.allow { access & !rights == 0 } else { access & rights != 0 };
            is(rule.kind, kind) && is(rule.major, major) && is(rule.minor, minor) && touched
        };
        lower(rules).iter().rev().find(speaks).is_some_and(|rule| rule.allow)
    }

    fn rule() -> impl Strategy<Value = LinuxDeviceCgroup> {
        let kind = prop::option::of(prop::sample::select(vec!["a", "b", "c"]));
        let number = || prop::option::of(prop::sample::select(vec![-1_i64, 0, 1, 8, 10]));
        let access = prop::sample::select(vec!["", "r", "w", "m", "rw", "rwm"]);
        (any::<bool>(), kind, number(), number(), access).prop_map(|(allow, kind, major, minor, access)| {
            let rule =
                serde_json::json!({"allow": allow, "type": kind, "major": major, "minor": minor, "access": access});
            serde_json::from_value(rule).unwrap()
        })
    }

    proptest! {
        #[test]
        fn the_program_does_what_the_rules_mean(
            rules in prop::collection::vec(rule(), 0..8),
            kind in 1..=2_u32, access in 1..=7_u32,
            major in prop::sample::select(vec![0_u32, 1, 5, 8, 10, 136]), minor in prop::sample::select(vec![0_u32, 1, 3, 5, 8]),
        ) {
            let program = v2(&rules);
            prop_assert_eq!(run(&program, kind, access, major, minor), meaning(&rules, kind, access, major, minor));
        }
    }

    #[test]
    fn basics_are_open_and_the_rest_is_shut() {
        let program = v2(&[]);
        assert!(run(&program, 2, 6, 1, 3), "/dev/null");
        assert!(run(&program, 1, 1, 8, 0), "making a node");
        assert!(!run(&program, 1, 2, 8, 0), "reading a disk");
        assert!(!run(&program, 2, 4, 1, 11), "writing to the kernel's log");
    }
}
