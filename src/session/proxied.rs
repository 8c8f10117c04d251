//! The PROXY header in front of a client's bytes: read from peers that are trusted, and from then
//! on the client is whom it names.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::core::Core;
use super::greet::interrupted;
use super::limit::{Interrupted, limit};
use super::story::Story;
use super::watch::Seat;
use crate::config::{ProxiedPlan, ProxyDemand};
use crate::net::{Buffers, Expect, Inbound, ReceiveError, Socket};
use crate::observe::{Address, Proxied, Record};
use crate::proto::proxy::{Ends, Progress, ProxyError, ProxyHeader, parse};
use crate::types::{Cause, End, Phase, Side};

/// Reads the header, and makes its addresses the record's. What came behind it stays in `inbound`.
/// `None`: there is none, and the listener can do without. Whom it names has to be admitted.
pub(super) async fn read_header(
    core: &Core,
    seat: &Seat<'_>,
    story: &mut Story<'_>,
    plan: &ProxiedPlan,
    (socket, inbound): (&Socket, &mut Inbound),
) -> Result<Option<Box<ProxyHeader>>, End> {
    story.enter(Phase::ProxyHeader);
    let read = if trusts(plan, &story.record().client) {
        let receive = receive(socket, &core.tools.buffers, inbound);
        let received = limit(seat, plan.timeout, receive).await;
        judge(received, plan.demand, inbound)
    } else {
        without(plan.demand, Cause::Untrusted, UNTRUSTED)
    };
    story.record().times.proxy_header = Some(story.begun().elapsed().into());
    let header = read.inspect_err(|_| socket.abort_on_close())?;
    if let Some(header) = &header {
        adopt(story.record(), header);
        story.note_client();
    }
    if !has_allowed_name(plan, header.as_deref()) {
        socket.abort_on_close();
        return Err(end(Cause::Identity, "no name of proxy_allow_cn was proved"));
    }
    let admitted = story.admit(story.client_address());
    admitted.map_err(|refused| {
        socket.abort_on_close();
        refused.end(story.phase)
    })?;
    Ok(header)
}

/// By the certificate that the client showed to the sender of the header.
fn has_allowed_name(plan: &ProxiedPlan, header: Option<&ProxyHeader>) -> bool {
    let tls = header.and_then(|header| header.tlvs.tls.as_ref());
    let proved = tls.filter(|tls| tls.verified() == Some(true));
    let name = proved.and_then(|tls| tls.common_name.as_deref());
    plan.allow_cn.is_empty()
        || name.is_some_and(|name| plan.allow_cn.iter().any(|allowed| allowed == name))
}

const UNTRUSTED: &str = "the peer is outside of proxy_trusted";

/// Who may open a unix socket is a matter of its permissions.
fn trusts(plan: &ProxiedPlan, peer: &Address) -> bool {
    match peer {
        Address::Ip(peer) => plan.trusted.iter().any(|net| net.contains(&peer.ip())),
        Address::Unix(_) => true,
    }
}

/// What the first bytes are: with [`Progress::Undecided`] and [`Progress::NeedMore`] no more came.
async fn receive(
    socket: &Socket,
    buffers: &Buffers,
    inbound: &mut Inbound,
) -> Result<Progress, std::io::Error> {
    let mut expect = Expect::Bytes;
    loop {
        let ended = match inbound.receive(socket, buffers, expect, false).await {
            Ok(received) => received == 0,
            // Not reached: a header's bounds are far below a buffer.
            Err(ReceiveError::Full) => return Ok(Progress::Invalid(ProxyError::V2TooLong)),
            Err(ReceiveError::Io(error)) => return Err(error),
        };
        match parse(inbound.bytes()) {
            Progress::Undecided | Progress::NeedMore if !ended => expect = Expect::Nothing,
            progress => return Ok(progress),
        }
    }
}

fn judge(
    received: Result<Result<Progress, std::io::Error>, Interrupted>,
    demand: ProxyDemand,
    inbound: &mut Inbound,
) -> Result<Option<Box<ProxyHeader>>, End> {
    match received {
        Ok(Ok(Progress::Complete { header, bytes })) => {
            inbound.consume(bytes);
            inbound.release_if_empty();
            Ok(Some(header))
        }
        Ok(Ok(Progress::Invalid(error))) => Err(end(Cause::Protocol, error.words())),
        Ok(Ok(Progress::NotProxy)) => without(demand, Cause::Protocol, "no PROXY header"),
        Ok(Ok(Progress::Undecided)) => without(demand, Cause::Closed, CLOSED),
        Ok(Ok(Progress::NeedMore)) => Err(end(Cause::Closed, CLOSED)),
        Ok(Err(error)) => Err(end(Cause::Reset, &error.to_string())),
        // A client that waits for the server's first words.
        Err(Interrupted::Timeout)
            if demand == ProxyDemand::Optional && parse(inbound.bytes()) == Progress::Undecided =>
        {
            Ok(None)
        }
        Err(cut) => Err(interrupted(cut, Phase::ProxyHeader, TIMEOUT)),
    }
}

