//! The downstream side until it is ready for a server: PROXY header, ClientHello, TLS handshake.

use super::core::Core;
use super::generation::ListenerTls;
use super::limit::{Interrupted, limit};
use super::proxied::read_header;
use super::route::{Known, Opening, asked_name, route};
use super::story::{Story, over_limit};
use super::watch::Seat;
use crate::config::ListenerPlan;
use crate::net::{Buffers, Expect, Inbound, ReceiveError, Socket};
use crate::observe::LegTls;
use crate::proto::client_hello::{ClientHelloReader, NotTls, Progress};
use crate::proto::proxy::ProxyHeader;
use crate::proto::record::fatal_alert;
use crate::relay::Leg;
use crate::tls::{
    Engine, Handshake, HandshakeError, ServerEngine, Shown, TlsLeg, describe_leg, establish,
    refused_identity,
};
use crate::types::{Alert, Cause, End, GroupId, Phase, Side};

/// A client that is ready to be connected to a server.
pub(super) struct Client {
    pub leg: Leg,
    pub opening: Opening,
    pub group: GroupId,
    /// What a trusted peer said of the client. The record has the addresses.
    pub proxied: Option<Box<ProxyHeader>>,
    /// What the TLS handshake agreed on.
    pub alpn: Option<Vec<u8>>,
    /// Of the certificate that the client showed in it.
    pub common_name: Option<String>,
}

impl Client {
    /// The name that it asks for: by its own ClientHello, or as a trusted header tells.
    pub(super) fn server_name(&self) -> Option<&str> {
        asked_name(&self.opening, self.proxied.as_deref())
    }
}

pub(super) async fn greet(
    core: &Core,
    seat: &Seat<'_>,
    story: &mut Story<'_>,
    socket: Socket,
) -> Result<Client, End> {
    let plan = story.plan();
    let mut inbound = Inbound::default();
    let proxied = match &plan.proxied {
        Some(rules) => read_header(core, seat, story, rules, (&socket, &mut inbound)).await?,
        None => None,
    };
    let told = proxied
        .as_ref()
        .is_some_and(|it| it.tlvs.authority.is_some());
    let opening = if plan.tls.is_none() && (told || !plan.target.reads_hello()) {
        Opening::Unread
    } else {
        open(core, seat, story, (&socket, &mut inbound)).await?
    };
    let known = Known {
        opening: &opening,
        source: story.record().client.ip(),
        proxied: proxied.as_deref(),
    };
    let Some(group) = route(&plan.target, &known) else {
        return Err(no_route(&opening).tell(&socket, story.phase).await);
    };
    let Some(tls) = story
        .listening()
        .tls
        .as_ref()
        .filter(|_| !matches!(opening, Opening::Plain))
    else {
        return Ok(Client {
            leg: Leg::new(socket, inbound, None),
            opening,
            group,
            proxied,
            alpn: None,
            common_name: None,
        });
    };
    let greeting = Greeting {
        plan,
        tls,
        socket,
        inbound,
    };
    let agreed = handshake(core, seat, story, greeting).await?;
    Ok(Client {
        leg: agreed.leg,
        opening,
        group,
        proxied,
        alpn: agreed.alpn,
        common_name: agreed.common_name,
    })
}

/// Reads how the client begins.
async fn open(
    core: &Core,
    seat: &Seat<'_>,
    story: &mut Story<'_>,
    (socket, inbound): (&Socket, &mut Inbound),
) -> Result<Opening, End> {
    let plan = story.plan();
    story.enter(Phase::ClientHello);
    let read = read_hello(
        socket,
        &core.tools.buffers,
        inbound,
        plan.target.takes_plain(),
    );
    let read = limit(seat, plan.client_hello_timeout, read).await;
    let read = read
        .unwrap_or_else(|cut| Err(interrupted(cut, story.phase, "client_hello_timeout").into()));
    story.record().times.client_hello = Some(story.begun().elapsed().into());
    let opening = match read {
        Ok(opening) => opening,
        Err(refusal) => return Err(refusal.tell(socket, story.phase).await),
    };
    story.record().sni = opening.hello().and_then(|hello| hello.server_name.clone());
    Ok(opening)
}

