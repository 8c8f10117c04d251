//! The metrics: after known traffic the figures are exactly these, and no name is undocumented.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringway::observe::metrics::Kind;
use ringway::observe::metrics::catalog::{self, ALL};
use ringway_support::link::Address;
use ringway_support::ocsp::Responder;
use ringway_support::pki::{Authority, Leaf};
use ringway_support::tls::{ClientTls, ServerTls, TLS12, TLS13};
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::{Ending, House, Link, Peer, Proxy, Ringway, Scrape, ringway, until};
use saphyr::{LoadableYamlNode as _, Yaml};
use tempfile::TempDir;

/// A proxy and its admin server.
struct Watched {
    proxy: Proxy,
    admin: Address,
    _folder: TempDir,
}

impl Watched {
    fn start(toml: &str) -> Self {
        Self::start_as(ringway!().workers(1), toml)
    }

    fn start_as(ringway: Ringway, toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let admin = Address::Unix(folder.path().join("admin.sock"));
        let toml = format!("{toml}[admin]\nlisten = [\"{admin}\"]\n");
        Self {
            proxy: ringway.start(&toml),
            admin,
            _folder: folder,
        }
    }

    fn reload(&mut self, toml: &str) {
        let admin = &self.admin;
        let toml = format!("{toml}[admin]\nlisten = [\"{admin}\"]\n");
        self.proxy.reload_with(&toml);
    }

    fn scrape(&self) -> Scrape {
        Scrape::of(&self.admin)
    }

    /// The scrape, once all connections have their lines.
    fn after(&self, connections: usize) -> Scrape {
        let _ = self.proxy.wait_records(connections);
        self.scrape()
    }

    /// A scrape that is like this.
    fn until(&self, what: &str, is_so: impl Fn(&Scrape) -> bool) -> Scrape {
        until(what, || Some(self.scrape()).filter(&is_so))
    }

    fn link(&self, listener: &str) -> Link {
        Link::connect(self.proxy.address(listener)).unwrap()
    }
}

fn visit(mut link: Link) {
    link.ping(b"hello");
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
}

fn is(value: f64, expected: u32) -> bool {
    (value - f64::from(expected)).abs() < f64::EPSILON
}

#[test]
fn plain_connections_are_counted_with_their_bytes_times_and_server() {
    let echo = Peer::plain().echo();
    let watched = Watched::start(&front_to_back("", "", echo.address()));
    (0..3).for_each(|_| visit(watched.link("front")));
    let scrape = watched.after(3);
    let front = ("listener", "front");
    let server = echo.address().to_string();
    let back = [("upstream", "back"), ("server", server.as_str())];
    let ended = [
        front,
        ("end", "finished"),
        ("phase", "relay"),
        ("ended_by", "ringway"),
    ];
    scrape.expect(&[
        ("ringway_connections_accepted_total", &[front], 3),
        ("ringway_connections_ended_total", &[], 3),
        ("ringway_connections_ended_total", &ended, 3),
        ("ringway_connections", &[], 0),
        ("ringway_bytes_total", &[front, ("direction", "up")], 15),
        ("ringway_bytes_total", &[front, ("direction", "down")], 15),
        (
            "ringway_phase_seconds_count",
            &[front, ("phase", "connect")],
            3,
        ),
        (
            "ringway_phase_seconds_count",
            &[front, ("phase", "first_byte")],
            3,
        ),
        ("ringway_phase_seconds_count", &[], 6),
        ("ringway_connection_seconds_count", &[front], 3),
        ("ringway_server_tries_total", &back, 3),
        ("ringway_server_connections_taken_total", &back, 3),
        ("ringway_server_connections", &back, 0),
        ("ringway_server_failures_total", &[], 0),
        ("ringway_downstream_handshakes_total", &[], 0),
        ("ringway_log_lines_written_total", &[], 3),
        ("ringway_log_lines_dropped_total", &[], 0),
        (
            "ringway_server_addresses",
            &[back[0], back[1], ("state", "up")],
            1,
        ),
        ("ringway_server_addresses", &[], 1),
    ]);
    let sum = scrape.one("ringway_connection_seconds_sum", &[front]).value;
    let records = watched.proxy.records();
    let logged = records.iter().map(|it| it.number("total_ms"));
    let logged = logged.sum::<f64>() / 1000.0;
    assert!(
        (sum - logged).abs() < 0.001,
        "{sum} s, and {logged} s by the log"
    );
}

