//! Stateless session tickets that every core, and every host with the same key files, accepts.
//!
//! A ticket is `key name (16) | nonce (12) | AES-256-GCM-SIV(grant | session)`. The associated data
//! is the key's name and the listener's policy: a ticket from a listener with other CAs, other
//! allowed identities or another certificate does not open.

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{error::Unspecified, hkdf, rand};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::bound::{Grant, SESSION_SECS_MAX};
use super::files::Files;
use super::material::{self, MaterialError};
use crate::config::Resumption;
use crate::types::UnixSeconds;

const NAME_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// The current key, and those that were retired within a lifetime: two rotations each.
const KEYS_MAX: usize = 4;

/// Larger sessions (long client chains) get no ticket: the client would have to send it in its
/// next ClientHello.
pub(super) const SESSION_BYTES_MAX: usize = 16 * 1024;

/// Where the time comes from; tests bring their own.
pub(super) type Clock = fn() -> UnixSeconds;

/// SHA-256 over everything that decides whom a listener lets in.
pub(super) type PolicyDigest = [u8; 32];

thread_local! {
    /// This core's view of each ring: a handshake takes no lock and touches no shared counter.
    static VIEWS: RefCell<Vec<View>> = const { RefCell::new(Vec::new()) };
}

struct View {
    /// Dead once the ring is dropped.
    ring: Weak<RingId>,
    keys: Arc<Keys>,
}

/// Its address tells rings apart, its life tells a core when to forget a ring.
struct RingId;

#[expect(
    clippy::disallowed_types,
    reason = "taken once per core and rotation, never per handshake"
)]
type Shared = std::sync::Mutex<Arc<Keys>>;

/// The ticket keys of a listener, shared by all cores.
///
/// Keys from files stay as they are. Else the ring makes its own: a new one each half lifetime,
/// the old ones kept while a ticket under them may live.
pub struct KeyRing {
    id: Arc<RingId>,
    /// Seconds between rotations; `None`: keys come from files.
    rotation_secs: Option<u64>,
    lifetime_secs: u64,
    /// Of the keys in `shared`.
    generation: AtomicU64,
    shared: Shared,
}

impl KeyRing {
    /// # Errors
    /// A key file cannot be used, or the system gives no random bytes.
    pub fn new(plan: &Resumption) -> Result<Arc<Self>, MaterialError> {
        Self::of_files(&Files::default(), plan)
    }

