//! Asking again, in the life of a session, whether its peer's certificate would still be taken.

use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::{AlertDescription, Error};

use super::bound::{PeerBound, with_peer_bound};
use super::reason;
use super::{ClientTls, Engine, ServerTls};
use crate::types::{Alert, Cause, UnixSeconds};

/// A certificate that was good enough at the handshake is not any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawn {
    pub cause: Cause,
    /// What its owner is told.
    pub alert: Alert,
    pub words: String,
}

/// What a peer has shown in its handshake, or in the one that its session descends from.
#[derive(Debug)]
pub struct Shown {
    /// Its certificate first.
    pub chain: Box<[CertificateDer<'static>]>,
    /// By the rules of then.
    pub good_until: UnixSeconds,
}

impl Shown {
    /// `None`: it showed no certificate.
    #[must_use]
    pub fn by(engine: &impl Engine) -> Option<Self> {
        let chain = engine.common().peer_certificates()?;
        let good_until = engine.bound().not_after().unwrap_or(UnixSeconds::MAX);
        let owned = |it: &CertificateDer<'_>| it.clone().into_owned();
        Some(Self {
            chain: chain.iter().map(owned).collect(),
            good_until,
        })
    }
}

/// What a peer's certificate is good for now: until when, or why for nothing.
pub type Standing = Result<UnixSeconds, Withdrawn>;

impl ServerTls {
    /// Judges a client's chain, its leaf first, as a full handshake at `now` would.
    pub fn judge_again(&self, chain: &[CertificateDer<'_>], now: UnixSeconds) -> Standing {
        let Some(verifier) = &self.verifier else {
            return Ok(UnixSeconds::MAX);
        };
        judge(chain, now, |leaf, intermediates, now| {
            verifier
                .verify_client_cert(leaf, intermediates, now)
                .map(drop)
        })
    }
}

impl ClientTls {
    /// Judges the chain of the server `name`, its leaf first, as a full handshake at `now` would.
    pub fn judge_again(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixSeconds,
    ) -> Standing {
        judge(chain, now, |leaf, intermediates, now| {
            self.verifier
                .verify_server_cert(leaf, intermediates, name, &[], now)
                .map(drop)
        })
    }
}

fn judge(
    chain: &[CertificateDer<'_>],
    now: UnixSeconds,
    verify: impl FnOnce(&CertificateDer<'_>, &[CertificateDer<'_>], UnixTime) -> Result<(), Error>,
) -> Standing {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Ok(UnixSeconds::MAX);
    };
    let mut bound = PeerBound::default();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let judged = with_peer_bound(&mut bound, || verify(leaf, intermediates, at));
    match judged {
        Ok(()) => Ok(bound.not_after().unwrap_or(UnixSeconds::MAX)),
        Err(error) => Err(withdrawn(&error)),
    }
}

fn withdrawn(error: &Error) -> Withdrawn {
    let alert = match error {
        Error::InvalidCertificate(error) => Alert(AlertDescription::from(error.clone()).into()),
        _ => Alert::CERTIFICATE_UNKNOWN,
    };
    let (cause, words) = reason::failure(error);
    Withdrawn {
        cause,
        alert,
        words,
    }
}
