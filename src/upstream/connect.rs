use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use monoio::time::timeout;

use super::group::{Asked, Endpoint, Group};
use super::lease::Lease;
use super::race::Race;
use super::roster::Lack;
use super::tries::{
    CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, Refused, StepLimit, TryLimits, dial_end, in_words,
    upstream_end, with_address,
};
use crate::net::{Buffers, Inbound, PeerAddress, Socket, dial_from, origin};
use crate::observe::LegTls;
use crate::tls::{
    self, ClientEngine, Engine, Handshake, HandshakesInFlight, Shown, TlsLeg, describe_leg,
    establish,
};
use crate::types::{Cause, End, Phase, ServerId, Side};

/// What a connection asks of a group.
pub struct Request<'a, 'g> {
    pub group: &'g Group,
    /// What each server is sent first; may be empty.
    pub proxy_header: &'a [u8],
    /// The client's address, for servers that shall see it.
    pub client: Option<IpAddr>,
    pub buffers: &'a Buffers,
    pub handshakes: &'a HandshakesInFlight,
    pub limits: TryLimits<'a>,
    /// What the group's strategy hashes: see [`Group::key`].
    pub key: u64,
    /// What the listener agreed on with the client.
    pub alpn: Option<&'a [u8]>,
    /// So that the leg can be handed to kernel TLS.
    pub keep_secrets: bool,
}

impl Request<'_, '_> {
    /// From where the group's servers shall see the client come.
    pub(super) async fn dial(&self, endpoint: &Endpoint) -> io::Result<Socket> {
        let plan = &self.group.plan;
        let origin = match &endpoint.address {
            PeerAddress::Ip(server) => origin(&plan.local, self.client, server.ip()),
            PeerAddress::Unix(_) => Ok(None),
        };
        let no_way = |words| io::Error::new(io::ErrorKind::AddrNotAvailable, words);
        dial_from(origin.map_err(no_way)?, &endpoint.address, &plan.socket).await
    }
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
    /// How long the connection had been ready before the client came.
    pub warm: Option<Duration>,
    waited: Duration,
    /// It waits for a server with room since then.
    waits_since: Option<Instant>,
    /// When all tries together have taken too long.
    deadline: Option<Instant>,
}

impl Attempts {
    fn begin(&mut self, endpoint: &Endpoint) {
        self.tries += 1;
        self.last = Some((endpoint.server, endpoint.address.clone()));
        (self.connect, self.handshake) = (None, None);
        (self.tls, self.sni) = (None, None);
    }

    /// Another address of the same try has the connection.
    pub(super) fn turn_to(&mut self, endpoint: &Endpoint) {
        self.last = Some((endpoint.server, endpoint.address.clone()));
    }

    /// What the last attempt was at, or is at.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.connect {
            Some(_) => Phase::UpstreamHandshake,
            None => Phase::Connect,
        }
    }

    /// The time in the queue; `None`: it was not in one.
    #[must_use]
    pub fn queued(&self) -> Option<Duration> {
        let waiting = self.waits_since.map_or(Duration::ZERO, |it| it.elapsed());
        Some(self.waited + waiting).filter(|waited| !waited.is_zero())
    }
}

/// A leg to a server, ready for the client's bytes.
pub struct Connected<'a> {
    pub socket: Socket,
    pub inbound: Inbound,
    pub tls: Option<TlsLeg>,
    /// To be held while the connection lives.
    pub lease: Lease<'a>,
}

/// A connection, before it has its lease.
pub(super) struct Reached {
    pub(super) socket: Socket,
    pub(super) inbound: Inbound,
    pub(super) tls: Option<TlsLeg>,
}

