//! Connections at random: legs, moments of the hand-over, sizes, pauses, key updates, half-closes.

use std::io::ErrorKind;
use std::time::Duration;

use ringway_support::pattern::{Dice, Pattern};
use ringway_support::wait::{DEADLINE, pause};
use ringway_support::{Ending, Leg, Link};

use crate::scene::{Scene, Setting};
use crate::{Needs, Test, test};

pub(crate) const TESTS: &[Test] = &[test(
    "connections_at_random_lose_nothing",
    Needs::KernelTls,
    connections_at_random_lose_nothing,
)];

/// RINGWAY_TEST_KERNEL_CONNECTIONS makes it more, RINGWAY_TEST_SEED repeats a run.
const CONNECTIONS: u64 = 500;
const CONNECTIONS_A_SCENE: u64 = 25;
const AT_ONCE: usize = 5;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect(variable))
}

fn connections_at_random_lose_nothing() {
    let fresh = u64::from(std::process::id())
        + std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos() as u64;
    let seed = number("RINGWAY_TEST_SEED", fresh);
    let connections = number("RINGWAY_TEST_KERNEL_CONNECTIONS", CONNECTIONS);
    println!("RINGWAY_TEST_SEED={seed}, {connections} connections");
    let rekey = ringway::sys::probe_ktls().is_ok_and(|ability| ability.rekey);
    let mut dice = Dice::new(seed);
    for _ in 0..connections.div_ceil(CONNECTIONS_A_SCENE) {
        let legs = loop {
            let legs = (leg(&mut dice), leg(&mut dice));
            if legs != (Leg::Plain, Leg::Plain) {
                break legs;
            }
        };
        let (listener, upstream) = (keys(&mut dice), keys(&mut dice));
        let scene = Scene::new(&Setting {
            listener: &listener,
            upstream: &upstream,
            ..Setting::in_kernel(legs)
        });
        for _ in 0..CONNECTIONS_A_SCENE / AT_ONCE as u64 {
            let ends: Vec<_> = (0..AT_ONCE)
                .map(|_| {
                    let (client, server) = scene.pair();
                    let (up, down) = (dice.roll(u64::MAX), dice.roll(u64::MAX));
                    let up_plan = Plan::at_random(up, rekey && legs.0 == Leg::Tls13);
                    let down_plan = Plan::at_random(down, rekey && legs.1 == Leg::Tls13);
                    std::thread::spawn(move || run((client, up_plan), (server, down_plan)))
                })
                .collect();
            for end in ends {
                let client = end.join().unwrap();
                scene.record(&client).expect(&[("end", "finished")]);
            }
        }
    }
}

fn leg(dice: &mut Dice) -> Leg {
    match dice.roll(5) {
        0 => Leg::Plain,
        1 => Leg::Tls12,
        _ => Leg::Tls13,
    }
}

fn keys(dice: &mut Dice) -> String {
    match dice.roll(6) {
        0 => "relay_path = \"user\"".to_owned(),
        1 => "relay_path = \"splice\"".to_owned(),
        _ => format!("ktls_after = \"{}B\"", dice.roll(120_000)),
    }
}

/// What one end sends.
struct Plan {
    seed: u64,
    bytes: usize,
    /// It renews its keys now and then.
    renews: bool,
    /// It ends its stream before it has read the other's.
    closes_early: bool,
}

impl Plan {
    fn at_random(seed: u64, may_renew: bool) -> Self {
        let mut dice = Dice::new(seed);
        let bytes_max = [1, 1_000, 50_000, 400_000][usize::try_from(dice.roll(4)).unwrap()];
        Self {
            seed,
            bytes: usize::try_from(dice.roll(bytes_max + 1)).unwrap(),
            renews: may_renew && dice.roll(2) == 0,
            closes_early: dice.roll(2) == 0,
        }
    }
}

/// Each end sends and receives by turns, one thread an end.
fn run(client: (Link, Plan), server: (Link, Plan)) -> Link {
    let expected_up = (client.1.seed, client.1.bytes);
    let expected_down = (server.1.seed, server.1.bytes);
    let server_end = std::thread::spawn(move || end(server.0, &server.1, expected_up));
    let client = end(client.0, &client.1, expected_down);
    server_end.join().unwrap();
    client
}

/// By turns: some bytes of random size, now and then a pause or new keys, and what has come is read.
fn end(mut link: Link, plan: &Plan, (seed, bytes): (u64, usize)) -> Link {
    let mut dice = Dice::new(plan.seed ^ 0x5EED);
    let mut outgoing = Pattern::new(plan.seed);
    let mut incoming = Pattern::new(seed);
    let mut buffer = vec![0; 20_000];
    let (mut left, mut read, mut updates) = (plan.bytes, 0, 0);
    let mut finished = false;
    loop {
        if left > 0 {
            let some = at_random(&mut dice).min(left);
            link.send(&outgoing.take(some)).unwrap();
            left -= some;
            if plan.renews && updates < 20 && dice.roll(4) == 0 {
                link.update_keys();
                updates += 1;
            }
            if dice.roll(16) == 0 {
                pause(Duration::from_millis(dice.roll(5)));
            }
        }
        if left == 0 && !finished && (plan.closes_early || read == bytes) {
            link.finish().unwrap();
            finished = true;
        }
        if read == bytes && finished {
            assert_eq!(link.expect_end(), Ending::Clean);
            return link;
        }
        // While there is something to send, nobody waits long for the other end.
        let patience = if left > 0 {
            Duration::from_millis(1)
        } else {
            DEADLINE
        };
        link.socket().set_read_timeout(Some(patience)).unwrap();
        let room = at_random(&mut dice).min(bytes - read);
        if room > 0 {
            match link.receive_some(&mut buffer[..room]) {
                Ok(0) => panic!("the stream ended after {read} of {bytes} bytes"),
                Ok(some) => {
                    incoming.check(&buffer[..some]).unwrap();
                    read += some;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && left > 0 => {}
                Err(error) => panic!("after {read} of {bytes} bytes: {error}"),
            }
        }
        link.limit(DEADLINE).unwrap();
    }
}

fn at_random(dice: &mut Dice) -> usize {
    usize::try_from(1 + dice.roll(20_000)).unwrap()
}