#[test]
fn a_connection_that_lives_stands_in_its_phase_and_its_bytes_are_counted_at_once() {
    let (echo, house) = (Peer::plain().echo(), House::new());
    let toml = listener("front", "back", "", "")
        + &listener("silent", "back", "", &house.terminate())
        + &upstream("back", &[echo.address()], "");
    let watched = Watched::start(&toml);
    let mut link = watched.link("front");
    link.ping(b"hello");
    let silent = watched.link("silent");
    let live = |scrape: &Scrape, listener, phase, expected| {
        let labels = [("listener", listener), ("phase", phase)];
        is(scrape.sum("ringway_connections", &labels), expected)
    };
    let scrape = watched.until("both connections", |scrape| {
        live(scrape, "front", "relay", 1) && live(scrape, "silent", "client_hello", 1)
    });
    scrape.expect(&[
        ("ringway_connections", &[], 2),
        ("ringway_core_connections", &[("core", "0")], 2),
        ("ringway_server_connections", &[], 1),
        (
            "ringway_bytes_total",
            &[("direction", "up"), ("path", "copy")],
            5,
        ),
        (
            "ringway_bytes_total",
            &[("direction", "down"), ("path", "copy")],
            5,
        ),
        ("ringway_phase_seconds_count", &[("phase", "connect")], 1),
        ("ringway_phase_seconds_count", &[("phase", "first_byte")], 0),
        ("ringway_connections_ended_total", &[], 0),
    ]);
    drop((link, silent));
    watched.until("neither is there", |scrape| {
        is(scrape.sum("ringway_connections", &[]), 0)
            && is(scrape.sum("ringway_core_connections", &[]), 0)
            && is(scrape.sum("ringway_server_connections", &[]), 0)
    });
}

#[test]
fn handshakes_with_clients_are_counted_full_and_resumed() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let watched = Watched::start(&front_to_back("", &house.terminate(), echo.address()));
    for version in [TLS13, TLS12] {
        let config = ClientTls::trusting(&house.ca).version(version).config();
        let link = || watched.link("front").start_tls(&config, "localhost");
        (0..2).for_each(|_| visit(link().unwrap()));
    }
    let done = "ringway_downstream_handshakes_total";
    let (full, resumed) = (("kind", "full"), ("kind", "resumed"));
    let (new, old) = (("version", "TLSv1.3"), ("version", "TLSv1.2"));
    let hybrid = ("group", "X25519MLKEM768");
    let front = ("listener", "front");
    watched.after(4).expect(&[
        (done, &[front], 4),
        (done, &[front, new, full, hybrid], 1),
        (done, &[front, new, resumed, hybrid], 1),
        (done, &[front, old, full, ("group", "X25519")], 1),
        (done, &[front, old, resumed, ("group", "none")], 1),
        ("ringway_downstream_handshake_failures_total", &[], 0),
        ("ringway_upstream_handshakes_total", &[], 0),
        (
            "ringway_connections_ended_total",
            &[front, ("end", "finished")],
            4,
        ),
        ("ringway_bytes_total", &[front, ("path", "user")], 40),
    ]);
}

#[test]
fn a_handshake_that_fails_is_counted_with_its_reason_and_what_is_no_hello_is_no_handshake() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let watched = Watched::start(&front_to_back("", &house.terminate(), echo.address()));
    let stranger = ClientTls::trusting(&Authority::root("Another root")).config();
    let refused = watched.link("front").start_tls(&stranger, "localhost");
    assert!(refused.is_err());
    let mut garbage = watched.link("front");
    garbage.send(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = garbage.receive_to_end();
    let failed = "ringway_downstream_handshake_failures_total";
    let ended = "ringway_connections_ended_total";
    let times = "ringway_phase_seconds_count";
    let hello = ("phase", "client_hello");
    let shaken = ("phase", "downstream_handshake");
    watched.after(2).expect(&[
        ("ringway_downstream_handshakes_total", &[], 0),
        (failed, &[], 1),
        (failed, &[("listener", "front"), ("reason", "alert")], 1),
        (
            ended,
            &[("end", "alert"), shaken, ("ended_by", "downstream")],
            1,
        ),
        (
            ended,
            &[("end", "protocol_error"), hello, ("ended_by", "downstream")],
            1,
        ),
        (ended, &[], 2),
        (times, &[hello], 2),
        (times, &[shaken], 1),
        (times, &[("phase", "connect")], 0),
        ("ringway_bytes_total", &[], 0),
    ]);
}

