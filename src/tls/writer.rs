//! What a leg sends once its handshake is done.

use super::handoff::KernelWriter;
use super::record::{ContentType, Exhausted, Sealer, Shape};
use super::stream::{ALERT_LEVEL_WARNING, HANDSHAKE_KEY_UPDATE, Shared};
use crate::net::Parts;
use crate::types::Alert;

const ALERT_LEVEL_FATAL: u8 = 2;

/// Seals what we send.
pub struct TlsWriter {
    pub(super) sealing: Sealing,
}

/// Who seals what goes.
pub(super) enum Sealing {
    User(Sealer),
    Kernel(Box<KernelWriter>),
}

/// A message of ours that is no application data, on its way.
pub enum Control {
    /// Sealed records, as they go out.
    Sealed(Vec<u8>),
    /// The content of one record that the kernel seals.
    ForKernel(ContentType, Vec<u8>),
}

impl TlsWriter {
    #[must_use]
    pub fn new(sealer: Sealer) -> Self {
        Self {
            sealing: Sealing::User(sealer),
        }
    }

    /// Of the records that are sealed here; none are once the kernel seals them.
    #[must_use]
    pub fn shape(&self) -> Option<Shape> {
        match &self.sealing {
            Sealing::User(sealer) => Some(sealer.shape()),
            Sealing::Kernel(_) => None,
        }
    }

    /// Seals every part where it stands; the parts become the records.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn seal(&mut self, buffer: &mut [u8], parts: &mut Parts) -> Result<(), Exhausted> {
        let Sealing::User(sealer) = &mut self.sealing else {
            return Ok(());
        };
        for range in parts.ranges_mut() {
            *range = sealer.seal(ContentType::ApplicationData, buffer, range.clone())?;
        }
        Ok(())
    }

    /// What goes before the next application data, mostly nothing: the end of our handshake, and
    /// a key update if one is due, because the peer asked or because the key has protected nearly
    /// as much as it may.
    ///
    /// # Errors
    /// [`Exhausted`], where the version has no key updates.
    pub fn before_data(&mut self, shared: &Shared) -> Result<Vec<u8>, Exhausted> {
        let mut before = shared.take_unsent();
        let Sealing::User(sealer) = &mut self.sealing else {
            return Ok(before);
        };
        if !shared.requested.get() && !sealer.nearly_exhausted() {
            return Ok(before);
        }
        if !shared.tls13 {
            return Err(Exhausted);
        }
        shared.requested.set(false);
        // KeyUpdate, 1 byte, update_not_requested.
        let message = [HANDSHAKE_KEY_UPDATE, 0, 0, 1, 0];
        before.extend(small(sealer, ContentType::Handshake, &message)?);
        *sealer = shared.next_sealer()?;
        Ok(before)
    }

    /// Whether something must go out before the direction may be handed over.
    #[must_use]
    pub fn owes(&self, shared: &Shared) -> bool {
        shared.owes_flight() || shared.requested.get()
    }

    /// What ends our direction.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn close_notify(&mut self, shared: &Shared) -> Result<Control, Exhausted> {
        self.alert(ALERT_LEVEL_WARNING, Alert::CLOSE_NOTIFY, shared)
    }

    /// What tells the peer why the connection ends.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn last_alert(&mut self, alert: Alert, shared: &Shared) -> Result<Control, Exhausted> {
        let level = match alert {
            // Always a warning (RFC 5246 7.2.2), also where the connection ends with it.
            Alert::NO_RENEGOTIATION => ALERT_LEVEL_WARNING,
            _ => ALERT_LEVEL_FATAL,
        };
        self.alert(level, alert, shared)
    }

    fn alert(&mut self, level: u8, alert: Alert, shared: &Shared) -> Result<Control, Exhausted> {
        match &mut self.sealing {
            Sealing::User(sealer) => {
                let mut records = shared.take_unsent();
                records.extend(small(sealer, ContentType::Alert, &[level, alert.0])?);
                Ok(Control::Sealed(records))
            }
            Sealing::Kernel(_) => {
                let content = vec![level, alert.0];
                Ok(Control::ForKernel(ContentType::Alert, content))
            }
        }
    }
}

/// A record of its own for a small message.
pub(super) fn small(
    sealer: &mut Sealer,
    content_type: ContentType,
    body: &[u8],
) -> Result<Vec<u8>, Exhausted> {
    let shape = sealer.shape();
    let head = shape.head_bytes();
    let mut record = vec![0; head + body.len() + shape.tail_bytes()];
    record[head..head + body.len()].copy_from_slice(body);
    sealer.seal(content_type, &mut record, head..head + body.len())?;
    Ok(record)
}

/// True when records opened under `from` leave room to seal under `to` in the same place.
#[must_use]
pub fn seals_in_place(from: Shape, to: Shape) -> bool {
    from.head_bytes() >= to.head_bytes() && from.tail_bytes() >= to.tail_bytes()
}
