use super::pki::Leaf;
use super::*;
use crate::config::NamePattern;

struct Scene {
    files: Files,
    server_ca: Authority,
    client_ca: Authority,
    server: Issued,
    client: Issued,
}

fn scene() -> Scene {
    let server_ca = Authority::root("Server CA");
    let client_ca = Authority::root("Client CA");
    Scene {
        files: Files::new(),
        server: server_ca.issue(Leaf::named(HOST)),
        client: client_ca.issue(Leaf::named("pay.example.org")),
        server_ca,
        client_ca,
    }
}

impl Scene {
    fn mutual(&self) -> DownstreamTls {
        let plain = listener(&self.files, &self.server);
        demanding(plain, &self.files, &self.client_ca, VerifyClient::Required)
    }

    fn client(&self, version: Version) -> Endpoint {
        let config = plain_client(&self.server_ca, version, Some(&self.client));
        by_name(&Arc::new(config), HOST)
    }
}

fn ring(plan: &DownstreamTls) -> Arc<KeyRing> {
    KeyRing::starting_at(&crate::tls::Files::default(), &plan.resumption, clock()).unwrap()
}

fn tls(plan: &DownstreamTls, ring: &Arc<KeyRing>) -> ServerTls {
    ServerTls::with_clock(&crate::tls::Files::default(), (plan, ring), clock).unwrap()
}

/// A cache in the way would hide what the tickets do.
fn tickets_only(mut plan: DownstreamTls) -> DownstreamTls {
    plan.resumption.cache_max = 0;
    plan
}

#[test]
fn a_session_resumes_on_another_core_and_carries_the_identity_along() {
    let scene = scene();
    let plan = tickets_only(scene.mutual());
    let tls = Arc::new(tls(&plan, &ring(&plan)));
    for version in BOTH {
        let client = scene.client(version);
        let first = connect(&client, &tls.for_core()).unwrap();
        assert!(!first.resumed());
        let (shared, expected) = (Arc::clone(&tls), identity_of(&scene.client));
        let other_core = std::thread::spawn(move || {
            let second = connect(&client, &shared.for_core()).unwrap();
            assert!(second.resumed());
            let seen = second.seen_by(&shared);
            assert_eq!(seen.identity, Some(expected));
            assert!(seen.verified && seen.allowed);
            // The ticket of a resumed session resumes in turn.
            assert!(connect(&client, &shared.for_core()).unwrap().resumed());
        });
        other_core.join().unwrap();
    }
}

fn dns(name: &str) -> IdentityPattern {
    IdentityPattern::Dns(NamePattern::Exact(name.into()))
}

fn below(name: &str) -> IdentityPattern {
    IdentityPattern::Dns(NamePattern::Wildcard(name.into()))
}

/// Each differs from `plan` in one thing that decides who may pass, or whom the server claims to be.
fn other_policies(scene: &Scene, plan: &DownstreamTls) -> Vec<DownstreamTls> {
    let other = |change: &dyn Fn(&mut DownstreamTls)| {
        let mut other = plan.clone();
        change(&mut other);
        other
    };
    let renewed = scene.files.pair(&scene.server_ca.issue(Leaf::named(HOST)));
    let namesake = Authority::root("Client CA").pem();
    let both = scene.client_ca.pem() + &namesake;
    let namesake = scene.files.pem("namesake.pem", &namesake);
    let both = scene.files.pem("both.pem", &both);
    let list = scene.client_ca.revocation_list(&[2], unix_now() + DAY);
    let list = scene.files.pem("other.crl", &list);
    let identities = |second| allow(vec![dns("pay.example.org"), second]);
    vec![
        other(&|plan| plan.verify_depth = 2),
        other(&|plan| plan.verify_client = VerifyClient::Optional),
        other(&|plan| plan.verify_client = VerifyClient::OptionalNoCa),
        other(&|plan| plan.client_ca = Some(both.clone())),
        other(&|plan| plan.client_ca = Some(namesake.clone())),
        other(&|plan| plan.crl = None),
        other(&|plan| plan.crl = Some(list.clone())),
        other(&|plan| plan.certificates = vec![renewed.clone()]),
        other(&|plan| plan.allow_identities = vec![]),
        other(&|plan| plan.allow_identities = identities(dns("b.example"))),
        other(&|plan| plan.allow_identities = identities(below("a.example"))),
    ]
}

