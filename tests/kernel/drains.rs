//! The end of a stream behind a reader that is slow: the FIN must not overtake what the kernel has
//! sealed and TCP had no room for yet.

use std::thread;
use std::time::Duration;

use ringway_support::pattern::{Dice, Pattern};
use ringway_support::wait::pause;
use ringway_support::{Ending, Link};
use rustls::CipherSuite;

use crate::rig::{AES12, AES13, BOTH_VERSIONS, LegPlan, Plan, Rig, SUITES};

tests! {
    Ktls: a_slow_client_gets_every_byte_and_a_clean_end,
    Ktls: a_slow_server_gets_every_byte_and_a_clean_end,
    Ktls: a_slow_reader_behind_a_leg_handed_over_late_gets_every_byte_and_a_clean_end,
    Ktls: many_slow_readers_at_once_get_every_byte_and_a_clean_end,
    Ktls: a_reader_that_stops_for_a_while_gets_every_byte_and_a_clean_end,
    Rekey: a_slow_reader_gets_every_byte_that_was_sealed_under_three_keys,
}

/// How the slow end reads.
#[derive(Debug, Clone, Copy)]
struct Slow {
    /// SO_RCVBUF.
    buffer_bytes: usize,
    read_bytes_max: u64,
    /// One read in so many comes after a pause.
    pause_one_in: u64,
    pause: Duration,
    /// Before the first read.
    stop: Duration,
}

const DRIBBLING: Slow = Slow {
    buffer_bytes: 32 * 1024,
    read_bytes_max: 9000,
    pause_one_in: 6,
    pause: Duration::from_millis(2),
    stop: Duration::ZERO,
};

const STOPPING: Slow = Slow {
    buffer_bytes: 48 * 1024,
    read_bytes_max: 64 * 1024,
    pause_one_in: 400,
    pause: Duration::from_millis(30),
    stop: Duration::from_millis(700),
};

/// Which end reads, and which of them closes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Client,
    Server,
}

/// Both ends, the reader's socket with a small buffer from before the handshake on.
fn pair_with_slow_reader(rig: &Rig, route: usize, reader: Reader, slow: &Slow) -> (Link, Link) {
    let client = rig.client_raw(route);
    let shrink = |link: &Link| {
        let socket = link.socket();
        socket.set_recv_buffer_size(slow.buffer_bytes).unwrap();
    };
    if reader == Reader::Client {
        shrink(&client);
    }
    let client = rig.secure_client(route, client);
    let server = rig.peers[route].accept_raw();
    if reader == Reader::Server {
        shrink(&server);
    }
    let server = rig.peers[route].secure(server).unwrap();
    (client, server)
}

fn read_slowly(link: &mut Link, slow: &Slow, seed: u64, bytes: usize) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let mut expected = Pattern::new(seed);
    let mut buffer = vec![0; usize::try_from(slow.read_bytes_max).unwrap()];
    pause(slow.stop);
    loop {
        if dice.roll(slow.pause_one_in) == 0 {
            pause(slow.pause);
        }
        let most = usize::try_from(1 + dice.roll(slow.read_bytes_max)).unwrap();
        match link.receive_some(&mut buffer[..most]) {
            Ok(0) if expected.position() == bytes as u64 => return Ok(()),
            Ok(0) => return Err(format!("ended after {} of {bytes}", expected.position())),
            Ok(some) => expected.check(&buffer[..some])?,
            Err(error) => {
                return Err(format!("{error} after {} of {bytes}", expected.position()));
            }
        }
    }
}

/// `bytes` to a slow reader, and the end. Half of the readers has closed before.
fn carry(rig: &Rig, route: usize, reader: Reader, slow: &Slow, (seed, bytes): (u64, usize)) {
    let (client, server) = pair_with_slow_reader(rig, route, reader, slow);
    let address = client.local();
    let (mut from, mut to) = match reader {
        Reader::Client => (server, client),
        Reader::Server => (client, server),
    };
    let closes_first = seed.is_multiple_of(2);
    // The kernel takes no keys once the connection is half closed.
    from.send(&Pattern::new(seed).take(1)).unwrap();
    let sender = thread::spawn(move || {
        let mut rest = Pattern::new(seed);
        let _ = rest.take(1);
        from.send(&rest.take(bytes - 1)).unwrap();
        from.finish().unwrap();
        from
    });
    if closes_first {
        to.finish().unwrap();
    }
    let read = read_slowly(&mut to, slow, seed, bytes);
    let story = format!("{:?}, {reader:?}, {slow:?}, seed {seed}", rig.plans[route]);
    assert_eq!(read, Ok(()), "{story}");
    let mut from = sender.join().unwrap();
    if !closes_first {
        to.finish().unwrap();
    }
    assert_eq!(from.expect_end(), Ending::Clean, "{story}");
    assert!(to.expect_end().looks_complete(), "FIN after all: {story}");
    let record = rig.proxy.record_of(address);
    record.expect(&[("end", "finished")]);
}

/// The slow leg sealed by the kernel, from each kind of source.
fn plans(suite: CipherSuite, reader: Reader) -> Vec<Plan> {
    let sources = [
        LegPlan::plain(),
        LegPlan::kernel(AES13),
        LegPlan::kernel(AES12),
        LegPlan::user(AES13),
    ];
    let with = |source| match reader {
        Reader::Client => (LegPlan::kernel(suite), source),
        Reader::Server => (source, LegPlan::kernel(suite)),
    };
    sources.into_iter().map(with).collect()
}

