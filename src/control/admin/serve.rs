use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_bodies::{BodyExt as _, LengthLimitError, Limited};
use hyper::HeaderMap;
use hyper::body::Incoming;
use hyper::header::ACCEPT;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_tokio::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Reach;
use super::answer::Answer;
use super::listen::{Door, Peer, Stream};
use super::routes::{Asked, answer};

/// Of one address, so that strangers on a port keep nobody from the unix socket. More wait in the
/// kernel's queue.
const CONNECTIONS_MAX: usize = 32;
/// A request is sent at once by whoever has one.
const HEADERS_WAIT_MAX: Duration = Duration::from_secs(5);
/// One request and its answer, read to its end. A client that stops reading costs its connection
/// for so long, and nothing else.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// Request line and headers together; curl sends about 100 bytes.
const HEADERS_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// Some clients send an empty one, or a form.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// How long accepting rests when descriptors have run out.
const EXHAUSTED_REST: Duration = Duration::from_millis(100);

/// Serves whoever comes, until it is dropped.
pub(super) async fn accept(door: Door, reach: Reach) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match door.accept().await {
            Ok((stream, peer)) => {
                connections.spawn(connection(stream, peer, reach.clone(), place));
            }
            Err(error) => {
                tracing::debug!(%error, "admin: nobody can be accepted");
                sleep(EXHAUSTED_REST).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: Stream, peer: Peer, reach: Reach, _place: OwnedSemaphorePermit) {
    let served = async {
        match stream {
            Stream::Unix(stream) => serve(stream, peer, &reach).await,
            Stream::Tcp(stream) => serve(stream, peer, &reach).await,
        }
    };
    match timeout(CONNECTION_TIME_MAX, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "admin: not served"),
        Err(_) => tracing::debug!(%peer, "admin: too slow, closed"),
    }
}

async fn serve<S>(stream: S, peer: Peer, reach: &Reach) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| async move {
        let answer = respond(request, peer, reach.clone()).await;
        Ok::<_, Infallible>(answer.into_response())
    });
    http1::Builder::new()
        // One request each: what one may cost is then what a connection may cost.
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WAIT_MAX)
        .max_buf_size(HEADERS_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn respond(request: Request<Incoming>, peer: Peer, reach: Reach) -> Answer {
    let (head, body) = request.into_parts();
    // Nothing is asked for in a body.
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(_) => {}
        Err(error) if error.is::<LengthLimitError>() => {
            return Answer::refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("the request's body is larger than {BODY_BYTES_MAX} bytes"),
                "send none: what is asked for stands behind the `?`",
            );
        }
        Err(error) => {
            return Answer::wrong(&format!("the body is broken: {error}"), "send it whole");
        }
    }
    let asked = Asked {
        query: head.uri.query().unwrap_or_default().to_owned(),
        accept: accept_header(&head.headers),
        peer,
        reach,
    };
    answer(&head.method, head.uri.path(), asked).await
}

fn accept_header(headers: &HeaderMap) -> String {
    let accept = headers.get(ACCEPT).and_then(|it| it.to_str().ok());
    accept.unwrap_or_default().to_owned()
}
