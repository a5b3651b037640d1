//! The README's first command, and each of its checks seen failing when what it looks at is broken on purpose.

use std::time::Duration;

use crate::lab::Lab;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[
    // the demo looks for leftovers on the whole host: nothing may come and go beside it
    Scenario { alone: true, ..demo("the_demo_proves_itself_and_leaves_nothing", demo_passes) },
    demo("the_demo_notices_when_it_does_not_converge", |lab| sabotage(lab, "converge", "3 replicas")),
    demo("the_demo_notices_when_a_killed_replica_stays_dead", |lab| sabotage(lab, "kill", "kill -9")),
    demo("the_demo_notices_when_nothing_rolls_out", |lab| sabotage(lab, "roll", "new image rolls")),
    demo("the_demo_notices_when_a_broken_image_takes_all_down", |lab| sabotage(lab, "broken", "broken image")),
    demo("the_demo_notices_when_removed_containers_stay", |lab| sabotage(lab, "remove", "removed manifest")),
    demo("the_demo_notices_what_is_left_behind", |lab| sabotage(lab, "leftovers", "left behind")),
];

/// A scenario that needs namespaces of its own but no images.
const fn demo(name: &'static str, run: fn(&mut Lab) -> Result) -> Scenario {
    Scenario { name, run, images: false, root: true, alone: false, limit_secs: 150 }
}

fn demo_passes(lab: &mut Lab) -> Result {
    let said = lab.ok(&["demo"])?;
    println!("{said}");
    ensure!(!said.contains('✘'), "a check failed: {said}");
    crate::wait::wait_for("nothing is left", Duration::from_secs(5), || lab.nothing_is_left())?;
    Ok(())
}

/// Breaks what one check looks at; that check has to fail, and with it the demo.
fn sabotage(lab: &Lab, what: &str, check: &str) -> Result {
    let output = lab.boxship(&["demo", "--sabotage", what]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let failed = said.lines().any(|line| line.contains('✘') && line.contains(check));
    ensure!(failed, "`{check}` did not fail: {said}");
    ensure!(!output.status.success(), "the demo called that a success: {said}");
    Ok(())
}