    /// The same, of files that were read before.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_files(files: &Files, plan: &Resumption) -> Result<Arc<Self>, MaterialError> {
        Self::starting_at(files, plan, crate::types::unix_now())
    }

    pub(super) fn starting_at(
        files: &Files,
        plan: &Resumption,
        now: UnixSeconds,
    ) -> Result<Arc<Self>, MaterialError> {
        let lifetime_secs = plan.lifetime.as_secs().min(SESSION_SECS_MAX);
        let rotation_secs = plan
            .ticket_key_files
            .is_empty()
            .then(|| (lifetime_secs / 2).max(1));
        let list = match rotation_secs {
            Some(_) => vec![Arc::new(
                TicketKey::random().map_err(|_| no_random_bytes())?,
            )],
            None => keys_from_files(files, plan)?,
        };
        let keys = Keys {
            generation: 0,
            rotate_at: rotation_secs.map_or(UnixSeconds::MAX, |secs| now.saturating_add(secs)),
            list,
        };
        Ok(Arc::new(Self {
            id: Arc::new(RingId),
            rotation_secs,
            lifetime_secs,
            generation: AtomicU64::new(0),
            shared: Shared::new(Arc::new(keys)),
        }))
    }

    /// A ring by another plan that opens the tickets of this one. `None`: either plan names key
    /// files, and then those alone say what is opened.
    #[must_use]
    pub fn succeeded(&self, plan: &Resumption) -> Option<Arc<Self>> {
        self.rotation_secs?;
        if !plan.ticket_key_files.is_empty() {
            return None;
        }
        let lifetime_secs = plan.lifetime.as_secs().min(SESSION_SECS_MAX);
        let rotation_secs = (lifetime_secs / 2).max(1);
        let now = crate::types::unix_now();
        let before = self.refresh(now);
        let keys = Keys {
            generation: 0,
            rotate_at: before.rotate_at.min(now.saturating_add(rotation_secs)),
            list: before.list.clone(),
        };
        Some(Arc::new(Self {
            id: Arc::new(RingId),
            rotation_secs: Some(rotation_secs),
            lifetime_secs,
            generation: AtomicU64::new(0),
            shared: Shared::new(Arc::new(keys)),
        }))
    }

    /// The keys, for [`adopt`](Self::adopt) in another process. `None`: they come from files, which
    /// that process reads itself.
    #[must_use]
    pub fn pass_on(&self) -> Option<PassedKeys> {
        self.rotation_secs?;
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        Some(PassedKeys {
            rotate_at: shared.rotate_at,
            keys: shared.list.iter().map(|key| PassedKey::of(key)).collect(),
        })
    }

    /// Goes on with the keys of another ring, so that its tickets are accepted. Nothing changes
    /// where the keys come from files, or where those that came cannot be used.
    pub fn adopt(&self, passed: PassedKeys, now: UnixSeconds) {
        let Some(rotation_secs) = self.rotation_secs else {
            return;
        };
        let keys = passed.keys.into_iter().take(KEYS_MAX);
        let list: Result<Vec<_>, _> = keys.map(|key| key.into_key().map(Arc::new)).collect();
        let Some(list) = list.ok().filter(|list| !list.is_empty()) else {
            return;
        };
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        *shared = Arc::new(Keys {
            generation: shared.generation + 1,
            // The other ring's keys may have been meant to live longer than ours.
            rotate_at: passed.rotate_at.min(now.saturating_add(rotation_secs)),
            list,
        });
        self.generation.store(shared.generation, Ordering::Release);
    }

    fn with_keys<R>(&self, now: UnixSeconds, run: impl FnOnce(&Keys) -> R) -> R {
        let keys = VIEWS.with_borrow_mut(|views| {
            let generation = self.generation.load(Ordering::Acquire);
            let view = views.iter().find(|view| self.owns(view));
            match view {
                Some(View { keys, .. })
                    if keys.generation == generation && now < keys.rotate_at =>
                {
                    Arc::clone(keys)
                }
                _ => {
                    let keys = self.refresh(now);
                    views.retain(|view| view.ring.strong_count() > 0 && !self.owns(view));
                    views.push(View {
                        ring: Arc::downgrade(&self.id),
                        keys: Arc::clone(&keys),
                    });
                    keys
                }
            }
        });
        run(&keys)
    }

    fn owns(&self, view: &View) -> bool {
        std::ptr::eq(view.ring.as_ptr(), Arc::as_ptr(&self.id))
    }

    /// Rotates if it is time to; else takes what another core rotated to.
    fn refresh(&self, now: UnixSeconds) -> Arc<Keys> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rotation_secs) = self.rotation_secs
            && now >= shared.rotate_at
        {
            *shared = Arc::new(shared.rotated(now, rotation_secs, self.lifetime_secs));
            self.generation.store(shared.generation, Ordering::Release);
        }
        Arc::clone(&shared)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").finish_non_exhaustive()
    }
}

fn keys_from_files(files: &Files, plan: &Resumption) -> Result<Vec<Arc<TicketKey>>, MaterialError> {
    let mut list: Vec<Arc<TicketKey>> = Vec::new();
    for file in &plan.ticket_key_files {
        let (name, secret) = material::ticket_key(files, file)?;
        if list.iter().any(|key| key.name == name) {
            return Err(
                MaterialError::file(file, "another ticket key has the same name").with_cure(
                    "name each key file once; make new ones with `openssl rand 80 > FILE`",
                ),
            );
        }
        let key = TicketKey::from_secret(name, &secret).map_err(|_| {
            MaterialError::file(file, "the ticket key cannot be used")
                .with_cure("make a new one with `openssl rand 80 > FILE`")
        })?;
        list.push(Arc::new(key));
    }
    Ok(list)
}

