//! Records that are no application data, met by kernel TLS.

use std::os::fd::AsFd;

use ringway::sys::{
    KtlsCipher, KtlsHalf, KtlsKeys, KtlsSuite, ktls_attach, ktls_next_sequence, ktls_send_record,
    ktls_set_keys, tcp_bytes_taken,
};
use ringway_support::openssl::SClient;
use ringway_support::pki::House;
use ringway_support::{Ending, Leg, Link, Peer, ringway};

use crate::scene::{IN_KERNEL, Scene, Setting};
use crate::{Needs, Test, test};

pub(crate) const TESTS: &[Test] = &[
    test(
        "tickets_that_come_late_are_kept_for_the_next_connection",
        Needs::KernelTls,
        tickets_that_come_late_are_kept_for_the_next_connection,
    ),
    test(
        "key_updates_amid_bulk_lose_nothing",
        Needs::Rekey,
        key_updates_amid_bulk_lose_nothing,
    ),
    test(
        "openssl_renews_its_keys_and_is_answered",
        Needs::Rekey,
        openssl_renews_its_keys_and_is_answered,
    ),
    test(
        "a_flood_of_key_updates_ends_the_connection",
        Needs::Rekey,
        a_flood_of_key_updates_ends_the_connection,
    ),
    test(
        "a_key_update_that_the_kernel_cannot_follow_ends_the_connection_with_its_reason",
        Needs::NoRekey,
        a_key_update_that_the_kernel_cannot_follow_ends_the_connection_with_its_reason,
    ),
    test(
        "what_is_no_record_ends_the_connection_behind_data_too",
        Needs::KernelTls,
        what_is_no_record_ends_the_connection_behind_data_too,
    ),
    test(
        "an_alert_of_the_peer_ends_the_connection_and_is_named",
        Needs::KernelTls,
        an_alert_of_the_peer_ends_the_connection_and_is_named,
    ),
    test(
        "the_kernel_tells_how_many_records_it_has_sealed",
        Needs::KernelTls,
        the_kernel_tells_how_many_records_it_has_sealed,
    ),
    test(
        "a_record_that_does_not_open_is_answered_with_its_alert",
        Needs::KernelTls,
        a_record_that_does_not_open_is_answered_with_its_alert,
    ),
];

/// Bytes there and back, so that both directions of both legs are in the kernel.
fn settle(client: &mut Link, server: &mut Link) {
    for _ in 0..3 {
        client.send(b"to the kernel").unwrap();
        assert_eq!(server.receive(13), b"to the kernel");
        server.send(b"and back").unwrap();
        assert_eq!(client.receive(8), b"and back");
    }
}

/// rustls's server sends its tickets with its first flight behind the client's Finished. They wait
/// in the proxy's socket until the leg is read: by then the kernel does.
fn tickets_that_come_late_are_kept_for_the_next_connection() {
    let scene = Scene::new(&Setting::in_kernel((Leg::Plain, Leg::Tls13)));
    for round in 0..3 {
        let (mut client, mut server) = scene.pair();
        settle(&mut client, &mut server);
        client.finish().unwrap();
        assert_eq!(server.expect_end(), Ending::Clean);
        server.finish().unwrap();
        assert_eq!(client.expect_end(), Ending::Clean);
        let record = scene.record(&client);
        record.expect(&[("path_down", "kernel")]);
        assert_eq!(record.flag("upstream_resumed"), round > 0, "{record}");
        assert_eq!(server.resumed(), round > 0, "{record}");
    }
}

