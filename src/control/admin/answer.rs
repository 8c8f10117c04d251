use http_bodies::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// What a route answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::control) struct Answer {
    pub(super) status: StatusCode,
    kind: &'static str,
    body: Vec<u8>,
    allow: Option<&'static str>,
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Why a request is not served, and what to do: the body of every answer from 400 on.
#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a str,
    cure: &'a str,
}

impl Answer {
    pub(super) fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(mut body) => {
                body.push(b'\n');
                Self::new(StatusCode::OK, JSON, body)
            }
            Err(error) => Self::refused(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("the answer cannot be written: {error}"),
                "please report it",
            ),
        }
    }

    pub(super) fn text(text: impl Into<Vec<u8>>) -> Self {
        Self::new(StatusCode::OK, TEXT, text.into())
    }

    /// A text of its own kind.
    pub(super) fn page(kind: &'static str, text: String) -> Self {
        Self::new(StatusCode::OK, kind, text.into_bytes())
    }

    /// Says why not, and what to do.
    pub(super) fn refused(status: StatusCode, error: &str, cure: &str) -> Self {
        let refusal = Refusal { error, cure };
        let body = serde_json::to_vec(&refusal).unwrap_or_default();
        Self::new(status, JSON, [&body[..], b"\n"].concat())
    }

    /// The request itself is at fault.
    pub(super) fn wrong(error: &str, cure: &str) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, error, cure)
    }

    pub(super) fn busy() -> Self {
        Self::refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "the process is busy with a change of its state, or is about to end",
            "ask again in a few seconds",
        )
    }

    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub(super) fn allowing(self, methods: &'static str) -> Self {
        Self {
            allow: Some(methods),
            ..self
        }
    }

    fn new(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Self {
        Self {
            status,
            kind,
            body,
            allow: None,
        }
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

#[cfg(test)]
impl Answer {
    pub(super) fn body(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}
