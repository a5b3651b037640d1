//! Where images come from under a controller: policies of pulling, tags that hands and registries move, earlier digests
//! for an undo without a network, signatures that are missing.

use std::time::Duration;

use super::look::idle;
use super::on_images;
use crate::http;
use crate::lab::Lab;
use crate::wait::{holds_for, wait_for};
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[
    on_images("pull_policy_never_waits_and_a_tag_moved_by_hand_replaces_nothing", 120, policies),
    on_images("kept_digests_are_gone_back_to_with_the_registry_off", 180, kept),
    on_images("an_unsigned_image_keeps_the_old_digest_running_and_says_so", 180, unsigned),
];

const LIMIT: Duration = Duration::from_secs(60);

/// Its message holds these words.
fn says(lab: &Lab, key: &str, words: &[&str]) -> Result {
    wait_for(&format!("{key} says {words:?}"), LIMIT, || {
        let object = lab.object(key)?;
        let message = object["message"].as_str().unwrap_or_default();
        ensure!(words.iter().all(|word| message.contains(word)), "{object}");
        Ok(())
    })?;
    Ok(())
}

fn policies(lab: &mut Lab) -> Result {
    let busybox = lab.image("busybox:1");
    lab.ok(&["image", "pull", &busybox])?;
    lab.ok(&["image", "tag", &busybox, "mine:1"])?;
    let absent = lab.image("busybox:absent");
    lab.registry().retag("busybox", "1", "absent")?;
    lab.write("mine.yaml", &idle("mine", "mine:1", 1))?;
    lab.write("absent.yaml", &format!("{}pullPolicy: never\n", idle("absent", &absent, 1)))?;
    lab.start_controller()?;
    lab.ready("app/mine", 1, LIMIT)?;
    // the registry has it, and nobody fetches it
    says(lab, "app/absent", &["is not here", "pullPolicy: never", &format!("boxship image pull {absent}")])?;
    ensure!(!lab.ok(&["image", "ls"])?.contains("absent"), "it was pulled");
    lab.ok(&["image", "tag", &busybox, &absent])?;
    lab.ready("app/absent", 1, LIMIT)?;

    // a hand moves the tag: what runs was resolved before that
    let before = lab.pids("app/mine")?;
    lab.ok(&["exec", "mine", "--", "/bin/busybox", "touch", "/marker"])?;
    lab.ok(&["commit", "mine-1", "mine:1"])?;
    holds_for(Duration::from_secs(2), || {
        ensure!(lab.pids("app/mine")? == before, "a tag moved by hand replaced the container");
        Ok(())
    })?;
    // the next revision takes what the tag means then
    lab.write("mine.yaml", &format!("{}env: {{NEXT: \"1\"}}\n", idle("mine", "mine:1", 1)))?;
    wait_for("the next revision is of the new image", LIMIT, || {
        lab.ok(&["exec", "mine", "--", "/bin/busybox", "stat", "/marker"]).map(drop)
    })?;
    Ok(())
}

/// nginx answers on 8080 what its image holds.
fn web(image: &str) -> String {
    format!(
        "apiVersion: boxship/v1\nkind: Image\nname: live\nref: {image}\nfollow: 2s\nkeep: 2\n---\n\
         apiVersion: boxship/v1\nkind: App\nname: web\nimageFrom: live\n\
         ports: [{{containerPort: 80, publish: \"127.0.0.1:8080\"}}]\n"
    )
}

fn answers(page: &str) -> Result {
    wait_for(&format!("{page:?} is answered"), LIMIT, || {
        let body = http::get(8080, "/")?.body;
        ensure!(body == page, "answers {body:?}");
        Ok(())
    })?;
    Ok(())
}

fn kept(lab: &mut Lab) -> Result {
    lab.registry().retag("nginx", "1", "live")?;
    lab.write("web.yaml", &web(&lab.image("nginx:live")))?;
    lab.up()?;
    answers("nginx 1\n")?;
    lab.registry().retag("nginx", "2", "live")?;
    answers("nginx 2\n")?;
    lab.ready("app/web", 1, LIMIT)?;
    // no container is of the earlier digest any more, and all that is not needed goes
    let run_of_first = || -> Result {
        let listed = lab.ok(&["get", "app/web", "--replicas"])?;
        ensure!(lab.pids("app/web")?.len() == 1, "{listed}");
        Ok(())
    };
    wait_for("one container is left", LIMIT, run_of_first)?;
    lab.ok(&["image", "prune", "--all"])?;
    lab.registry().stop();
    let undone = lab.ok(&["rollout", "undo", "web"])?;
    ensure!(undone.contains("rev 2 -> rev 1"), "{undone}");
    answers("nginx 1\n")?;
    lab.ready("app/web", 1, LIMIT)?;
    Ok(())
}

fn unsigned(lab: &mut Lab) -> Result {
    // what the host says about signatures, in this scenario's own mount namespace
    let policies = std::path::Path::new("/etc/containers");
    ensure!(policies.is_dir(), "podman's or skopeo's {} is not there", policies.display());
    crate::lab::run("mount", &["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/etc/containers"])?;
    let key = lab.registry().signing_key()?;
    let scope = lab.image("nginx").replace(":latest", "");
    let policy = serde_json::json!({"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {
        scope: [{"type": "sigstoreSigned", "keyPath": key, "signedIdentity": {"type": "matchRepository"}}]}}});
    std::fs::write(policies.join("policy.json"), policy.to_string()).map_err(|error| error.to_string())?;
    lab.registry().sign("nginx", "1")?;
    lab.registry().retag("nginx", "1", "live")?;
    lab.write("web.yaml", &web(&lab.image("nginx:live")))?;
    lab.up()?;
    answers("nginx 1\n")?;
    let before = lab.pids("app/web")?;
    // somebody pushes what nobody signed
    lab.registry().retag("nginx", "2", "live")?;
    wait_for("the refusal is told", LIMIT, || {
        let events = lab.ok(&["events"])?;
        ensure!(events.contains("it has no signature"), "{events}");
        let why = lab.ok(&["why", "image/live"])?;
        ensure!(why.contains("it has no signature"), "{why}");
        Ok(())
    })?;
    ensure!(lab.pids("app/web")? == before, "the container was replaced");
    answers("nginx 1\n")?;
    // and once it is signed it comes
    lab.registry().sign("nginx", "2")?;
    answers("nginx 2\n")
}
