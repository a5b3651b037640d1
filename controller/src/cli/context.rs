//! What every verb needs: where things are, the client, how to print, and how a verb fails.

use std::path::PathBuf;

use runtime::layout::Layout;
use serde::Serialize;

use super::args::{Cli, Output, Place};
use crate::api::client::{Client, ClientError};
use crate::api::types::{ApiError, ObjectStatus, Status};
use crate::model::Kind;

/// The surroundings of one verb.
#[derive(Debug, Clone)]
pub struct Context {
    /// The options as given, to start the daemons with the same.
    pub place: Place,
    /// Where state is.
    pub layout: Layout,
    /// The controller's socket.
    pub client: Client,
}

/// Why a verb failed. Printed once, by `main`.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Talking to the controller failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The manifests have errors; these were printed.
    #[error("{0}")]
    Manifests(String),
    /// `--timeout` was reached.
    #[error("{0}")]
    TimedOut(String),
    /// The command line makes no sense for what is there.
    #[error("{0}")]
    Usage(String),
    /// A program in a container could not be run: the code a shell would give, and why.
    #[error("{}", .1.message)]
    Program(u8, ApiError),
    /// Anything else: code, what, and one command that helps.
    #[error("{}", .0.message)]
    Other(ApiError),
}

impl Failure {
    /// A failure with a stable code and a line of help.
    pub fn new(code: &str, message: impl Into<String>, help: Option<&str>) -> Self {
        Self::Other(ApiError { code: code.to_owned(), message: message.into(), help: help.map(str::to_owned) })
    }

    /// See `cli` for the table.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Manifests(_) => 65,
            Self::Client(ClientError::NotRunning { .. } | ClientError::Denied { .. }) => 69,
            Self::Program(code, _) => *code,
            Self::TimedOut(_) => 124,
            Self::Usage(_) => super::EXIT_USAGE,
            Self::Client(ClientError::Broken(_) | ClientError::Api(_)) | Self::Other(_) => 1,
        }
    }

    /// As it is printed.
    #[must_use]
    pub fn as_api_error(&self) -> ApiError {
        let (code, help) = match self {
            Self::Client(ClientError::Api(error)) | Self::Other(error) => return error.clone(),
            Self::Client(ClientError::NotRunning { .. }) => {
                ("BX0901", Some("boxship up DIR   (starts one)   ·   boxship controller --manifests DIR"))
            }
            Self::Client(ClientError::Denied { .. }) => ("BX0702", Some("sudo boxship …")),
            Self::Program(_, error) => return error.clone(),
            Self::Client(ClientError::Broken(_)) => ("BX0902", Some("boxship get")),
            Self::Manifests(_) => ("BX0100", Some("boxship check")),
            Self::TimedOut(_) => ("BX0602", Some("boxship get   ·   boxship events")),
            Self::Usage(_) => ("BX0903", Some("boxship get")),
        };
        ApiError { code: code.to_owned(), message: self.to_string(), help: help.map(str::to_owned) }
    }
}

impl From<runtime::Error> for Failure {
    fn from(error: runtime::Error) -> Self {
        Self::Other(ApiError::from(&error))
    }
}

impl Context {
    /// From the parsed command line.
    #[must_use]
    pub fn new(cli: &Cli) -> Self {
        Self::at(cli.place.clone())
    }

    /// For another place, as the demo uses one of its own.
    #[must_use]
    pub fn at(place: Place) -> Self {
        let layout = place.layout();
        let client = Client::new(layout.socket("controller"));
        Self { place, layout, client }
    }

    /// Whether to print for programs.
    #[must_use]
    pub fn json(&self) -> bool {
        self.place.output == Output::Json
    }