/// From less than any buffer to more than all of them.
const SIZES: [usize; 4] = [2, 60_001, 400_003, 1_500_007];

fn slow_reader(reader: Reader) {
    for suite in BOTH_VERSIONS {
        let rig = Rig::of(plans(suite, reader));
        for route in 0..rig.plans.len() {
            for (number, bytes) in SIZES.into_iter().enumerate() {
                let seed = (route * 10 + number) as u64;
                carry(&rig, route, reader, &DRIBBLING, (seed, bytes));
            }
        }
    }
}

fn a_slow_client_gets_every_byte_and_a_clean_end() {
    slow_reader(Reader::Client);
}

fn a_slow_server_gets_every_byte_and_a_clean_end() {
    slow_reader(Reader::Server);
}

fn a_slow_reader_behind_a_leg_handed_over_late_gets_every_byte_and_a_clean_end() {
    for suite in SUITES {
        let rig = Rig::of(vec![
            (LegPlan::after(suite, "300000B"), LegPlan::plain()),
            (LegPlan::plain(), LegPlan::after(suite, "100001B")),
        ]);
        for seed in [1, 3] {
            let size = (seed, 1_200_011);
            carry(&rig, 0, Reader::Client, &DRIBBLING, size);
            carry(&rig, 1, Reader::Server, &DRIBBLING, size);
        }
    }
}

fn a_reader_that_stops_for_a_while_gets_every_byte_and_a_clean_end() {
    for reader in [Reader::Client, Reader::Server] {
        for suite in BOTH_VERSIONS {
            let rig = &Rig::of(plans(suite, reader));
            thread::scope(|scope| {
                for route in 0..rig.plans.len() {
                    let seed = 70 + route as u64;
                    let bytes = 900_001 + 1_000_003 * route;
                    scope.spawn(move || carry(rig, route, reader, &STOPPING, (seed, bytes)));
                }
            });
        }
    }
}

const READERS_AT_ONCE: u64 = 10;
const ROUNDS: u64 = 6;

fn many_slow_readers_at_once_get_every_byte_and_a_clean_end() {
    let plan = |number: u64| {
        let suite = BOTH_VERSIONS[usize::try_from(number / 2 % 2).unwrap()];
        match number % 2 {
            0 => (LegPlan::kernel(suite), LegPlan::plain()),
            _ => (LegPlan::plain(), LegPlan::kernel(suite)),
        }
    };
    let rig = &Rig::of((0..READERS_AT_ONCE).map(plan).collect());
    thread::scope(|scope| {
        for number in 0..READERS_AT_ONCE {
            scope.spawn(move || {
                let reader = match number % 2 {
                    0 => Reader::Client,
                    _ => Reader::Server,
                };
                let route = usize::try_from(number).unwrap();
                let mut dice = Dice::new(number);
                for round in 0..ROUNDS {
                    let slow = Slow {
                        buffer_bytes: usize::try_from(20_000 + dice.roll(90_000)).unwrap(),
                        read_bytes_max: 1 + dice.roll(40_000),
                        pause_one_in: 20,
                        pause: Duration::from_millis(1 + dice.roll(9)),
                        stop: Duration::from_millis(dice.roll(100)),
                    };
                    let bytes = usize::try_from(2 + dice.roll(1_000_000)).unwrap();
                    carry(rig, route, reader, &slow, (number * 100 + round, bytes));
                }
            });
        }
    });
}

/// The kernel's sequence number begins again with each key: what was sealed before still counts.
fn a_slow_reader_gets_every_byte_that_was_sealed_under_three_keys() {
    for reader in [Reader::Client, Reader::Server] {
        let plans = plans(AES13, reader);
        let rig = Rig::of(plans);
        for route in 0..rig.plans.len() {
            let (client, server) = pair_with_slow_reader(&rig, route, reader, &DRIBBLING);
            let address = client.local();
            let (mut from, mut to) = match reader {
                Reader::Client => (server, client),
                Reader::Server => (client, server),
            };
            let bytes = 600_000;
            let mut pattern = Pattern::new(9);
            let mut seen = Pattern::new(9);
            for _ in 0..2 {
                // The reader asks for new keys: the next data comes under them.
                to.update_keys();
                to.send(b"new keys, please").unwrap();
                assert_eq!(from.receive(16), b"new keys, please");
                from.send(&pattern.take(50_000)).unwrap();
                seen.check(&to.receive(50_000)).unwrap();
            }
            let sender = thread::spawn(move || {
                from.send(&pattern.take(bytes)).unwrap();
                from.finish().unwrap();
                from
            });
            let mut left = bytes;
            while left > 0 {
                pause(Duration::from_millis(1));
                let some = left.min(7001);
                seen.check(&to.receive(some)).unwrap();
                left -= some;
            }
            assert_eq!(to.expect_end(), Ending::Clean, "{:?}", rig.plans[route]);
            to.finish().unwrap();
            let mut from = sender.join().unwrap();
            assert_eq!(from.expect_end(), Ending::Clean);
            let record = rig.proxy.record_of(address);
            record.expect(&[("end", "finished")]);
        }
    }
}
