//! Which device nodes a container may use, as lines for the v1 `devices` controller; as a program for v2 in
//! [`program`]. Pure.
//!
//! Everything is shut, then the rules of the spec follow in their order, then what every container may always use.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::resources::Setting;

pub mod program;

/// Making any node (without opening it), the devices every container has, terminals.
const ALWAYS: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// The writes that put these rules in force.
#[must_use]
pub fn v1(rules: &[LinuxDeviceCgroup]) -> Vec<Setting> {
    let write = |allow: bool, line: String| Setting {
        controller: "devices",
        file: if allow { "devices.allow" } else { "devices.deny" }.into(),
        value: line,
        optional: false,
    };
    let shut = write(false, "a".to_owned());
    let rules = rules.iter().map(|rule| write(rule.allow(), line(rule)));
    let always = ALWAYS.iter().map(|line| write(true, (*line).to_owned()));
    std::iter::once(shut).chain(rules).chain(always).collect()
}

/// `c 1:3 rwm`; a lone `a` is everything, whatever else it says (Documentation/admin-guide/cgroup-v1/devices.rst).
fn line(rule: &LinuxDeviceCgroup) -> String {
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => 'b',
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => 'c',
        Some(LinuxDeviceType::A | LinuxDeviceType::P) | None => return "a".to_owned(),
    };
    let number = |number: Option<i64>| match number {
        Some(number) if number >= 0 => number.to_string(),
        Some(_) | None => "*".to_owned(),
    };
    let access = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
    format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor()))
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;

    use super::*;

    #[test]
    fn everything_is_shut_first_and_the_basics_come_last() {
        let all = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build().unwrap();
        let disk = LinuxDeviceCgroupBuilder::default().allow(true).typ(LinuxDeviceType::B).major(8).access("r");
        let lines: Vec<String> =
            v1(&[all, disk.build().unwrap()]).iter().map(|one| format!("{} {}", one.file, one.value)).collect();
        assert_eq!(lines[..3], ["devices.deny a", "devices.deny a", "devices.allow b 8:* r"]);
        assert_eq!(lines.last().unwrap(), "devices.allow c 136:* rwm");
    }
}
