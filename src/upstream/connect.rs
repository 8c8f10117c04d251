use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use monoio::time::timeout;

use super::group::{Asked, Endpoint, Group};
use super::lease::Lease;
use super::race::Race;
use super::roster::Lack;
use crate::config::{ListenerPlan, Setback};
use crate::net::{Buffers, Inbound, PeerAddress, Socket, dial_from, origin};
use crate::observe::LegTls;
use crate::tls::{
    self, ClientEngine, Engine, Handshake, HandshakesInFlight, TlsLeg, describe_leg, establish,
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
    /// Its limits.
    pub listener: &'a ListenerPlan,
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
struct Reached {
    socket: Socket,
    inbound: Inbound,
    tls: Option<TlsLeg>,
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
    let mut tried: Vec<Rc<Endpoint>> = Vec::new();
    loop {
        let mut lease = match lease(request, &tried, attempts).await {
            Ok(lease) => lease,
            Err(end) => return Err(attempts.passed_over.pop().unwrap_or(end)),
        };
        let refused = match attempt(request, &mut lease, &mut tried, attempts).await {
            Ok(reached) => {
                lease.works();
                return Ok(Connected {
                    socket: reached.socket,
                    inbound: reached.inbound,
                    tls: reached.tls,
                    lease,
                });
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

/// Why an attempt came to nothing.
struct Refused {
    end: End,
    /// `None`: with another server it would be the same.
    setback: Option<Setback>,
    /// The server is at fault.
    blamed: bool,
}

impl From<End> for Refused {
    fn from(end: End) -> Self {
        let setback = setback(&end);
        Self {
            end,
            blamed: setback.is_some(),
            setback,
        }
    }
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
    let listener = request.listener;
    let has_time = attempts.deadline.is_none_or(|it| Instant::now() < it);
    has_time
        && attempts.tries < listener.next_upstream_tries
        && listener.next_upstream.contains(&setback)
}

/// How a server has failed; `None`: what went wrong is ours, or would go wrong with any other.
pub(super) fn setback(end: &End) -> Option<Setback> {
    match (end.phase, end.cause) {
        (Phase::Connect, Cause::Timeout) => Some(Setback::ConnectTimeout),
        (Phase::Connect, Cause::Unreachable | Cause::Reset) => Some(Setback::Refused),
        (Phase::UpstreamHandshake, Cause::Certificate | Cause::Identity) => {
            Some(Setback::Verification)
        }
        (
            Phase::UpstreamHandshake,
            Cause::Timeout
            | Cause::Protocol
            | Cause::Alert
            | Cause::Closed
            | Cause::Reset
            | Cause::Truncated,
        ) => Some(Setback::Handshake),
        _ => None,
    }
}

/// "connect: unreachable: 127.0.0.1:80: Connection refused"
pub(super) fn in_words(end: &End) -> String {
    let detail = end.detail.as_deref().unwrap_or_default();
    format!("{}: {}: {detail}", end.phase.name(), end.cause.name())
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

/// A limit of one step of an attempt, and the key that it has its length from.
struct StepLimit {
    length: Duration,
    key: &'static str,
}

impl StepLimit {
    fn new(length: Duration, key: &'static str, now: Instant, deadline: Instant) -> Self {
        let left = deadline.saturating_duration_since(now);
        if left < length {
            return Self {
                length: left,
                key: "next_upstream_timeout",
            };
        }
        Self { length, key }
    }

    /// A server that had less than its own time is not to blame.
    fn passed(&self, phase: Phase, own: &'static str, address: &PeerAddress) -> Refused {
        let end = with_address(upstream_end(Cause::Timeout, phase, self.key), address);
        let setback = setback(&end).filter(|_| self.key == own);
        Refused {
            end,
            blamed: setback.is_some(),
            setback,
        }
    }
}

const CONNECT_TIMEOUT: &str = "connect_timeout";
const HANDSHAKE_TIMEOUT: &str = "upstream_handshake_timeout";

async fn attempt<'g>(
    request: &Request<'_, 'g>,
    lease: &mut Lease<'g>,
    tried: &mut Vec<Rc<Endpoint>>,
    attempts: &mut Attempts,
) -> Result<Reached, Refused> {
    let begun = lease.begun();
    let listener = request.listener;
    attempts.begin(lease.endpoint());
    let end = begun + listener.next_upstream_timeout;
    let deadline = *attempts.deadline.get_or_insert(end);
    let limit = StepLimit::new(listener.connect_timeout, CONNECT_TIMEOUT, begun, deadline);
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
    let own = listener.upstream_handshake_timeout;
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

/// A reset tells of a connection that was made (one that was not is refused, RFC 9293 3.10.7):
/// the server left when it should have begun its part.
pub(super) fn dial_end(error: &io::Error, endpoint: &Endpoint) -> End {
    let (cause, phase) = match error.kind() {
        io::ErrorKind::ConnectionReset if endpoint.tls.is_some() => {
            (Cause::Reset, Phase::UpstreamHandshake)
        }
        io::ErrorKind::ConnectionReset => (Cause::Reset, Phase::Connect),
        _ if is_ours(error) => {
            return End::new(Cause::System, Phase::Connect, None).with_detail(error.to_string());
        }
        _ => (Cause::Unreachable, Phase::Connect),
    };
    upstream_end(cause, phase, error)
}

/// Out of files or memory: no server is to blame, and none would fare better.
pub(crate) fn is_ours(error: &io::Error) -> bool {
    const OURS: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
    error
        .raw_os_error()
        .is_some_and(|code| OURS.contains(&code))
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

fn upstream_end(cause: Cause, phase: Phase, detail: impl ToString) -> End {
    End::new(cause, phase, Some(Side::Upstream)).with_detail(detail.to_string())
}

pub(super) fn with_address(end: End, address: &PeerAddress) -> End {
    let detail = end.detail.as_deref().unwrap_or_default();
    let words = format!("{address}: {detail}");
    end.with_detail(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_has_done_wrong_is_told_from_what_is_ours() {
        let upstream = Some(Side::Upstream);
        let of = |phase, cause| setback(&End::new(cause, phase, upstream));
        let (connect, handshake) = (Phase::Connect, Phase::UpstreamHandshake);
        for (phase, cause, expected) in [
            (connect, Cause::Unreachable, Some(Setback::Refused)),
            (connect, Cause::Reset, Some(Setback::Refused)),
            (connect, Cause::Timeout, Some(Setback::ConnectTimeout)),
            (connect, Cause::System, None),
            (handshake, Cause::Timeout, Some(Setback::Handshake)),
            (handshake, Cause::Closed, Some(Setback::Handshake)),
            (handshake, Cause::Reset, Some(Setback::Handshake)),
            (handshake, Cause::Protocol, Some(Setback::Handshake)),
            (handshake, Cause::Alert, Some(Setback::Handshake)),
            (handshake, Cause::Certificate, Some(Setback::Verification)),
            (handshake, Cause::Identity, Some(Setback::Verification)),
            (handshake, Cause::Limit, None),
            (handshake, Cause::Internal, None),
            (Phase::Relay, Cause::Reset, None),
        ] {
            assert_eq!(of(phase, cause), expected, "{phase:?} {cause:?}");
        }
    }

    #[test]
    fn a_server_that_had_less_than_its_own_time_is_not_blamed() {
        let now = Instant::now();
        let (second, address) = (
            Duration::from_secs(1),
            PeerAddress::Unix(std::sync::Arc::new("/x".into())),
        );
        let of = |deadline| StepLimit::new(2 * second, CONNECT_TIMEOUT, now, deadline);
        let whole = of(now + 3 * second);
        assert_eq!((whole.length, whole.key), (2 * second, CONNECT_TIMEOUT));
        let refused = whole.passed(Phase::Connect, CONNECT_TIMEOUT, &address);
        assert_eq!(refused.setback, Some(Setback::ConnectTimeout));
        let cut = of(now + second);
        assert_eq!((cut.length, cut.key), (second, "next_upstream_timeout"));
        let refused = cut.passed(Phase::Connect, CONNECT_TIMEOUT, &address);
        assert_eq!((refused.setback, refused.end.cause), (None, Cause::Timeout));
        assert_eq!(of(now).length, Duration::ZERO);
    }
}
