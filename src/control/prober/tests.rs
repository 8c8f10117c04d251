use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ringway_support::link::Address;
use ringway_support::peer::{ClosedPort, Service};
use ringway_support::{DEADLINE, Peer};
use tokio::time::sleep;

use super::*;
use crate::config::parse;
use crate::upstream::ServerState;

const KEY: NameKey = NameKey {
    group: GroupId(0),
    server: ServerId(0),
};

fn plan(servers: &str, check: &str) -> Arc<Plan> {
    let text = format!(
        "[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\nupstream = \"back\"\n\
         [upstream.back]\nservers = [{servers}]\n[upstream.back.check]\ninterval = \"50ms\"\n\
         fall = 1\n{check}\n"
    );
    Arc::new(parse("x.toml", text).into_plan().unwrap())
}

fn started(servers: &str, check: &str) -> (Prober, Receiver<Change>) {
    let (sender, changes) = channel();
    let prober = Prober::start(plan(servers, check), vec![None], move |change| {
        let _ = sender.send(change);
    });
    (prober, changes)
}

/// Runs the control thread on this one.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

/// As `until` of tests/support, and the control thread goes on meanwhile.
async fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begin.elapsed() < DEADLINE, "waited in vain: {what}");
        sleep(Duration::from_millis(3)).await;
    }
}

async fn next(changes: &Receiver<Change>) -> (String, ServerState) {
    let change = until("a change", || changes.try_recv().ok()).await;
    (change.address.to_string(), change.state)
}

fn ip(service: &Service) -> SocketAddr {
    service.address().to_string().parse().unwrap()
}

async fn checked_again(service: &Service) {
    let before = service.counts().accepted();
    until("it is checked", || {
        (service.counts().accepted() > before + 1).then_some(())
    })
    .await;
}

#[test]
fn the_addresses_of_a_name_are_checked_as_they_come_and_go() {
    let services: Vec<_> = (0..2).map(|_| Peer::plain().echo()).collect();
    let (first, second) = (&services[0], &services[1]);
    block_on(async {
        let (prober, changes) = started("\"db.example.org:5432\"", "");
        prober.resolved(KEY, &[ip(first)]);
        checked_again(first).await;
        prober.resolved(KEY, &[ip(first), ip(second)]);
        checked_again(second).await;
        checked_again(first).await;
        prober.resolved(KEY, &[ip(second)]);
        // One may be on its way into the service's queue.
        sleep(Duration::from_millis(200)).await;
        let gone = first.counts().accepted();
        checked_again(second).await;
        checked_again(second).await;
        assert_eq!(first.counts().accepted(), gone);
        assert!(changes.try_recv().is_err(), "all are up");
    });
}

#[test]
fn an_address_that_comes_back_begins_anew() {
    let closed = ClosedPort::new().address().to_string();
    let address: SocketAddr = closed.parse().unwrap();
    block_on(async {
        let (prober, changes) = started("\"db.example.org:5432\"", "");
        prober.resolved(KEY, &[address]);
        let down = (closed, ServerState::Barred);
        assert_eq!(next(&changes).await, down);
        prober.resolved(KEY, &[]);
        prober.resolved(KEY, &[address]);
        assert_eq!(next(&changes).await, down);
    });
}

#[test]
fn another_port_is_asked_where_the_plan_says_so() {
    let (closed, health) = (ClosedPort::new(), Peer::plain().echo());
    let servers = format!("\"{}\"", closed.address());
    let check = format!("port = {}", health.address().port());
    block_on(async {
        let (_prober, changes) = started(&servers, &check);
        checked_again(&health).await;
        assert!(changes.try_recv().is_err(), "it is up");
    });
}

#[test]
fn a_unix_socket_is_checked_as_any_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let service = Peer::unix(&path).serve(|mut link| {
        let _ = link.send(b"220 ready\r\n");
        let _ = link.receive_to_end();
    });
    let servers = format!("\"unix:{}\"", path.display());
    block_on(async {
        let (_prober, changes) = started(&servers, "expect = \"220 \"\nrise = 1");
        checked_again(&service).await;
        assert!(changes.try_recv().is_err(), "it is up");
        drop(service);
        std::fs::remove_file(&path).unwrap();
        let (_, state) = next(&changes).await;
        assert_eq!(state, ServerState::Barred);
        let _again = Peer::unix(&path).serve(|mut link| {
            let _ = link.send(b"220 ready\r\n");
        });
        let (_, state) = next(&changes).await;
        assert_eq!(state, ServerState::Up);
    });
}

#[test]
fn servers_that_are_configured_down_are_not_checked() {
    let (used, down) = (Peer::plain().echo(), Peer::plain().echo());
    let servers = format!(
        "\"{}\", {{ address = \"{}\", down = true }}",
        used.address(),
        down.address()
    );
    block_on(async {
        let _started = started(&servers, "");
        checked_again(&used).await;
        checked_again(&used).await;
        assert_eq!(down.counts().accepted(), 0);
    });
}

#[test]
fn ending_the_prober_ends_the_checks_under_way_and_no_other_begins() {
    let silent = Peer::listen(&"127.0.0.1:0".parse::<Address>().unwrap(), 16);
    let servers = format!("\"{}\"", silent.address());
    block_on(async {
        let (prober, changes) = started(&servers, "expect = \"hello\"\ntimeout = \"1m\"");
        let mut link = until("a check", || silent.accept_within(Duration::ZERO)).await;
        prober.end();
        prober.resolved(KEY, &[silent.address().to_string().parse().unwrap()]);
        until("the check's end", || {
            link.limit(Duration::from_millis(1)).unwrap();
            matches!(link.receive_some(&mut [0; 16]), Ok(0)).then_some(())
        })
        .await;
        sleep(Duration::from_millis(150)).await;
        assert!(silent.accept_within(Duration::ZERO).is_none());
        assert!(
            changes.try_recv().is_err(),
            "what was cut short says nothing"
        );
    });
}