fn key_updates_amid_bulk_lose_nothing() {
    for legs in [
        (Leg::Tls13, Leg::Plain),
        (Leg::Plain, Leg::Tls13),
        (Leg::Tls13, Leg::Tls13),
    ] {
        let scene = Scene::new(&Setting::in_kernel(legs));
        let (mut client, mut server) = scene.pair();
        settle(&mut client, &mut server);
        for round in 0..8_u8 {
            // Each asks for an answer, too.
            for (link, leg) in [(&mut client, legs.0), (&mut server, legs.1)] {
                if leg.is_tls() {
                    link.update_keys();
                }
            }
            let up = vec![round; 200_000 + usize::from(round)];
            let down = vec![!round; 150_000 - usize::from(round)];
            both_ways((&mut client, &up), (&mut server, &down));
        }
        client.finish().unwrap();
        assert_eq!(server.expect_end(), Ending::Clean);
        server.finish().unwrap();
        assert_eq!(client.expect_end(), Ending::Clean);
        scene.record(&client).expect(&[
            ("end", "finished"),
            ("path_up", "kernel"),
            ("path_down", "kernel"),
        ]);
    }
}

fn both_ways((client, up): (&mut Link, &[u8]), (server, down): (&mut Link, &[u8])) {
    std::thread::scope(|scope| {
        let server_end = scope.spawn(|| {
            let received = server.receive(up.len());
            server.send(down).unwrap();
            received
        });
        client.send(up).unwrap();
        assert!(client.receive(down.len()) == down, "down differs");
        assert!(server_end.join().unwrap() == up, "up differs");
    });
}

fn openssl_renews_its_keys_and_is_answered() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let toml = format!(
        "[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\nupstream = \"back\"\n\
         {IN_KERNEL}\n{}\n[upstream.back]\nservers = [\"{}\"]\n",
        house.terminate(),
        echo.address(),
    );
    let proxy = ringway!().start(&toml);
    let client = SClient::to(proxy.address("front"))
        .verify(&house.ca.file(), "localhost")
        .args(&["-tls1_3"]);
    let _ = client.converse(&[
        ("before", "before"),
        ("K", "KEYUPDATE"),
        ("behind it", "behind it"),
        ("K", "KEYUPDATE"),
        ("behind the second", "behind the second"),
    ]);
    proxy.wait_records(1).swap_remove(0).expect(&[
        ("end", "finished"),
        ("path_up", "kernel"),
        ("path_down", "kernel"),
    ]);
}

fn a_flood_of_key_updates_ends_the_connection() {
    for keys in [IN_KERNEL, "relay_path = \"user\""] {
        let scene = Scene::new(&Setting {
            listener: keys,
            ..Setting::in_kernel((Leg::Tls13, Leg::Plain))
        });
        let (mut client, mut server) = scene.pair();
        settle(&mut client, &mut server);
        // The data between them keeps them from being records without data in a row.
        for _ in 0..50 {
            client.update_keys();
            if client.send(b"x").is_err() {
                break;
            }
        }
        let record = scene.record(&client);
        record.expect(&[("end", "protocol_error"), ("ended_by", "downstream")]);
        let detail = record.find("detail").unwrap();
        assert!(detail.contains("too many key updates"), "{record}");
        drop(server);
    }
}

fn a_key_update_that_the_kernel_cannot_follow_ends_the_connection_with_its_reason() {
    for legs in [(Leg::Tls13, Leg::Plain), (Leg::Plain, Leg::Tls13)] {
        let scene = Scene::new(&Setting::in_kernel(legs));
        let (mut client, mut server) = scene.pair();
        settle(&mut client, &mut server);
        let updating = if legs.0.is_tls() {
            &mut client
        } else {
            &mut server
        };
        updating.update_keys();
        // The kernel that reads it has the old keys only.
        let _ = updating.send(b"sealed with the next keys");
        let record = scene.record(&client);
        record.expect(&[("end", "system_error"), ("phase", "relay")]);
        let detail = record.find("detail").unwrap();
        assert!(detail.contains("Linux 6.14"), "{record}");
    }
}