fn no_route(opening: &Opening) -> Refusal {
    let (words, alert) = match opening {
        Opening::Unread => ("no route for the client".to_owned(), None),
        Opening::Plain => ("no route for a client without TLS".to_owned(), None),
        Opening::Hello(hello) => {
            let name = hello.server_name.as_deref().unwrap_or("(none)");
            let words = format!("no route for the server name {name}");
            (words, Some(Alert::UNRECOGNIZED_NAME))
        }
    };
    Refusal::client(Cause::NoRoute, words, alert)
}

/// Why a hello is refused, and what the client should be told.
struct Refusal {
    cause: Cause,
    words: String,
    alert: Option<Alert>,
    side: Option<Side>,
}

impl Refusal {
    async fn tell(self, socket: &Socket, phase: Phase) -> End {
        // The connection ends whether or not the alert arrives.
        let told = self
            .alert
            .filter(|alert| socket.try_send(&fatal_alert(*alert)).is_ok());
        match told {
            Some(_) => socket.farewell().await,
            None => socket.abort_on_close(),
        }
        End::new(self.cause, phase, self.side)
            .with_alert(told)
            .with_detail(self.words)
    }

    fn client(cause: Cause, words: impl ToString, alert: Option<Alert>) -> Self {
        Self {
            cause,
            words: words.to_string(),
            alert,
            side: Some(Side::Downstream),
        }
    }
}

async fn read_hello(
    socket: &Socket,
    buffers: &Buffers,
    inbound: &mut Inbound,
    takes_plain: bool,
) -> Result<Opening, Refusal> {
    let mut reader = ClientHelloReader::new();
    let mut expect = Expect::Bytes;
    // What came behind a PROXY header is looked at first: no more may come without an answer.
    let mut held = !inbound.is_empty();
    loop {
        let received = if std::mem::take(&mut held) {
            Ok(inbound.bytes().len())
        } else {
            inbound.receive(socket, buffers, expect, false).await
        };
        match received {
            Ok(0) => return Err(closed(inbound)),
            Ok(_) => {}
            Err(ReceiveError::Full) => {
                let words = "a ClientHello longer than 64 KiB";
                return Err(Refusal::client(
                    Cause::Protocol,
                    words,
                    Some(Alert::UNEXPECTED_MESSAGE),
                ));
            }
            Err(ReceiveError::Io(error)) => {
                return Err(Refusal::client(Cause::Reset, error, None));
            }
        }
        // The rest of a hello that came in parts is on its way: trying at once would find nothing.
        expect = Expect::Nothing;
        match reader.parse(inbound.bytes()) {
            Progress::NeedMore => {}
            Progress::Complete(hello) => return Ok(Opening::Hello(hello)),
            Progress::NotTls(NotTls::Http | NotTls::Unknown) if takes_plain => {
                return Ok(Opening::Plain);
            }
            Progress::NotTls(what) => {
                let words = format!("{} on a listener that expects TLS", what.words());
                return Err(Refusal::client(
                    Cause::Protocol,
                    words,
                    Some(Alert::UNEXPECTED_MESSAGE),
                ));
            }
            Progress::Invalid(error) => {
                return Err(Refusal::client(
                    Cause::Protocol,
                    error.words(),
                    Some(error.alert()),
                ));
            }
        }
    }
}

fn closed(inbound: &Inbound) -> Refusal {
    let words = if inbound.is_empty() {
        "the client closed without sending a byte"
    } else {
        "the client closed within its ClientHello"
    };
    Refusal::client(Cause::Closed, words, None)
}

impl From<End> for Refusal {
    fn from(end: End) -> Self {
        let words = end.detail.map(Into::into).unwrap_or_default();
        Self {
            cause: end.cause,
            words,
            alert: None,
            side: end.side,
        }
    }
}

struct Greeting<'a> {
    plan: &'a ListenerPlan,
    tls: &'a ListenerTls,
    socket: Socket,
    inbound: Inbound,
}

