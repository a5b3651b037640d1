//! What the default profile lets through, whole: every call of both machines under every capability, every socket family
//! and protocol, every flag of what is looked into. The table is `golden.txt` beside this file; a change of the profile is
//! a change of it, to be read by somebody. On this machine the kernel runs the program too.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use expect_test::expect_file;
use oci_spec::runtime::{Capabilities, Capability};

use super::aarch64::AARCH64;
use super::compile::{Machine, NATIVE, X86_64_ARCH, compile_for};
use super::{ALLOW, EAFNOSUPPORT, ENOSYS, EPERM, interpret, numbers, profile};
use crate::runtime::SecurityConfig;
use crate::security::capabilities;
use crate::sys::privilege::{Instruction, probe};

/// Calls the profile decides on by their arguments.
const LOOKED_INTO: [&str; 6] = ["clone", "ioctl", "personality", "socket", "socketpair", "unshare"];

/// The arguments of each of them that tell one verdict from another, as (what is shown, first, second, third argument).
fn questions(name: &str) -> Vec<(String, [u64; 3])> {
    let bits = || (0..64).map(|bit| (format!("{:#x}", 1_u64 << bit), [1 << bit, 0, 0]));
    let numbers = |to: u64| (0..to).map(|value| (format!("{value:#x}"), value));
    match name {
        "clone" | "unshare" => [("0x0".to_owned(), [0; 3])].into_iter().chain(bits()).collect(),
        "socket" | "socketpair" => (0..=64)
            .flat_map(|family| (0..=32).map(move |kind| (format!("{family}/{kind}"), [family, 3, kind])))
            .chain([("upper half".to_owned(), [1 << 32 | 1, 1, 0]), ("minus one".to_owned(), [u64::MAX, 1, 0])])
            .collect(),
        "ioctl" => numbers(0x6000)
            .map(|(shown, value)| (shown, [0, value, 0]))
            .chain([("upper half".to_owned(), [0, 0xdead_0000_0000_5412, 0])])
            .collect(),
        _ => {
            let values: BTreeSet<u64> =
                (0..0x400).chain((0..64).map(|bit| 1 << bit)).chain([0x2_0008, 0xffff_ffff]).collect();
            values.into_iter().map(|value| (format!("{value:#x}"), [value, 0, 0])).collect()
        }
    }
}

fn word(verdict: u32) -> &'static str {
    match verdict {
        ALLOW => "allow",
        EPERM => "EPERM",
        ENOSYS => "ENOSYS",
        EAFNOSUPPORT => "EAFNOSUPPORT",
        other => panic!("verdict {other:#x}"),
    }
}

fn program(machine: &Machine, set: &Capabilities) -> Vec<Instruction> {
    compile_for(machine, &profile(set)).unwrap()
}

