//! `image …`: one function a verb.

mod login;

use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::ImageVerb;
use super::context::{Context, Failure};
use super::format::bytes;
use super::table::Table;
use super::up::short;
use crate::api::client::query;
use crate::api::types::{ImageView, PullLine};

pub(super) async fn run(context: &Context, verb: &ImageVerb) -> Result<ExitCode, Failure> {
    match verb {
        ImageVerb::Pull { reference } => pull(context, reference).await,
        ImageVerb::Ls => list(context).await,
        ImageVerb::Rm { references } => remove(context, references).await,
        ImageVerb::Login(args) => login::login(context, args),
        ImageVerb::Logout(args) => login::logout(context, args),
    }
}

async fn pull(context: &Context, reference: &str) -> Result<ExitCode, Failure> {
    super::ensure_running(context).await?;
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("  Pull  {bar:20}  {bytes}/{total_bytes}  {bytes_per_sec}") {
        bar.set_style(style);
    }
    let mut layers = std::collections::BTreeMap::new();
    let mut outcome = None;
    let path = format!("/v1/images/pull?ref={}", query(reference));
    context
        .client
        .lines(hyper::Method::POST, &path, |line: PullLine| {
            match line {
                PullLine::Layer(layer) => {
                    layers.insert(layer.digest.clone(), (layer.done_bytes, layer.total_bytes));
                    bar.set_length(layers.values().map(|(_, total)| total).sum());
                    bar.set_position(layers.values().map(|(done, _)| done).sum());
                }
                PullLine::Done(image) => outcome = Some(Ok(image)),
                PullLine::Failed(error) => outcome = Some(Err(Failure::Other(error))),
            }
            true
        })
        .await?;
    bar.finish_and_clear();
    let broke_off = || Failure::new("BX0902", "the controller's answer broke off", Some("boxship image ls"));
    let image = outcome.ok_or_else(broke_off)??;
    if context.json() {
        context.print_json(&image);
    } else {
        anstream::println!("{reference} {} {}", image.digest, bytes(image.size_bytes));
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(context: &Context) -> Result<ExitCode, Failure> {
    let images: Vec<ImageView> = context.client.get("/v1/images").await?;
    if context.json() {
        context.print_json(&images);
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["IMAGE", "TAG", "DIGEST", "SIZE", "USED BY"]);
    for view in &images {
        let used = view.used_by.iter().map(short).collect::<Vec<_>>().join(",");
        for reference in &view.image.references {
            table.row([
                format!("{}/{}", reference.host(), reference.repository()),
                reference.tag().unwrap_or("<none>").to_owned(),
                view.image.digest.short().to_owned(),
                bytes(view.image.size_bytes),
                used.clone(),
            ]);
        }
    }
    anstream::println!("{}", table.render());
    Ok(ExitCode::SUCCESS)
}

async fn remove(context: &Context, references: &[String]) -> Result<ExitCode, Failure> {
    for reference in references {
        let _: serde_json::Value = context.client.delete(&format!("/v1/images?ref={}", query(reference))).await?;
        anstream::println!("removed {reference}");
    }
    Ok(ExitCode::SUCCESS)
}
