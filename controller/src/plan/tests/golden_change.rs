//! What people read of a plan, object by object; and the seal that holds it to what was read.

use expect_test::{Expect, expect};

use super::world::*;
use crate::model::{DesiredState, EnvValue, Kind, ObservedState, Workload};
use crate::plan::change::{Change, changes};
use crate::plan::{plan, seal};

fn check(before: &DesiredState, wanted: &DesiredState, observed: &ObservedState, want: Expect) {
    let plan = plan(wanted, observed);
    let lines: String = changes(before, wanted, observed, &plan).iter().map(line).collect();
    want.assert_eq(&lines);
}

fn line(change: &Change) -> String {
    let mut out = format!("{} {:?} {:?} {:?}\n", change.object, change.effect, change.interruption, change.reasons);
    for field in &change.fields {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let hidden = if field.hidden { " hidden" } else { "" };
        let line =
            format!("  {}: {} → {}{hidden} {}\n", field.field, value(&field.old), value(&field.new), field.place);
        out.push_str(&line);
    }
    change.pulls.iter().for_each(|reference| out.push_str(&format!("  pull {reference}\n")));
    out
}

fn one(app: Workload) -> DesiredState {
    desire(app)
}

#[test]
fn a_new_tag_rolls_and_names_what_it_pulls() {
    let before = one(web(3, "1"));
    let observed = settled(&before, host(&["1"]));
    check(
        &before,
        &one(web(3, "2")),
        &observed,
        expect![[r#"
        shop/app/web Rolling { replicas: 3, surge: 1 } None {"Missing"}
          image: registry.example/shop/web:1 → registry.example/shop/web:2 shop/web.yaml:4:1
          pull registry.example/shop/web:2
    "#]],
    );
}

#[test]
fn limits_and_replicas_change_in_place() {
    let before = one(web(2, "1"));
    let observed = settled(&before, host(&["1"]));
    let mut app = web(2, "1");
    app.template.resources.memory_bytes = Some(64 << 20);
    check(
        &before,
        &one(app),
        &observed,
        expect![[r#"
        shop/app/web InPlace None {"LimitsChanged"}
          resources.memory: - → 67108864 bytes shop/web.yaml:1:1
    "#]],
    );
    check(
        &before,
        &one(web(4, "1")),
        &observed,
        expect![[r#"
        shop/app/web Scale { from: 2, to: 4 } None {"Missing"}
          replicas: 2 → 4 shop/web.yaml:1:1
    "#]],
    );
    check(&before, &before, &observed, expect![[""]]);
}

#[test]
fn values_of_the_environment_are_never_told() {
    let before = one(web(1, "1"));
    let observed = settled(&before, host(&["1"]));
    let mut app = web(1, "1");
    app.template.env.insert("TOKEN".to_owned(), EnvValue::Plain("s3cret".to_owned()));
    check(
        &before,
        &one(app),
        &observed,
        expect![[r#"
        shop/app/web Rolling { replicas: 1, surge: 1 } None {"NewRevision", "TemplateChanged"}
          env.TOKEN: - → - hidden shop/web.yaml:1:1
    "#]],
    );
}

#[test]
fn what_has_one_writer_is_interrupted() {
    let state = |tag: &str| {
        let mut app = web(1, tag);
        app.exclusive = true;
        app.template.mounts.push(volume_mount("data"));
        let mut desired = desire(app);
        desired.volumes.insert(key(Kind::Volume, "data"), single(9));
        desired
    };
    let observed = settled(&state("1"), host(&["1", "2"]));
    check(
        &state("1"),
        &state("2"),
        &observed,
        expect![[r#"
        shop/app/web Replace { replicas: 1 } Gap { stop_ms_max: 20000 } {"NewRevision", "TemplateChanged"}
          image: registry.example/shop/web:1 → registry.example/shop/web:2 shop/web.yaml:4:1
    "#]],
    );
    check(
        &state("1"),
        &DesiredState::default(),
        &observed,
        expect![[r#"
        shop/app/web Remove None {"Undeclared"}
        shop/volume/data Forget None {}
    "#]],
    );
}

#[test]
fn a_seal_holds_until_something_moves_and_then_says_what() {
    let mut observed = settled(&one(web(2, "1")), host(&["1", "2"]));
    let wanted = one(web(2, "2"));
    let shown = seal(&wanted, &plan(&wanted, &observed));
    observed.now_boot_ms += 5_000;
    observed.now_unix_ms += 5_000;
    let mut moved_lines = wanted.clone();
    moved_lines.workloads.values_mut().for_each(|app| app.source.line += 7);
    let later = seal(&moved_lines, &plan(&moved_lines, &observed));
    assert_eq!(shown, later, "neither time nor a line further down is a change");
    end(observed.containers.values_mut().next().unwrap(), observed.now_boot_ms - 60_000, 1);
    let moved = shown.moved(&seal(&wanted, &plan(&wanted, &observed)));
    expect![[r#"
        now also to be done: shop/app/web: create shop-web-1-737098 (Exited)
        now also to be done: shop/app/web: start shop-web-1-737098 (Exited)"#]]
    .assert_eq(&moved.join("\n"));
    let other = one(web(2, "1"));
    let moved = shown.moved(&seal(&other, &plan(&other, &observed)));
    assert_eq!(moved[0], "the manifests say something else");
}
