//! What a group counts of its tries, for the metrics.

use super::connect::{Attempts, Reached};
use super::group::Group;
use super::lease::Lease;
use super::tries::Refused;
use crate::types::Phase;

impl Group {
    /// A server is tried. What becomes of a try that is given up midway is not counted.
    pub(super) fn on_try(&self, lease: &Lease<'_>) {
        self.meters.server(lease.endpoint().server).tries.add(1);
    }

    /// A try has come to its end.
    pub(super) fn on_tried(
        &self,
        lease: &Lease<'_>,
        attempted: &Result<Reached, Refused>,
        attempts: &Attempts,
    ) {
        let server = self.meters.server(lease.endpoint().server);
        let handshakes = &self.meters.group.handshakes;
        match attempted {
            Ok(_) => {
                server.taken.add(1);
                if let Some(leg) = &attempts.tls {
                    handshakes.finish(leg);
                }
            }
            Err(refused) => {
                server.failed.of(refused.setback).add(1);
                if refused.end.phase == Phase::UpstreamHandshake {
                    handshakes.fail(refused.end.cause);
                }
            }
        }
    }
}
