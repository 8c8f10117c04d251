//! Full handshakes only as far as they may be: resumed ones go first.
//!
//! Whether a handshake resumes is decided deep within rustls. What it offers says little: anyone can
//! offer a ticket, forged, or good for another suite or name. So the gate stands before the work
//! itself. At the key exchange it asks whether a session has been opened in this handshake (by a
//! ticket that decrypts or an entry of the cache); if none has, it is a full one. A handshake that
//! opened a session and then makes a signature all the same is a full one, too: it is asked there.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{Error, NamedGroup, ProtocolVersion, SignatureAlgorithm, SignatureScheme};

thread_local! {
    static CURRENT: RefCell<Option<FullHandshakeGate>> = const { RefCell::new(None) };
}

/// Asks once whether one connection's handshake may be a full one.
pub struct FullHandshakeGate {
    ask: Box<dyn FnMut() -> Answer>,
    /// A session was taken out of a ticket or a store.
    session_opened: bool,
    answer: Option<Answer>,
}

/// `Err` holds the words for the one who is refused.
pub type Answer = Result<(), &'static str>;

impl FullHandshakeGate {
    pub fn new(ask: impl FnMut() -> Answer + 'static) -> Self {
        Self {
            ask: Box::new(ask),
            session_opened: false,
            answer: None,
        }
    }

    /// The words of a refusal, if it was asked and said no.
    #[must_use]
    pub fn refusal(&self) -> Option<&'static str> {
        self.answer.and_then(Answer::err)
    }

    fn permits(&mut self) -> bool {
        self.answer.get_or_insert_with(|| (self.ask)()).is_ok()
    }
}

impl fmt::Debug for FullHandshakeGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FullHandshakeGate")
            .field("session_opened", &self.session_opened)
            .field("answer", &self.answer)
            .finish_non_exhaustive()
    }
}

/// Runs a call into rustls for the connection that `gate` belongs to. Without a gate every
/// handshake may be full.
pub(super) fn with_gate<R>(gate: &mut Option<FullHandshakeGate>, run: impl FnOnce() -> R) -> R {
    if gate.is_none() {
        return run();
    }
    let mut scope = Scope { gate };
    scope.swap();
    let result = run();
    drop(scope);
    result
}

/// Takes the gate back also when the call unwinds.
struct Scope<'a> {
    gate: &'a mut Option<FullHandshakeGate>,
}

impl Scope<'_> {
    fn swap(&mut self) {
        CURRENT.with_borrow_mut(|current| std::mem::swap(current, self.gate));
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.swap();
    }
}

/// A session is about to be resumed, unless something of the handshake does not fit it.
pub(super) fn on_session_opened() {
    CURRENT.with_borrow_mut(|current| {
        if let Some(gate) = current {
            gate.session_opened = true;
        }
    });
}

/// The work that a handshake is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// A resumed handshake of TLS 1.3 has one, too.
    KeyExchange,
    /// None but a full one has it.
    Signature,
}

fn permit(work: Work) -> Result<(), Error> {
    CURRENT.with_borrow_mut(|current| {
        let Some(gate) = current else { return Ok(()) };
        let resumes = work == Work::KeyExchange && gate.session_opened;
        if resumes || gate.permits() {
            return Ok(());
        }
        Err(Error::General("full handshakes are over their rate".into()))
    })
}

/// Puts what a server's handshakes work with behind the gate.
pub(super) fn guard_exchanges(provider: &CryptoProvider) -> CryptoProvider {
    let mut guarded = provider.clone();
    for group in &mut guarded.kx_groups {
        *group = guarded_group(*group);
    }
    guarded
}

/// The same for a certificate's key.
pub(super) fn guard_signatures(certified: CertifiedKey) -> CertifiedKey {
    let key = Arc::new(GuardedKey {
        inner: Arc::clone(&certified.key),
    });
    CertifiedKey { key, ..certified }
}

static GUARDED: [GuardedGroup; 4] = [
    GuardedGroup(NamedGroup::X25519MLKEM768),
    GuardedGroup(NamedGroup::X25519),
    GuardedGroup(NamedGroup::secp256r1),
    GuardedGroup(NamedGroup::secp384r1),
];