#[test]
fn handshakes_with_servers_are_counted_full_resumed_and_failed() {
    let house = House::new();
    let echo = Peer::tls(ServerTls::with(&house.backend).version(TLS13).config()).echo();
    let plain = Peer::plain().echo();
    let strange = upstream("strange", &[plain.address()], &house.originate("strange"));
    let toml = listener("front", "back", "", "")
        + &listener("odd", "strange", "", "")
        + &upstream("back", &[echo.address()], &house.originate("back"))
        + &strange;
    let watched = Watched::start(&toml);
    (0..3).for_each(|_| visit(watched.link("front")));
    let mut refused = watched.link("odd");
    refused.send(b"hello").unwrap();
    let _ = refused.receive_to_end();
    let scrape = watched.after(4);
    let (back, strange) = (("upstream", "back"), ("upstream", "strange"));
    scrape.expect(&[
        ("ringway_upstream_handshakes_total", &[], 3),
        (
            "ringway_upstream_handshakes_total",
            &[back, ("kind", "full")],
            1,
        ),
        (
            "ringway_upstream_handshakes_total",
            &[back, ("kind", "resumed")],
            2,
        ),
        ("ringway_upstream_handshake_failures_total", &[back], 0),
        ("ringway_upstream_handshake_failures_total", &[strange], 1),
        ("ringway_server_tries_total", &[back], 3),
        ("ringway_server_connections_taken_total", &[strange], 0),
        (
            "ringway_server_failures_total",
            &[strange, ("reason", "handshake")],
            1,
        ),
        ("ringway_server_failures_total", &[], 1),
        (
            "ringway_phase_seconds_count",
            &[("phase", "upstream_handshake")],
            4,
        ),
        (
            "ringway_connections_ended_total",
            &[("ended_by", "upstream")],
            1,
        ),
    ]);
}

#[test]
fn who_is_refused_and_a_server_that_is_dead_are_seen() {
    let dead = Peer::plain().address().clone();
    let echo = Peer::plain().echo();
    let toml = listener("shut", "back", "deny = \"127.0.0.0/8\"", "")
        + &listener("front", "lost", "", "")
        + &upstream("back", &[echo.address()], "")
        + &upstream("lost", &[&dead], "");
    let watched = Watched::start(&toml);
    for listener in ["shut", "front"] {
        let _ = watched.link(listener).receive_to_end();
    }
    let _ = watched.proxy.wait_records(2);
    let lost = ("upstream", "lost");
    let scrape = watched.until("the server is down", |scrape| {
        is(
            scrape.sum("ringway_server_addresses", &[lost, ("state", "down")]),
            1,
        )
    });
    let (denied, unreachable) = (("end", "denied"), ("end", "unreachable"));
    let shut = ("listener", "shut");
    scrape.expect(&[
        ("ringway_connections_accepted_total", &[], 2),
        (
            "ringway_connections_ended_total",
            &[shut, denied, ("phase", "accept")],
            1,
        ),
        (
            "ringway_connections_ended_total",
            &[unreachable, ("phase", "connect")],
            1,
        ),
        ("ringway_connections_ended_total", &[], 2),
        ("ringway_server_addresses", &[lost, ("state", "up")], 0),
        ("ringway_server_tries_total", &[lost], 1),
        (
            "ringway_server_failures_total",
            &[lost, ("reason", "refused")],
            1,
        ),
        ("ringway_server_failures_total", &[], 1),
        ("ringway_server_connections", &[], 0),
    ]);
}

