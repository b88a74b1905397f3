//! What every answer has: a request id, a bound on its time, and one shape for everything that went wrong.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_lite::FutureExt;
use serde::Serialize;

use super::routes::House;

/// A request that takes longer gets 503.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest request id taken from a client.
const REQUEST_ID_MAX: usize = 64;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Something that went wrong, as a handler says it; [`wrap`] gives it its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The status.
    pub status: StatusCode,
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Failure {
    /// There is no such stream.
    pub fn no_stream(name: &str) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "stream_not_found", message: format!("there is no stream {name}") }
    }

    /// What a bare status means here.
    fn of(status: StatusCode) -> Self {
        let (code, message) = match status {
            StatusCode::BAD_REQUEST => ("bad_request", "the request is malformed"),
            StatusCode::NOT_FOUND => ("not_found", "there is nothing here; /openapi.json lists what there is"),
            StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "this cannot be done here; see the header Allow"),
            StatusCode::PAYLOAD_TOO_LARGE => ("payload_too_large", "the request's body is too large"),
            StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "the answer took too long"),
            _ if status.is_client_error() => ("bad_request", "the request cannot be answered"),
            _ => ("internal", "something went wrong here; the log has more under this request id"),
        };
        Self { status, code, message: message.to_owned() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    code: &'a str,
    message: &'a str,
    request_id: &'a str,
}

/// Gives numbers to requests that bring none: some random digits per process and a count.
#[derive(Debug)]
pub struct RequestIds {
    prefix: String,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids that begin with these bytes.
    pub fn new(prefix: [u8; 6]) -> Self {
        Self { prefix: prefix.iter().map(|byte| format!("{byte:02x}")).collect(), next: AtomicU64::new(1) }
    }

    /// The client's id if it can be written to a log as it is, else a new one.
    fn choose(&self, offered: Option<&HeaderValue>) -> String {
        let is_sane = |id: &&str| {
            (1..=REQUEST_ID_MAX).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        match offered.and_then(|value| value.to_str().ok()).filter(is_sane) {
            Some(id) => id.to_owned(),
            None => format!("{}-{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// The outermost layer: runs a request to its end or its limit, and dresses the answer.
pub async fn wrap(State(house): State<Arc<House>>, request: Request, next: Next) -> Response {
    let id = house.request_ids.choose(request.headers().get(&REQUEST_ID));
    let line = format!("{} {}", request.method(), request.uri().path());
    let answer = AssertUnwindSafe(tokio::time::timeout(REQUEST_TIME_MAX, next.run(request))).catch_unwind().await;
    let mut response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Failure::of(StatusCode::SERVICE_UNAVAILABLE).into_response(),
        Err(_) => Failure::of(StatusCode::INTERNAL_SERVER_ERROR).into_response(),
    };
    let status = response.status();
    if status.is_server_error() {
        tracing::warn!(request_id = id, status = status.as_u16(), "{line}");
    } else {
        tracing::debug!(request_id = id, status = status.as_u16(), "{line}");
    }
    // A handler that answers with JSON of its own under such a status (health) is left alone.
    let has_own_body = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    let failure = response.extensions_mut().remove::<Failure>();
    if failure.is_some() || ((status.is_client_error() || status.is_server_error()) && !has_own_body) {
        let failure = failure.unwrap_or_else(|| Failure::of(status));
        let error = ErrorFields { code: failure.code, message: &failure.message, request_id: &id };
        let allow = response.headers_mut().remove(header::ALLOW);
        response = (status, Json(ErrorBody { error })).into_response();
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, HeaderValue::from_str(&id).expect("only letters, digits and some signs"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_id_is_taken_only_if_it_can_do_no_harm() {
        let ids = RequestIds::new([0, 1, 2, 3, 4, 255]);
        let choose = |text: &'static str| ids.choose(Some(&HeaderValue::from_static(text)));
        assert_eq!(choose("trace-7.a_B"), "trace-7.a_B");
        assert_eq!(choose(""), "0001020304ff-1");
        assert_eq!(choose("a b"), "0001020304ff-2");
        assert_eq!(choose("<script>"), "0001020304ff-3");
        let long = "a".repeat(REQUEST_ID_MAX + 1);
        assert_eq!(ids.choose(Some(&HeaderValue::from_str(&long).unwrap())), "0001020304ff-4");
        assert_eq!(ids.choose(None), "0001020304ff-5");
    }
}
