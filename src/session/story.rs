use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::time::sleep;

use super::access::{Places, Refused};
use super::announce::announce;
use super::core::{Core, Entered};
use super::generation::{Generation, ListenerState};
use super::greet::{Client, greet, interrupted};
use super::limit::{Interrupted, attend, limit};
use super::live::Live;
use super::proofs::{Proof, ShownTo};
use super::relaying::{Legs, relaying};
use super::watch::{RunState, Seat};
use crate::config::ListenerPlan;
use crate::net::{Accepted, PeerAddress, Socket};
use crate::observe::{Address, Record, UpstreamSeen};
use crate::proto::record::fatal_alert;
use crate::relay::Leg;
use crate::tls::{TlsLeg, Withdrawn};
use crate::types::{Alert, Cause, End, GroupId, ListenerId, Phase, Side};
use crate::upstream::{Attempts, Group, Lease, Request, TryLimits, connect};

/// Serves one accepted connection to its end, and writes its record.
pub async fn serve(
    core: Rc<Core>,
    generation: Rc<Generation>,
    listener: ListenerId,
    accepted: Accepted,
) {
    let seat = core.watch.seat();
    let Accepted {
        socket,
        client,
        local,
    } = accepted;
    let mut story = Story::begin(&core, &seat, &generation, listener, (client, local));
    let end = run(&core, &seat, &mut story, socket).await;
    story.finish(end);
    if core.begin_flushing() {
        monoio::spawn(flush(Rc::clone(&core)));
    }
}

/// Runs while refusals wait for their line.
async fn flush(core: Rc<Core>) {
    loop {
        sleep(FLUSH_EVERY).await;
        if !core.go_on_flushing() {
            return;
        }
    }
}

const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// A connection's record in the making. It is sent when the story ends, however it ends.
pub(super) struct Story<'a> {
    entered: Entered<'a>,
    /// Where others see how far it has come.
    seat: &'a Seat<'a>,
    generation: &'a Rc<Generation>,
    /// Where its source is counted; in a box, since most listeners count none.
    places: Option<Box<Places<'a>>>,
    begun: Instant,
    /// What its peers have shown, where a later judgement may end it.
    proofs: Vec<Rc<Proof>>,
    record: Option<Box<Record>>,
    pub listener: ListenerId,
    pub phase: Phase,
}

impl<'a> Story<'a> {
    fn begin(
        core: &'a Core,
        seat: &'a Seat<'a>,
        generation: &'a Rc<Generation>,
        listener: ListenerId,
        ends: (PeerAddress, PeerAddress),
    ) -> Self {
        let ends = (address(ends.0), address(ends.1));
        let plan = Arc::clone(&generation.handle);
        let record = Record::begin(core.next_record_id(), core.id, (plan, listener), ends);
        let connections_max = generation.plan().listener(listener).connections_max;
        let listening = generation.listener(listener);
        listening.meters.begin();
        seat.begin(Live::new(&record, generation));
        Self {
            seat,
            entered: core.enter(listening, connections_max),
            generation,
            places: None,
            begun: Instant::now(),
            proofs: Vec::new(),
            record: Some(Box::new(record)),
            listener,
            phase: Phase::Accept,
        }
    }

