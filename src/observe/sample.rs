//! A plan and records for this room's tests.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crate::config::{AccessLog, Plan, parse};
use crate::observe::{
    Address, CorePlan, Fallback, LegTls, Proxied, Record, RelayPath, Times, UpstreamSeen,
};
use crate::types::{Alert, Cause, CoreId, End, GroupId, ListenerId, Phase, ServerId, Side};

pub(crate) fn plan(access: AccessLog, queue_max: usize) -> Arc<Plan> {
    let mut plan = parse(
        "x.toml",
        "[[listener]]\nname = \"database\"\nbind = \"127.0.0.1:0\"\nupstream = \"backend\"\n\
         [upstream.backend]\nservers = [\"db.example.org:5432\"]\n",
    )
    .into_plan()
    .unwrap();
    plan.log.access = access;
    plan.log.queue_max = queue_max;
    plan.log.refused_max = 1;
    Arc::new(plan)
}

fn core_plan() -> Arc<CorePlan> {
    Arc::new(CorePlan::new(plan(AccessLog::Off, 1)))
}

/// A connection that was refused before anything was known of it.
pub(crate) fn bare_record() -> Record {
    let local = Address::Unix(Arc::new("/run/ringway/db.sock".into()));
    let ends = (Address::unnamed(), local);
    Record {
        accepted_at: UNIX_EPOCH + Duration::from_millis(1_582_979_696_789),
        end: Some(End::new(Cause::Limit, Phase::Accept, None)),
        ..Record::begin(7, CoreId(0), (core_plan(), ListenerId(0)), ends)
    }
}

/// A connection of which everything is known.
pub(crate) fn full_record() -> Record {
    let millis = |ms, us| Some((Duration::from_millis(ms) + Duration::from_micros(us)).into());
    Record {
        id: (3 << 48) | 0x2a,
        core: CoreId(3),
        client: Address::Ip("[2001:db8::1]:40000".parse().unwrap()),
        local: Address::Ip("192.0.2.1:443".parse().unwrap()),
        proxied: Some(Box::new(Proxied {
            by: Some(Address::Ip("192.0.2.7:50000".parse().unwrap())),
            authority: Some("db.example.org".into()),
            unique_id: Some("000100000000000b".into()),
            protocol: Some("TLSv1.2".into()),
            cipher: Some("ECDHE-RSA-AES128-GCM-SHA256".into()),
            common_name: Some("Payments 1".into()),
            verified: Some(true),
        })),
        times: Times {
            proxy_header: millis(0, 60),
            client_hello: millis(0, 120),
            downstream_handshake: millis(1, 250),
            queue: millis(2, 500),
            warm: millis(800, 0),
            connect: millis(0, 7),
            upstream_handshake: millis(12, 0),
            first_byte: millis(15, 999),
            total: Duration::from_secs(61),
        },
        sni: Some("db.example.org".into()),
        downstream_tls: Some(leg("client.example.org")),
        group: Some(GroupId(0)),
        upstream: Some(UpstreamSeen {
            server: ServerId(0),
            address: Address::Ip("192.0.2.9:5432".parse().unwrap()),
        }),
        tries: 2,
        passed_over: vec![
            End::new(Cause::Unreachable, Phase::Connect, Some(Side::Upstream))
                .with_detail("Connection refused"),
            End::new(
                Cause::Certificate,
                Phase::UpstreamHandshake,
                Some(Side::Upstream),
            )
            .with_alert(Some(Alert(44)))
            .with_detail("revoked"),
        ]
        .into(),
        upstream_sni: Some("backend.internal".into()),
        upstream_tls: Some(Box::new(leg("db.example.org"))),
        bytes_up: 10,
        bytes_down: 20_000_000_000,
        path_up: RelayPath::User,
        path_down: RelayPath::User,
        fallback_up: Some(Fallback::Cipher),
        fallback_down: Some(Fallback::HalfClosed),
        end: Some(
            End::new(Cause::Reset, Phase::Relay, Some(Side::Upstream))
                .with_alert(Some(Alert::BAD_RECORD_MAC))
                .with_detail("Connection reset by peer"),
        ),
        left_out: 7,
        sampled: 100,
        ..bare_record()
    }
}

fn leg(identity: &str) -> LegTls {
    LegTls {
        protocol: Some("TLSv1.3"),
        cipher: Some("TLS_AES_128_GCM_SHA256"),
        group: Some("X25519MLKEM768"),
        alpn: Some("h2".into()),
        resumed: Some(false),
        peer_identity: Some(identity.into()),
        peer_verified: Some(true),
    }
}