fn a_record_that_does_not_open_is_answered_with_its_alert() {
    for leg in [Leg::Tls13, Leg::Tls12] {
        let scene = Scene::new(&Setting::in_kernel((leg, Leg::Plain)));
        let (mut client, mut server) = scene.pair();
        settle(&mut client, &mut server);
        let mut forged = vec![23, 3, 3, 0, 64];
        forged.extend([0xAA; 64]);
        client.send_raw(&forged).unwrap();
        let (bytes, ending) = client.receive_to_end();
        assert!(bytes.is_empty(), "{leg:?}: {} bytes", bytes.len());
        assert_ne!(ending, Ending::Silence, "{leg:?}");
        scene.record(&client).expect(&[
            ("end", "protocol_error"),
            ("ended_by", "downstream"),
            ("alert", "bad_record_mac"),
        ]);
        assert!(!server.expect_end().looks_complete(), "{leg:?}");
    }
}

/// What the limit of records and the end of a stream are reckoned with.
fn the_kernel_tells_how_many_records_it_has_sealed() {
    const RECORD_OVERHEAD: u64 = 22;
    let suite = KtlsSuite {
        tls13: true,
        cipher: KtlsCipher::Aes128Gcm,
    };
    let peer = Peer::plain();
    let sender = Link::connect(peer.address()).unwrap();
    let _receiver = peer.accept();
    let socket = sender.socket().as_fd();
    let keys = KtlsKeys {
        suite,
        key: &[1; 16],
        nonce: [2; 12],
        sequence: 16_000_000,
    };
    let taken_before = tcp_bytes_taken(socket).unwrap();
    ktls_attach(socket).unwrap();
    ktls_set_keys(socket, KtlsHalf::Transmit, &keys).unwrap();
    assert_eq!(ktls_next_sequence(socket, suite).unwrap(), 16_000_000);
    // One record, two, and a control record.
    sender.send_raw(&[0; 100]).unwrap();
    sender.send_raw(&[0; 20_000]).unwrap();
    ktls_send_record(socket, 21, &[1, 0]).unwrap();
    assert_eq!(ktls_next_sequence(socket, suite).unwrap(), 16_000_004);
    let taken = tcp_bytes_taken(socket).unwrap() - taken_before;
    assert_eq!(taken, 100 + 20_000 + 2 + 4 * RECORD_OVERHEAD);
}

fn an_alert_of_the_peer_ends_the_connection_and_is_named() {
    for legs in [(Leg::Tls13, Leg::Plain), (Leg::Plain, Leg::Tls12)] {
        let scene = Scene::new(&Setting::in_kernel(legs));
        let (mut client, mut server) = scene.pair();
        settle(&mut client, &mut server);
        let (failing, other, side) = if legs.0.is_tls() {
            (&mut client, &mut server, "downstream")
        } else {
            (&mut server, &mut client, "upstream")
        };
        failing.send_alert();
        assert!(!other.expect_end().looks_complete(), "{legs:?}");
        scene.record(&client).expect(&[
            ("end", "alert"),
            ("ended_by", side),
            ("alert", "bad_record_mac"),
        ]);
    }
}

/// One splice takes the data and meets what comes behind it, which the socket tells once.
fn what_is_no_record_ends_the_connection_behind_data_too() {
    let of_no_version = [23, 5, 5, 0, 64];
    let too_long = [23, 3, 3, 0xFF, 0xFF];
    for header in [of_no_version, too_long] {
        let scene = Scene::new(&Setting::in_kernel((Leg::Tls13, Leg::Plain)));
        let (mut client, mut server) = scene.pair();
        settle(&mut client, &mut server);
        scene.proxy.while_stopped(|| {
            client.send(b"before it").unwrap();
            client
                .send_raw(&[&header[..], &[0xAA; 64]].concat())
                .unwrap();
        });
        let record = scene.record(&client);
        record.expect(&[("end", "protocol_error"), ("ended_by", "downstream")]);
        assert_eq!(record.count("bytes_up"), 3 * 13 + 9, "{record}");
    }
}
