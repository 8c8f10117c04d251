use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use monoio::time::{Instant, Sleep, sleep};

use super::flow::{Failure, Fault, Flow};
use super::leg::{Leg, Tools};
use super::seen::Seen;
use crate::config::{ListenerPlan, UpstreamPlan};
use crate::net::{CoarseInstant, Socket};
use crate::tls::Shared;
use crate::types::{Cause, Direction};

/// How a relay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayEnd {
    /// Both directions came to their clean end.
    Finished,
    Failed {
        failure: Failure,
        /// The other side's stream had come to its clean end before.
        told: bool,
    },
    /// No byte in either direction for the idle time limit.
    Idle,
    /// The connection has lived as long as it may.
    Expired,
}

/// After one peer takes no more, what it had sent before may still come for this long.
const LINGER: Duration = Duration::from_secs(5);

/// What a relay is measured by.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    pub listener: &'a ListenerPlan,
    /// Options of its socket are set when the connection turns out to last.
    pub upstream: &'a UpstreamPlan,
    /// When the connection has lived as long as it may.
    pub expires_at: Option<CoarseInstant>,
}

impl Limits<'_> {
    /// How long the connection may live on.
    fn life_left(&self, now: CoarseInstant) -> Duration {
        let left = |at: CoarseInstant| at.saturating_since(now);
        self.expires_at.map_or(Duration::MAX, left)
    }
}

/// A connection that is older than this lasts.
const LASTING: Duration = Duration::from_secs(1);

/// By value: what is borrowed lives on in the future that waits.
fn first_look(limits: Limits<'_>) -> Duration {
    let life_left = limits.life_left(CoarseInstant::now());
    LASTING.min(limits.listener.idle_timeout).min(life_left)
}

/// Carries both directions until the connection has ended. Neither leg is closed: that is the
/// caller's, who knows what to tell whom.
pub async fn relay(
    downstream: &mut Leg,
    upstream: &mut Leg,
    tools: &Tools,
    seen: &Seen<'_>,
    limits: Limits<'_>,
) -> RelayEnd {
    let (down_source, down_sink) = downstream.halves();
    let (up_source, up_sink) = upstream.halves();
    let sockets = [
        (Direction::Up, down_source.socket),
        (Direction::Down, up_source.socket),
    ];
    let unsent = down_sink.tls.as_ref().map(|(_, shared)| *shared);
    let (downstream, upstream) = (&limits.listener.carriage, &limits.upstream.carriage);
    let onward = [downstream, upstream];
    let mut up = Flow::new(Direction::Up, down_source, up_sink, tools, seen, onward);
    let back = [upstream, downstream];
    let mut down = Flow::new(Direction::Down, up_source, down_sink, tools, seen, back);
    let mut up = OneFlow {
        flow: pin!(up.run()),
        ended: None,
    };
    let mut down = OneFlow {
        flow: pin!(down.run()),
        ended: None,
    };
    let mut limit = Limit {
        sleep: pin!(sleep(first_look(limits))),
        limits,
        unsent,
        young: true,
        lingering: false,
        looking: false,
    };
    poll_fn(|cx| {
        up.poll(cx);
        down.poll(cx);
        match decide(up.ended.as_ref(), down.ended.as_ref()) {
            Next::End(end) => return Poll::Ready(end),
            Next::Linger => limit.linger(),
            Next::GoOn => {}
        }
        match limit.poll(cx, seen, sockets) {
            Some(Over::Reset(failure)) => Poll::Ready(RelayEnd::Failed {
                failure,
                told: false,
            }),
            Some(Over::Time) => Poll::Ready(failed_or(RelayEnd::Idle, [&up.ended, &down.ended])),
            Some(Over::Life) => Poll::Ready(failed_or(RelayEnd::Expired, [&up.ended, &down.ended])),
            None => Poll::Pending,
        }
    })
    .await
}

type FlowEnd = Result<(), Failure>;

struct OneFlow<F> {
    flow: F,
    ended: Option<FlowEnd>,
}

impl<F: Future<Output = FlowEnd>> OneFlow<Pin<&mut F>> {
    fn poll(&mut self, cx: &mut Context<'_>) {
        if self.ended.is_none()
            && let Poll::Ready(end) = self.flow.as_mut().poll(cx)
        {
            self.ended = Some(end);
        }
    }
}

/// What the ends of the two flows so far mean for the connection.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    /// Give the other flow a short time to its end.
    Linger,
    End(RelayEnd),
}

/// The close table. A failed source ends both directions at once: what it sent is cut short, and
/// the other side must learn that. A failed sink leaves the other flow its chance, since a server
/// may answer and close without having read everything.
fn decide(up: Option<&FlowEnd>, down: Option<&FlowEnd>) -> Next {
    let failed = |fault: Option<Fault>| {
        [up, down]
            .into_iter()
            .flatten()
            .filter_map(|end| end.as_ref().err())
            .find(move |failure| fault.is_none_or(|fault| failure.fault == fault))
    };
    if let Some(failure) = failed(Some(Fault::Source)) {
        return Next::End(RelayEnd::Failed {
            failure: failure.clone(),
            told: false,
        });
    }
    match (up, down, failed(None)) {
        (Some(_), Some(_), None) => Next::End(RelayEnd::Finished),
        (Some(up), Some(down), Some(failure)) => {
            let told = up.is_ok() || down.is_ok();
            Next::End(RelayEnd::Failed {
                failure: failure.clone(),
                told,
            })
        }
        (_, _, Some(_)) => Next::Linger,
        (_, _, None) => Next::GoOn,
    }
}

