use crate::net::{Buffers, Inbound, Pipes, Socket};
use crate::tls::TlsLeg;

/// One side of a relayed connection, its handshake done.
pub struct Leg {
    pub socket: Socket,
    /// Received behind the handshake or the ClientHello, not yet relayed.
    pub inbound: Inbound,
    pub tls: Option<TlsLeg>,
    /// A send was cut short: nothing but the rest of it may follow.
    pub mid_send: bool,
}

impl Leg {
    #[must_use]
    pub fn new(socket: Socket, inbound: Inbound, tls: Option<TlsLeg>) -> Self {
        Self {
            socket,
            inbound,
            tls,
            mid_send: false,
        }
    }

    /// Throws away what has arrived: unread bytes would turn the coming close into a reset, which
    /// could overtake what the peer has not read yet.
    pub fn discard_received(&mut self) {
        let mut scrap = [0; 4096];
        for _ in 0..DISCARDS_MAX {
            if !matches!(self.socket.try_recv(&mut scrap), Ok(1..)) {
                break;
            }
        }
    }

    /// Ends the leg so that the peer cannot take it for a clean end. `alert` goes out first where
    /// there is TLS and no record is half sent.
    pub async fn abort(&mut self, alert: Option<u8>) {
        let sealed = match (&mut self.tls, alert) {
            (Some(tls), Some(alert)) if !self.mid_send => tls.writer.fatal_alert(alert).ok(),
            _ => None,
        };
        match sealed {
            // A reset could overtake the alert; the alert already says that this is no clean end.
            Some(record) if self.socket.try_send(&record).is_ok() => self.socket.farewell().await,
            _ => self.socket.abort_on_close(),
        }
    }
}

const DISCARDS_MAX: usize = 64;

/// A core's pools, as a relay needs them.
pub struct Tools {
    pub buffers: Buffers,
    pub pipes: Pipes,
}
