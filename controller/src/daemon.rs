//! The controller process: opens what the rooms need, starts the loop, the API and the followers, and ends well.
//!
//! Ending or dying, it takes nothing with it: containers, names, ports and logs belong to the other processes.

mod follow;
mod scrub;
mod tend;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtime::error::chain;
use runtime::image::StoreOptions;
use runtime::layout::{Layout, make_private_dir};
use runtime::linux::{Alone, LinuxOptions};
use runtime::{LinuxRuntime, Runtime, clock};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::api::server::{Api, publish, serve};
use crate::api::types::{Notice, Status};
use crate::execute::Executor;
use crate::memory::Memory;
use crate::model::{ObjectKey, ObservedContainer};
use crate::probe::Probes;
use crate::reconcile::{Planner, Reconciler, View};
use crate::secret::{Keyring, Makes};
use crate::sources::Sources;
use crate::store::{Opened, SledStore, StateStore, StoreError};

/// Threads that may block at once: every stop under way, pulls, work, execs and followed logs.
const BLOCKING_THREADS_MAX: usize = 512;

/// How long a start waits for the supervisor, which the keeper starts at the same time.
const SUPERVISOR_WAIT_MS: u64 = 10_000;
const SUPERVISOR_TRY_EVERY: Duration = Duration::from_millis(20);

/// How a controller is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where things are.
    pub layout: Layout,
    /// A directory of manifests to follow, absolute.
    pub manifests: Option<PathBuf>,
    /// How images are fetched and kept.
    pub images: StoreOptions,
    /// The key of secrets; made when it is first needed.
    pub secret_key: PathBuf,
    /// Within this time each layer of the image store is looked at again; zero: none is.
    pub scrub_every: Duration,
    /// The parent is the keeper: a shutdown ends it too.
    pub kept: bool,
}

impl Options {
    fn keyring(&self) -> Arc<Keyring> {
        Arc::new(Keyring::new(self.secret_key.clone(), Makes::File))
    }
}

/// Why the controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another one runs, or a newer one ran.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data root, the run directory or the supervisor cannot be used.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// Its own set-up failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// Runs the controller of a data root until SIGTERM, SIGINT or a shutdown over its socket.
///
/// # Errors
/// [`DaemonError`], before anything was changed.
pub fn run(options: Options) -> Result<(), DaemonError> {
    log_to_stderr();
    make_private_dir(&options.layout.data_root)?;
    make_private_dir(&options.layout.run_dir)?;
    let store = SledStore::open(&options.layout.state_dir())?;
    match store.opened() {
        Opened::Fresh | Opened::Existing => {}
        Opened::WithoutSnapshots { why } => tracing::warn!(why, "the state database was repaired"),
        Opened::Rebuilt { why, moved_to } => {
            tracing::error!(why, moved_to = %moved_to.display(), "the state database was unusable and is rebuilt");
        }
        Opened::NotPersisted { why } => tracing::error!(why, "state is not persisted; planning goes on"),
    }
    let _alone = Alone::wait(&options.layout, "the controller")?;
    let linux_options = LinuxOptions { images: options.images.clone(), secrets: Some(options.keyring()) };
    let linux = Arc::new(LinuxRuntime::open(&options.layout, linux_options)?);
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Io { doing: "start threads".to_owned(), source })?;
    let ended = tokio.block_on(live(options, linux, Arc::new(store)));
    // Stops and pulls under way are not waited for: the supervisor ends the former, the store resumes the latter.
    tokio.shutdown_background();
    ended
}

/// What any of the long-lived processes has to say goes to standard error. `BOXSHIP_LOG` filters as in `tracing_subscriber`'s
/// `EnvFilter`; default `info`. A standard error that takes nothing, as on a full disk, ends nobody.
pub(crate) fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BOXSHIP_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A process that has a subscriber already keeps it.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let _ = log.log_internal_errors(false).try_init();
}