impl Reached {
    fn connected(self, lease: Lease<'_>) -> Connected<'_> {
        Connected {
            socket: self.socket,
            inbound: self.inbound,
            tls: self.tls,
            lease,
        }
    }
}

/// Tries the group's servers in turn until one takes the connection.
///
/// No byte of the client is sent before this returns, so trying again is always safe.
///
/// # Errors
/// The end of the last attempt; where there was none to try, why.
pub async fn connect<'g>(
    request: &Request<'_, 'g>,
    attempts: &mut Attempts,
) -> Result<Connected<'g>, End> {
    let mut picked = None;
    if request.group.holds_warm() {
        match take_warm(request, attempts) {
            Ok(connected) => return Ok(connected),
            Err(lease) => picked = lease,
        }
    }
    let mut tried: Vec<Rc<Endpoint>> = Vec::new();
    loop {
        let leased = match picked.take() {
            Some(lease) => Ok(lease),
            None => lease(request, &tried, attempts).await,
        };
        let mut lease = match leased {
            Ok(lease) => lease,
            Err(end) => return Err(attempts.passed_over.pop().unwrap_or(end)),
        };
        request.group.on_try(&lease);
        let attempted = attempt(request, &mut lease, &mut tried, attempts).await;
        request.group.on_tried(&lease, &attempted, attempts);
        let refused = match attempted {
            Ok(reached) => {
                lease.works();
                return Ok(reached.connected(lease));
            }
            Err(refused) => refused,
        };
        if !goes_on(request, &lease, &refused, attempts) {
            return Err(refused.end);
        }
        attempts.passed_over.push(refused.end);
        tried.push(Rc::clone(lease.endpoint()));
    }
}

/// A ready connection to the server whose turn it is; where all are full, to any. Else the place
/// of that turn, if there is one.
fn take_warm<'g>(
    request: &Request<'_, 'g>,
    attempts: &mut Attempts,
) -> Result<Connected<'g>, Option<Lease<'g>>> {
    let group = request.group;
    let asked = Asked {
        key: request.key,
        tried: &[],
    };
    let picked = match group.pick(&asked) {
        Ok(lease) => Some(lease),
        Err(Lack::AllFull) => None,
        Err(_) => return Err(None),
    };
    let handed = group.take_warm(picked.as_ref().map(Lease::endpoint), request);
    let Some(handed) = handed else {
        return Err(picked);
    };
    attempts.begin(handed.lease.endpoint());
    attempts.warm = Some(handed.age);
    (attempts.tls, attempts.sni) = (handed.seen, handed.sni);
    Ok(handed.reached.connected(handed.lease))
}

/// Blames the server, if it is at fault. True: the next one may be tried.
fn goes_on(
    request: &Request<'_, '_>,
    lease: &Lease<'_>,
    refused: &Refused,
    attempts: &Attempts,
) -> bool {
    let Some(setback) = refused.setback else {
        return false;
    };
    if refused.blamed {
        lease.fails(|| in_words(&refused.end));
    }
    let limits = request.limits;
    let has_time = attempts.deadline.is_none_or(|it| Instant::now() < it);
    has_time && attempts.tries < limits.tries_max && limits.next.contains(&setback)
}

/// A place at the server whose turn it is, waited for where the group has a queue.
async fn lease<'g>(
    request: &Request<'_, 'g>,
    tried: &[Rc<Endpoint>],
    attempts: &mut Attempts,
) -> Result<Lease<'g>, End> {
    let group = request.group;
    let asked = Asked {
        key: request.key,
        tried,
    };
    match group.pick(&asked) {
        Ok(lease) => Ok(lease),
        // Rare, and its state would make every connection's future larger.
        Err(Lack::AllFull) if group.plan.queue_max > 0 => {
            Box::pin(queued(group, &asked, attempts)).await
        }
        Err(lack) => Err(no_server(group, lack)),
    }
}

async fn queued<'a>(
    group: &'a Group,
    asked: &Asked<'_>,
    attempts: &mut Attempts,
) -> Result<Lease<'a>, End> {
    let begun = Instant::now();
    attempts.waits_since = Some(begun);
    let waited = timeout(group.plan.queue_timeout, group.queued(asked)).await;
    attempts.waits_since = None;
    attempts.waited += begun.elapsed();
    match waited {
        Ok(Some(Ok(lease))) => Ok(lease),
        Ok(Some(Err(lack))) => Err(no_server(group, lack)),
        Ok(None) => Err(no_server_because(group, "is full, and so is its queue")),
        Err(_) => {
            let end = End::new(Cause::Timeout, Phase::Connect, None);
            Err(end.with_detail("queue_timeout"))
        }
    }
}

