//! `demo`: boxship at work on an image made from this very binary, and the proof.
//!
//! Needs no registry, no configuration, no systemd. It writes manifests into a directory of its own, lets a controller
//! follow them, and then checks what came of it in the kernel (`/proc`, links, cgroups, mounts) and on the wire (HTTP),
//! never by asking boxship itself. With `--sabotage` it breaks what one check looks at, so that a test can see it fail.

mod guest;
mod images;
mod load;
mod manifests;
mod stage;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use runtime::clock::boot_ms;

use crate::cli::args::{DemoArgs, Sabotage};
use crate::cli::format::{BOLD, GREEN, RED, secs};
use crate::cli::{Context, Failure};
use load::Load;
use stage::Stage;

pub(crate) use guest::run as guest;

/// Runs the demo and prints what was checked.
pub(crate) async fn run(context: &Context, args: &DemoArgs) -> Result<ExitCode, Failure> {
    crate::cli::require_root("run the demo")?;
    let stage = Stage::set(context, args.sabotage)?;
    let mut score = Score::default();
    let played = play(&stage, args, &mut score).await;
    let kept = args.keep && played.is_ok();
    if kept {
        anstream::println!("Left running in {}: boxship {} get", stage.dir().display(), stage.place_flags());
    } else {
        score.add("nothing is left behind", stage.strike().await);
    }
    played?;
    Ok(score.print())
}

async fn play(stage: &Stage, args: &DemoArgs, score: &mut Score) -> Result<(), Failure> {
    let began = boot_ms();
    stage.build_images()?;
    say("Building", &format!("localhost/demo:1 :2 :bad from this binary   {}", since(began)));
    let replicas = if args.sabotage == Some(Sabotage::Converge) { 2 } else { 3 };
    stage.write_web("1", replicas)?;
    stage.write_job()?;
    let opened = boot_ms();
    stage.open().await?;
    let converged = stage.converged("1", 3);
    stage.measured(Duration::from_millis(boot_ms() - opened));
    if converged.is_ok() {
        say("Starting", &format!("3 web replicas and a job   {}   http://127.0.0.1:{}", since(began), stage.port()));
    }
    score.add("3 replicas in namespaces of their own answer; the job wrote its file", converged);
    anstream::println!("\nNow watch it hold the line:");
    score.add("kill -9 of a replica is repaired", killed(stage, args.sabotage));
    score.add("a new image rolls out under load", rolled(stage, args.sabotage)?);
    score.add("a broken image takes nothing down", broke(stage, args.sabotage)?);
    score.add("a removed manifest removes its containers", removed(stage, args.sabotage)?);
    if args.keep {
        stage.write_web("2", 3)?;
        score.add("the manifest is back, and so are its containers", stage.converged("2", 3));
    }
    Ok(())
}

fn killed(stage: &Stage, sabotage: Option<Sabotage>) -> Result<String, String> {
    let _frozen = (sabotage == Some(Sabotage::Kill)).then(|| stage.freeze("controller"));
    let victim = stage.guest("web-2")?;
    let began = boot_ms();
    victim.kill()?;
    stage.converged("1", 3)?;
    if victim.is_alive() {
        return Err(format!("pid {} survived SIGKILL", victim.pid));
    }
    Ok(format!("web-2 (pid {}) replaced, ready again in {}", victim.pid, since(began)))
}

fn rolled(stage: &Stage, sabotage: Option<Sabotage>) -> Result<Result<String, String>, Failure> {
    let _frozen = (sabotage == Some(Sabotage::Roll)).then(|| stage.freeze("controller"));
    let load = Load::start(stage.port());
    let began = boot_ms();
    stage.write_web("2", 3)?;
    let converged = stage.converged("2", 3);
    let took = since(began);
    let count = load.stop();
    Ok(converged
        .and_then(|_| count.none_failed())
        .map(|count| format!("demo:1 -> demo:2 rolled 3/3 in {took}, {count}")))
}

fn broke(stage: &Stage, sabotage: Option<Sabotage>) -> Result<Result<String, String>, Failure> {
    let load = Load::start(stage.port());
    let frozen = (sabotage == Some(Sabotage::Broken)).then(|| stage.freeze("switchboard"));
    let began = boot_ms();
    stage.write_web("bad", 3)?;
    let tried = stage.tried_and_undone("2", 3);
    let took = since(began);
    let count = load.stop();
    drop(frozen);
    Ok(tried.and_then(|_| count.none_failed()).map(|count| format!("demo:bad tried and undone in {took}, {count}")))
}

fn removed(stage: &Stage, sabotage: Option<Sabotage>) -> Result<Result<String, String>, Failure> {
    let _frozen = (sabotage == Some(Sabotage::Remove)).then(|| stage.freeze("controller"));
    let began = boot_ms();
    stage.remove_web()?;
    Ok(stage.gone().map(|()| format!("web.yaml removed: 3 containers and the port gone in {}", since(began))))
}

fn since(began: u64) -> String {
    secs(Duration::from_millis(boot_ms() - began))
}

fn say(verb: &str, what: &str) {
    anstream::println!("{BOLD}{verb:>10}{BOLD:#}  {what}");
}

/// Checks passed and failed.
#[derive(Debug, Default)]
struct Score {
    passed: u32,
    failed: u32,
}

impl Score {
    fn add(&mut self, check: &str, outcome: Result<String, String>) {
        match outcome {
            Ok(seen) => {
                self.passed += 1;
                anstream::println!("  {GREEN}✔{GREEN:#} {check}: {seen}");
            }
            Err(why) => {
                self.failed += 1;
                anstream::println!("  {RED}✘ {check}{RED:#}: {why}");
            }
        }
    }

    fn print(&self) -> ExitCode {
        let all = self.passed + self.failed;
        anstream::println!("Demo passed {} of {all} checks.", self.passed);
        if self.failed > 0 {
            return ExitCode::FAILURE;
        }
        anstream::println!("Next: write a manifest and `boxship up DIR`; examples/ has some.");
        ExitCode::SUCCESS
    }
}
