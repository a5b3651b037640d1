//! Who does what is asked about images: the controller of the data root where one runs, else this process, which then
//! holds the data root alone.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use runtime::LinuxRuntime;
use runtime::clock::boot_ms;
use runtime::image::Digest;
use runtime::linux::{Alone, LinuxOptions};
use runtime::runtime::{PullPhase, PullProgress};

use crate::api::client::ClientError;
use crate::api::copy::{CopyAnswer, CopyRequest, copy};
use crate::api::images::{self, Declared, ImageAnswer, ImageLine, ImageRequest, SaveRequest};
use crate::api::look::{LookAnswer, LookRequest, look};
use crate::api::types::{ImageView, Status};
use crate::cli::context::{Context, Failure};
use crate::cli::copy::{Input, Output};
use crate::cli::require_root;

/// How long another process may hold the data root before this one gives up.
const WAIT_MS_MAX: u64 = 15_000;
/// How often is looked again: a lock wakes nobody who also waits for a socket.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// Somebody who does it.
pub(in crate::cli) enum Desk<'a> {
    /// The controller.
    Controller(&'a Context),
    /// We ourselves.
    Here {
        /// Opened by us.
        linux: Box<LinuxRuntime>,
        /// Ours as long as this lives.
        _alone: Alone,
    },
}

impl<'a> Desk<'a> {
    /// Finds out who it is.
    pub(in crate::cli) async fn open(context: &'a Context) -> Result<Self, Failure> {
        Self::open_as(context, "boxship", "work without a controller").await
    }

    /// Finds out who it is; others are told `who` holds the data root, and without root, what for it is needed.
    pub(in crate::cli) async fn open_as(context: &'a Context, who: &str, purpose: &str) -> Result<Self, Failure> {
        let deadline = boot_ms() + WAIT_MS_MAX;
        loop {
            match context.client.get::<Status>("/v1/status").await {
                Ok(_) => return Ok(Self::Controller(context)),
                Err(ClientError::NotRunning { .. }) => {}
                Err(other) => return Err(other.into()),
            }
            require_root(purpose)?;
            match Alone::try_take(&context.layout, who)? {
                Ok(alone) => {
                    let options = LinuxOptions { images: context.place.store_options(), ..LinuxOptions::default() };
                    let linux = Box::new(LinuxRuntime::open(&context.layout, options)?);
                    return Ok(Self::Here { linux, _alone: alone });
                }
                // a controller that starts has the lock before it has a socket
                Err(_) if boot_ms() < deadline => tokio::time::sleep(TRY_EVERY).await,
                Err(holder) => {
                    let root = context.layout.data_root.display();
                    let message = format!("{root} is in use by {holder}; nothing was done");
                    return Err(Failure::new("BX0904", message, Some("boxship get")));
                }
            }
        }
    }

    /// Does it, with a bar while layers move.
    pub(in crate::cli) async fn ask(&self, request: &ImageRequest) -> Result<ImageAnswer, Failure> {
        let bars = Bars::default();
        let answer = match self {
            Self::Controller(context) => ask_controller(context, request, &bars).await,
            Self::Here { linux, .. } => {
                images::perform(linux, &Declared::default(), request, &bars).map_err(Failure::from)
            }
        };
        bars.bar.finish_and_clear();
        answer
    }

    /// Does the container's side of a copy: an archive goes in from `input`, or comes out to `out`.
    pub(in crate::cli) async fn copy(
        &self,
        request: &CopyRequest,
        mut input: Input,
        out: Output<'_>,
    ) -> Result<CopyAnswer, Failure> {
        match self {
            Self::Controller(context) => super::super::copy::by_controller(context, request, input, out).await,
            Self::Here { linux, .. } => Ok(copy(linux, request, &mut *input, out)?),
        }
    }

    /// Looks into containers.
    pub(in crate::cli) async fn look(&self, request: &LookRequest) -> Result<LookAnswer, Failure> {
        match self {
            Self::Controller(context) => Ok(context.client.post("/v1/look", request).await?),
            Self::Here { linux, .. } => Ok(look(linux, request)?),
        }
    }

    /// Writes images as one archive.
    pub(in crate::cli) async fn save(&self, request: &SaveRequest, out: &mut dyn Write) -> Result<(), Failure> {
        match self {
            Self::Controller(context) => {
                Ok(context.client.download("/v1/images/save", request, |bytes| out.write_all(bytes)).await?)
            }
            Self::Here { linux, .. } => {
                let chosen = images::to_save(linux, &request.names)?;
                Ok(linux.images().save(&chosen, request.format, out)?)
            }
        }
    }

    /// Every image.
    pub(in crate::cli) async fn list(&self) -> Result<Vec<ImageView>, Failure> {
        match self {
            Self::Controller(context) => Ok(context.client.get("/v1/images").await?),
            Self::Here { linux, .. } => Ok(images::list(linux, |_| Vec::new())?),
        }
    }

    /// Whether manifests were accepted here, which only a controller can read: what they need cannot be told from what
    /// nobody needs.
    pub(in crate::cli) fn is_blind(&self, context: &Context) -> bool {
        matches!(self, Self::Here { .. }) && context.layout.state_dir().join("accepted.json").exists()
    }
}

async fn ask_controller(context: &Context, request: &ImageRequest, bars: &Bars) -> Result<ImageAnswer, Failure> {
    let mut outcome = None;
    let each = |line: ImageLine| {
        match line {
            ImageLine::Layer(layer) => bars.layer(&layer.digest, layer.phase, layer.done_bytes, layer.total_bytes),
            ImageLine::Done(answer) => outcome = Some(Ok(*answer)),
            ImageLine::Failed(error) => outcome = Some(Err(Failure::Other(error))),
        }
        true
    };
    context.client.post_lines("/v1/images", request, each).await?;
    let broke_off = || Failure::new("BX0902", "the controller's answer broke off", Some("boxship image ls"));
    outcome.ok_or_else(broke_off)?
}

/// One bar for all layers.
struct Bars {
    bar: ProgressBar,
    layers: Mutex<BTreeMap<Digest, (u64, u64)>>,
}

impl Default for Bars {
    fn default() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("  {bar:20}  {bytes}/{total_bytes}  {bytes_per_sec}") {
            bar.set_style(style);
        }
        Self { bar, layers: Mutex::default() }
    }
}

impl PullProgress for Bars {
    fn layer(&self, digest: &Digest, _: PullPhase, done_bytes: u64, total_bytes: u64) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.insert(digest.clone(), (done_bytes, total_bytes));
        self.bar.set_length(layers.values().map(|(_, total)| total).sum());
        self.bar.set_position(layers.values().map(|(done, _)| done).sum());
    }
}