    /// How its listener was planned when it began.
    pub(super) fn plan(&self) -> &'a ListenerPlan {
        self.generation.plan().listener(self.listener)
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        self.listening().meters.turn(self.phase, phase);
        self.phase = phase;
        self.seat.note(|live| live.phase = phase);
    }

    /// The record has another client than before: a trusted header has named it.
    pub(super) fn note_client(&mut self) {
        let seat = self.seat;
        let client = &self.record().client;
        seat.note(|live| live.set_client(client));
    }

    pub(super) fn listening(&self) -> &'a ListenerState {
        self.generation.listener(self.listener)
    }

    pub(super) fn group(&self, id: GroupId) -> &'a Group {
        self.generation.group(id)
    }

    /// The record, until the story is finished.
    pub(super) fn record(&mut self) -> &mut Record {
        let Self {
            entered,
            generation,
            listener,
            record,
            ..
        } = self;
        let core = entered.core;
        record.get_or_insert_with(|| {
            let ends = (Address::unnamed(), Address::unnamed());
            let plan = Arc::clone(&generation.handle);
            Box::new(Record::begin(
                core.next_record_id(),
                core.id,
                (plan, *listener),
                ends,
            ))
        })
    }

    /// Asks whether the listener serves a client of this address, and takes its places: at accept,
    /// or instead when a trusted header has said who it is.
    pub(super) fn admit(&mut self, address: Option<IpAddr>) -> Result<(), Refused> {
        if let Some(access) = &self.listening().access {
            self.places = Some(Box::new(access.admit(address, Instant::now())?));
        }
        Ok(())
    }

    /// The client's address, by which it is admitted and counted; none on a unix socket.
    pub(super) fn client_address(&self) -> Option<IpAddr> {
        self.record.as_ref()?.client.ip()
    }

    /// Has what its peers have shown judged again while it lives.
    fn keep_proofs(&mut self, client: &Client, reached: &Reached<'_>) {
        let shown = |leg: &Leg| leg.tls.as_ref().and_then(TlsLeg::take_shown);
        let name = reached
            .lease
            .endpoint()
            .tls
            .as_ref()
            .map(|tls| tls.name.clone());
        let of_client = shown(&client.leg).map(|it| (ShownTo::Listener(self.listener), it));
        let of_server = shown(&reached.server).zip(name);
        let of_server = of_server.map(|(it, name)| (ShownTo::Group(reached.group, name), it));
        let proofs = &self.entered.core.proofs;
        for (to, shown) in of_client.into_iter().chain(of_server) {
            let id = self.record().id;
            self.proofs
                .push(proofs.keep(id, self.generation, (to, *shown)));
        }
    }

    /// Whose certificate has been withdrawn, and why; `None`: all stand.
    pub(super) fn withdrawn(&self) -> Option<(Side, &Withdrawn)> {
        self.proofs.iter().find_map(|it| it.withdrawn())
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Counts what came before the relay now: a connection may live for days.
    fn settled(&self) {
        if let Some(record) = &self.record {
            self.listening().meters.settle(record);
        }
    }

    fn finish(mut self, end: End) {
        self.close(end);
    }

    fn close(&mut self, end: End) {
        if let Some(mut record) = self.record.take() {
            record.times.total = self.begun.elapsed();
            record.end = Some(end);
            self.listening().meters.end(&record, self.phase);
            self.entered.core.meters.end(&record);
            self.entered.core.send_record(record);
        }
    }
}

impl Drop for Story<'_> {
    fn drop(&mut self) {
        if self.record.is_some() {
            let cause = match self.entered.core.watch.state() {
                RunState::Closing => Cause::Shutdown,
                RunState::Running | RunState::Draining => Cause::Internal,
            };
            self.close(End::new(cause, self.phase, None).with_detail("dropped unfinished"));
        }
    }
}

fn address(peer: PeerAddress) -> Address {
    match peer {
        PeerAddress::Ip(address) => Address::Ip(address),
        PeerAddress::Unix(path) => Address::Unix(path),
    }
}

async fn run(core: &Core, seat: &Seat<'_>, story: &mut Story<'_>, socket: Socket) -> End {
    // In a box of its own: a relay lives long, and should not carry what came before it.
    match Box::pin(settle(core, seat, story, socket)).await {
        Ok(legs) => {
            story.enter(Phase::Relay);
            story.settled();
            relaying(core, seat, story, legs).await
        }
        Err(end) => end,
    }
}

/// All that comes before the first byte is relayed: both legs, or why not.
async fn settle<'a>(
    core: &Core,
    seat: &Seat<'_>,
    story: &mut Story<'a>,
    socket: Socket,
) -> Result<Box<Legs<'a>>, End> {
    if !story.entered.admitted {
        socket.abort_on_close();
        return Err(over_limit(
            Phase::Accept,
            "max_connections of the listener is reached",
        ));
    }
    // Where PROXY headers are taken the client is known behind them.
    let known = story.plan().proxied.is_none();
    if let Some(Err(refused)) = known.then(|| story.admit(story.client_address())) {
        socket.abort_on_close();
        return Err(refused.end(Phase::Accept));
    }
    let mut client = greet(core, seat, story, socket).await?;
    let server = reach(core, seat, story, &client).await;
    match server {
        Ok(reached) => {
            story.keep_proofs(&client, &reached);
            let Reached {
                group,
                server,
                lease,
            } = reached;
            Ok(Box::new(Legs {
                client: client.leg,
                server,
                group,
                lease,
            }))
        }
        Err(end) => {
            let told = turn_away(&mut client, Alert::INTERNAL_ERROR).await;
            let own = end.side == Some(Side::Downstream);
            Err(if own { end.with_alert(told) } else { end })
        }
    }
}

