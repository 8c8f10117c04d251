use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::Plan;
use crate::types::{CoreId, Elapsed, End, GroupId, ListenerId, ServerId};

/// A plan as one core holds it. Records count it up and down, and cores should not share a count.
#[derive(Debug)]
pub struct CorePlan {
    plan: Arc<Plan>,
}

impl CorePlan {
    #[must_use]
    pub fn new(plan: Arc<Plan>) -> Self {
        Self { plan }
    }

    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

/// One connection's story: made at accept, filled by each phase, finished by value.
///
/// It is the access-log line and the reason the connection ended.
#[derive(Debug)]
pub struct Record {
    /// Unique in this process: core number in the upper 16 bits, a counter below.
    pub id: u64,
    pub core: CoreId,
    /// The plan that it is served by to its end, whose names it is told with.
    pub plan: Arc<CorePlan>,
    pub listener: ListenerId,
    pub accepted_at: SystemTime,
    /// Whom the connection is from: the one place that limits, lists and balancing ask. The
    /// socket's peer, or the source that a trusted PROXY header names.
    pub client: Address,
    /// The address that the client connected to; with such a header, its destination.
    pub local: Address,
    /// What a trusted PROXY header said, if one came.
    pub proxied: Option<Box<Proxied>>,
    pub times: Times,
    /// Server name of the ClientHello, terminated or passed through.
    pub sni: Option<Box<str>>,
    pub downstream_tls: Option<LegTls>,
    pub group: Option<GroupId>,
    /// The last server tried; with an end in the relay phase, the one that served.
    pub upstream: Option<UpstreamSeen>,
    /// Servers tried, the serving one included.
    pub tries: u32,
    /// Why each server that was passed over was passed over, in order.
    pub passed_over: Box<[End]>,
    /// Server name in our ClientHello to the last server tried.
    pub upstream_sni: Option<Box<str>>,
    /// In a box, so that the record of a plain one is smaller.
    pub upstream_tls: Option<Box<LegTls>>,
    /// Application bytes from client to server.
    pub bytes_up: u64,
    /// Application bytes from server to client.
    pub bytes_down: u64,
    pub path_up: RelayPath,
    pub path_down: RelayPath,
    /// Why a direction did not come to the path that was wanted for it.
    pub fallback_up: Option<Fallback>,
    pub fallback_down: Option<Fallback>,
    /// `None` only while the connection lives.
    pub end: Option<End>,
    /// Of a connection that was refused: how many more the line stands for.
    pub left_out: u64,
    /// Of a connection that ended cleanly: it was chosen among so many for a line of its own.
    pub sampled: u32,
}

impl Record {
    /// The record of a connection accepted now, of which nothing else is known.
    #[must_use]
    pub fn begin(
        id: u64,
        core: CoreId,
        (plan, listener): (Arc<CorePlan>, ListenerId),
        (client, local): (Address, Address),
    ) -> Self {
        Self {
            id,
            core,
            plan,
            listener,
            accepted_at: SystemTime::now(),
            client,
            local,
            proxied: None,
            times: Times::default(),
            sni: None,
            downstream_tls: None,
            group: None,
            upstream: None,
            tries: 0,
            passed_over: Box::default(),
            upstream_sni: None,
            upstream_tls: None,
            bytes_up: 0,
            bytes_down: 0,
            path_up: RelayPath::None,
            path_down: RelayPath::None,
            fallback_up: None,
            fallback_down: None,
            end: None,
            left_out: 0,
            sampled: 1,
        }
    }

    /// The id as the access log and PROXY headers show it. Not a number: from core 32 on it is
    /// past 2^53, where JSON readers that use doubles round.
    #[must_use]
    pub fn id_text(&self) -> String {
        format!("{:016x}", self.id)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Ip(SocketAddr),
    /// Path of a unix socket; empty for an unnamed peer.
    Unix(Arc<PathBuf>),
}

impl Address {
    /// `None`: it is a unix socket's.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix(_) => None,
        }
    }

    /// Of a peer that nothing is known of.
    #[must_use]
    pub fn unnamed() -> Self {
        Self::Unix(Arc::default())
    }
}