#[test]
fn a_server_that_its_checks_have_barred_is_told_from_one_that_is_off() {
    let dead = Peer::plain().address().clone();
    let echo = Peer::plain().echo();
    let off = format!("{{ address = \"{}\", down = true }}", echo.address());
    let toml = listener("front", "back", "", "")
        + &format!("[upstream.back]\nservers = [\"{dead}\", {off}]\n")
        + "[upstream.back.check]\ninterval = \"50ms\"\nfall = 1\n";
    let watched = Watched::start(&toml);
    let state =
        |scrape: &Scrape, state| scrape.sum("ringway_server_addresses", &[("state", state)]);
    let scrape = watched.until("it is barred", |scrape| is(state(scrape, "barred"), 1));
    assert!(is(state(&scrape, "off"), 1) && is(state(&scrape, "up"), 0));
}

#[test]
fn ready_connections_are_counted_until_they_are_handed_out_or_thrown_away() {
    let peer = Peer::plain();
    let toml =
        listener("front", "back", "", "") + &upstream("back", &[peer.address()], "warm = 2\n");
    let watched = Watched::start(&toml);
    let mut ready: Vec<_> = (0..2).map(|_| peer.accept()).collect();
    let warm =
        |scrape: &Scrape, expected| is(scrape.sum("ringway_warm_connections", &[]), expected);
    watched.until("two are ready", |scrape| warm(scrape, 2));
    let mut client = watched.link("front");
    client.send(b"request").unwrap();
    let mut server = ready.pop().unwrap();
    assert_eq!(server.receive(7), b"request");
    ready.push(peer.accept());
    let scrape = watched.until("another is ready", |scrape| warm(scrape, 2));
    scrape.expect(&[
        ("ringway_warm_handed_out_total", &[("upstream", "back")], 1),
        ("ringway_warm_discarded_total", &[], 0),
        ("ringway_server_tries_total", &[], 3),
        ("ringway_server_connections", &[], 3),
    ]);
    drop(ready.remove(0));
    let ended = [("upstream", "back"), ("reason", "ended")];
    watched.until("it is thrown away", |scrape| {
        is(scrape.sum("ringway_warm_discarded_total", &ended), 1)
    });
    let _again = peer.accept();
    let scrape = watched.until("and replaced", |scrape| warm(scrape, 2));
    scrape.expect(&[("ringway_server_connections", &[], 3)]);
}

#[test]
fn certificates_revocation_lists_and_ocsp_responses_tell_when_they_end() {
    let house = House::new();
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    let edge = house.ca.issue(&Leaf::server("localhost").ends_in(days(10)));
    let folder = TempDir::new().unwrap();
    let response = folder.path().join("edge.ocsp");
    fs::write(&response, Responder::of(&house.ca).answer(&edge)).unwrap();
    let tls = format!(
        "[listener.tls]\n{}client_ca = \"{}\"\nverify_client = \"required\"\ncrl = \"{}\"\n\
         ocsp_response = \"{}\"\n",
        edge.toml(),
        house.ca.file().display(),
        house.ca.crl(&[]).display(),
        response.display()
    );
    let echo = Peer::plain().echo();
    let toml = listener("front", "back", "", &tls)
        + &upstream("back", &[echo.address()], &house.originate("back"));
    let scrape = Watched::start(&toml).scrape();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ends = "ringway_certificate_not_after_timestamp_seconds";
    let own = scrape.one(
        ends,
        &[("side", "downstream"), ("name", "front"), ("use", "own")],
    );
    assert_eq!(Path::new(&own.labels["file"]), edge.certificate);
    assert_eq!(own.labels["subject"], "localhost");
    let close = |value: f64, at: Duration| (value - at.as_secs_f64()).abs() < 120.0;
    assert!(close(own.value, now + days(10)), "{own:?} at {now:?}");
    for labels in [
        [("side", "downstream"), ("name", "front"), ("use", "ca")],
        [("side", "upstream"), ("name", "back"), ("use", "ca")],
    ] {
        let subject = &scrape.one(ends, &labels).labels["subject"];
        assert!(subject.starts_with("Ringway test root"), "{subject}");
    }
    let list = scrape.one("ringway_crl_next_update_timestamp_seconds", &[]);
    assert!(
        list.labels["issuer"].starts_with("Ringway test root"),
        "{list:?}"
    );
    assert!(close(list.value, now + days(30)), "{list:?} at {now:?}");
    let stapled = scrape.one("ringway_ocsp_next_update_timestamp_seconds", &[]);
    assert_eq!(Path::new(&stapled.labels["file"]), response);
    assert_eq!(stapled.labels["subject"], "localhost");
    assert!(
        close(stapled.value, now + days(7)),
        "{stapled:?} at {now:?}"
    );
}