const CLOSED: &str = "the client closed before its PROXY header was whole";
/// The key of the time limit.
const TIMEOUT: &str = "proxy_protocol_timeout";

/// No header begins here.
fn without(
    demand: ProxyDemand,
    cause: Cause,
    words: &str,
) -> Result<Option<Box<ProxyHeader>>, End> {
    match demand {
        ProxyDemand::Optional => Ok(None),
        ProxyDemand::Required => Err(end(cause, words)),
    }
}

fn end(cause: Cause, words: &str) -> End {
    End::new(cause, Phase::ProxyHeader, Some(Side::Downstream)).with_detail(words)
}

fn adopt(record: &mut Record, header: &ProxyHeader) {
    let by = addresses(&header.ends).map(|(source, destination)| {
        record.local = destination;
        std::mem::replace(&mut record.client, source)
    });
    let tlvs = &header.tlvs;
    let tls = tlvs.tls.as_ref();
    record.proxied = Some(Box::new(Proxied {
        by,
        authority: tlvs.authority.clone(),
        unique_id: tlvs.unique_id.as_deref().map(readable),
        protocol: tls.and_then(|tls| tls.version.clone()),
        cipher: tls.and_then(|tls| tls.cipher.clone()),
        common_name: tls.and_then(|tls| tls.common_name.clone()),
        verified: tls.and_then(|tls| tls.verified()),
    }));
}

/// Source and destination; `None`: the socket's own are the right ones, or the best there are.
fn addresses(ends: &Ends) -> Option<(Address, Address)> {
    match ends {
        Ends::Ip {
            source,
            destination,
        } => Some((ip(*source), ip(*destination))),
        Ends::Unix {
            source,
            destination,
        } => Some((unix(source), unix(destination))),
        Ends::Unknown | Ends::Local => None,
    }
}

/// A sender with ends of two families maps the IPv4 one: it is to be known by its own form.
fn ip(address: SocketAddr) -> Address {
    Address::Ip(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

fn unix(path: &[u8]) -> Address {
    Address::Unix(Arc::new(PathBuf::from(OsStr::from_bytes(path))))
}

/// Ids are texts as a rule, and may be any bytes.
fn readable(id: &[u8]) -> Box<str> {
    match std::str::from_utf8(id) {
        Ok(text) if id.iter().all(u8::is_ascii_graphic) => text.into(),
        _ => {
            let digits = id.iter().map(|byte| format!("{byte:02x}"));
            digits.collect::<String>().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sample::bare_record;

    fn record() -> Record {
        let address = |text: &str| Address::Ip(text.parse().unwrap());
        Record {
            client: address("10.0.0.7:5000"),
            local: address("10.0.0.1:443"),
            ..bare_record()
        }
    }

    fn adopted(line: &[u8]) -> Record {
        let mut record = record();
        match parse(line) {
            Progress::Complete { header, .. } => adopt(&mut record, &header),
            other => panic!("{other:?}"),
        }
        record
    }

    #[test]
    fn the_addresses_of_a_header_take_the_place_of_the_socket_s() {
        let record = adopted(b"PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n");
        assert_eq!(record.client.to_string(), "192.0.2.1:40000");
        assert_eq!(record.local.to_string(), "198.51.100.2:443");
        let by = record.proxied.unwrap().by.unwrap();
        assert_eq!(by.to_string(), "10.0.0.7:5000");
    }

    #[test]
    fn a_mapped_address_is_known_by_its_ipv4_form() {
        let record = adopted(b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 40000 443\r\n");
        assert_eq!(record.client.to_string(), "192.0.2.1:40000");
        assert_eq!(record.local.to_string(), "[2001:db8::1]:443");
    }

    #[test]
    fn a_header_without_addresses_leaves_the_socket_s_own() {
        let record = adopted(b"PROXY UNKNOWN\r\n");
        assert_eq!(record.client.to_string(), "10.0.0.7:5000");
        assert_eq!(record.local.to_string(), "10.0.0.1:443");
        assert_eq!(record.proxied.unwrap().by, None);
    }

    #[test]
    fn networks_are_trusted_by_address_and_unix_sockets_by_their_kind() {
        let plan = ProxiedPlan {
            demand: ProxyDemand::Required,
            trusted: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            allow_cn: Vec::new(),
            timeout: std::time::Duration::from_secs(1),
        };
        let peer = |text: &str| trusts(&plan, &Address::Ip(text.parse().unwrap()));
        assert!(peer("10.255.0.1:1") && peer("[::1]:1"));
        assert!(!peer("11.0.0.1:1") && !peer("[::2]:1"));
        assert!(trusts(&plan, &Address::unnamed()));
    }

    #[test]
    fn an_id_that_is_no_text_is_shown_in_digits() {
        assert_eq!(&*readable(b"a-1"), "a-1");
        assert_eq!(&*readable(b"a 1"), "612031");
        assert_eq!(&*readable(&[0, 255]), "00ff");
    }
}