fn no_server(group: &Group, lack: Lack) -> End {
    let why = match lack {
        Lack::NoAddress => "has no server with an address",
        Lack::AllDown => "has all servers down in its configuration",
        Lack::AllBarred => "has all servers down by their checks",
        Lack::AllFull => "is full: all servers have max_connections",
        Lack::AllTried => "has no server left to try",
    };
    no_server_because(group, why)
}

fn no_server_because(group: &Group, why: &str) -> End {
    let words = format!("upstream \"{}\" {why}", group.plan.name);
    End::new(Cause::NoServer, Phase::Connect, None).with_detail(words)
}

pub(super) async fn attempt<'g>(
    request: &Request<'_, 'g>,
    lease: &mut Lease<'g>,
    tried: &mut Vec<Rc<Endpoint>>,
    attempts: &mut Attempts,
) -> Result<Reached, Refused> {
    let begun = lease.begun();
    let limits = request.limits;
    attempts.begin(lease.endpoint());
    let end = begun + limits.total_timeout;
    let deadline = *attempts.deadline.get_or_insert(end);
    let limit = StepLimit::new(limits.connect_timeout, CONNECT_TIMEOUT, begun, deadline);
    let dialled = match request.group.plan.happy_eyeballs_delay {
        // Rare, and its state would make every connection's future larger.
        Some(delay) if lease.endpoint().has_rival() => {
            let race = Race {
                request,
                lease,
                tried,
                attempts,
            };
            Box::pin(race.run(delay, limit.length)).await
        }
        _ => {
            let dialled = timeout(limit.length, request.dial(lease.endpoint()));
            dialled.await.ok()
        }
    };
    let endpoint = lease.endpoint();
    let at = |end: End| Refused::from(with_address(end, &endpoint.address));
    let socket = match dialled {
        Some(Ok(socket)) => socket,
        Some(Err(error)) => {
            let mut refused = at(dial_end(&error, endpoint));
            // No address or port of ours reaches this server, and may reach another.
            refused.blamed &= error.kind() != io::ErrorKind::AddrNotAvailable;
            return Err(refused);
        }
        None => return Err(limit.passed(Phase::Connect, CONNECT_TIMEOUT, &endpoint.address)),
    };
    let connected = begun.elapsed();
    attempts.connect = Some(connected);
    let Some(tls) = &endpoint.tls else {
        // With TLS it goes with the ClientHello. A new socket has room for it.
        let sent = socket.send_all(request.proxy_header).await;
        sent.map_err(|error| at(dial_end(&error, endpoint)))?;
        return Ok(Reached {
            socket,
            inbound: Inbound::default(),
            tls: None,
        });
    };
    let now = begun + connected;
    let own = limits.handshake_timeout;
    let limit = StepLimit::new(own, HANDSHAKE_TIMEOUT, now, deadline);
    // In a box of its own: plain connections should not carry what a handshake needs.
    let shaken = Box::pin(shake(request, socket, tls, attempts));
    let shaken = timeout(limit.length, shaken).await;
    attempts.handshake = Some(begun.elapsed().saturating_sub(connected));
    match shaken {
        Ok(shaken) => shaken.map_err(at),
        Err(_) => {
            let phase = Phase::UpstreamHandshake;
            Err(limit.passed(phase, HANDSHAKE_TIMEOUT, &endpoint.address))
        }
    }
}

async fn shake(
    request: &Request<'_, '_>,
    socket: Socket,
    endpoint: &tls::Endpoint,
    attempts: &mut Attempts,
) -> Result<Reached, End> {
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
    let endpoint = group_tls.facing(endpoint, request.client);
    let mut engine = ClientEngine::new(endpoint, alpn).map_err(|error| refused(&error))?;
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
    let shown = group_tls
        .keeps_shown()
        .then(|| Shown::by(&engine))
        .flatten();
    let tls = establish(engine, unsent, request.keep_secrets)
        .map_err(|error| refused(&error))?
        .showing(shown);
    Ok(Reached {
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