    /// Prints a value as JSON on stdout.
    pub fn print_json(&self, value: &impl Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => anstream::println!("{text}"),
            Err(error) => anstream::eprintln!("error[BX0902]: print JSON: {error}"),
        }
    }

    /// Prints a failure on stderr, the way of all our errors.
    pub fn print_failure(&self, failure: &Failure) {
        let error = failure.as_api_error();
        if self.json() {
            self.print_json(&serde_json::json!({ "error": error }));
            return;
        }
        print_error(&error);
    }

    /// The controller's status now.
    ///
    /// # Errors
    /// When no controller answers.
    pub async fn status(&self) -> Result<Status, Failure> {
        Ok(self.client.get("/v1/status").await?)
    }

    /// The object (and, for `web-2`, the replica) that a person names.
    ///
    /// # Errors
    /// `Usage` when nothing or several things match, with the names there are.
    pub fn find<'a>(&self, status: &'a Status, what: &str) -> Result<(&'a ObjectStatus, Option<String>), Failure> {
        let mut matching: Vec<_> = status.objects.iter().filter(|o| names(o, what)).collect();
        // A volume or image may bear the name of the App it serves: people mean what runs.
        if matching.iter().any(|o| runs(o)) {
            matching.retain(|o| runs(o));
        }
        match matching.as_slice() {
            [one] => return Ok((one, None)),
            [] => {}
            several => {
                let list: Vec<String> = several.iter().map(|o| o.key.to_string()).collect();
                return Err(Failure::Usage(format!("`{what}` is {}; name one", list.join(" or "))));
            }
        }
        let replica = what.rsplit('/').next().unwrap_or(what);
        let owner = status.objects.iter().find(|o| {
            o.replicas.iter().any(|r| r.name == replica) && (replica == what || what.starts_with(&o.key.stack))
        });
        if let Some(owner) = owner {
            return Ok((owner, Some(replica.to_owned())));
        }
        let known: Vec<String> =
            status.objects.iter().map(|o| format!("{}/{}", o.key.kind, o.key.name)).take(12).collect();
        let known = if known.is_empty() { "there are no objects".to_owned() } else { known.join(" ") };
        Err(Failure::Usage(format!("nothing is named `{what}`: {known}")))
    }
}

impl Place {
    /// The layout these options name.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let mut layout = Layout::new(absolute(&self.data_root), absolute(&self.run_dir));
        if let Some(path) = &self.boot_id_path {
            layout.boot_id_path.clone_from(path);
        }
        layout
    }

    /// How this process reaches registries.
    #[must_use]
    pub fn store_options(&self) -> runtime::image::StoreOptions {
        runtime::image::StoreOptions {
            insecure: self.insecure_registry.iter().cloned().collect(),
            ca_files: self.registry_ca.clone(),
            drop_blobs: self.drop_blobs,
            ..runtime::image::StoreOptions::default()
        }
    }

    /// Where the key of secrets is.
    #[must_use]
    pub fn secret_key_file(&self) -> PathBuf {
        self.secret_key.as_deref().map_or_else(|| absolute(&self.data_root).join("secret.key"), absolute)
    }

    /// The options of [`Self::store_options`] and for secrets, for another process of ours.
    #[must_use]
    pub fn registry_args(&self) -> Vec<std::ffi::OsString> {
        let hosts = self.insecure_registry.iter().map(|host| ("--insecure-registry", host.into()));
        let files = self.registry_ca.iter().map(|file| ("--registry-ca", absolute(file).into()));
        let key = self.secret_key.iter().map(|file| ("--secret-key", absolute(file).into()));
        let drops = self.drop_blobs.then(|| "--drop-blobs".into());
        hosts.chain(files).chain(key).flat_map(|(name, value)| [name.into(), value]).chain(drops).collect()
    }
}

/// The path seen from the root, without resolving links.
pub(crate) fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Prints one error the way of all our errors.
pub(crate) fn print_error(error: &ApiError) {
    let (red, bold) = (super::format::RED, super::format::BOLD);
    anstream::eprintln!("{red}error[{}]{red:#}{bold}: {}{bold:#}", error.code, error.message);
    if let Some(help) = &error.help {
        anstream::eprintln!("  help: {help}");
    }
}

/// Whether an object has containers.
fn runs(object: &ObjectStatus) -> bool {
    matches!(object.key.kind, Kind::App | Kind::Job)
}

/// Whether `what` (`app/web`, `web`, `shop/web`, `shop/app/web`) names this object.
fn names(object: &ObjectStatus, what: &str) -> bool {
    let key = &object.key;
    match what.split('/').collect::<Vec<_>>().as_slice() {
        [name] => key.name == *name,
        [first, name] => key.name == *name && (key.kind.as_str() == *first || key.stack == *first),
        [stack, kind, name] => key.stack == *stack && key.kind.as_str() == *kind && key.name == *name,
        _ => false,
    }
}
