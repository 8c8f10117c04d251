use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use monoio::time::timeout;

use super::group::{Endpoint, Group};
use crate::net::{Buffers, Inbound, PeerAddress, Socket, dial};
use crate::observe::LegTls;
use crate::tls::{
    self, ClientEngine, Engine, Handshake, HandshakesInFlight, TlsLeg, describe_leg, establish,
};
use crate::types::{Cause, End, Phase, ServerId, Side};

/// What a connection asks of a group.
pub struct Request<'a> {
    pub group: &'a Group,
    /// What each server is sent first; may be empty.
    pub proxy_header: &'a [u8],
    pub buffers: &'a Buffers,
    pub handshakes: &'a HandshakesInFlight,
    /// For one attempt: connect and TLS handshake together.
    pub connect_timeout: Duration,
    pub tries_max: u32,
    /// What the listener agreed on with the client.
    pub alpn: Option<&'a [u8]>,
    /// So that the leg can be handed to kernel TLS.
    pub keep_secrets: bool,
}

/// What has been tried, kept by the caller so that a shutdown in between loses nothing.
#[derive(Default)]
pub struct Attempts {
    pub tries: u32,
    pub passed_over: Vec<End>,
    /// The last endpoint tried.
    pub last: Option<(ServerId, PeerAddress)>,
    pub tls: Option<LegTls>,
    pub connect: Option<Duration>,
    pub handshake: Option<Duration>,
    /// Server name that the last server's ClientHello carried.
    pub sni: Option<Box<str>>,
}

impl Attempts {
    fn begin(&mut self, endpoint: &Endpoint) {
        self.tries += 1;
        self.last = Some((endpoint.server, endpoint.address.clone()));
        (self.connect, self.handshake) = (None, None);
        (self.tls, self.sni) = (None, None);
    }

    /// What the last attempt was at, or is at.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.connect {
            Some(_) => Phase::UpstreamHandshake,
            None => Phase::Connect,
        }
    }
}

/// A leg to a server, ready for the client's bytes.
pub struct Connected {
    pub socket: Socket,
    pub inbound: Inbound,
    pub tls: Option<TlsLeg>,
}

/// Tries the group's servers in turn until one takes the connection.
///
/// No byte of the client is sent before this returns, so trying again is always safe.
///
/// # Errors
/// The end of the last attempt, or `NoServer` when there was none to try.
pub async fn connect(request: &Request<'_>, attempts: &mut Attempts) -> Result<Connected, End> {
    let mut tried: Vec<Rc<Endpoint>> = Vec::new();
    loop {
        let next = if attempts.tries < request.tries_max {
            request.group.next(&tried)
        } else {
            None
        };
        let Some(endpoint) = next else {
            return Err(attempts
                .passed_over
                .pop()
                .unwrap_or_else(|| no_server(request.group)));
        };
        match attempt(request, &endpoint, attempts).await {
            Ok(connected) => return Ok(connected),
            Err(end) => attempts.passed_over.push(end),
        }
        tried.push(endpoint);
    }
}

fn no_server(group: &Group) -> End {
    let words = format!(
        "no server of upstream \"{}\" has an address",
        group.plan.name
    );
    End::new(Cause::NoServer, Phase::Connect, None).with_detail(words)
}

async fn attempt(
    request: &Request<'_>,
    endpoint: &Endpoint,
    attempts: &mut Attempts,
) -> Result<Connected, End> {
    attempts.begin(endpoint);
    let begun = Instant::now();
    let at = |end: End| with_address(end, &endpoint.address);
    let dialled = timeout(request.connect_timeout, open(request, endpoint));
    let socket = match dialled.await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return Err(at(dial_end(&error, endpoint))),
        Err(_) => return Err(at(timed_out(Phase::Connect))),
    };
    let connected = begun.elapsed();
    attempts.connect = Some(connected);
    let Some(tls) = &endpoint.tls else {
        return Ok(Connected {
            socket,
            inbound: Inbound::default(),
            tls: None,
        });
    };
    let left = request.connect_timeout.saturating_sub(connected);
    let shaken = timeout(left, shake(request, socket, tls, attempts)).await;
    attempts.handshake = Some(begun.elapsed().saturating_sub(connected));
    shaken
        .unwrap_or_else(|_| Err(timed_out(Phase::UpstreamHandshake)))
        .map_err(at)
}