/// A leg after its handshake, and what that told.
struct Agreed {
    leg: Leg,
    alpn: Option<Vec<u8>>,
    common_name: Option<String>,
}

async fn handshake(
    core: &Core,
    seat: &Seat<'_>,
    story: &mut Story<'_>,
    greeting: Greeting<'_>,
) -> Result<Agreed, End> {
    let Greeting {
        plan,
        tls,
        socket,
        mut inbound,
    } = greeting;
    story.enter(Phase::DownstreamHandshake);
    let Some(_place) = core.handshakes.begin() else {
        socket.abort_on_close();
        return Err(over_limit(
            story.phase,
            "max_handshakes of the core is reached",
        ));
    };
    story.record().downstream_tls = Some(LegTls::default());
    let begun = std::time::Instant::now();
    let access = story.listening().access.as_ref();
    let gate = access.and_then(|access| access.gate(story.client_address()));
    let config = tls.config_for(story.client_address());
    let engine = ServerEngine::new(config).map_err(|error| internal(&error))?;
    let mut engine = engine.behind(gate);
    let mut shake = Handshake::new(&mut engine, &socket, &core.tools.buffers, &mut inbound);
    let shaken = limit(seat, plan.handshake_timeout, shake.run()).await;
    story.record().times.downstream_handshake = Some(begun.elapsed().into());
    let unsent = match shaken {
        Ok(Ok(unsent)) => unsent,
        Ok(Err(HandshakeError::Refused(words))) => {
            socket.abort_on_close();
            return Err(over_limit(story.phase, words));
        }
        Ok(Err(error)) => {
            if let HandshakeError::Tls { error, .. } = &error {
                story.record().downstream_tls = Some(refused(error));
            }
            let end = error.end(story.phase, Side::Downstream, &[]);
            socket.farewell().await;
            return Err(end);
        }
        Err(cut) => {
            socket.abort_on_close();
            return Err(interrupted(cut, story.phase, "handshake_timeout"));
        }
    };
    let peer = tls
        .shared
        .peer(engine.common().peer_certificates(), &engine.bound());
    story.record().downstream_tls = Some(describe_leg(engine.common(), &peer));
    if !peer.allowed {
        // The handshake refuses these already; this is for the day it should not.
        socket.abort_on_close();
        let words = "the certificate shown is not in allow_identities";
        return Err(downstream(Cause::Identity, words.into()));
    }
    let alpn = engine.common().alpn_protocol().map(<[u8]>::to_vec);
    let keeps_shown = plan
        .tls
        .as_ref()
        .is_some_and(|tls| tls.close_revoked.is_some());
    let shown = keeps_shown.then(|| Shown::by(&engine)).flatten();
    let leg: TlsLeg = establish(engine, unsent, core.keeps_secrets(plan.carriage))
        .map_err(|error| internal(&error))?
        .showing(shown);
    Ok(Agreed {
        leg: Leg::new(socket, inbound, Some(leg)),
        alpn,
        common_name: peer.identity.and_then(|identity| identity.common_name),
    })
}

fn refused(error: &rustls::Error) -> LegTls {
    let peer_identity = refused_identity(error).map(Into::into);
    LegTls {
        peer_identity,
        ..LegTls::default()
    }
}

fn internal(error: &rustls::Error) -> End {
    End::new(Cause::Internal, Phase::DownstreamHandshake, None).with_detail(error.to_string())
}

fn downstream(cause: Cause, words: String) -> End {
    End::new(cause, Phase::DownstreamHandshake, Some(Side::Downstream)).with_detail(words)
}

/// `limit`: the key of the time limit that the phase is under.
pub(super) fn interrupted(cut: Interrupted, phase: Phase, limit: &'static str) -> End {
    let client = Some(Side::Downstream);
    match cut {
        Interrupted::Timeout => End::new(Cause::Timeout, phase, client).with_detail(limit),
        Interrupted::Ordered(order) => order.end(phase),
        Interrupted::Reset => {
            let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            End::new(Cause::Reset, phase, client).with_detail(error.to_string())
        }
    }
}
