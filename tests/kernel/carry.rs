//! Bulk over every pair of engines, handed over at every kind of moment.

use ringway_support::bridge::Legs;
use ringway_support::exchange::Finish;
use ringway_support::openssl::{SClient, SServer};
use ringway_support::pki::House;
use ringway_support::{Ending, Leg, ringway};
use rustls::CipherSuite;

use crate::scene::{IN_KERNEL, Scene, Setting, carry, exchange};
use crate::{Needs, Test, test};

pub(crate) const TESTS: &[Test] = &[
    test(
        "every_pair_of_legs_goes_through_the_kernel",
        Needs::KernelTls,
        every_pair_of_legs_goes_through_the_kernel,
    ),
    test(
        "every_cipher_goes_through_the_kernel",
        Needs::KernelTls,
        every_cipher_goes_through_the_kernel,
    ),
    test(
        "one_side_in_the_kernel_and_the_other_in_user_space",
        Needs::KernelTls,
        one_side_in_the_kernel_and_the_other_in_user_space,
    ),
    test(
        "only_the_bulky_direction_goes_to_the_kernel",
        Needs::KernelTls,
        only_the_bulky_direction_goes_to_the_kernel,
    ),
    test(
        "towards_a_peer_that_has_ended_its_stream_tls_stays_in_user_space",
        Needs::KernelTls,
        towards_a_peer_that_has_ended_its_stream_tls_stays_in_user_space,
    ),
    test(
        "wherever_the_hand_over_falls_no_byte_is_lost",
        Needs::KernelTls,
        wherever_the_hand_over_falls_no_byte_is_lost,
    ),
    test(
        "openssl_at_both_ends_speaks_with_the_kernel",
        Needs::KernelTls,
        openssl_at_both_ends_speaks_with_the_kernel,
    ),
    test(
        "tls_over_a_unix_socket_stays_in_user_space",
        Needs::KernelTls,
        tls_over_a_unix_socket_stays_in_user_space,
    ),
];

const WITH_TLS: [Legs; 8] = [
    (Leg::Tls13, Leg::Plain),
    (Leg::Plain, Leg::Tls13),
    (Leg::Tls13, Leg::Tls13),
    (Leg::Tls12, Leg::Plain),
    (Leg::Plain, Leg::Tls12),
    (Leg::Tls12, Leg::Tls12),
    (Leg::Tls13, Leg::Tls12),
    (Leg::Tls12, Leg::Tls13),
];

fn every_pair_of_legs_goes_through_the_kernel() {
    for legs in WITH_TLS {
        let scene = Scene::new(&Setting::in_kernel(legs));
        let client = exchange(scene.pair(), 3_000_001, 2_000_003);
        scene.record(&client).expect(&[
            ("end", "finished"),
            ("path_up", "kernel"),
            ("path_down", "kernel"),
        ]);
    }
}

fn every_cipher_goes_through_the_kernel() {
    use CipherSuite as Suite;
    for (leg, suite) in [
        (Leg::Tls13, Suite::TLS13_AES_128_GCM_SHA256),
        (Leg::Tls13, Suite::TLS13_AES_256_GCM_SHA384),
        (Leg::Tls13, Suite::TLS13_CHACHA20_POLY1305_SHA256),
        (Leg::Tls12, Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        (Leg::Tls12, Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        (
            Leg::Tls12,
            Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
    ] {
        let scene = Scene::new(&Setting {
            suite: Some(suite),
            ..Setting::in_kernel((leg, leg))
        });
        let client = exchange(scene.pair(), 1_000_001, 1_500_003);
        let name = suite.as_str().unwrap().replace("TLS13_", "TLS_");
        scene.record(&client).expect(&[
            ("end", "finished"),
            ("path_up", "kernel"),
            ("path_down", "kernel"),
            ("downstream_cipher", &name),
            ("upstream_cipher", &name),
        ]);
    }
}

fn one_side_in_the_kernel_and_the_other_in_user_space() {
    let user = "relay_path = \"user\"";
    for legs in [
        (Leg::Tls13, Leg::Tls13),
        (Leg::Tls12, Leg::Tls13),
        (Leg::Tls13, Leg::Tls12),
    ] {
        for (listener, upstream) in [(IN_KERNEL, user), (user, IN_KERNEL)] {
            let scene = Scene::new(&Setting {
                listener,
                upstream,
                ..Setting::in_kernel(legs)
            });
            let client = exchange(scene.pair(), 2_000_001, 3_000_003);
            scene.record(&client).expect(&[
                ("end", "finished"),
                ("path_up", "mixed"),
                ("path_down", "mixed"),
            ]);
        }
    }
}

fn only_the_bulky_direction_goes_to_the_kernel() {
    for legs in [(Leg::Tls13, Leg::Plain), (Leg::Tls13, Leg::Tls13)] {
        let scene = Scene::new(&Setting {
            listener: "",
            upstream: "",
            ..Setting::in_kernel(legs)
        });
        // So much that the end is not in the proxy's buffers when the hand-over is due.
        let client = carry(scene.pair(), 12_000_000, 5_000, Finish::First);
        let expected = [("path_up", "kernel"), ("path_down", "user")];
        scene.record(&client).expect(&expected);
        let client = carry(scene.pair(), 5_000, 12_000_000, Finish::AfterPeer);
        let expected = [("path_up", "user"), ("path_down", "kernel")];
        scene.record(&client).expect(&expected);
    }
}

/// The kernel takes no keys for the socket of a peer that has ended its stream.
fn towards_a_peer_that_has_ended_its_stream_tls_stays_in_user_space() {
    let scene = Scene::new(&Setting {
        listener: "",
        ..Setting::in_kernel((Leg::Tls13, Leg::Plain))
    });
    let (mut client, mut server) = scene.pair();
    client.finish().unwrap();
    assert_eq!(server.expect_end(), Ending::Clean);
    let answer = vec![7; 1_000_000];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            server.send(&answer).unwrap();
            server.finish().unwrap();
        });
        assert!(client.receive(answer.len()) == answer);
        assert_eq!(client.expect_end(), Ending::Clean);
    });
    scene.record(&client).expect(&[
        ("end", "finished"),
        ("path_down", "user"),
        ("fallback_down", "half_closed"),
    ]);
}