/// Starts everything on a runtime and goes on until the end. Tests hand in their own runtime and planner.
async fn live(options: Options, runtime: Arc<LinuxRuntime>, store: Arc<dyn StateStore>) -> Result<(), DaemonError> {
    let boot_id = options.layout.boot_id()?;
    let memory = Arc::new(Memory::open(store, &boot_id));
    let owners = first_owners(&runtime).await?;
    let linux = Arc::clone(&runtime);
    let _ = tokio::task::spawn_blocking(move || housekeeping(&linux)).await;
    let linux = Arc::clone(&runtime);
    let images = Some(Arc::clone(&runtime));
    let parts = Parts::start(&options, runtime, images, Arc::clone(&memory), crate::plan::plan, owners)?;
    tracing::info!(data_root = %options.layout.data_root.display(), "the controller runs");
    notify_ready();
    let asked = wait_for_end(&parts.shutdown).await;
    parts.end(&options).await;
    if let Err(error) = linux.images().mark_clean() {
        tracing::warn!(error = %chain(&error), "the next boot will verify what this one pulled");
    }
    if asked && options.kept {
        // The keeper is our parent and ends the other two; its death would have ended us.
        let keeper = nix::unistd::getppid();
        let looked = Arc::clone(&linux);
        let needed = tokio::task::spawn_blocking(move || crate::hand::is_any_live(&looked)).await;
        if needed.unwrap_or(false) {
            return Ok(runtime::keeper::dismiss_controller(keeper.as_raw())?);
        }
        if let Err(error) = nix::sys::signal::kill(keeper, nix::sys::signal::Signal::SIGTERM) {
            tracing::error!(%error, %keeper, "the keeper could not be told to end");
        }
    }
    Ok(())
}

/// What goes on until the end.
pub(crate) struct Parts {
    memory: Arc<Memory>,
    stop: watch::Sender<bool>,
    pub(crate) shutdown: Arc<Notify>,
    reconciling: tokio::task::JoinHandle<()>,
}

impl Parts {
    /// Starts the loop, the API and the followers. `linux` serves images; tests with another runtime have none.
    pub(crate) fn start(
        options: &Options,
        runtime: Arc<dyn Runtime>,
        linux: Option<Arc<LinuxRuntime>>,
        memory: Arc<Memory>,
        planner: Planner,
        owners: BTreeSet<ObjectKey>,
    ) -> Result<Self, DaemonError> {
        let accepted = options.layout.state_dir().join("accepted.json");
        let sources = Arc::new(Sources::open(accepted, Arc::clone(&memory), planner, owners, options.keyring()));
        let (stop, stopped) = watch::channel(false);
        let (bell, shutdown) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let executor = Executor::new(Arc::clone(&runtime), Arc::clone(&memory), Arc::clone(&bell));
        let probes = Probes::new(Arc::clone(&runtime), Arc::clone(&memory), Arc::clone(&bell));
        let (views, seen) = watch::channel(Arc::new(View::default()));
        let (found, findings) = watch::channel(Arc::new(Vec::new()));
        let (pages, page) = watch::channel(Arc::new(Status::default()));
        read_manifests(&sources, options.manifests.as_deref());
        let socket = listen(&options.layout.socket("controller"))?;
        if let Some(linux) = &linux {
            let boot_id = options.layout.boot_id()?;
            scrub::scrub(Arc::clone(linux), Arc::clone(&memory), options.scrub_every, &boot_id, stopped.clone());
        }
        follow::follow(Arc::clone(&sources), stopped.clone());
        if let Some(linux) = &linux {
            crate::hand::tend(Arc::clone(linux), stopped.clone());
        }
        follow::watch_runtime(Arc::clone(&runtime), Arc::clone(&bell));
        tend::tend(Arc::clone(&runtime), seen.clone(), found, stopped.clone());
        tokio::spawn(publish(
            seen.clone(),
            Arc::clone(&sources),
            Arc::clone(&memory),
            Arc::clone(&executor),
            Arc::clone(&probes),
            findings,
            pages,
        ));
        let reconciler = Reconciler {
            runtime: Arc::clone(&runtime),
            memory: Arc::clone(&memory),
            executor: Arc::clone(&executor),
            probes: Arc::clone(&probes),
            bell: Arc::clone(&bell),
            desired: sources.desired(),
            planner,
            views,
        };
        let reconciling = tokio::spawn(reconciler.run(stopped.clone()));
        let api = Api {
            layout: options.layout.clone(),
            runtime,
            linux,
            memory: Arc::clone(&memory),
            executor,
            probes,
            views: seen,
            status: page,
            sources,
            bell,
            shutdown: Arc::clone(&shutdown),
        };
        tokio::spawn(serve(Arc::new(api), socket, stopped));
        Ok(Self { memory, stop, shutdown, reconciling })
    }