#[test]
fn a_ticket_is_refused_under_any_other_policy_and_under_the_same_it_is_not() {
    let scene = scene();
    let list = scene.client_ca.revocation_list(&[1], unix_now() + DAY);
    let plan = DownstreamTls {
        crl: Some(scene.files.pem("base.crl", &list)),
        allow_identities: allow(vec![dns("pay.example.org"), dns("a.example")]),
        ..tickets_only(scene.mutual())
    };
    let others = other_policies(&scene, &plan);
    let ring = ring(&plan);
    let home = tls(&plan, &ring).for_core();
    for version in BOTH {
        let client = scene.client(version);
        connect(&client, &home).unwrap();
        assert!(
            connect(&client, &tls(&plan, &ring).for_core())
                .unwrap()
                .resumed()
        );
        for (at, other) in others.iter().enumerate() {
            // Each attempt spends a ticket of TLS 1.3: get new ones first.
            connect(&client, &home).unwrap();
            let elsewhere = connect(&client, &tls(other, &ring).for_core());
            let resumed = elsewhere.is_ok_and(|finished| finished.resumed());
            assert!(!resumed, "{version:?}, policy {at}");
        }
    }
}

#[test]
fn a_ticket_from_a_listener_that_trusts_another_ca_does_not_let_its_client_in() {
    let scene = scene();
    let plan = tickets_only(scene.mutual());
    let ring = ring(&plan);
    let rogue_ca = Authority::root("Rogue CA");
    let rogue_plan = DownstreamTls {
        client_ca: Some(scene.files.pem("rogue.pem", &rogue_ca.pem())),
        ..plan.clone()
    };
    let rogue = rogue_ca.issue(Leaf::default());
    for version in BOTH {
        let config = plain_client(&scene.server_ca, version, Some(&rogue));
        let client = by_name(&Arc::new(config), HOST);
        connect(&client, &tls(&rogue_plan, &ring).for_core()).unwrap();
        let refused = connect(&client, &tls(&plan, &ring).for_core())
            .err()
            .unwrap();
        assert_eq!(refused.words, "unknown issuer Rogue CA");
    }
}

/// Runs `then` with this thread's clock ahead.
fn later<R>(seconds: u64, then: impl FnOnce() -> R) -> R {
    let before = CLOCK_AHEAD.get();
    CLOCK_AHEAD.set(before + seconds);
    let result = then();
    CLOCK_AHEAD.set(before);
    result
}

#[test]
fn no_session_outlives_the_client_s_certificate_renewals_and_cache_included() {
    let mut scene = scene();
    scene.client = scene.client_ca.issue(Leaf {
        ends: unix_now() + 1000,
        ..Leaf::default()
    });
    let plan = scene.mutual();
    for cached in [false, true] {
        for version in BOTH {
            let mut plan = plan.clone();
            plan.resumption.cache_max = if cached { 10 } else { 0 };
            let core = tls(&plan, &ring(&plan)).for_core();
            let client = if cached {
                by_id_only(&scene, version)
            } else {
                scene.client(version)
            };
            if cached && version == Version::Tls13 {
                continue; // TLS 1.3 has no session IDs.
            }
            connect(&client, &core).unwrap();
            later(900, || {
                assert!(connect(&client, &core).unwrap().resumed(), "{version:?}")
            });
            later(1100, || {
                let refused = connect(&client, &core).err().unwrap();
                assert!(refused.words.starts_with("expired on"), "{}", refused.words);
            });
        }
    }
}

