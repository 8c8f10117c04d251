//! The relay phase: run it, tell each side how it ended, note what was seen.

use std::time::Instant;

use super::core::Core;
use super::served::serve_while;
use super::story::Story;
use super::watch::Seat;
use crate::config::ListenerPlan;
use crate::net::CoarseInstant;
use crate::relay::{Failure, Leg, Limits, RelayEnd, Seen, relay};
use crate::tls::Withdrawn;
use crate::types::{Alert, Cause, End, GroupId, Phase, Side};
use crate::upstream::Lease;

/// Both sides of a connection, their handshakes done.
pub(super) struct Legs<'a> {
    pub client: Leg,
    pub server: Leg,
    /// The server's group.
    pub group: GroupId,
    /// Its place there, until the connection has ended.
    pub lease: Lease<'a>,
}

impl Legs<'_> {
    fn abort(&self) {
        self.client.socket.abort_on_close();
        self.server.socket.abort_on_close();
    }
}

pub(super) async fn relaying(
    core: &Core,
    seat: &Seat<'_>,
    story: &mut Story<'_>,
    mut legs: Box<Legs<'_>>,
) -> End {
    let listener = story.plan();
    let seen = Seen::new(listener.pace, &story.listening().meters.carried);
    let upstream = &story.group(legs.group).plan;
    let limits = Limits {
        listener,
        upstream,
        expires_at: expires_at(listener, story.begun()),
    };
    let Legs {
        client,
        server,
        lease,
        ..
    } = &mut *legs;
    // Not by way of a variable: the future would be held twice.
    let ended = serve_while(
        seat,
        lease,
        &seen,
        relay(client, server, &core.tools, &seen, limits),
    )
    .await;

    note(story, &seen);
    match ended {
        Ok(RelayEnd::Finished) => End::new(Cause::Finished, Phase::Relay, None),
        Ok(RelayEnd::Failed { failure, told }) => {
            blame(&legs.lease, &failure, &seen);
            // Rare, and its state would make every connection's future larger.
            let blamed = (failure.side, failure.cause, failure.alert);
            let alert = Box::pin(tell(legs, blamed, told)).await;
            // A limit is ours, whichever side met it.
            let side = (failure.cause != Cause::Limit).then_some(failure.side);
            End::new(failure.cause, Phase::Relay, side)
                .with_alert(alert)
                .with_detail(failure.detail)
        }
        Ok(RelayEnd::Idle) => {
            legs.abort();
            End::new(Cause::Timeout, Phase::Relay, None).with_detail("idle_timeout")
        }
        Ok(RelayEnd::Expired) => {
            legs.abort();
            End::new(Cause::Expired, Phase::Relay, None).with_detail("max_session")
        }
        Err(order) => match story.withdrawn() {
            Some((side, withdrawn)) => withdraw(legs, side, withdrawn).await,
            None => {
                legs.abort();
                order.end(Phase::Relay)
            }
        },
    }
}

/// A server that resets a connection which has carried nothing has not taken it. Once a byte of the
/// client was sent the reset may be the client's doing: no stranger shall take servers out.
fn blame(lease: &Lease<'_>, failure: &Failure, seen: &Seen<'_>) {
    let untouched = seen.bytes_up.get() == 0 && seen.bytes_down.get() == 0;
    if failure.side == Side::Upstream && failure.cause == Cause::Reset && untouched {
        lease.fails(|| "relay: reset before the first byte".to_owned());
    }
}

fn expires_at(listener: &ListenerPlan, begun: Instant) -> Option<CoarseInstant> {
    let left = listener.pace.session_max?.saturating_sub(begun.elapsed());
    Some(CoarseInstant::now().after(left))
}

fn note(story: &mut Story<'_>, seen: &Seen<'_>) {
    let begun = story.begun();
    let record = story.record();
    record.bytes_up = seen.bytes_up.get();
    record.bytes_down = seen.bytes_down.get();
    record.path_up = seen.path_up.get();
    record.path_down = seen.path_down.get();
    record.fallback_up = seen.fallback_up.get();
    record.fallback_down = seen.fallback_down.get();
    record.times.first_byte = seen
        .first_byte
        .get()
        .map(|at| at.duration_since(begun).into());
}

/// The owner of the certificate learns why, the other side that this is no clean end.
async fn withdraw(legs: Box<Legs<'_>>, side: Side, withdrawn: &Withdrawn) -> End {
    let Withdrawn {
        cause,
        alert,
        words,
    } = withdrawn;
    // Rare, and its state would make every connection's future larger.
    let told = Box::pin(tell(legs, (side, *cause, Some(*alert)), false)).await;
    End::new(*cause, Phase::Relay, Some(side))
        .with_alert(told)
        .with_detail(format!("close_revoked: {words}"))
}

/// The failing side learns why where TLS has a word for it; the other side must not take the
/// failure for a clean end, unless its own stream had come to one before (`told`). Returns the
/// alert that the record shows: received from the failing side, or sent to it.
async fn tell(
    legs: Box<Legs<'_>>,
    (side, cause, alert): (Side, Cause, Option<Alert>),
    told: bool,
) -> Option<Alert> {
    let Legs { client, server, .. } = *legs;
    let (mut failed, other) = match side {
        Side::Downstream => (client, server),
        Side::Upstream => (server, client),
    };
    if told {
        other.socket.farewell().await;
    } else {
        other.cut().await;
    }
    drop(other);
    if cause == Cause::Alert {
        failed.abort(None).await;
        return alert;
    }
    failed.abort(alert).await
}
