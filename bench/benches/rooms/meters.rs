//! What it costs a core to count one connection, from accept to its end.

use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use ringway::config::parse;
use ringway::observe::meters::PlanMeters;
use ringway::observe::{Address, CorePlan, LegTls, Record, RelayPath};
use ringway::types::{
    Cause, CoreId, Direction, Elapsed, End, GroupId, ListenerId, Phase, ServerId,
};

/// Listeners that are counted one after the other: with 100 none lies in the nearest cache.
const LISTENERS: [usize; 2] = [1, 100];
const CORE: CoreId = CoreId(0);

fn plan(listeners: usize) -> ringway::config::Plan {
    let listener = |n: usize| {
        format!("[[listener]]\nname = \"l{n}\"\nbind = \"127.0.0.1:{n}\"\nupstream = \"app\"\n")
    };
    let mut text: String = (0..listeners).map(|n| listener(1000 + n)).collect();
    text += "[upstream.app]\nservers = [\"127.0.0.1:9\"]\n";
    parse("x.toml", text).into_plan().unwrap()
}

fn record(plan: Arc<CorePlan>) -> Record {
    let ends = (Address::unnamed(), Address::unnamed());
    let mut record = Record::begin(1, CORE, (plan, ListenerId(0)), ends);
    let took = |micros| Some(Elapsed::from(Duration::from_micros(micros)));
    record.times.client_hello = took(180);
    record.times.downstream_handshake = took(950);
    record.times.connect = took(70);
    record.times.first_byte = took(1900);
    record.times.total = Duration::from_millis(7);
    record.downstream_tls = Some(LegTls {
        protocol: Some("TLSv1.3"),
        group: Some("X25519"),
        resumed: Some(true),
        ..LegTls::default()
    });
    record.end = Some(End::new(Cause::Finished, Phase::Relay, None));
    record
}

#[divan::bench(args = LISTENERS)]
fn one_connection(bencher: Bencher<'_, '_>, listeners: usize) {
    let plan = plan(listeners);
    let meters = PlanMeters::unread(&plan, 1);
    let all: Vec<_> = (0..)
        .map(ListenerId)
        .take(listeners)
        .map(|id| meters.listener(CORE, id))
        .collect();
    let (core, group) = (meters.core(CORE), meters.group(CORE, GroupId(0)));
    let record = record(Arc::new(CorePlan::new(Arc::new(plan))));
    let mut turns = all.iter().cycle();
    bencher.bench_local(|| {
        let listener = turns.next().unwrap();
        listener.begin();
        core.live.add(1);
        let phases = [
            Phase::Accept,
            Phase::ClientHello,
            Phase::DownstreamHandshake,
            Phase::Connect,
            Phase::Relay,
        ];
        for pair in phases.windows(2) {
            listener.turn(pair[0], pair[1]);
        }
        let server = group.server(ServerId(0));
        server.live.add(1);
        server.tries.add(1);
        server.taken.add(1);
        listener.settle(&record);
        for direction in [Direction::Up, Direction::Down] {
            listener.carried.of(direction, RelayPath::User).add(1);
        }
        listener.end(divan::black_box(&record), Phase::Relay);
        core.end(&record);
        server.live.take(1);
        core.live.take(1);
    });
}