#[test]
fn the_process_and_its_plan_are_told_of() {
    let echo = Peer::plain().echo();
    let ringway = ringway!().workers(2);
    let watched = Watched::start_as(ringway, &front_to_back("", "", echo.address()));
    let scrape = watched.scrape();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    for began in [
        "process_start_time_seconds",
        "ringway_plan_loaded_timestamp_seconds",
    ] {
        let began = scrape.one(began, &[]).value;
        assert!((now - 120.0..=now).contains(&began), "{began} at {now}");
    }
    let files = fs::read_dir(format!("/proc/{}/fd", watched.proxy.pid())).unwrap();
    // Those of the scrape itself come and go.
    let (files, told) = (files.count(), scrape.one("process_open_fds", &[]).value);
    assert!(
        (told - f64::from(u32::try_from(files).unwrap())).abs() < 8.0,
        "{told}, {files}"
    );
    assert!(scrape.one("process_resident_memory_bytes", &[]).value > 1e6);
    assert!(scrape.one("process_cpu_seconds_total", &[]).value > 0.0);
    let version = ("version", env!("CARGO_PKG_VERSION"));
    assert!(is(scrape.one("ringway_build_info", &[version]).value, 1));
    let digest = &scrape.one("ringway_plan_info", &[]).labels["digest"];
    assert!(digest.len() == 64, "{digest}");
    for core in ["0", "1"] {
        let busy = scrape.one("ringway_core_busy_seconds_total", &[("core", core)]);
        assert!(busy.value > 0.0, "{busy:?}");
    }
    scrape.expect(&[
        ("ringway_workers", &[], 2),
        ("ringway_worker_restarts_total", &[], 0),
        ("ringway_epoll_in_use", &[], 0),
    ]);
}

#[test]
fn a_reload_goes_on_with_the_counts_of_names_and_forgets_those_that_are_gone() {
    let (one, two) = (Peer::plain().echo(), Peer::plain().echo());
    let front = listener("front", "back", "", "");
    let other = listener("other", "back", "", "") + &upstream("back", &[one.address()], "");
    let mut watched = Watched::start(&(front + &other));
    visit(watched.link("front"));
    visit(watched.link("other"));
    let before = watched.after(2);
    watched.reload(&front_to_back("", "", two.address()));
    visit(watched.link("front"));
    let _ = watched.proxy.wait_records(3);
    let gone = one.address().to_string();
    let scrape = watched.until("the old server is forgotten", |scrape| {
        is(
            scrape.sum("ringway_server_tries_total", &[("server", &gone)]),
            0,
        )
    });
    scrape.expect(&[
        (
            "ringway_connections_accepted_total",
            &[("listener", "front")],
            2,
        ),
        ("ringway_connections_accepted_total", &[], 2),
        ("ringway_connection_seconds_count", &[], 2),
        ("ringway_server_tries_total", &[], 1),
        ("ringway_log_lines_written_total", &[], 3),
    ]);
    let digest = |scrape: &Scrape| scrape.one("ringway_plan_info", &[]).labels["digest"].clone();
    assert_ne!(digest(&before), digest(&scrape));
}

#[test]
fn a_plan_is_in_use_until_the_last_connection_that_began_with_it_has_ended() {
    let echo = Peer::plain().echo();
    let toml = |keys: &str| front_to_back(keys, "", echo.address());
    let mut watched = Watched::start(&toml(""));
    watched.scrape().expect(&[("ringway_core_plans", &[], 1)]);
    let mut links = Vec::new();
    for reloads in 1..=4 {
        let mut link = watched.link("front");
        link.ping(b"hello");
        links.push(link);
        watched.reload(&toml(&format!("max_connections = {}", 100 + reloads)));
        let all = |scrape: &Scrape| is(scrape.one("ringway_core_plans", &[]).value, reloads + 1);
        watched.until("each connection keeps its own", all);
    }
    links.into_iter().for_each(visit);
    watched.until("all but the last are given back", |scrape| {
        is(scrape.one("ringway_core_plans", &[]).value, 1)
    });
}