fn reset_by(direction: Direction) -> Failure {
    Failure {
        fault: Fault::Source,
        side: direction.source(),
        cause: Cause::Reset,
        detail: std::io::Error::from(std::io::ErrorKind::ConnectionReset).to_string(),
        alert: None,
    }
}

/// The idle time limit: one timer, moved on only when it fires.
struct Limit<'a> {
    sleep: Pin<&'a mut Sleep>,
    limits: Limits<'a>,
    /// The downstream side, whose last flight may be waiting for the server's answer.
    unsent: Option<&'a Shared>,
    /// Until the timer fires for the first time.
    young: bool,
    lingering: bool,
    /// The timer fires soon, to look after a flow that is stuck.
    looking: bool,
}

/// Why a relay is over although neither flow has ended it.
enum Over {
    Time,
    Life,
    Reset(Failure),
}

/// How often the source of a flow that cannot write is looked at. Nobody reads it meanwhile, so
/// that a reset there would go unseen as long as the sink is stuck.
const STUCK_LOOK: Duration = Duration::from_secs(1);

impl Limit<'_> {
    fn linger(&mut self) {
        if !self.lingering {
            self.lingering = true;
            self.wake_in(LINGER.min(self.limits.listener.idle_timeout));
        }
    }

    /// Does what a connection that ends within a moment is spared. A send that meets a reset here
    /// takes the error with it, but the reset stays no clean end: tickets are sent on TLS alone,
    /// where the flow that reads next finds a stream without close_notify.
    fn come_of_age(&mut self, [(_, downstream), (_, upstream)]: [(Direction, &Socket); 2]) {
        if !std::mem::take(&mut self.young) {
            return;
        }
        let _ = upstream.last(&self.limits.upstream.socket);
        if let Some(shared) = self.unsent {
            let mut flight = shared.take_unsent();
            if !flight.is_empty() {
                let sent = downstream.try_send(&flight).unwrap_or(0);
                flight.drain(..sent);
                shared.put_back(flight);
            }
        }
    }

    fn wake_in(&mut self, duration: Duration) {
        let duration = duration.min(self.limits.life_left(CoarseInstant::now()));
        self.sleep.as_mut().reset(Instant::now() + duration);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        seen: &Seen<'_>,
        sources: [(Direction, &Socket); 2],
    ) -> Option<Over> {
        let stuck = sources
            .iter()
            .any(|(direction, _)| seen.is_stuck(*direction));
        if stuck && !self.looking && !self.lingering {
            self.looking = true;
            self.wake_in(STUCK_LOOK.min(self.limits.listener.idle_timeout));
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = CoarseInstant::now();
            if self.limits.life_left(now).is_zero() {
                return Some(Over::Life);
            }
            let idle_timeout = self.limits.listener.idle_timeout;
            let idle = now.saturating_since(seen.last_active.get());
            if self.lingering || idle >= idle_timeout {
                return Some(Over::Time);
            }
            let reset = sources
                .iter()
                .find(|(direction, socket)| seen.is_stuck(*direction) && socket.is_reset());
            if let Some((direction, _)) = reset {
                return Some(Over::Reset(reset_by(*direction)));
            }
            self.looking = stuck;
            self.come_of_age(sources);
            let left = idle_timeout - idle;
            self.wake_in(if stuck { STUCK_LOOK.min(left) } else { left });
        }
        None
    }
}

/// The end of a relay whose time is over: a flow's failure says more than the clock.
fn failed_or(otherwise: RelayEnd, ends: [&Option<FlowEnd>; 2]) -> RelayEnd {
    let failed = ends
        .into_iter()
        .flatten()
        .find_map(|end| end.as_ref().err());
    failed.map_or(otherwise, |failure| RelayEnd::Failed {
        failure: failure.clone(),
        told: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Cause, Side};

    fn failed(fault: Fault) -> FlowEnd {
        Err(Failure {
            fault,
            side: Side::Upstream,
            cause: Cause::Reset,
            detail: "reset".into(),
            alert: None,
        })
    }

    #[test]
    fn every_pair_of_ends_has_its_consequence() {
        let ends = [
            None,
            Some(Ok(())),
            Some(failed(Fault::Source)),
            Some(failed(Fault::Sink)),
        ];
        let is_end = |next: &Next| matches!(next, Next::End(RelayEnd::Failed { .. }));
        for up in &ends {
            for down in &ends {
                let next = decide(up.as_ref(), down.as_ref());
                let fault = |end: &Option<FlowEnd>| match end {
                    Some(Err(failure)) => Some(failure.fault),
                    _ => None,
                };
                match (up, down) {
                    (Some(Ok(())), Some(Ok(()))) => {
                        assert_eq!(next, Next::End(RelayEnd::Finished));
                    }
                    _ if [fault(up), fault(down)].contains(&Some(Fault::Source)) => {
                        assert!(is_end(&next), "{up:?} {down:?} gave {next:?}");
                    }
                    (Some(_), Some(_)) => assert!(is_end(&next), "{up:?} {down:?} gave {next:?}"),
                    (Some(Err(_)), None) | (None, Some(Err(_))) => assert_eq!(next, Next::Linger),
                    _ => assert_eq!(next, Next::GoOn),
                }
            }
        }
    }
}
