//! The README's first command, and each of its checks seen failing when what it looks at is broken on purpose.

use std::time::Duration;

use crate::lab::Lab;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "the_demo_proves_itself_and_leaves_nothing",
        run: demo_passes,
        images: false,
        root: true,
        alone: true,
        limit_secs: 120,
    },
    Scenario {
        name: "each_check_of_the_demo_fails_when_sabotaged",
        run: sabotage,
        images: false,
        root: true,
        alone: true,
        limit_secs: 400,
    },
];

fn demo_passes(lab: &mut Lab) -> Result {
    let said = lab.ok(&["demo"])?;
    println!("{said}");
    ensure!(!said.contains('✘'), "a check failed: {said}");
    crate::wait::wait_for("nothing is left", Duration::from_secs(5), || lab.nothing_is_left())?;
    Ok(())
}

/// The check that has to fail, by what is broken.
const SABOTAGES: &[(&str, &str)] = &[
    ("converge", "3 replicas"),
    ("kill", "kill -9"),
    ("roll", "new image rolls"),
    ("broken", "broken image"),
    ("remove", "removed manifest"),
    ("leftovers", "left behind"),
];

fn sabotage(lab: &mut Lab) -> Result {
    let mut complaints = Vec::new();
    for (what, check) in SABOTAGES {
        let output = lab.boxship(&["demo", "--sabotage", what]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        println!("--- sabotage {what}: {}\n{said}", output.status);
        let failed = said.lines().any(|line| line.contains('✘') && line.contains(check));
        if output.status.success() || !failed {
            complaints.push(format!("--sabotage {what}: `{check}` did not fail ({})", output.status));
        }
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("; "));
    Ok(())
}
