//! The end of a stream behind a peer that takes its time.

use std::time::Duration;

use ringway_support::bridge::Legs;
use ringway_support::pattern::{Dice, Pattern};
use ringway_support::wait::pause;
use ringway_support::{Ending, Leg, Link};

use crate::scene::{Scene, Setting};
use crate::{Needs, Test, test};

pub(crate) const TESTS: &[Test] = &[
    test(
        "the_end_does_not_overtake_what_the_kernel_has_sealed",
        Needs::KernelTls,
        the_end_does_not_overtake_what_the_kernel_has_sealed,
    ),
    test(
        "a_reset_in_the_kernel_is_a_reset",
        Needs::KernelTls,
        a_reset_in_the_kernel_is_a_reset,
    ),
    test(
        "a_stream_cut_in_the_kernel_is_no_clean_end",
        Needs::KernelTls,
        a_stream_cut_in_the_kernel_is_no_clean_end,
    ),
];

/// What the reader's socket holds, and so how soon the proxy's is full.
const READER_BYTES: usize = 8 * 1024;

/// Kernel TLS seals what it is given before TCP has room for it. With a reader this slow something
/// is left in the kernel almost every time when the stream ends.
fn the_end_does_not_overtake_what_the_kernel_has_sealed() {
    const TO_CLIENT: [Legs; 2] = [(Leg::Tls13, Leg::Plain), (Leg::Tls12, Leg::Plain)];
    const TO_SERVER: [Legs; 2] = [(Leg::Plain, Leg::Tls13), (Leg::Plain, Leg::Tls12)];
    let mut dice = Dice::new(20);
    for legs in TO_CLIENT.into_iter().chain(TO_SERVER) {
        let scene = Scene::new(&Setting::in_kernel(legs));
        let readers: Vec<_> = (0..24_u64)
            .map(|seed| {
                let (client, server) = scene.pair();
                let (reader, writer) = if legs.0.is_tls() {
                    (client, server)
                } else {
                    (server, client)
                };
                reader.socket().set_recv_buffer_size(READER_BYTES).unwrap();
                let bytes = 100_000 + dice.roll(400_000);
                let nap = Duration::from_millis(dice.roll(4));
                std::thread::spawn(move || slowly(reader, writer, (seed, bytes), nap))
            })
            .collect();
        for reader in readers {
            reader.join().unwrap();
        }
    }
}

fn slowly(mut reader: Link, mut writer: Link, (seed, bytes): (u64, u64), nap: Duration) {
    let sender = std::thread::spawn(move || {
        let sent = Pattern::new(seed).take(usize::try_from(bytes).unwrap());
        writer.send(&sent).unwrap();
        writer.finish().unwrap();
        writer
    });
    let mut expected = Pattern::new(seed);
    let mut buffer = vec![0; 4096];
    loop {
        match reader.receive_some(&mut buffer) {
            Ok(0) => break,
            Ok(some) => expected.check(&buffer[..some]).unwrap(),
            Err(error) => panic!("after {} of {bytes} bytes: {error}", expected.position()),
        }
        pause(nap);
    }
    assert_eq!(expected.position(), bytes, "all of it came before the end");
    reader.finish().unwrap();
    let mut writer = sender.join().unwrap();
    assert_eq!(writer.expect_end(), Ending::Clean);
}

fn a_reset_in_the_kernel_is_a_reset() {
    for legs in [(Leg::Tls13, Leg::Plain), (Leg::Tls12, Leg::Tls13)] {
        let scene = Scene::new(&Setting::in_kernel(legs));
        let (mut client, mut server) = scene.pair();
        client.send(&[7; 100_000]).unwrap();
        assert_eq!(server.receive(100_000), [7; 100_000]);
        let address = client.local();
        client.reset();
        assert!(!server.expect_end().looks_complete());
        let record = scene.proxy.record_of(address);
        record.expect(&[("end", "reset"), ("ended_by", "downstream")]);
    }
}

fn a_stream_cut_in_the_kernel_is_no_clean_end() {
    for legs in [(Leg::Tls13, Leg::Plain), (Leg::Tls12, Leg::Tls13)] {
        let scene = Scene::new(&Setting::in_kernel(legs));
        let (mut client, mut server) = scene.pair();
        client.send(&[7; 100_000]).unwrap();
        assert_eq!(server.receive(100_000), [7; 100_000]);
        // FIN without close_notify.
        client.cut().unwrap();
        assert!(!server.expect_end().looks_complete());
        let record = scene.record(&client);
        record.expect(&[("end", "truncated"), ("path_up", "kernel")]);
    }
}