    /// Ends the loop and writes a checkpoint.
    async fn end(self, options: &Options) {
        tracing::info!("the controller ends; containers go on");
        self.stop.send_replace(true);
        let _ = tokio::time::timeout(Duration::from_secs(2), self.reconciling).await;
        let _ = std::fs::remove_file(options.layout.socket("controller"));
        let memory = self.memory;
        let _ = tokio::task::spawn_blocking(move || memory.close()).await;
    }
}

/// Before the first plan, so that it is made from what the directory says now.
fn read_manifests(sources: &Sources, manifests: Option<&Path>) {
    if let Some(path) = manifests {
        let applied = sources.follow_now(path);
        for problem in applied.diagnostics {
            tracing::warn!("{problem}");
        }
        for Notice { code, message, help } in applied.notices {
            tracing::warn!(help, "[{code}] {message}");
        }
    }
    for followed in sources.followed() {
        tracing::info!(path = %followed.path.display(), "follows");
    }
}

/// Objects that have containers now. Waits for the supervisor: before it answers, nothing can be known.
async fn first_owners(runtime: &Arc<LinuxRuntime>) -> Result<BTreeSet<ObjectKey>, DaemonError> {
    let deadline = clock::boot_ms() + SUPERVISOR_WAIT_MS;
    loop {
        let linux = Arc::clone(runtime);
        let listed = tokio::task::spawn_blocking(move || linux.list_containers()).await;
        match listed {
            Ok(Ok(containers)) => {
                let ours = containers.iter().filter_map(|info| ObservedContainer::from_config(&info.config));
                return Ok(ours.map(|container| container.replica.workload).collect());
            }
            Ok(Err(error)) if clock::boot_ms() >= deadline => return Err(error.into()),
            Ok(Err(error)) => tracing::debug!(error = chain(&error), "waiting for the supervisor"),
            Err(panic) => tracing::error!(%panic, "listing containers broke"),
        }
        tokio::time::sleep(SUPERVISOR_TRY_EVERY).await;
    }
}

/// Deletes what no record names any more: interfaces and cgroups of containers that are gone, layers a crash left.
fn housekeeping(runtime: &LinuxRuntime) {
    tend::once(runtime);
    if let Err(error) = runtime.collect_images() {
        tracing::warn!(error = chain(&error), "left-over layers could not be collected");
    }
}

/// Makes the socket: mode 0660, so that its group may be given away; the directory around it stays private.
fn listen(path: &Path) -> Result<UnixListener, DaemonError> {
    let doing = |doing: &str, source| DaemonError::Io { doing: format!("{doing} {}", path.display()), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(doing("remove the old", error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(|e| doing("listen on", e))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(|e| doing("chmod", e))?;
    Ok(listener)
}

/// Whether the end was asked for over the socket rather than by a signal.
async fn wait_for_end(shutdown: &Notify) -> bool {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        shutdown.notified().await;
        return true;
    };
    tokio::select! {
        _ = term.recv() => false,
        _ = int.recv() => false,
        () = shutdown.notified() => true,
    }
}

/// Tells systemd (sd_notify(3)), when it started us and asked for it.
pub(crate) fn notify_ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = std::os::unix::net::UnixDatagram::unbound().and_then(|socket| socket.send_to(b"READY=1", path));
    if let Err(error) = told {
        tracing::debug!(%error, "systemd could not be told");
    }
}