/// Equal answers beside each other as one: `first to last`.
fn ranges(answers: &[(String, &'static str)]) -> String {
    let mut text = String::new();
    for same in answers.chunk_by(|a, b| a.1 == b.1) {
        let (first, last) = (&same[0].0, &same[same.len() - 1].0);
        let shown = if first == last { first.clone() } else { format!("{first} to {last}") };
        writeln!(text, "    {shown:<24} {}", same[0].1).unwrap();
    }
    text
}

struct Table {
    machine: Machine,
    plain: Vec<Instruction>,
    /// The name of each capability and the program of who has it alone.
    with: Vec<(String, Vec<Instruction>)>,
}

impl Table {
    fn new(machine: Machine) -> Self {
        let with = capabilities::names().into_iter().map(|name| {
            let set = set(&[&name]);
            (name, program(&machine, &set))
        });
        Self { plain: program(&machine, &Capabilities::default()), with: with.collect(), machine }
    }

    fn ask(&self, program: &[Instruction], number: u32, args: [u64; 3]) -> &'static str {
        let [a, b, c] = args;
        word(interpret(program, self.machine.arch, number, [a, b, c, 0, 0, 0]))
    }

    /// `202 allow`, `165 EPERM, allow with SYS_ADMIN`, `-`.
    fn cell(&self, name: &str) -> String {
        let Some(number) = (self.machine.number)(name) else { return "-".to_owned() };
        if LOOKED_INTO.contains(&name) {
            return format!("{number} below");
        }
        let plain = self.ask(&self.plain, number, [0; 3]);
        let mut cell = format!("{number} {plain}");
        for (capability, program) in &self.with {
            let verdict = self.ask(program, number, [0; 3]);
            if verdict != plain {
                write!(cell, ", {verdict} with {}", capability.trim_start_matches("CAP_")).unwrap();
            }
        }
        cell
    }

    /// The answers to all questions about one call, and those a capability changes.
    fn section(&self, name: &str) -> String {
        let number = (self.machine.number)(name).unwrap();
        let asked = questions(name);
        let answers = |program: &[Instruction]| -> Vec<(String, &'static str)> {
            asked.iter().map(|(shown, args)| (shown.clone(), self.ask(program, number, *args))).collect()
        };
        let plain = answers(&self.plain);
        let mut text = format!("{name}\n{}", ranges(&plain));
        for (capability, program) in &self.with {
            let changed = answers(program);
            if changed != plain {
                write!(text, "  {name} with {}\n{}", capability.trim_start_matches("CAP_"), ranges(&changed)).unwrap();
            }
        }
        text
    }

    /// Numbers of no name, up to some beyond the last.
    fn nameless(&self) -> String {
        let names: BTreeSet<u32> = numbers::all().filter_map(|name| (self.machine.number)(name)).collect();
        let nameless = (0..600).filter(|number| !names.contains(number));
        let answers: Vec<_> =
            nameless.map(|number| (number.to_string(), self.ask(&self.plain, number, [0; 3]))).collect();
        ranges(&answers)
    }
}

fn set(names: &[&str]) -> Capabilities {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let security = SecurityConfig { cap_drop: vec!["ALL".to_owned()], cap_add: names, ..Default::default() };
    capabilities::effective_set(&security).unwrap()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_golden_table_is_as_it_was_read() {
    let (ours, theirs) = (Table::new(NATIVE), Table::new(AARCH64));
    let mut text = format!("{:<26}{:<58}aarch64\n", "call", "x86-64");
    let mut names: Vec<&str> = numbers::all().collect();
    names.sort_unstable();
    for name in names {
        writeln!(text, "{name:<26}{:<58}{}", ours.cell(name), theirs.cell(name)).unwrap();
    }
    for name in LOOKED_INTO {
        let section = ours.section(name);
        assert_eq!(section, theirs.section(name), "the machines differ in {name}");
        write!(text, "\n{section}").unwrap();
    }
    write!(text, "\nnumbers without a name, x86-64\n{}", ours.nameless()).unwrap();
    write!(text, "\nnumbers without a name, aarch64\n{}", theirs.nameless()).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    expect_file!["golden.txt"].assert_eq(&(lines.join("\n") + "\n"));
}

/// What the table says of one capability holds for any set of them: what one of them allows, the set allows.
#[test]
fn capabilities_add_up() {
    for machine in [NATIVE, AARCH64] {
        let table = Table::new(machine);
        let all =
            capabilities::effective_set(&SecurityConfig { cap_add: vec!["ALL".to_owned()], ..Default::default() });
        let default = capabilities::effective_set(&SecurityConfig::default());
        for set in [all.unwrap(), default.unwrap(), Capabilities::from([Capability::SysAdmin, Capability::Syslog])] {
            let whole = program(&table.machine, &set);
            for name in numbers::all().filter(|name| !LOOKED_INTO.contains(name)) {
                let Some(number) = (table.machine.number)(name) else { continue };
                let ask = |program: &[Instruction]| table.ask(program, number, [0; 3]);
                let names: Vec<String> = set.iter().map(ToString::to_string).collect();
                let one = table.with.iter().any(|(capability, program)| {
                    names.iter().any(|name| name.trim_start_matches("CAP_") == capability.trim_start_matches("CAP_"))
                        && ask(program) == "allow"
                });
                assert_eq!(ask(&whole) == "allow", one || ask(&table.plain) == "allow", "{name}");
            }
        }
    }
}

/// Calls by the ways of older and other machines: `int 0x80` and x32 on x86-64, 32-bit ARM on aarch64.
#[test]
fn other_ways_into_the_kernel_are_shut() {
    const OTHERS: [u32; 4] = [0x4000_0003, 0x4000_0028, 0xc000_00f3, 0];
    for machine in [NATIVE, AARCH64] {
        let all =
            capabilities::effective_set(&SecurityConfig { cap_add: vec!["ALL".to_owned()], ..Default::default() });
        let program = program(&machine, &all.unwrap());
        let others = OTHERS.into_iter().chain([X86_64_ARCH, AARCH64.arch]).filter(|arch| *arch != machine.arch);
        for arch in others {
            for number in (0..600).chain([u32::MAX]) {
                assert_eq!(interpret(&program, arch, number, [0; 6]), ENOSYS, "{arch:#x} {number}");
            }
        }
        for number in 0x4000_0000..0x4000_0258 {
            assert_eq!(interpret(&program, machine.arch, number, [0; 6]), ENOSYS, "x32 {number}");
        }
    }
}

/// The kernel, asked about each call of the table, answers as the interpreter does.
#[test]
fn the_kernel_reads_the_program_as_we_do() {
    let sets = [Capabilities::default(), set(&["SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE"])];
    for set in sets {
        let program = program(&NATIVE, &set);
        // uretprobe and uprobe of x86-64 are the kernel's own: no filter sees them, whoever calls them dies (6.14)
        let numbers = (0..600).filter(|number| !(335..=336).contains(number));
        let mut asked: Vec<(u32, [u64; 5])> = numbers.map(|number| (number, [0; 5])).collect();
        for name in LOOKED_INTO {
            let number = super::numbers::number(name).unwrap();
            asked.extend(questions(name).iter().map(|(_, [a, b, c])| (number, [*a, *b, *c, 0, 0])));
        }
        let answers = probe::verdicts(&program, &asked).unwrap();
        for ((number, args), answer) in asked.iter().zip(answers) {
            let [a, b, c, d, e] = *args;
            let expected = interpret(&program, NATIVE.arch, *number, [a, b, c, d, e, 0]);
            assert_eq!(answer, if expected == ALLOW { None } else { Some(expected & 0xffff) }, "{number} {args:x?}");
        }
    }
}
