//! Fuzz target of the bodies that clients send: see `crate::fuzz`.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::copy::CopyRequest;
use super::images::{ImageRequest, SaveRequest};
use super::look::LookRequest;
use super::types::{AttachRequest, ExecRequest, Order, SourceRequest};
use crate::hand::HandRequest;

/// What is taken is said again in the same words: nothing of it was dropped on the way.
pub(crate) fn requests(bytes: &[u8]) {
    round::<SourceRequest>(bytes);
    round::<ExecRequest>(bytes);
    round::<AttachRequest>(bytes);
    round::<CopyRequest>(bytes);
    round::<ImageRequest>(bytes);
    round::<SaveRequest>(bytes);
    round::<LookRequest>(bytes);
    round::<Order>(bytes);
    round::<HandRequest>(bytes);
}

#[expect(clippy::expect_used, reason = "a target says by a panic what cannot be")]
fn round<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(request) = serde_json::from_slice::<T>(bytes) else { return };
    let said = serde_json::to_vec(&request).expect("what was read can be written");
    let again: T = serde_json::from_slice(&said).expect("and read again");
    assert_eq!(again, request);
}