#[test]
fn reloads_are_counted_by_what_they_came_to() {
    let echo = Peer::plain().echo();
    let mut watched = Watched::start(&front_to_back("", "", echo.address()));
    let reloads = |applied, refused| -> [ringway_support::metrics::Expected<'static>; 2] {
        [
            ("ringway_reloads_total", &[("result", "applied")], applied),
            ("ringway_reloads_total", &[("result", "refused")], refused),
        ]
    };
    watched.scrape().expect(&reloads(0, 0));
    watched.reload(&front_to_back("max_connections = 7", "", echo.address()));
    watched.scrape().expect(&reloads(1, 0));
    watched.proxy.write("[[listener]]\n");
    let _ = watched.proxy.reload_refused();
    watched.scrape().expect(&reloads(1, 1));
}

#[test]
fn openmetrics_is_for_those_who_ask_for_it() {
    let echo = Peer::plain().echo();
    let watched = Watched::start(&front_to_back("", "", echo.address()));
    let plain = watched.scrape();
    assert!(plain.content_type.starts_with("text/plain; version=0.0.4"));
    let asked = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let open = Scrape::accepting(&watched.admin, asked);
    assert!(
        open.content_type
            .starts_with("application/openmetrics-text")
    );
    assert!(plain.families.contains_key("ringway_worker_restarts_total"));
    assert!(open.families.contains_key("ringway_worker_restarts"));
    assert_eq!(plain.families.len(), open.families.len());
}

#[test]
fn epoll_in_place_of_io_uring_is_seen() {
    let echo = Peer::plain().echo();
    let ringway = ringway!().without_io_uring().argument("--allow-epoll");
    let watched = Watched::start_as(ringway, &front_to_back("", "", echo.address()));
    watched.scrape().expect(&[("ringway_epoll_in_use", &[], 1)]);
}

#[test]
fn no_peer_can_add_a_series() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let watched = Watched::start(&front_to_back("", &house.terminate(), echo.address()));
    let config = ClientTls::trusting_anyone().config();
    let series = |scrape: &Scrape| -> BTreeSet<String> {
        let samples = scrape.families.values().flat_map(|it| &it.samples);
        samples
            .map(|it| format!("{} {:?}", it.name, it.labels))
            .collect()
    };
    let visit_as = |name: &str| visit(watched.link("front").start_tls(&config, name).unwrap());
    // The second one resumes, or else it would be the names that make the difference.
    visit_as("first.example.org");
    visit_as("first.example.org");
    let before = series(&watched.after(2));
    (0..4).for_each(|n| visit_as(&format!("name-{n}.example.org")));
    assert_eq!(series(&watched.after(6)), before);
}

/// What a scrape shows and what the catalogue names.
#[test]
fn a_scrape_has_every_metric_of_the_catalogue_and_no_other() {
    let echo = Peer::plain().echo();
    let watched = Watched::start(&front_to_back("", "", echo.address()));
    visit(watched.link("front"));
    let scrape = watched.after(1);
    let shown: BTreeSet<&str> = scrape.families.keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = ALL.iter().map(|it| it.name).collect();
    assert_eq!(shown, known);
    for metric in ALL {
        let family = &scrape.families[metric.name];
        assert_eq!(
            (family.kind.as_str(), family.help.as_str()),
            (metric.kind.name(), metric.help)
        );
        let own: BTreeSet<&str> = metric.labels.iter().copied().collect();
        for sample in &family.samples {
            let labels: BTreeSet<&str> = sample.labels.keys().map(String::as_str).collect();
            let rest: Vec<_> = labels.symmetric_difference(&own).collect();
            assert!(rest.is_empty() || rest == [&"le"], "{sample:?}");
        }
    }
}

