//! Connections of every kind at random, from a seed that is printed.

use std::net::SocketAddr;
use std::thread;
use std::time::SystemTime;

use crate::rig::{LegPlan, Plan, Rig, SUITES};
use ringway_support::exchange::{Exchange, Finish, Whims};
use ringway_support::pattern::Dice;

tests! {
    Rekey: random_connections_lose_nothing,
}

const THREADS: u64 = 6;
/// Pairs of legs that a thread's connections choose from.
const ROUTES_A_THREAD: u64 = 12;
const BYTES_MAX: u64 = 700_000;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}")),
        Err(_) => default,
    }
}

fn choose<T: Copy>(dice: &mut Dice, from: &[T]) -> T {
    from[usize::try_from(dice.roll(from.len() as u64)).unwrap()]
}

fn leg(dice: &mut Dice) -> LegPlan {
    if dice.roll(4) == 0 {
        return LegPlan::plain();
    }
    let suite = choose(dice, &SUITES);
    let leg = match dice.roll(5) {
        0 => LegPlan::user(suite),
        1 | 2 => LegPlan::kernel(suite),
        _ => LegPlan::after(suite, &format!("{}B", dice.roll(BYTES_MAX / 2))),
    };
    let records = [100, 600, 1500, 4096, 9001, 16_389];
    leg.with_records_of(choose(dice, &records))
}

fn plans(seed: u64) -> Vec<Plan> {
    let mut dice = Dice::new(seed);
    let routes = 0..THREADS * ROUTES_A_THREAD;
    routes.map(|_| (leg(&mut dice), leg(&mut dice))).collect()
}

fn exchange(dice: &mut Dice) -> (Exchange, Exchange) {
    let bytes = |dice: &mut Dice| {
        let most = choose(dice, &[1, 2000, 100_000, BYTES_MAX]);
        dice.roll(most)
    };
    let client = Exchange {
        send: bytes(dice),
        send_seed: dice.roll(1000),
        receive: bytes(dice),
        receive_seed: dice.roll(1000),
        finish: choose(
            dice,
            &[Finish::First, Finish::AfterPeer, Finish::WhenComplete],
        ),
    };
    let mut server = client.mirrored();
    if client.finish == Finish::First && dice.roll(2) == 0 {
        server.finish = Finish::First;
    }
    (client, server)
}

/// What the access log must say of a connection.
struct Lived {
    address: SocketAddr,
    plan: Exchange,
}

/// Both ends of one connection, each at its whims.
fn live(rig: &Rig, route: usize, dice: &mut Dice) -> Result<Lived, String> {
    let (plan, server_plan) = exchange(dice);
    let [client_whims, server_whims] = [(); 2].map(|()| Whims::new(dice.roll(1 << 40)));
    let (mut client, mut server) = rig.pair_on(route);
    let address = client.local();
    let server_end = thread::spawn(move || server.exchange_at_whim(&server_plan, server_whims));
    let client_end = client.exchange_at_whim(&plan, client_whims);
    match (client_end, server_end.join().unwrap()) {
        (Ok(()), Ok(())) => Ok(Lived { address, plan }),
        (client, server) => Err(format!(
            "{:?}, {plan:?}: client {client:?}, server {server:?}, {}",
            rig.plans[route],
            rig.proxy.record_of(address)
        )),
    }
}

/// Those of one thread, until one goes wrong.
fn live_one_by_one(rig: &Rig, thread: u64, seed: u64, count: u64) -> Result<Vec<Lived>, String> {
    let mut dice = Dice::new(seed.wrapping_mul(31).wrapping_add(thread));
    let one = |number| {
        let route = thread * ROUTES_A_THREAD + dice.roll(ROUTES_A_THREAD);
        live(rig, usize::try_from(route).unwrap(), &mut dice)
            .map_err(|words| format!("connection {number} of thread {thread}: {words}"))
    };
    (0..count).map(one).collect()
}

fn random_connections_lose_nothing() {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let seed = setting("RINGWAY_TEST_SEED", u64::from(since_1970.subsec_nanos()));
    let connections = setting("RINGWAY_TEST_KERNEL_CONNECTIONS", 500);
    eprintln!("RINGWAY_TEST_SEED={seed} repeats this run of {connections} connections");
    let rig = &Rig::of(plans(seed));
    let count = connections.div_ceil(THREADS);
    let lived: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || live_one_by_one(rig, thread, seed, count)))
            .collect();
        let ended = threads.into_iter().map(|thread| thread.join().unwrap());
        ended
            .flat_map(|lived| lived.unwrap_or_else(|words| panic!("seed {seed}: {words}")))
            .collect()
    });
    expect_records(rig, &lived, seed);
}

fn expect_records(rig: &Rig, lived: &[Lived], seed: u64) {
    let records = rig.proxy.wait_records(lived.len());
    let mut in_kernel = 0;
    for Lived { address, plan } in lived {
        let client = address.to_string();
        let mut told = records.iter();
        let record = told.find(|record| {
            record.text("client") == client
                && record.count("bytes_up") == plan.send
                && record.count("bytes_down") == plan.receive
        });
        let record = record.unwrap_or_else(|| panic!("seed {seed}: no record of {plan:?}"));
        assert_eq!(record.text("end"), "finished", "seed {seed}: {record}");
        let paths = [record.text("path_up"), record.text("path_down")];
        in_kernel += u64::from(paths.iter().any(|path| ["kernel", "mixed"].contains(path)));
    }
    assert!(
        in_kernel * 4 > lived.len() as u64,
        "seed {seed}: only {in_kernel} of {} connections had a direction in the kernel",
        lived.len()
    );
}