pub(super) fn over_limit(phase: Phase, words: &'static str) -> End {
    End::new(Cause::Limit, phase, None).with_detail(words)
}

/// A client whose TLS we only pass through has seen no answer yet: an alert in clear is in place.
/// Returns it if it was sent.
async fn turn_away(client: &mut Client, alert: Alert) -> Option<Alert> {
    let passes_tls = client.leg.tls.is_none() && client.opening.hello().is_some();
    if passes_tls && client.leg.socket.try_send(&fatal_alert(alert)).is_ok() {
        client.leg.socket.farewell().await;
        Some(alert)
    } else {
        client.leg.abort(Some(alert)).await
    }
}

/// A server, ready for the client's bytes.
struct Reached<'a> {
    group: GroupId,
    server: Leg,
    lease: Lease<'a>,
}

async fn reach<'a>(
    core: &Core,
    seat: &Seat<'_>,
    story: &mut Story<'a>,
    client: &Client,
) -> Result<Reached<'a>, End> {
    let plan = story.plan();
    let group = client.group;
    story.record().group = Some(group);
    seat.note(|live| live.group = Some(group));
    story.enter(Phase::Connect);
    let version = story.group(group).plan.proxy_protocol;
    let proxy_header = version.map(|version| announce(version, story.record(), client));
    let request = Request {
        group: story.group(group),
        proxy_header: proxy_header.as_deref().unwrap_or_default(),
        client: story.client_address(),
        buffers: &core.tools.buffers,
        handshakes: &core.handshakes,
        limits: TryLimits::of(plan),
        key: key(story.group(group), story, client),
        alpn: client.alpn.as_deref(),
        keep_secrets: core.keeps_secrets(story.group(group).plan.carriage),
    };
    let socket = &client.leg.socket;
    if story.group(group).holds_warm() && client.leg.inbound.is_empty() {
        // Rare, and its state would make every connection's future larger.
        Box::pin(first_byte(seat, socket)).await?;
    }
    let mut attempts = Attempts::default();
    let connected = attend(seat, socket, connect(&request, &mut attempts)).await;
    let phase = attempts.phase();
    note(story, attempts);
    // A client that had left before the server failed is the one who ended it.
    let connected = match connected {
        Ok(Err(_)) if socket.is_reset() => Err(Interrupted::Reset),
        other => other,
    };
    let connected =
        connected.unwrap_or_else(|cut| Err(interrupted(cut, phase, "connect_timeout")))?;
    let server = Leg::new(connected.socket, connected.inbound, connected.tls);
    Ok(Reached {
        group,
        server,
        lease: connected.lease,
    })
}

/// A ready connection is handed out when there is something to send on it: nobody notices then if
/// the server has ended it meanwhile.
const FIRST_BYTE_WAIT: Duration = Duration::from_secs(1);

async fn first_byte(seat: &Seat<'_>, client: &Socket) -> Result<(), End> {
    match limit(seat, FIRST_BYTE_WAIT, client.readable()).await {
        Err(cut @ Interrupted::Ordered(_)) => Err(interrupted(cut, Phase::Connect, "")),
        // Who waits for the server's first words gets them later.
        _ => Ok(()),
    }
}

/// What the group's strategy may hash.
fn key(group: &Group, story: &mut Story<'_>, client: &Client) -> u64 {
    group.key(story.record().client.ip(), client.server_name())
}

fn note(story: &mut Story<'_>, attempts: Attempts) {
    let record = story.record();
    record.times.queue = attempts.queued().map(Into::into);
    record.times.warm = attempts.warm.map(Into::into);
    record.tries = attempts.tries;
    record.passed_over = attempts.passed_over.into();
    record.upstream_sni = attempts.sni;
    record.upstream_tls = attempts.tls.map(Box::new);
    record.times.connect = attempts.connect.map(Into::into);
    record.times.upstream_handshake = attempts.handshake.map(Into::into);
    record.upstream = attempts.last.map(|(server, peer)| UpstreamSeen {
        server,
        address: address(peer),
    });
}
