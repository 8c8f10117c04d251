//! A DNS server on loopback, whose answers a test sets and changes.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// How often a server looks whether its test is over.
const STOP_POLL: Duration = Duration::from_millis(20);

/// Seconds that its answers serve: the resolver's own floor is what counts.
const TTL: u32 = 0;

/// One SRV record.
#[derive(Debug, Clone)]
pub struct Target {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    pub host: &'static str,
}

/// What a name is said to be.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A and AAAA.
    Addresses(Vec<IpAddr>),
    Service(Vec<Target>),
    /// SERVFAIL.
    Failure,
}

/// The server; its thread ends with it. What it was not told is NXDOMAIN.
pub struct DnsServer {
    address: SocketAddr,
    changes: Sender<(String, Reply)>,
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DnsServer {
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "sockets are no default")]
    pub fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(STOP_POLL)).expect("a timeout");
        let address = socket.local_addr().expect("a bound socket");
        let (changes, received) = channel();
        let (answered, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counter, stopped) = (Arc::clone(&answered), Arc::clone(&stop));
        let thread = thread::spawn(move || answer(&socket, &received, &counter, &stopped));
        Self {
            address,
            changes,
            answered,
            stop,
            thread: Some(thread),
        }
    }

    /// `[runtime]`'s line that sends the proxy here.
    #[must_use]
    pub fn toml(&self) -> String {
        format!("resolver = \"{}\"", self.address)
    }

    /// From the next question on, `name` is this.
    ///
    /// # Panics
    /// When the server has died.
    pub fn set(&self, name: &str, reply: Reply) {
        let change = (format!("{name}."), reply);
        self.changes.send(change).expect("the server lives");
    }

    /// # Panics
    /// When an address is none.
    pub fn set_addresses(&self, name: &str, addresses: &[&str]) {
        let parse = |text: &&str| text.parse().expect("an address");
        self.set(
            name,
            Reply::Addresses(addresses.iter().map(parse).collect()),
        );
    }

    /// Questions that it has answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(
    socket: &UdpSocket,
    changes: &Receiver<(String, Reply)>,
    answered: &AtomicU64,
    stop: &AtomicBool,
) {
    let mut zone = BTreeMap::new();
    let mut buffer = [0; 1500];
    while !stop.load(Ordering::SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        zone.extend(changes.try_iter());
        let sent = reply(&zone, &buffer[..length]).and_then(|reply| socket.send_to(&reply, from));
        if sent.is_ok() {
            answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn reply(zone: &BTreeMap<String, Reply>, query: &[u8]) -> io::Result<Vec<u8>> {
    let query = Message::from_vec(query).map_err(io::Error::other)?;
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    let question = query.queries.first().ok_or(io::ErrorKind::InvalidData)?;
    message.add_query(question.clone());
    let name = question.name().to_ascii().to_lowercase();
    match zone.get(&name) {
        None => message.metadata.response_code = ResponseCode::NXDomain,
        Some(Reply::Failure) => message.metadata.response_code = ResponseCode::ServFail,
        Some(known) => {
            let records = records(known, question.query_type()).into_iter();
            let record = |data| Record::from_rdata(question.name().clone(), TTL, data);
            message.add_answers(records.map(record));
        }
    }
    message.to_vec().map_err(io::Error::other)
}

fn records(reply: &Reply, kind: RecordType) -> Vec<RData> {
    match reply {
        Reply::Addresses(addresses) => {
            let of_kind = |address: &&IpAddr| match kind {
                RecordType::A => address.is_ipv4(),
                RecordType::AAAA => address.is_ipv6(),
                _ => false,
            };
            let addresses = addresses.iter().filter(of_kind);
            addresses.map(|address| RData::from(*address)).collect()
        }
        Reply::Service(targets) if kind == RecordType::SRV => {
            targets.iter().map(service_record).collect()
        }
        Reply::Service(_) | Reply::Failure => Vec::new(),
    }
}

fn service_record(target: &Target) -> RData {
    let host = Name::from_ascii(format!("{}.", target.host)).expect("a name");
    RData::SRV(SRV::new(target.priority, target.weight, target.port, host))
}