fn guarded_group(group: &'static dyn SupportedKxGroup) -> &'static dyn SupportedKxGroup {
    let name = group.name();
    let guarded = GUARDED.iter().find(|guarded| guarded.0 == name);
    guarded.map_or(group, |guarded| guarded)
}

#[derive(Debug)]
struct GuardedGroup(NamedGroup);

impl GuardedGroup {
    fn inner(&self) -> &'static dyn SupportedKxGroup {
        match self.0 {
            NamedGroup::X25519MLKEM768 => kx_group::X25519MLKEM768,
            NamedGroup::X25519 => kx_group::X25519,
            NamedGroup::secp384r1 => kx_group::SECP384R1,
            _ => kx_group::SECP256R1,
        }
    }
}

impl SupportedKxGroup for GuardedGroup {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        permit(Work::KeyExchange)?;
        self.inner().start()
    }

    fn start_and_complete(&self, peer_pub_key: &[u8]) -> Result<CompletedKeyExchange, Error> {
        permit(Work::KeyExchange)?;
        self.inner().start_and_complete(peer_pub_key)
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        self.inner().ffdhe_group()
    }

    fn name(&self) -> NamedGroup {
        self.0
    }

    fn fips(&self) -> bool {
        self.inner().fips()
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        self.inner().usable_for_version(version)
    }
}

#[derive(Debug)]
struct GuardedKey {
    inner: Arc<dyn SigningKey>,
}

impl SigningKey for GuardedKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let inner = self.inner.choose_scheme(offered)?;
        Some(Box::new(GuardedSigner { inner }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.inner.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.inner.algorithm()
    }
}

#[derive(Debug)]
struct GuardedSigner {
    inner: Box<dyn Signer>,
}

impl Signer for GuardedSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        permit(Work::Signature)?;
        self.inner.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        self.inner.scheme()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// A gate that says no, and how often it was asked.
    fn shut() -> (Option<FullHandshakeGate>, Rc<Cell<u32>>) {
        let asked = Rc::new(Cell::new(0));
        let count = Rc::clone(&asked);
        let gate = FullHandshakeGate::new(move || {
            count.set(count.get() + 1);
            Err("no")
        });
        (Some(gate), asked)
    }

    #[test]
    fn without_a_gate_all_work_is_done() {
        assert!(permit(Work::KeyExchange).is_ok());
        assert!(permit(Work::Signature).is_ok());
        assert!(with_gate(&mut None, || permit(Work::Signature)).is_ok());
    }

    #[test]
    fn a_handshake_without_a_session_is_asked_before_its_key_exchange_and_once() {
        let (mut gate, asked) = shut();
        for _ in 0..3 {
            assert!(with_gate(&mut gate, || permit(Work::KeyExchange)).is_err());
        }
        assert_eq!(asked.get(), 1);
        assert_eq!(gate.unwrap().refusal(), Some("no"));
        assert!(
            permit(Work::KeyExchange).is_ok(),
            "others are not concerned"
        );
    }

    #[test]
    fn a_session_passes_the_key_exchange_and_no_signature() {
        let (mut gate, asked) = shut();
        with_gate(&mut gate, || {
            on_session_opened();
            assert!(permit(Work::KeyExchange).is_ok());
        });
        assert_eq!((asked.get(), gate.as_ref().unwrap().refusal()), (0, None));
        assert!(with_gate(&mut gate, || permit(Work::Signature)).is_err());
        assert_eq!(gate.unwrap().refusal(), Some("no"));
    }

    #[test]
    fn a_panic_leaves_no_gate_behind() {
        let (mut gate, _) = shut();
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            with_gate(&mut gate, || panic!("on purpose"));
        }));
        assert!(unwound.is_err());
        assert!(gate.is_some());
        assert!(permit(Work::Signature).is_ok());
    }

    #[test]
    fn every_group_that_can_be_configured_is_guarded() {
        let all = [
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ];
        let (mut gate, _) = shut();
        for group in all {
            let guarded = guarded_group(group);
            assert_eq!(guarded.name(), group.name());
            assert!(guarded.start().is_ok());
            assert!(with_gate(&mut gate, || guarded.start().is_err()));
            assert!(with_gate(&mut gate, || guarded
                .start_and_complete(&[])
                .is_err()));
        }
    }
}