fn document(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Rows of docs/metrics.md: "| `name` | type | `label`, `label` | meaning |".
#[test]
fn the_document_has_every_metric_with_its_type_and_labels_and_no_other() {
    let document = document("docs/metrics.md");
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split(" | ").collect();
        let name = cells[0].trim_end_matches('`').to_owned();
        let is_metric = name.starts_with("ringway_") || name.starts_with("process_");
        let labels = cells.get(2)?.split(", ").map(|it| it.trim_matches('`'));
        let labels = labels.filter(|it| !it.is_empty()).map(str::to_owned);
        is_metric.then(|| (name, (cells[1].to_owned(), labels.collect::<Vec<_>>())))
    };
    let rows: Vec<_> = document.lines().filter_map(row).collect();
    let documented: BTreeMap<_, _> = rows.iter().cloned().collect();
    assert_eq!(documented.len(), rows.len(), "a metric stands in two rows");
    let known = ALL.iter().map(|metric| {
        let labels = metric.labels.iter().map(|it| (*it).to_owned()).collect();
        (
            metric.name.to_owned(),
            (metric.kind.name().to_owned(), labels),
        )
    });
    assert_eq!(documented, known.collect());
}

/// Every word of an expression that is a metric's name, with the labels in its braces.
fn used(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_word = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find(is_word) {
        rest = &rest[at..];
        let end = rest.find(|it| !is_word(it)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        if word.starts_with("ringway_") || word.starts_with("process_") {
            let braces = after.strip_prefix('{').and_then(|it| it.split_once('}'));
            let matchers = braces.map_or("", |(inside, _)| inside).split(',');
            let labels = matchers.filter_map(|it| it.split(['=', '!']).next());
            let labels = labels.map(str::trim).filter(|it| !it.is_empty());
            found.push((word.to_owned(), labels.map(str::to_owned).collect()));
        }
    }
    found
}

/// Fails where an expression names what no scrape has.
fn expect_known(place: &str, expression: &str) {
    let used = used(expression);
    assert!(!used.is_empty(), "{place} looks at no metric: {expression}");
    for (word, labels) in used {
        let of_histogram = |name: &str| {
            let suffixes = ["_bucket", "_sum", "_count"];
            suffixes
                .iter()
                .any(|suffix| word == format!("{name}{suffix}"))
        };
        let known = ALL.iter().find(|metric| match metric.kind {
            Kind::Histogram => of_histogram(metric.name),
            Kind::Counter | Kind::Gauge => metric.name == word,
        });
        let metric = known.unwrap_or_else(|| panic!("{place}: there is no {word}"));
        // What Prometheus adds to each series by itself.
        let added = ["instance", "job", "le"];
        for label in labels {
            let is_there = metric.labels.contains(&label.as_str());
            assert!(
                is_there || added.contains(&label.as_str()),
                "{place}: {word} has no {label}"
            );
        }
    }
}

#[test]
fn every_alert_looks_at_metrics_that_exist_and_says_what_to_do() {
    let text = document("docs/alerts.yml");
    let rules = Yaml::load_from_str(&text).unwrap();
    let mut alerts = BTreeSet::new();
    for group in rules[0]["groups"].as_vec().unwrap() {
        for rule in group["rules"].as_vec().unwrap() {
            let alert = rule["alert"].as_str().unwrap();
            assert!(alerts.insert(alert), "{alert} is there twice");
            expect_known(alert, rule["expr"].as_str().unwrap());
            assert!(rule["labels"]["severity"].as_str().is_some(), "{alert}");
            for words in ["summary", "description"] {
                let words = rule["annotations"][words].as_str();
                assert!(words.is_some_and(|it| !it.is_empty()), "{alert}");
            }
        }
    }
    assert!(alerts.len() >= 7, "{alerts:?}");
}

#[test]
fn every_panel_of_the_dashboard_looks_at_metrics_that_exist() {
    let text = document("docs/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut looked_at = String::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(panel["type"] == "row" || !targets.is_empty(), "{title}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            expect_known(title, expression);
            looked_at += expression;
        }
    }
    for metric in [
        catalog::CORE_BUSY,
        catalog::ENDED,
        catalog::BYTES,
        catalog::PHASE_SECONDS,
    ] {
        assert!(
            looked_at.contains(metric.name),
            "nothing shows {}",
            metric.name
        );
    }
}
