use std::cell::Cell;

use super::flow::{Sink, Source};
use crate::net::{Buffers, Inbound, Pipes, Socket};
use crate::sys::KtlsAbility;
use crate::tls::TlsLeg;
use crate::types::Alert;

/// One side of a relayed connection, its handshake done.
pub struct Leg {
    pub socket: Socket,
    /// Received behind the handshake or the ClientHello, not yet relayed.
    pub inbound: Inbound,
    pub tls: Option<TlsLeg>,
    /// A send was cut short: nothing but the rest of it may follow.
    pub mid_send: bool,
    /// A send has met a reset.
    was_reset: Cell<bool>,
}

impl Leg {
    #[must_use]
    pub fn new(socket: Socket, inbound: Inbound, tls: Option<TlsLeg>) -> Self {
        Self {
            socket,
            inbound,
            tls,
            mid_send: false,
            was_reset: Cell::new(false),
        }
    }

    /// Ends the leg so that the peer cannot take it for a clean end. `alert` goes out first where
    /// there is TLS and no record is half sent: it is returned if it did.
    pub async fn abort(&mut self, alert: Option<Alert>) -> Option<Alert> {
        let control = match (&mut self.tls, alert) {
            (Some(tls), Some(alert)) if !self.mid_send => {
                tls.writer.last_alert(alert, &tls.shared).ok()
            }
            _ => None,
        };
        match control {
            // A reset could overtake the alert; the alert already says that this is no clean end.
            Some(control) if control.try_send(&self.socket).is_ok() => {
                self.socket.farewell().await;
                alert
            }
            _ => {
                self.socket.abort_on_close();
                None
            }
        }
    }

    /// Ends the leg because the other one failed. What was relayed before still arrives where
    /// that can be: without close_notify a TLS peer knows that there should be more, while a
    /// plain peer learns it by a reset alone.
    pub async fn cut(&self) {
        if self.tls.is_some() {
            self.socket.farewell().await;
        } else {
            self.socket.abort_on_close();
        }
    }

    pub(super) fn halves(&mut self) -> (Source<'_>, Sink<'_>) {
        let Self {
            socket,
            inbound,
            tls,
            mid_send,
            was_reset,
        } = self;
        let (socket, was_reset) = (&*socket, &*was_reset);
        let (reading, writing) = match tls {
            None => (None, None),
            Some(TlsLeg {
                reader,
                writer,
                shared,
            }) => (Some((reader, &*shared)), Some((writer, &*shared))),
        };
        let source = Source {
            socket,
            inbound,
            tls: reading,
            was_reset,
        };
        (
            source,
            Sink {
                socket,
                tls: writing,
                mid_send,
                was_reset,
            },
        )
    }
}

/// A core's pools, as a relay needs them, and what the kernel can do for it.
pub struct Tools {
    pub buffers: Buffers,
    pub pipes: Pipes,
    pub kernel_tls: Option<KtlsAbility>,
}
