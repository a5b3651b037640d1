//! Plans that are read first and then carried out, exactly or not at all.

use std::time::Duration;

use super::converge::{EXTRA_CONF, web};
use super::on_images;
use crate::lab::Lab;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] =
    &[on_images("a_plan_is_carried_out_as_read_or_not_at_all", 150, a_plan_is_carried_out_as_read)];

fn a_plan_is_carried_out_as_read(lab: &mut Lab) -> Result {
    let dir = lab.manifests.to_string_lossy().into_owned();
    lab.write("extra.conf", EXTRA_CONF)?;
    lab.write("web.yaml", &web(lab, "1", 2, ""))?;
    lab.up()?;
    lab.ready("app/web", 2, Duration::from_secs(60))?;
    lab.write("web.yaml", &web(lab, "2", 2, "env: {TOKEN: s3cret-of-plan}\n"))?;
    let text = lab.ok(&["plan", &dir])?;
    let says =
        |what: &str| text.contains(what).then_some(()).ok_or_else(|| format!("no {what:?} in the plan:\n{text}"));
    for what in ["rolling over 2", "image:", "→", "web.yaml:", "to fetch in", "env.TOKEN", "--plan-hash "] {
        says(what)?;
    }
    ensure!(!text.contains("s3cret-of-plan"), "the plan tells a value of the environment:\n{text}");
    let hash = text.rsplit("--plan-hash ").next().map(str::trim).unwrap_or_default().to_owned();
    // the same question has the same answer
    let again = lab.ok(&["plan", &dir])?;
    ensure!(again.contains(&hash), "asked again, the plan is another:\n{text}\n{again}");
    // the world moves: somebody edits the manifest
    let before = lab.pids("app/web")?;
    lab.write("web.yaml", &web(lab, "2", 3, "env: {TOKEN: s3cret-of-plan}\n"))?;
    let refused = lab.boxship(&["up", &dir, "--plan-hash", &hash]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success(), "a plan of other manifests was carried out");
    ensure!(said.contains("BX0603") && said.contains("the manifests say something else"), "refused with: {said}");
    ensure!(lab.pids("app/web")? == before, "a refused plan changed what runs");
    // as it was read, it is done
    lab.write("web.yaml", &web(lab, "2", 2, "env: {TOKEN: s3cret-of-plan}\n"))?;
    lab.ok(&["apply", &dir, "--plan-hash", &hash])?;
    ensure!(crate::http::get(8080, "/")?.body == "nginx 2\n", "the new tag does not answer");
    let settled = lab.ok(&["plan", &dir])?;
    ensure!(settled.contains("Plan: 1 same"), "after it, nothing is to be done: {settled}");
    Ok(())
}
