//! Errors over the socket: a status and an [`ApiError`] with a stable code.

use axum::Json;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use crate::api::types::ApiError;
use crate::sources::Refused;

/// Why a request is refused.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) ApiError);

/// What handlers return.
pub(super) type Answer<T> = Result<Json<T>, Refusal>;

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>, help: Option<String>) -> Self {
        Self(status, ApiError { code: code.to_owned(), message: message.into(), help })
    }

    /// Something named does not exist.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "BX0903", message, Some("boxship get".to_owned()))
    }

    /// It cannot be done in this state.
    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "BX0900", message, None)
    }

    /// The request makes no sense.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BX0900", message, None)
    }

    /// Something broke here.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "BX0900", message, None)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let status = if refused.code == "BX0903" { StatusCode::NOT_FOUND } else { StatusCode::CONFLICT };
        Self::new(status, refused.code, refused.message, refused.help)
    }
}

impl From<runtime::Error> for Refusal {
    fn from(error: runtime::Error) -> Self {
        let status = match &error {
            runtime::Error::NotFound { .. } => StatusCode::NOT_FOUND,
            runtime::Error::Conflict(_) => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, ApiError::from(&error))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

pub(super) async fn no_such_path(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "BX0900", format!("this controller knows no {}", uri.path()), None)
}

/// Runs blocking work for a handler.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|panic| Refusal::internal(format!("it broke: {panic}")))
}