fn no_random_bytes() -> MaterialError {
    MaterialError::nowhere("the system gives no random bytes for session ticket keys")
}

/// The keys of a ring on their way to the process that follows this one.
#[derive(Clone, Serialize, Deserialize)]
pub struct PassedKeys {
    rotate_at: UnixSeconds,
    keys: Vec<PassedKey>,
}

#[derive(Clone, Serialize, Deserialize)]
struct PassedKey {
    name: [u8; NAME_BYTES],
    secret: Zeroizing<[u8; KEY_BYTES]>,
    retired_at: UnixSeconds,
}

impl fmt::Debug for PassedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassedKeys").finish_non_exhaustive()
    }
}

impl PassedKey {
    fn of(key: &TicketKey) -> Self {
        Self {
            name: key.name,
            secret: key.secret.clone(),
            retired_at: key.retired_at.load(Ordering::Relaxed),
        }
    }

    fn into_key(self) -> Result<TicketKey, Unspecified> {
        let key = TicketKey::from_key(self.name, self.secret)?;
        key.retired_at.store(self.retired_at, Ordering::Relaxed);
        Ok(key)
    }
}

/// One state of a ring. The first key encrypts, all decrypt.
struct Keys {
    generation: u64,
    rotate_at: UnixSeconds,
    list: Vec<Arc<TicketKey>>,
}

impl Keys {
    fn rotated(&self, now: UnixSeconds, rotation_secs: u64, lifetime_secs: u64) -> Self {
        let mut list = Vec::with_capacity(self.list.len() + 1);
        // Without random bytes the old key serves on until the next rotation.
        list.extend(TicketKey::random().ok().map(Arc::new));
        let replaced = !list.is_empty();
        for (at, key) in self.list.iter().enumerate() {
            let retired_at = key.retired_at.load(Ordering::Relaxed);
            if at == 0 && replaced {
                key.retired_at.store(now, Ordering::Relaxed);
                list.push(Arc::clone(key));
            } else if now <= retired_at.saturating_add(lifetime_secs) {
                list.push(Arc::clone(key));
            }
        }
        Self {
            generation: self.generation + 1,
            rotate_at: now.saturating_add(rotation_secs),
            list,
        }
    }
}

struct TicketKey {
    name: [u8; NAME_BYTES],
    /// When a newer key took over; `u64::MAX` before that.
    retired_at: AtomicU64,
    aead: LessSafeKey,
    /// What `aead` was made from, for the process that follows this one.
    secret: Zeroizing<[u8; KEY_BYTES]>,
}

impl TicketKey {
    fn random() -> Result<Self, Unspecified> {
        let (mut name, mut secret) = ([0; NAME_BYTES], Zeroizing::new([0; KEY_BYTES]));
        rand::fill(&mut name)?;
        rand::fill(secret.as_mut_slice())?;
        Self::from_secret(name, secret.as_slice())
    }

    /// The AEAD key is derived from the file's whole secret, so that it is nobody else's key:
    /// nginx may use the same file for another cipher.
    fn from_secret(name: [u8; NAME_BYTES], secret: &[u8]) -> Result<Self, Unspecified> {
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, &name).extract(secret);
        let info: [&[u8]; 1] = [b"ringway session ticket v1"];
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        derived
            .expand(&info, hkdf::HKDF_SHA256)?
            .fill(key.as_mut_slice())?;
        Self::from_key(name, key)
    }

    fn from_key(
        name: [u8; NAME_BYTES],
        secret: Zeroizing<[u8; KEY_BYTES]>,
    ) -> Result<Self, Unspecified> {
        Ok(Self {
            name,
            retired_at: AtomicU64::new(UnixSeconds::MAX),
            aead: LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, secret.as_slice())?),
            secret,
        })
    }

    fn associated_data(&self, policy: &PolicyDigest) -> Aad<[u8; NAME_BYTES + KEY_BYTES]> {
        let mut data = [0; NAME_BYTES + KEY_BYTES];
        data[..NAME_BYTES].copy_from_slice(&self.name);
        data[NAME_BYTES..].copy_from_slice(policy);
        Aad::from(data)
    }

    fn seal(&self, policy: &PolicyDigest, mut plain: Vec<u8>) -> Result<Vec<u8>, Unspecified> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce)?;
        let aad = self.associated_data(policy);
        let sealing = Nonce::assume_unique_for_key(nonce);
        self.aead
            .seal_in_place_append_tag(sealing, aad, &mut plain)?;
        Ok([&self.name[..], &nonce, &plain].concat())
    }

    fn open(
        &self,
        policy: &PolicyDigest,
        nonce: &[u8; NONCE_LEN],
        sealed: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let aad = self.associated_data(policy);
        let plain_bytes = self.aead.open_in_place(nonce, aad, &mut bytes).ok()?.len();
        bytes.truncate(plain_bytes);
        Some(bytes)
    }
}