fn wherever_the_hand_over_falls_no_byte_is_lost() {
    for after in ["0B", "1B", "16383B", "16385B", "70001B", "256KiB"] {
        let mut handed_over = 0;
        let keys = format!("ktls_after = \"{after}\"");
        for legs in [(Leg::Tls13, Leg::Tls13), (Leg::Tls12, Leg::Plain)] {
            let scene = Scene::new(&Setting {
                listener: &keys,
                upstream: &keys,
                ..Setting::in_kernel(legs)
            });
            // Under load: all at once on the same core or two.
            let pairs: Vec<_> = (0..4).map(|_| scene.pair()).collect();
            let ends: Vec<_> = pairs
                .into_iter()
                .enumerate()
                .map(|(at, pair)| {
                    let odd = at as u64 * 777;
                    std::thread::spawn(move || exchange(pair, 2_000_000 + odd, 1_500_000 - odd))
                })
                .collect();
            for end in ends {
                let record = scene.record(&end.join().unwrap());
                record.expect(&[("end", "finished")]);
                handed_over += usize::from(record.text("path_up") == "kernel");
            }
        }
        // Not all: a client may have ended its stream before the hand-over is due.
        assert!(handed_over > 0, "ktls_after = {after}");
    }
}

fn openssl_at_both_ends_speaks_with_the_kernel() {
    let house = House::new();
    for version in ["-tls1_3", "-tls1_2"] {
        let server = SServer::start(&house.backend, &[version]);
        let toml = format!(
            "[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\nupstream = \"back\"\n\
             {IN_KERNEL}\n{}\n[upstream.back]\nservers = [\"{}\"]\n{IN_KERNEL}\n{}",
            house.terminate(),
            server.address(),
            house.originate("back"),
        );
        let proxy = ringway!().start(&toml);
        let client = SClient::to(proxy.address("front"))
            .verify(&house.ca.file(), "localhost")
            .args(&[version]);
        let _ = client.talk("stressed", "desserts");
        proxy.wait_records(1).swap_remove(0).expect(&[
            ("end", "finished"),
            ("path_up", "kernel"),
            ("path_down", "kernel"),
        ]);
    }
}

fn tls_over_a_unix_socket_stays_in_user_space() {
    let house = House::new();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("front.sock");
    let echo = ringway_support::Peer::plain().echo();
    let toml = format!(
        "[[listener]]\nname = \"front\"\nbind = \"unix:{}\"\nupstream = \"back\"\n\
         {IN_KERNEL}\n{}\n[upstream.back]\nservers = [\"{}\"]\n",
        socket.display(),
        house.terminate(),
        echo.address(),
    );
    let proxy = ringway!().start(&toml);
    let client = SClient::to(proxy.address("front")).verify(&house.ca.file(), "localhost");
    let _ = client.talk("to and fro", "to and fro");
    proxy.wait_records(1).swap_remove(0).expect(&[
        ("end", "finished"),
        ("path_up", "user"),
        ("fallback_up", "not_tcp"),
        ("fallback_down", "not_tcp"),
    ]);
}