#[test]
fn no_session_outlives_the_revocation_list_that_let_its_client_in() {
    let scene = scene();
    let list = scene.client_ca.revocation_list(&[], unix_now() + 1000);
    let mut plan = tickets_only(scene.mutual());
    plan.crl = Some(scene.files.pem("ending.crl", &list));
    for version in BOTH {
        let core = tls(&plan, &ring(&plan)).for_core();
        let client = scene.client(version);
        connect(&client, &core).unwrap();
        later(900, || assert!(connect(&client, &core).unwrap().resumed()));
        later(1100, || {
            assert!(connect(&client, &core).is_err(), "{version:?}")
        });
    }
}

#[test]
fn a_session_ends_with_the_first_certificate_of_its_chain_that_ends() {
    let mut scene = scene();
    let middle = scene.client_ca.below_until("Middle", unix_now() + 1000);
    scene.client = middle.issue(Leaf::default());
    let plan = tickets_only(scene.mutual());
    for version in BOTH {
        let core = tls(&plan, &ring(&plan)).for_core();
        let client = scene.client(version);
        connect(&client, &core).unwrap();
        later(900, || assert!(connect(&client, &core).unwrap().resumed()));
        later(1100, || {
            let refused = connect(&client, &core).err().unwrap();
            assert!(refused.words.starts_with("expired on"), "{}", refused.words);
        });
    }
}

#[test]
fn a_ticket_ends_with_its_lifetime_and_a_line_of_renewals_after_seven_days() {
    let scene = scene();
    let plan = tickets_only(listener(&scene.files, &scene.server));
    for version in BOTH {
        let core = tls(&plan, &ring(&plan)).for_core();
        let config = Arc::new(plain_client(&scene.server_ca, version, None));
        let client = by_name(&config, HOST);
        connect(&client, &core).unwrap();
        later(DAY + 5, || {
            assert!(!connect(&client, &core).unwrap().resumed(), "{version:?}")
        });
    }
    let core = tls(&plan, &ring(&plan)).for_core();
    let config = Arc::new(plain_client(&scene.server_ca, Version::Tls13, None));
    let client = by_name(&config, HOST);
    connect(&client, &core).unwrap();
    for half_days in 1..=15 {
        // A minute short of it: the real clock goes on meanwhile.
        let resumed = later(half_days * DAY / 2 - 60, || {
            connect(&client, &core).unwrap().resumed()
        });
        assert_eq!(resumed, half_days <= 14, "after {half_days} half days");
    }
}

#[test]
fn hosts_with_the_same_key_files_accept_each_other_s_tickets_old_keys_included() {
    let scene = scene();
    let (old, new) = (
        [[1_u8; 16], [2; 16], [3; 16]].concat(),
        [vec![4_u8; 16], vec![5; 64]].concat(),
    );
    let (old, new) = (
        scene.files.bytes("old", &old),
        scene.files.bytes("new", &new),
    );
    let host = |keys: &[&Located<PathBuf>]| {
        let mut plan = tickets_only(scene.mutual());
        plan.resumption.ticket_key_files = keys.iter().map(|key| (*key).clone()).collect();
        tls(&plan, &ring(&plan)).for_core()
    };
    for version in BOTH {
        let client = scene.client(version);
        connect(&client, &host(&[&old])).unwrap();
        assert!(connect(&client, &host(&[&new, &old])).unwrap().resumed());
        // That one was renewed under the new key.
        assert!(connect(&client, &host(&[&new])).unwrap().resumed());
        assert!(!connect(&client, &host(&[&old])).unwrap().resumed());
    }
}

fn by_id_only(scene: &Scene, version: Version) -> Endpoint {
    let mut config = plain_client(&scene.server_ca, version, Some(&scene.client));
    config.resumption = rustls::client::Resumption::in_memory_sessions(8)
        .tls12_resumption(rustls::client::Tls12Resumption::SessionIdOnly);
    by_name(&Arc::new(config), HOST)
}