/// One listener's tickets.
#[derive(Debug)]
pub(super) struct Ticketer {
    pub(super) ring: Arc<KeyRing>,
    pub(super) policy: PolicyDigest,
    /// Clients may show certificates: a ticket must end with them.
    pub(super) authenticates: bool,
    pub(super) clock: Clock,
}

impl Ticketer {
    fn grant(&self, now: UnixSeconds) -> Option<Grant> {
        match Grant::issue(now) {
            None if !self.authenticates => Some(Grant::anonymous(now)),
            known => known,
        }
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    /// What is left for a session issued now.
    fn lifetime(&self) -> u32 {
        let now = (self.clock)();
        let ends_at = self
            .grant(now)
            .map_or(now, |grant| grant.ends_at(self.ring.lifetime_secs));
        u32::try_from(ends_at.saturating_sub(now)).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let now = (self.clock)();
        let grant = self.grant(now)?;
        if plain.len() > SESSION_BYTES_MAX || !grant.is_usable(now, self.ring.lifetime_secs) {
            return None;
        }
        let bytes = [&grant.encode()[..], plain].concat();
        self.ring.with_keys(now, |keys| {
            keys.list.first()?.seal(&self.policy, bytes).ok()
        })
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let now = (self.clock)();
        let plain = self.ring.with_keys(now, |keys| {
            let key = keys.list.iter().find(|key| key.name == *name)?;
            key.open(&self.policy, nonce, sealed)
        })?;
        let (grant, session) = Grant::decode(&plain)?;
        if !grant.is_usable(now, self.ring.lifetime_secs) {
            return None;
        }
        grant.carry_on();
        Some(session.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ring(lifetime_secs: u64) -> Arc<KeyRing> {
        let plan = Resumption {
            enabled: true,
            lifetime: Duration::from_secs(lifetime_secs),
            ticket_key_files: vec![],
            cache_max: 0,
            tickets: 2,
        };
        KeyRing::starting_at(&Files::default(), &plan, 1_000).unwrap()
    }

    fn names(ring: &KeyRing, now: UnixSeconds) -> Vec<[u8; NAME_BYTES]> {
        ring.with_keys(now, |keys| keys.list.iter().map(|key| key.name).collect())
    }

    #[test]
    fn keys_rotate_each_half_lifetime_and_stay_while_a_ticket_may_live() {
        let ring = ring(100);
        let first = names(&ring, 1_000);
        assert_eq!(first.len(), 1);
        assert_eq!(names(&ring, 1_049), first);
        let second = names(&ring, 1_050);
        assert_eq!(second[1..], first);
        let third = names(&ring, 1_100);
        assert_eq!(third[1..], second);
        // The first served until 1,050: its last ticket ends at 1,150.
        let fourth = names(&ring, 1_151);
        assert_eq!(fourth[1..], third[..2]);
        assert_eq!(names(&ring, 9_000).len(), 2);
    }

    #[test]
    fn all_cores_see_one_rotation() {
        let ring = ring(100);
        names(&ring, 1_000);
        let seen: Vec<_> = std::thread::scope(|scope| {
            let cores: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        names(&ring, 1_000);
                        for now in 1_000..1_299 {
                            names(&ring, now);
                        }
                        names(&ring, 1_299)[0]
                    })
                })
                .collect();
            cores.into_iter().map(|core| core.join().unwrap()).collect()
        });
        let now_current = names(&ring, 1_299);
        assert!(seen.iter().all(|name| now_current.contains(name)));
        // The current one, and those retired within a lifetime at half-lifetime steps.
        assert!(now_current.len() <= 4);
    }

    #[test]
    fn a_core_forgets_rings_that_are_gone() {
        let held = ring(100);
        names(&held, 1_000);
        for _ in 0..50 {
            names(&ring(100), 1_000);
        }
        assert!(VIEWS.with_borrow(Vec::len) <= 2);
    }

    #[test]
    fn a_ring_that_has_adopted_the_keys_of_another_opens_its_tickets_and_rotates_when_it_would_have()
     {
        let first = ring(100);
        let names_before = names(&first, 1_060);
        let json = serde_json::to_string(&first.pass_on().unwrap()).unwrap();
        let next = ring(100);
        next.adopt(serde_json::from_str(&json).unwrap(), 1_070);
        assert_eq!(names(&next, 1_070), names_before);
        let policy = [9; 32];
        let ticket = first.with_keys(1_060, |keys| {
            keys.list[0].seal(&policy, b"session".to_vec()).unwrap()
        });
        let (nonce, sealed) = ticket[NAME_BYTES..].split_first_chunk().unwrap();
        let opened = next.with_keys(1_070, |keys| keys.list[0].open(&policy, nonce, sealed));
        assert_eq!(*opened.unwrap(), b"session");
        // The first retires at 1,050 and the second was due at 1,110.
        assert_eq!(names(&next, 1_109), names_before);
        assert_eq!(names(&next, 1_110).len(), 3);
        assert_eq!(names(&next, 1_151 + 10).len(), 3);
    }

    #[test]
    fn a_ring_with_shorter_lives_rotates_adopted_keys_by_its_own_time() {
        let (long, short) = (ring(10_000), ring(100));
        short.adopt(long.pass_on().unwrap(), 1_000);
        assert_eq!(names(&short, 1_049), names(&long, 1_000));
        assert_eq!(names(&short, 1_050).len(), 2);
    }

    #[test]
    fn keys_of_files_are_neither_passed_on_nor_replaced_and_no_keys_replace_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 80]).unwrap();
        let plan = Resumption {
            enabled: true,
            lifetime: Duration::from_secs(100),
            ticket_key_files: vec![crate::config::Located {
                value: file.path().to_owned(),
                place: crate::config::Place::default(),
            }],
            cache_max: 0,
            tickets: 2,
        };
        let of_files = KeyRing::starting_at(&Files::default(), &plan, 1_000).unwrap();
        assert!(of_files.pass_on().is_none());
        let before = names(&of_files, 1_000);
        of_files.adopt(ring(100).pass_on().unwrap(), 1_000);
        assert_eq!(names(&of_files, 1_000), before);

        let own = ring(100);
        let before = names(&own, 1_000);
        let nothing = PassedKeys {
            rotate_at: 0,
            keys: Vec::new(),
        };
        own.adopt(nothing, 1_000);
        assert_eq!(names(&own, 1_000), before);
    }

    #[test]
    fn the_same_file_makes_the_same_key_and_48_bytes_are_not_80() {
        let policy = [9; 32];
        let key = |secret: &[u8]| TicketKey::from_secret([1; NAME_BYTES], secret).unwrap();
        let ticket = key(&[5; 64]).seal(&policy, b"session".to_vec()).unwrap();
        let (nonce, sealed) = ticket[NAME_BYTES..].split_first_chunk().unwrap();
        let opened = |secret: &[u8]| key(secret).open(&policy, nonce, sealed);
        assert_eq!(*opened(&[5; 64]).unwrap(), b"session");
        assert_eq!(opened(&[5; 32]), None);
        assert_eq!(key(&[5; 64]).open(&[8; 32], nonce, sealed), None);
    }
}
