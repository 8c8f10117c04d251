//! What a client does with its streams, by mode.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use super::carousel::turn;
use super::connect::{Client, Failure};
use super::stream::Stream;
use super::tally::record;
use super::upstream::{drink, pour};
use crate::work::Toward;

/// A new connection for each operation, for as long as the run goes on.
pub(crate) async fn connect_again_and_again(mut client: Client) {
    loop {
        if let Err(failure) = connect_once(&mut client).await {
            client.scene.failed(failure.0);
            turn().await;
        }
    }
}

async fn connect_once(client: &mut Client) -> Result<(), Failure> {
    connect_due_at(client, Instant::now()).await
}

/// One operation, meant to begin at `due`: connect, handshake, a byte to the upstream server and
/// back, a clean end.
pub(super) async fn connect_due_at(client: &mut Client, due: Instant) -> Result<(), Failure> {
    let mut stream = client.open().await?;
    exchange(&mut stream, &mut [b'?']).await?;
    client
        .scene
        .completed(|tally| record(&mut tally.latencies.first_byte, due.elapsed()));
    stream.close().await.map_err(Failure::at("close"))
}

async fn exchange(stream: &mut Stream, message: &mut [u8]) -> Result<(), Failure> {
    stream
        .write_all(message)
        .await
        .map_err(Failure::at("send"))?;
    stream
        .read_exact(message)
        .await
        .map_err(Failure::at("first byte"))
}

/// Messages there and back over one of `connections`.
pub(crate) async fn pingpong(mut client: Client, bytes: usize, connections: u64) {
    let mut message = vec![b'?'; bytes];
    let mut is_settled = false;
    loop {
        client.scene.await_door().await;
        let opened = client.open().await;
        client.scene.leave_door();
        let failure = match opened {
            Ok(stream) => {
                if !is_settled {
                    client.scene.settle(connections).await;
                    is_settled = true;
                }
                rally(&client, stream, &mut message).await
            }
            Err(failure) => failure,
        };
        client.scene.failed(failure.0);
        turn().await;
    }
}

/// Goes on until something fails.
async fn rally(client: &Client, mut stream: Stream, message: &mut [u8]) -> Failure {
    loop {
        let began = Instant::now();
        if let Err(failure) = exchange(&mut stream, message).await {
            return failure;
        }
        client
            .scene
            .completed(|tally| record(&mut tally.latencies.first_byte, began.elapsed()));
    }
}

/// One stream that carries as much as it can in one direction.
pub(crate) async fn bulk(mut client: Client, toward: Toward) {
    loop {
        let failure = match client.open().await {
            Ok(stream) => {
                let ended = match toward {
                    Toward::Client => drink(stream, &client.scene).await,
                    Toward::Server => pour(stream).await,
                };
                ended
                    .err()
                    .map_or_else(|| Failure("bulk: closed early".into()), Failure::at("bulk"))
            }
            Err(failure) => failure,
        };
        client.scene.failed(failure.0);
        turn().await;
    }
}

/// Connections that have carried one byte and now say nothing.
pub(crate) type Held = Rc<RefCell<Vec<Stream>>>;

/// Opens `count` connections and keeps them.
pub(crate) async fn hold(mut client: Client, count: u32, held: Held) {
    for _ in 0..count {
        let opened = match client.open().await {
            Ok(mut stream) => exchange(&mut stream, &mut [b'?']).await.map(|()| stream),
            Err(failure) => Err(failure),
        };
        match opened {
            Ok(stream) => held.borrow_mut().push(stream),
            Err(failure) => client.scene.failed(failure.0),
        }
        turn().await;
    }
}

/// Opens `count` connections one after the other and closes each.
pub(crate) async fn connect_times(mut client: Client, count: u32) -> Client {
    for _ in 0..count {
        if let Err(failure) = connect_once(&mut client).await {
            client.scene.failed(failure.0);
            turn().await;
        }
    }
    client
}
