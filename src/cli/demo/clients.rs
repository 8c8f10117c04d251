use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::pki::Pki;
use super::tally::Tally;
use super::{CHUNK_BYTES, PATIENCE, Stream};

/// Bytes that a connection echoes when it is the handshake that counts.
const HELLO_BYTES: usize = 64;

/// Handshakes of one phase: many more would exhaust loopback's ports, 28,000 by default.
const HANDSHAKES_MAX: u64 = 10_000;

/// What the clients of a phase do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    /// Connect, echo a few bytes, close; again and again for this time.
    Handshakes { time: Duration },
    /// One connection each, with so many bytes up and back down.
    Bulk { bytes: usize },
}

/// What the clients of a phase have done so far.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub tally: Tally,
    /// Sent, echoed, and compared.
    pub bytes: AtomicU64,
}

/// A client that verifies the proxy's certificate and shows none.
pub(super) struct Client {
    edge: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Client {
    /// `resumes`: with a session store, which is this client's own.
    pub(super) fn new(edge: SocketAddr, pki: &Pki, resumes: bool) -> Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&pki.roots))
            .with_no_client_auth();
        if !resumes {
            config.resumption = Resumption::disabled();
        }
        Ok(Self {
            edge,
            config: Arc::new(config),
        })
    }

    /// # Errors
    /// The first failure or difference ends the client's work.
    pub(super) fn work(&self, work: Work, done: &Done) -> Result<()> {
        match work {
            Work::Bulk { bytes } => self.visit(bytes, done),
            Work::Handshakes { time } => {
                let until = Instant::now() + time;
                while Instant::now() < until && done.tally.so_far().total() < HANDSHAKES_MAX {
                    self.visit(HELLO_BYTES, done)?;
                }
                Ok(())
            }
        }
    }

    /// One connection from its handshake to the clean end of both directions.
    fn visit(&self, bytes: usize, done: &Done) -> Result<()> {
        let mut stream = Stream::connect(self.edge).context("the proxy does not accept")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut tls =
            ClientConnection::new(Arc::clone(&self.config), ServerName::try_from("localhost")?)?;
        tls.complete_io(&mut stream)
            .context("handshake with the proxy")?;
        done.tally.add(tls.handshake_kind());
        let mut io = rustls::Stream::new(&mut tls, &mut stream);
        exchange(&mut io, bytes, done)?;
        finish(&mut io).context("end of the connection")
    }
}

type Io<'a> = rustls::Stream<'a, ClientConnection, Stream>;

/// Sends and receives in turns: a chunk fits into the buffers on its way, so nobody waits for
/// someone who waits for him.
fn exchange(io: &mut Io<'_>, bytes: usize, done: &Done) -> Result<()> {
    let mut pattern = Pattern(bytes as u64);
    let (mut sent, mut echoed) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut position = 0;
    while position < bytes {
        let length = CHUNK_BYTES.min(bytes - position);
        let (sent, echoed) = (&mut sent[..length], &mut echoed[..length]);
        pattern.fill(sent);
        io.write_all(sent).context("send")?;
        io.read_exact(echoed).context("receive")?;
        let differing = sent.iter().zip(echoed.iter()).position(|(s, e)| s != e);
        ensure!(
            differing.is_none(),
            "byte {} came back changed",
            position + differing.unwrap_or_default()
        );
        position += length;
        done.bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
    Ok(())
}

fn finish(io: &mut Io<'_>) -> io::Result<()> {
    io.conn.send_close_notify();
    io.flush()?;
    io.sock.shutdown(Shutdown::Write)?;
    // An end without close_notify is an error here.
    match io::copy(io, &mut io::sink())? {
        0 => Ok(()),
        more => Err(io::Error::other(format!(
            "{more} bytes came that nobody sent"
        ))),
    }
}

/// xorshift64: bytes of which a lost, doubled or swapped piece is seen.
struct Pattern(u64);

impl Pattern {
    fn fill(&mut self, bytes: &mut [u8]) {
        for eight in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            eight.copy_from_slice(&self.0.to_le_bytes()[..eight.len()]);
        }
    }
}
