//! Tickets that come when the upstream leg is in the kernel.

use std::time::Duration;

use ringway_support::ringway;
use ringway_support::sys::{self, Ready};
use ringway_support::wait::pause;
use rustls::ServerConnection;

use crate::rig::{AES13, LegPlan, Paths, Rig, cross, server_config};
use std::os::fd::AsRawFd as _;

tests! {
    Ktls: a_ticket_that_comes_when_the_leg_is_in_the_kernel_is_kept_for_the_next_connection,
}

fn a_ticket_that_comes_when_the_leg_is_in_the_kernel_is_kept_for_the_next_connection() {
    for downstream in [LegPlan::plain(), LegPlan::kernel(AES13)] {
        // Each core has sessions of its own.
        let plans = vec![(downstream, LegPlan::kernel(AES13))];
        let rig = Rig::start(ringway!().workers(1), plans);
        let config = server_config(&rig.house, &rig.plans[0].1).unwrap();
        for resumed in [false, true] {
            let mut client = rig.secure_client(0, rig.client_raw(0));
            let mut server = rig.peers[0].accept_raw();
            let mut tls = ServerConnection::new(config.clone()).unwrap();
            // Its tickets are ready when the handshake is over, and stay with it.
            while tls.is_handshaking() {
                while tls.wants_write() {
                    tls.write_tls(&mut server.socket()).unwrap();
                }
                tls.read_tls(&mut server.socket()).unwrap();
                tls.process_new_packets().unwrap();
            }
            assert!(tls.wants_write(), "the tickets are not sent yet");
            server.use_tls(tls.into());
            client.send(b"relayed").unwrap();
            let readable = Ready {
                read: true,
                write: false,
            };
            let fd = server.socket().as_raw_fd();
            let seen = sys::poll(fd, readable, ringway_support::DEADLINE).unwrap();
            assert!(seen.read, "the relay runs");
            // The other direction of the same relay has looked at its source, too.
            pause(Duration::from_millis(50));
            // A receive sends what waits to be sent: the tickets, before any data.
            assert_eq!(server.receive(7), b"relayed");
            cross(&mut server, &mut client, b"answer");
            server.finish().unwrap();
            assert!(client.expect_end().looks_complete());
            client.finish().unwrap();
            assert!(server.expect_end().looks_complete());
            let record = rig.record(&client);
            Paths("kernel", "kernel").expect(&record);
            assert_eq!(record.flag("upstream_resumed"), resumed, "{record}");
        }
    }
}