/// What a PROXY header said beside the addresses.
#[derive(Debug, Default)]
pub struct Proxied {
    /// The peer that sent it; `None`: it left the addresses as they are.
    pub by: Option<Address>,
    pub authority: Option<Box<str>>,
    pub unique_id: Option<Box<str>>,
    /// TLS version between client and peer.
    pub protocol: Option<Box<str>>,
    pub cipher: Option<Box<str>>,
    pub common_name: Option<Box<str>>,
    /// Whether the peer verified the client's certificate; `None`: the client showed none.
    pub verified: Option<bool>,
}

/// Time that each phase took, also one that failed; `None`: it was not reached.
#[derive(Debug, Default, Clone, Copy)]
pub struct Times {
    /// From accept to the end of the PROXY header, or until it was clear that there is none.
    pub proxy_header: Option<Elapsed>,
    /// From accept to the end of the ClientHello.
    pub client_hello: Option<Elapsed>,
    pub downstream_handshake: Option<Elapsed>,
    /// Waiting for a server with room.
    pub queue: Option<Elapsed>,
    /// How long the connection to the server had been ready before the client came.
    pub warm: Option<Elapsed>,
    /// Of the last attempt, if it came to a connection.
    pub connect: Option<Elapsed>,
    /// Of the last attempt.
    pub upstream_handshake: Option<Elapsed>,
    /// From accept to the first application byte sent to the client.
    pub first_byte: Option<Elapsed>,
    /// From accept to the end.
    pub total: Duration,
}

#[derive(Debug)]
pub struct UpstreamSeen {
    pub server: ServerId,
    pub address: Address,
}

/// What was agreed on one TLS leg, as far as the handshake came.
#[derive(Debug, Default, Clone)]
pub struct LegTls {
    /// "TLSv1.2" or "TLSv1.3".
    pub protocol: Option<&'static str>,
    /// IANA's name.
    pub cipher: Option<&'static str>,
    /// IANA's name of the key exchange group; none on a resumption without key exchange.
    pub group: Option<&'static str>,
    pub alpn: Option<Box<str>>,
    pub resumed: Option<bool>,
    /// The peer's certificate, in words: SPIFFE id, URI, DNS name or subject.
    pub peer_identity: Option<Box<str>>,
    /// False where a certificate was accepted without a known issuer (optional-no-ca, verify off).
    pub peer_verified: Option<bool>,
}

/// Which engine carried the bytes of one direction: the last one that it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum RelayPath {
    /// No byte flowed.
    #[default]
    None,
    /// Plain to plain through a buffer.
    Copy,
    /// Plain to plain through a pipe.
    Splice,
    /// TLS in user space on every leg that has it.
    User,
    /// Kernel TLS on one leg, TLS in user space on the other.
    Mixed,
    /// Kernel TLS on every leg that has TLS.
    Kernel,
}

impl RelayPath {
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Copy,
        Self::Splice,
        Self::User,
        Self::Mixed,
        Self::Kernel,
    ];

    /// The word in the access log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Copy => "copy",
            Self::Splice => "splice",
            Self::User => "user",
            Self::Mixed => "mixed",
            Self::Kernel => "kernel",
        }
    }
}

/// Why a direction that should have gone to kernel TLS did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This kernel has no TLS.
    NoKernelTls,
    /// Its TLS has not got this version or cipher for this direction.
    Cipher,
    /// A unix socket.
    NotTcp,
    /// The peer had ended its stream already: the kernel then takes no keys.
    HalfClosed,
    NoMemory,
    /// Another error of the kernel.
    Refused,
}

impl Fallback {
    pub const ALL: [Self; 6] = [
        Self::NoKernelTls,
        Self::Cipher,
        Self::NotTcp,
        Self::HalfClosed,
        Self::NoMemory,
        Self::Refused,
    ];

    /// The word in the access log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoKernelTls => "no_kernel_tls",
            Self::Cipher => "cipher",
            Self::NotTcp => "not_tcp",
            Self::HalfClosed => "half_closed",
            Self::NoMemory => "no_memory",
            Self::Refused => "refused",
        }
    }
}

/// Each connection holds one while it lives. The allocator's next size is 128 bytes more.
const _: () = assert!(size_of::<Record>() <= 512);
