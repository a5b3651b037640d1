//! The door: JSON over HTTP/1 on the unix socket `RUN/controller.sock`. `types` is the contract, `client` the CLI's
//! side, `server` the controller's.
//!
//! | method and path | in | out |
//! |---|---|---|
//! | GET `/v1/status?after=N&timeout_ms=T` | | [`types::Status`], at once or when its `version` exceeds N |
//! | GET `/v1/events?after=N&timeout_ms=T` | | `Vec<`[`types::Event`]`>` with `seq` > N |
//! | GET `/v1/plan` | [`types::SourceRequest`] as query `path`, `default_stack` (or none: as accepted) | [`types::PlanView`] |
//! | POST `/v1/sources` | [`types::SourceRequest`] | [`types::Applied`] |
//! | DELETE `/v1/sources?path=P` | (no path: every source) | [`types::Applied`] |
//! | GET `/v1/objects/{stack}/{kind}/{name}` | | [`types::Description`] |
//! | DELETE `/v1/objects/{stack}/{kind}/{name}` | | [`types::Applied`] |
//! | GET `/v1/logs?stack=S&kind=K&name=N&replica=R&tail=T&follow=B` (or `container=C` for one alone) | | NDJSON of [`types::LogLine`] |
//! | POST `/v1/exec` | [`types::ExecRequest`], `Upgrade: boxship-exec` | 101, then frames of [`types::ExecFrame`] |
//! | POST `/v1/containers` | [`crate::hand::HandRequest`] | [`crate::hand::HandAnswer`] |
//! | GET `/v1/containers/wait?container=C` | | the same, once it has ended |
//! | POST `/v1/containers/attach` | [`types::AttachRequest`], `Upgrade: boxship-attach` | 101, then frames of [`types::ExecFrame`] |
//! | GET `/v1/images` | | `Vec<`[`types::ImageView`]`>` |
//! | POST `/v1/images/save` | [`images::SaveRequest`] | a tar |
//! | POST `/v1/images` | [`images::ImageRequest`] | NDJSON of [`images::ImageLine`] |
//! | POST `/v1/look` | [`look::LookRequest`] | [`look::LookAnswer`] |
//! | POST `/v1/copy` | [`copy::CopyRequest`], `Upgrade: boxship-copy` | 101, then frames of [`types::ExecFrame`] |
//! | POST `/v1/shutdown` | | `{}`; the keeper and all it started end, containers go on |
//!
//! Errors are [`types::ApiError`] with a 4xx or 5xx status.

pub mod client;
pub mod copy;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod images;
pub mod look;
pub mod lookup;
pub mod server;
pub mod types;
pub(crate) mod weigh;
