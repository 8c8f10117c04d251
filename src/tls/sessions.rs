//! Sessions that a core remembers: its clients' by session ID, and its own with upstream servers.
//!
//! rustls wants stores that are Send and Sync. Ours hold an id only; the sessions live in a
//! thread-local, so that a core takes no lock. A store used on another thread finds nothing there.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::server::StoresServerSessions;
use zeroize::Zeroizing;

use super::bound::{Grant, SESSION_SECS_MAX};
use super::tickets::{Clock, SESSION_BYTES_MAX};
use crate::types::UnixSeconds;

/// TLS 1.3 tickets kept for one upstream server; each serves one connection.
const UPSTREAM_TICKETS_MAX: usize = 64;

static STORES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static SERVER_SESSIONS: RefCell<HashMap<u64, SessionTable>> = RefCell::default();
    static CLIENT_SESSIONS: RefCell<HashMap<u64, UpstreamSessions>> = RefCell::default();
}

/// A listener's sessions on one core, for clients that resume by session ID (TLS 1.2).
///
/// Made anew with each listener's policy, so that no session outlives the policy it was made under.
#[derive(Debug)]
pub(super) struct ServerSessions {
    id: u64,
    sessions_max: usize,
    lifetime_secs: u64,
    authenticates: bool,
    clock: Clock,
}

impl ServerSessions {
    pub(super) fn new(
        sessions_max: usize,
        lifetime_secs: u64,
        authenticates: bool,
        clock: Clock,
    ) -> Self {
        Self {
            id: STORES.fetch_add(1, Ordering::Relaxed),
            sessions_max,
            lifetime_secs: lifetime_secs.min(SESSION_SECS_MAX),
            authenticates,
            clock,
        }
    }

    fn with_table<R>(&self, run: impl FnOnce(&mut SessionTable) -> R) -> R {
        SERVER_SESSIONS.with_borrow_mut(|stores| run(stores.entry(self.id).or_default()))
    }

    fn resumed(&self, session: &Session, now: UnixSeconds) -> Option<Vec<u8>> {
        if !session.grant.is_usable(now, self.lifetime_secs) {
            return None;
        }
        session.grant.carry_on();
        Some(session.value.to_vec())
    }
}

impl StoresServerSessions for ServerSessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let now = (self.clock)();
        let grant = match Grant::issue(now) {
            None if !self.authenticates => Some(Grant::anonymous(now)),
            known => known,
        };
        let value = Zeroizing::new(value);
        let Some(grant) = grant.filter(|_| value.len() <= SESSION_BYTES_MAX) else {
            return false;
        };
        self.with_table(|table| table.insert(key, Session { grant, value }, self.sessions_max))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let now = (self.clock)();
        self.with_table(|table| self.resumed(table.touch(key)?, now))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let now = (self.clock)();
        self.with_table(|table| self.resumed(&table.remove(key)?, now))
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl Drop for ServerSessions {
    fn drop(&mut self) {
        // The thread may be at its end already; then its sessions are gone with it.
        let _ = SERVER_SESSIONS.try_with(|stores| stores.borrow_mut().remove(&self.id));
    }
}

struct Session {
    grant: Grant,
    /// Holds the session's secret.
    value: Zeroizing<Vec<u8>>,
}

struct Slot {
    key: Vec<u8>,
    session: Session,
    /// Resumed since the hand last passed.
    touched: bool,
}

/// Bounded; makes room by the clock algorithm: what was not resumed lately goes first.
#[derive(Default)]
struct SessionTable {
    slots: Vec<Slot>,
    places: HashMap<Vec<u8>, usize>,
    hand: usize,
}

impl SessionTable {
    fn insert(&mut self, key: Vec<u8>, session: Session, sessions_max: usize) -> bool {
        if sessions_max == 0 {
            return false;
        }
        drop(self.remove(&key));
        let slot = Slot {
            key: key.clone(),
            session,
            touched: false,
        };
        let place = if self.slots.len() < sessions_max {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            let place = self.free_place();
            let evicted = std::mem::replace(&mut self.slots[place], slot);
            self.places.remove(&evicted.key);
            place
        };
        self.places.insert(key, place);
        true
    }

    fn touch(&mut self, key: &[u8]) -> Option<&Session> {
        let slot = &mut self.slots[*self.places.get(key)?];
        slot.touched = true;
        Some(&slot.session)
    }

    fn remove(&mut self, key: &[u8]) -> Option<Session> {
        let place = self.places.remove(key)?;
        let removed = self.slots.swap_remove(place);
        if let Some(moved) = self.slots.get(place)
            && let Some(entry) = self.places.get_mut(&moved.key)
        {
            *entry = place;
        }
        Some(removed.session)
    }

    /// The hand passes each slot twice at most: the first pass clears its mark.
    fn free_place(&mut self) -> usize {
        loop {
            let place = self.hand % self.slots.len();
            self.hand = (place + 1) % self.slots.len();
            if !std::mem::take(&mut self.slots[place].touched) {
                return place;
            }
        }
    }
}