#[test]
fn a_client_with_session_ids_resumes_on_its_core_only() {
    let scene = scene();
    let tls = server_tls(&scene.mutual());
    let (core, other_core) = (tls.for_core(), tls.for_core());
    let client = by_id_only(&scene, Version::Tls12);
    assert!(!connect(&client, &core).unwrap().resumed());
    let second = connect(&client, &core).unwrap();
    assert!(second.resumed());
    assert_eq!(
        second.seen_by(&tls).identity,
        Some(identity_of(&scene.client))
    );
    assert!(second.seen_by(&tls).verified);
    assert!(!connect(&client, &other_core).unwrap().resumed());
}

#[test]
fn with_session_resumption_off_every_handshake_is_full() {
    let scene = scene();
    let mut plan = scene.mutual();
    plan.resumption.enabled = false;
    let core = server_tls(&plan).for_core();
    for client in [
        scene.client(Version::Tls12),
        scene.client(Version::Tls13),
        by_id_only(&scene, Version::Tls12),
    ] {
        for _ in 0..3 {
            let finished = connect(&client, &core).unwrap();
            assert!(!finished.resumed());
            assert_eq!(finished.client.tls13_tickets_received(), 0);
        }
    }
}

#[test]
fn as_many_tickets_are_sent_as_configured() {
    let scene = scene();
    let mut plan = scene.mutual();
    plan.resumption.tickets = 3;
    let finished = connect(&scene.client(Version::Tls13), &server_tls(&plan).for_core()).unwrap();
    assert_eq!(finished.client.tls13_tickets_received(), 3);
}

#[test]
fn an_unverified_client_stays_unverified_when_it_resumes() {
    let scene = scene();
    let rogue_ca = Authority::root("Rogue CA");
    let rogue = rogue_ca.issue(Leaf::default());
    let plan = DownstreamTls {
        verify_client: VerifyClient::OptionalNoCa,
        ..scene.mutual()
    };
    let tls = server_tls(&plan);
    for (issued, verified) in [(&rogue, false), (&scene.client, true)] {
        for version in BOTH {
            let config = plain_client(&scene.server_ca, version, Some(issued));
            let client = by_name(&Arc::new(config), HOST);
            connect(&client, &tls.for_core()).unwrap();
            let second = connect(&client, &tls.for_core()).unwrap();
            assert!(second.resumed());
            assert_eq!(second.seen_by(&tls).verified, verified, "{version:?}");
        }
    }
}

#[test]
fn outside_of_a_scope_no_ticket_is_issued_to_an_authenticated_client() {
    use rustls::server::ProducesTickets;
    let plan = resumption();
    let ticketer = |authenticates| super::super::tickets::Ticketer {
        ring: KeyRing::starting_at(&crate::tls::Files::default(), &plan, clock()).unwrap(),
        policy: [0; 32],
        authenticates,
        clock,
    };
    assert_eq!(ticketer(true).encrypt(b"session"), None);
    let anonymous = ticketer(false);
    let ticket = anonymous.encrypt(b"session").unwrap();
    assert_eq!(anonymous.decrypt(&ticket).unwrap(), b"session");
}

#[test]
fn no_cut_or_flipped_ticket_opens() {
    use rustls::server::ProducesTickets;
    let ticketer = super::super::tickets::Ticketer {
        ring: KeyRing::starting_at(&crate::tls::Files::default(), &resumption(), clock()).unwrap(),
        policy: [0; 32],
        authenticates: false,
        clock,
    };
    let ticket = ticketer.encrypt(b"session").unwrap();
    for cut in 0..ticket.len() {
        assert_eq!(ticketer.decrypt(&ticket[..cut]), None);
        let mut flipped = ticket.clone();
        flipped[cut] ^= 1;
        assert_eq!(ticketer.decrypt(&flipped), None);
    }
    assert_eq!(ticketer.encrypt(&[0; 60_000]), None);
}
