//! The binary on another kernel: Debian's 6.1 with cgroup v2 only, in a virtual machine, without KVM.
//!
//! One machine plays the demo, loses its power while three replicas serve, loses it again while they come back, and must
//! bring everything back by itself at its next boot. Another runs the suites `kernel` and `conformance`, which the host runs too. What happens inside is
//! in `init`; here is what its console must show. Skipped, with the reason, where qemu or the kernel's package is not
//! to be had.

mod machine;

use machine::Machine;

#[test]
fn a_power_cut_is_a_non_event() {
    let Some(machine) = Machine::new("cut") else { return };
    for stage in ["demo", "early", "again"] {
        let console = machine.boot(stage);
        let good = console.contains(&format!("tester: end of {stage}")) && !console.contains("tester: FAILED");
        assert!(good, "stage {stage}:\n{console}");
    }
}

/// `kernel` and some of `conformance`; with `BOXSHIP_VM=all` the whole of both, which takes minutes.
#[test]
fn the_runtimes_own_suites_pass_with_cgroup_v2_only() {
    let Some(machine) = Machine::new("suites") else { return };
    let stage = if std::env::var("BOXSHIP_VM").is_ok_and(|which| which == "all") { "all" } else { "suites" };
    let console = machine.boot(stage);
    let counts: Vec<&str> = console.lines().filter(|line| line.contains(" passed, ")).collect();
    // for whoever adds up what was run
    counts.iter().for_each(|line| println!("{line}"));
    let good = counts.len() == 2 && counts.iter().all(|line| line.ends_with(" passed, 0 failed, 0 skipped"));
    assert!(good && console.contains(&format!("tester: end of {stage}")), "{console}");
}