/// A core's sessions with one upstream server.
#[derive(Debug)]
pub(super) struct ClientSessions {
    id: u64,
    clock: Clock,
}

#[derive(Default)]
struct UpstreamSessions {
    group: Option<NamedGroup>,
    tls12: Option<(Grant, Tls12ClientSessionValue)>,
    /// Oldest first.
    tls13: VecDeque<(Grant, Tls13ClientSessionValue)>,
}

impl ClientSessions {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            id: STORES.fetch_add(1, Ordering::Relaxed),
            clock,
        }
    }

    fn with_sessions<R>(&self, run: impl FnOnce(&mut UpstreamSessions) -> R) -> R {
        CLIENT_SESSIONS.with_borrow_mut(|stores| run(stores.entry(self.id).or_default()))
    }
}

/// The server's name is not looked at: a store belongs to one server under one name.
impl ClientSessionStore for ClientSessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.with_sessions(|sessions| sessions.group = Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.with_sessions(|sessions| sessions.group)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        if let Some(grant) = Grant::issue((self.clock)()) {
            self.with_sessions(|sessions| sessions.tls12 = Some((grant, value)));
        }
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let now = (self.clock)();
        self.with_sessions(|sessions| {
            let (grant, value) = sessions.tls12.as_ref()?;
            grant.is_usable(now, SESSION_SECS_MAX).then(|| {
                grant.carry_on();
                value.clone()
            })
        })
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.with_sessions(|sessions| sessions.tls12 = None);
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let Some(grant) = Grant::issue((self.clock)()) else {
            return;
        };
        self.with_sessions(|sessions| {
            if sessions.tls13.len() == UPSTREAM_TICKETS_MAX {
                sessions.tls13.pop_front();
            }
            sessions.tls13.push_back((grant, value));
        });
    }

    /// The newest: it is good for the longest time.
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let now = (self.clock)();
        self.with_sessions(|sessions| {
            let (grant, value) = sessions.tls13.pop_back()?;
            grant.is_usable(now, SESSION_SECS_MAX).then(|| {
                grant.carry_on();
                value
            })
        })
    }
}

impl Drop for ClientSessions {
    fn drop(&mut self) {
        // The thread may be at its end already; then its sessions are gone with it.
        let _ = CLIENT_SESSIONS.try_with(|stores| stores.borrow_mut().remove(&self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(sessions_max: usize) -> ServerSessions {
        ServerSessions::new(sessions_max, 100, false, || 1_000)
    }

    fn key(n: u8) -> Vec<u8> {
        vec![n; 32]
    }

    #[test]
    fn a_full_cache_forgets_what_was_not_resumed_lately() {
        let store = store(3);
        for n in 0..3 {
            assert!(store.put(key(n), vec![n]));
        }
        assert_eq!(store.get(&key(0)), Some(vec![0]));
        assert!(store.put(key(3), vec![3]));
        assert_eq!(store.get(&key(0)), Some(vec![0]));
        assert_eq!(store.get(&key(1)), None);
        assert_eq!(store.get(&key(3)), Some(vec![3]));
    }

    #[test]
    fn a_taken_session_is_gone_and_the_others_stay_where_they_are_found() {
        let store = store(8);
        for n in 0..5 {
            store.put(key(n), vec![n]);
        }
        assert_eq!(store.take(&key(1)), Some(vec![1]));
        assert_eq!(store.take(&key(1)), None);
        for n in [0, 2, 3, 4] {
            assert_eq!(store.get(&key(n)), Some(vec![n]));
        }
        assert!(store.put(key(2), vec![22]));
        assert_eq!(store.get(&key(2)), Some(vec![22]));
    }

    #[test]
    fn the_table_keeps_its_bound_and_its_index_through_any_order_of_events() {
        let mut table = SessionTable::default();
        let mut random = 12345_u32;
        for _ in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = vec![u8::try_from(random >> 24).unwrap() % 40];
            let session = Session {
                grant: Grant::anonymous(1),
                value: Zeroizing::new(key.clone()),
            };
            match (random >> 8) % 4 {
                0 | 1 => drop(table.insert(key, session, 16)),
                2 => {
                    if let Some(found) = table.touch(&key) {
                        assert_eq!(*found.value, key);
                    }
                }
                _ => {
                    if let Some(found) = table.remove(&key) {
                        assert_eq!(*found.value, key);
                    }
                }
            }
            assert!(table.slots.len() <= 16);
            assert_eq!(table.slots.len(), table.places.len());
        }
    }

    #[test]
    fn a_dropped_store_leaves_nothing_behind() {
        let store = store(3);
        store.put(key(1), vec![1]);
        let id = store.id;
        assert!(SERVER_SESSIONS.with_borrow(|stores| stores.contains_key(&id)));
        drop(store);
        assert!(!SERVER_SESSIONS.with_borrow(|stores| stores.contains_key(&id)));
    }

    #[test]
    fn sessions_of_authenticated_clients_are_not_kept_when_their_end_is_unknown() {
        let store = ServerSessions::new(3, 100, true, || 1_000);
        assert!(!store.put(key(1), vec![1]));
    }
}
