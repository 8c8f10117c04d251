//! A plan and records for this room's tests.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crate::config::{
    AccessLog, AccessPlan, AccountPlan, Balance, BindAddress, Carriage, Facility, HealthPlan,
    ListenerPlan, LocalAddress, Located, LogFormat, LogPlan, Pace, PathChoice, Place, Plan,
    ResolvePlan, RuntimePlan, SandboxPlan, ServerAddress, ServerPlan, SocketOptions, Steering,
    SyslogPlan, Target, UpstreamPlan, WarmPlan, Workers,
};
use crate::observe::{
    Address, CorePlan, Fallback, LegTls, Proxied, Record, RelayPath, Times, UpstreamSeen,
};
use crate::types::{
    Alert, Cause, CoreId, End, GroupId, ListenerId, LogField, Phase, ServerId, Side,
};

pub(crate) fn plan(access: AccessLog, queue_max: usize) -> Arc<Plan> {
    Arc::new(Plan {
        digest: String::new(),
        runtime: RuntimePlan {
            workers: Workers::Count(1),
            drain_timeout: Duration::from_secs(1),
            handshakes_max: 1,
            accept_batch: 1,
            pipes_max: 1,
            resolver: Vec::new(),
            watch: false,
            takeover: None,
            account: AccountPlan::default(),
        },
        sandbox: SandboxPlan::default(),
        log: LogPlan {
            access,
            format: LogFormat::Json,
            fields: LogField::all().collect(),
            sample: 1,
            syslog: SyslogPlan {
                facility: Facility(3),
                tag: "ringway".into(),
            },
            queue_max,
            refused_max: 1,
        },
        admin: None,
        listeners: vec![listener()],
        upstreams: vec![upstream()],
    })
}

const CARRIAGE: Carriage = Carriage {
    path: PathChoice::Auto,
    ktls_after: 0,
};

fn listener() -> ListenerPlan {
    ListenerPlan {
        name: "database".into(),
        binds: vec![located(BindAddress::Tcp(([127, 0, 0, 1], 0).into()))],
        target: Target::Group(GroupId(0)),
        tls: None,
        connections_max: 1,
        access: AccessPlan::default(),
        pace: Pace::default(),
        backlog: 1,
        steering: Steering::Kernel,
        client_hello_timeout: Duration::from_secs(1),
        handshake_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        upstream_handshake_timeout: Duration::from_secs(1),
        next_upstream: vec![],
        next_upstream_tries: 1,
        next_upstream_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
        socket: SOCKET,
        carriage: CARRIAGE,
        proxied: None,
    }
}

fn upstream() -> UpstreamPlan {
    UpstreamPlan {
        name: "backend".into(),
        servers: vec![ServerPlan {
            address: located(ServerAddress::Name {
                host: "db.example.org".into(),
                port: 5432,
            }),
            weight: 1,
            backup: false,
            down: false,
            connections_max: 0,
            health: HealthPlan {
                fails_max: 1,
                fail_timeout: Duration::from_secs(1),
                slow_start: Duration::ZERO,
            },
        }],
        balance: Balance::RoundRobin,
        queue_max: 0,
        queue_timeout: Duration::from_secs(1),
        warm: WarmPlan::OFF,
        tls: None,
        check: None,
        resolve_drain: None,
        happy_eyeballs_delay: None,
        resolve: ResolvePlan {
            ttl_min: Duration::from_secs(1),
            ttl_max: Duration::from_secs(1),
        },
        local: LocalAddress::Kernel,
        socket: SOCKET,
        carriage: CARRIAGE,
        proxy_protocol: None,
    }
}

const SOCKET: SocketOptions = SocketOptions {
    tcp_nodelay: true,
    keepalive: None,
    user_timeout: None,
};

fn located<T>(value: T) -> Located<T> {
    Located {
        value,
        place: Place::default(),
    }
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
