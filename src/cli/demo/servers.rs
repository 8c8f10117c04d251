use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use anyhow::{Context as _, Result};
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ServerConfig, ServerConnection};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::pki::Pki;
use super::tally::Tally;
use super::{CHUNK_BYTES, PATIENCE, Stream};

/// What tells HTTP from bytes to echo.
const GET: &[u8] = b"GET ";

/// Longest request head that is waited for.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The two upstream servers. They run until the process ends.
pub(super) struct Servers {
    pub addresses: Vec<SocketAddr>,
    /// What went wrong on their side.
    pub complaints: Receiver<String>,
    shared: Arc<Shared>,
}

/// What both servers and the threads of their connections share.
struct Shared {
    tally: Tally,
    resumes: AtomicBool,
    resuming: Arc<ServerConfig>,
    /// Issues no tickets and knows none, so that handshakes are full whatever the proxy wants.
    forgetful: Arc<ServerConfig>,
}

impl Servers {
    pub(super) fn start(pki: &Pki) -> Result<Self> {
        let mut config = config(pki)?;
        let mut forgetful = config.clone();
        forgetful.send_tls13_tickets = 0;
        forgetful.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        let shared = Arc::new(Shared {
            tally: Tally::default(),
            resumes: AtomicBool::new(false),
            resuming: Arc::new(config),
            forgetful: Arc::new(forgetful),
        });
        let (complain, complaints) = mpsc::channel();
        let mut addresses = Vec::new();
        for number in 1..=2 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .context("no port for an upstream server on 127.0.0.1")?;
            addresses.push(listener.local_addr()?);
            let server = Server {
                number,
                shared: Arc::clone(&shared),
                complain: complain.clone(),
            };
            thread::Builder::new()
                .name(format!("demo-server-{number}"))
                .spawn(move || server.run(&listener))?;
        }
        Ok(Self {
            addresses,
            complaints,
            shared,
        })
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// Whether sessions of connections from here on can be resumed.
    pub(super) fn resume(&self, resumes: bool) {
        self.shared.resumes.store(resumes, Ordering::Relaxed);
    }
}

/// Mutual TLS: no client without a certificate of the demo's CA.
fn config(pki: &Pki) -> Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&pki.roots), Arc::clone(&provider))
            .build()?;
    Ok(ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![pki.upstream_certificate.clone()],
            pki.upstream_key.clone_key().into(),
        )?)
}

#[derive(Clone)]
struct Server {
    number: u32,
    shared: Arc<Shared>,
    complain: Sender<String>,
}

impl Server {
    /// A thread for each connection: the listener's `max_connections` bounds them.
    fn run(&self, listener: &TcpListener) {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    let error = anyhow::Error::new(error);
                    return self.complain(&error.context("it accepts no more connections"));
                }
            };
            let server = self.clone();
            let serve = move || {
                if let Err(error) = server.serve(stream) {
                    server.complain(&error);
                }
            };
            if let Err(error) = thread::Builder::new().spawn(serve) {
                self.complain(&anyhow::Error::new(error).context("no thread for a connection"));
            }
        }
    }

    fn complain(&self, error: &anyhow::Error) {
        // After the show nobody counts complaints any more.
        let _ = self
            .complain
            .send(format!("upstream server {}: {error:#}", self.number));
    }

    fn serve(&self, mut stream: Stream) -> Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let config = match self.shared.resumes.load(Ordering::Relaxed) {
            true => &self.shared.resuming,
            false => &self.shared.forgetful,
        };
        let mut tls = ServerConnection::new(Arc::clone(config))?;
        tls.complete_io(&mut stream)
            .context("handshake with the proxy")?;
        self.shared.tally.add(tls.handshake_kind());
        // A guest at a keyboard may take as long as the proxy lets him.
        stream.set_read_timeout(None)?;
        self.talk(&mut tls, &mut stream)
            .context("talk with the proxy")?;
        Ok(())
    }

    /// Answers HTTP and echoes everything else.
    fn talk(&self, tls: &mut ServerConnection, stream: &mut Stream) -> io::Result<()> {
        let answer = self.answer(tls);
        let mut io = rustls::Stream::new(tls, stream);
        let mut seen = Vec::new();
        let perhaps_http = |seen: &[u8]| seen.len() < GET.len() && GET.starts_with(seen);
        read_while(&mut io, &mut seen, perhaps_http)?;
        if seen.starts_with(GET) {
            read_while(&mut io, &mut seen, is_unfinished_head)?;
            io.write_all(answer.as_bytes())?;
        } else {
            io.write_all(&seen)?;
            echo(&mut io)?;
        }
        io.conn.send_close_notify();
        io.flush()?;
        io.sock.shutdown(Shutdown::Write)?;
        // Closing with bytes unread would be a reset.
        io::copy(&mut io, &mut io::sink()).map(drop)
    }

    fn answer(&self, tls: &ServerConnection) -> String {
        let shown = tls.peer_certificates().and_then(<[_]>::first);
        let subject = shown.and_then(|certificate| {
            let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
            Some(parsed.subject().to_string())
        });
        let protocol = tls.protocol_version().and_then(|version| version.as_str());
        let body = format!(
            "Hello from upstream server {} of ringway demo.\nThe proxy came over {} and showed the certificate of {}.\n",
            self.number,
            protocol.unwrap_or("TLS"),
            subject.as_deref().unwrap_or("nobody"),
        );
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

fn is_unfinished_head(seen: &[u8]) -> bool {
    seen.len() < HEAD_BYTES_MAX && !seen.windows(4).any(|four| four == b"\r\n\r\n")
}

/// Reads until the bytes seen are enough, or the client has ended.
fn read_while(
    io: &mut impl Read,
    seen: &mut Vec<u8>,
    more: impl Fn(&[u8]) -> bool,
) -> io::Result<()> {
    let mut buffer = [0; 1024];
    while more(seen) {
        match io.read(&mut buffer)? {
            0 => break,
            count => seen.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(())
}

fn echo(io: &mut (impl Read + Write)) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match io.read(&mut buffer)? {
            0 => return Ok(()),
            count => io.write_all(&buffer[..count])?,
        }
    }
}