/// With TLS the PROXY header goes with the ClientHello; without, the server may wait for nothing
/// else before it speaks.
async fn open(request: &Request<'_>, endpoint: &Endpoint) -> io::Result<Socket> {
    let socket = dial(&endpoint.address, &request.group.plan.socket).await?;
    if endpoint.tls.is_none() {
        socket.send_all(request.proxy_header).await?;
    }
    Ok(socket)
}

/// A reset tells of a connection that was made (one that was not is refused, RFC 9293 3.10.7):
/// the server left when it should have begun its part.
fn dial_end(error: &io::Error, endpoint: &Endpoint) -> End {
    let (cause, phase) = match error.kind() {
        io::ErrorKind::ConnectionReset if endpoint.tls.is_some() => {
            (Cause::Reset, Phase::UpstreamHandshake)
        }
        io::ErrorKind::ConnectionReset => (Cause::Reset, Phase::Connect),
        _ => (Cause::Unreachable, Phase::Connect),
    };
    upstream_end(cause, phase, error)
}

async fn shake(
    request: &Request<'_>,
    socket: Socket,
    endpoint: &tls::Endpoint,
    attempts: &mut Attempts,
) -> Result<Connected, End> {
    let Some(group_tls) = request.group.tls() else {
        return Err(End::new(Cause::Internal, Phase::UpstreamHandshake, None));
    };
    let refused = |error: &rustls::Error| {
        let (cause, words) = tls::failure(error);
        upstream_end(cause, Phase::UpstreamHandshake, words)
    };
    let Some(_place) = request.handshakes.begin() else {
        let words = "max_handshakes of the core is reached";
        let end = End::new(Cause::Limit, Phase::UpstreamHandshake, None);
        return Err(end.with_detail(words));
    };
    let alpn = group_tls.alpn(request.alpn);
    attempts.sni = endpoint.sni().map(Into::into);
    let mut engine = ClientEngine::new(endpoint.clone(), alpn).map_err(|error| refused(&error))?;
    let mut inbound = Inbound::default();
    let mut shake = Handshake::new(&mut engine, &socket, request.buffers, &mut inbound)
        .behind(request.proxy_header);
    let shaken = shake.run().await;
    let unsent = match shaken {
        Ok(unsent) => unsent,
        Err(error) => {
            let end = error.end(Phase::UpstreamHandshake, Side::Upstream, inbound.bytes());
            part(socket, &end);
            return Err(end);
        }
    };
    let peer = group_tls.peer(engine.common().peer_certificates(), &engine.bound());
    attempts.tls = Some(describe_leg(engine.common(), &peer));
    let tls = establish(engine, unsent, request.keep_secrets).map_err(|error| refused(&error))?;
    Ok(Connected {
        socket,
        inbound,
        tls: Some(tls),
    })
}

/// Lets the server read the alert that says why, which a reset could overtake. The client does
/// not wait for it.
fn part(socket: Socket, end: &End) {
    if end.alert.is_some() && end.cause != Cause::Alert {
        monoio::spawn(async move { socket.farewell().await });
    }
}

fn upstream_end(cause: Cause, phase: Phase, detail: impl ToString) -> End {
    End::new(cause, phase, Some(Side::Upstream)).with_detail(detail.to_string())
}

fn timed_out(phase: Phase) -> End {
    upstream_end(Cause::Timeout, phase, "connect_timeout")
}

fn with_address(end: End, address: &PeerAddress) -> End {
    let detail = end.detail.as_deref().unwrap_or_default();
    let words = format!("{address}: {detail}");
    end.with_detail(words)
}
