use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
enum Reply {
    Addresses(&'static [&'static str], u32),
    /// Priority, weight, port and target of each record.
    Service(&'static [(u16, u16, u16, &'static str)], u32),
    Code(ResponseCode),
    Silence,
}

use Reply::{Addresses, Code, Service, Silence};

const EMPTY: Reply = Code(ResponseCode::NoError);
const NXDOMAIN: Reply = Code(ResponseCode::NXDomain);
const SERVFAIL: Reply = Code(ResponseCode::ServFail);

/// What the server answers for A or SRV, and for AAAA.
type Zone = HashMap<&'static str, (Reply, Reply)>;

/// A DNS server on loopback. Its task ends with the test's runtime.
struct DnsServer {
    port: u16,
    zone: watch::Sender<Zone>,
    questions: Arc<AtomicUsize>,
}

impl DnsServer {
    async fn start(name: &'static str, a: Reply, aaaa: Reply) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let (zone, seen) = watch::channel(Zone::from([(name, (a, aaaa))]));
        let questions = Arc::new(AtomicUsize::new(0));
        let counter = questions.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                counter.fetch_add(1, Ordering::Relaxed);
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let reply = reply_to(&seen.borrow(), &query);
                if let Some(reply) = reply {
                    socket
                        .send_to(&reply.to_vec().unwrap(), peer)
                        .await
                        .unwrap();
                }
            }
        });
        Self {
            port,
            zone,
            questions,
        }
    }

    fn set(&self, name: &'static str, a: Reply, aaaa: Reply) {
        self.zone.send_replace(Zone::from([(name, (a, aaaa))]));
    }

    /// Answers for one name more.
    fn also(&self, name: &'static str, a: Reply, aaaa: Reply) {
        self.zone.send_modify(|zone| {
            zone.insert(name, (a, aaaa));
        });
    }

    fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }

    fn source(&self) -> Source {
        self.source_after("/nonexistent-hosts-file".into())
    }

    fn source_after(&self, hosts: PathBuf) -> Source {
        self.source_of(hosts, Duration::from_millis(200))
    }

    fn source_with_timeout(&self, timeout: Duration) -> Source {
        self.source_of("/nonexistent-hosts-file".into(), timeout)
    }

    fn source_of(&self, hosts: PathBuf, timeout: Duration) -> Source {
        let mut connection = ConnectionConfig::udp();
        connection.port = self.port;
        let server = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![connection]);
        let mut options = ResolverOpts::default();
        options.timeout = timeout;
        options.attempts = 1;
        Source::fixed(
            ResolverConfig::from_name_servers(vec![server]),
            options,
            hosts,
        )
    }
}

fn reply_to(zone: &Zone, query: &Message) -> Option<Message> {
    let question = &query.queries[0];
    let name = question.name().to_ascii();
    let (a, aaaa) = zone
        .get(name.as_str())
        .cloned()
        .unwrap_or((NXDOMAIN, NXDOMAIN));
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    message.add_query(question.clone());
    match if question.query_type() == RecordType::AAAA {
        aaaa
    } else {
        a
    } {
        Service(records, ttl) => {
            message.add_answers(records.iter().map(|(priority, weight, port, target)| {
                let target = Name::from_ascii(target).unwrap();
                let data = RData::SRV(SRV::new(*priority, *weight, *port, target));
                Record::from_rdata(question.name().clone(), ttl, data)
            }));
        }
        Addresses(addresses, ttl) => {
            message.add_answers(addresses.iter().map(|address| {
                let data = RData::from(address.parse::<IpAddr>().unwrap());
                Record::from_rdata(question.name().clone(), ttl, data)
            }));
        }
        Code(code) => message.metadata.response_code = code,
        Silence => return None,
    }
    Some(message)
}

const NAME: &str = "db.example.";

fn question(ttl_min: Duration, ttl_max: Duration) -> Question {
    Question {
        key: NameKey {
            group: GroupId(1),
            server: ServerId(2),
        },
        sought: Sought::Host {
            host: NAME.into(),
            port: 5432,
        },
        limits: ResolvePlan { ttl_min, ttl_max },
    }
}

/// Asks again every 50 ms, whatever the TTL.
fn often() -> Question {
    question(Duration::from_millis(50), Duration::from_millis(50))
}

struct Published {
    _resolver: Resolver,
    addresses: mpsc::UnboundedReceiver<(NameKey, Vec<Found>)>,
}

impl Published {
    async fn by(server: &DnsServer, question: Question) -> Self {
        Self::from(server.source(), question).await
    }

    async fn from(source: Source, question: Question) -> Self {
        let (publish, addresses) = mpsc::unbounded_channel();
        let resolver = Resolver::start(source, vec![question], move |key, addresses| {
            let _ = publish.send((key, addresses));
        })
        .await;
        Self {
            _resolver: resolver,
            addresses,
        }
    }

    async fn next(&mut self) -> Vec<String> {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let (key, addresses) = timeout_at(deadline, self.addresses.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(key, often().key);
        shown(&addresses)
    }

    fn at_once(&mut self) -> Option<Vec<String>> {
        let (_, addresses) = self.addresses.try_recv().ok()?;
        Some(shown(&addresses))
    }
}

/// "127.0.0.1:5432", with what an SRV record adds: " *3" for a weight, " backup".
fn shown(found: &[Found]) -> Vec<String> {
    let show = |found: &Found| {
        let weight = match found.weight {
            1 => String::new(),
            weight => format!(" *{weight}"),
        };
        let backup = if found.backup { " backup" } else { "" };
        format!("{}{weight}{backup}", found.address)
    };
    found.iter().map(show).collect()
}

async fn asked_again(server: &DnsServer, times: usize) {
    let (from, begin) = (server.questions(), Instant::now());
    while server.questions() < from + times {
        assert!(
            begin.elapsed() < DEADLINE,
            "the name is not asked for again"
        );
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn both_families_are_published_sorted_and_without_doubles_before_start_returns() {
    let a = Addresses(&["127.0.0.9", "127.0.0.1", "127.0.0.9"], 60);
    let server = DnsServer::start(NAME, a, Addresses(&["::1"], 60)).await;
    let mut published = Published::by(&server, often()).await;
    assert_eq!(
        published.at_once().unwrap(),
        ["127.0.0.1:5432", "127.0.0.9:5432", "[::1]:5432"]
    );
}

#[tokio::test]
async fn an_answer_that_changes_only_its_order_is_not_published_again() {
    let server = DnsServer::start(NAME, Addresses(&["127.0.0.1", "127.0.0.2"], 0), EMPTY).await;
    let mut published = Published::by(&server, often()).await;
    assert_eq!(published.next().await.len(), 2);
    server.set(NAME, Addresses(&["127.0.0.2", "127.0.0.1"], 0), EMPTY);
    asked_again(&server, 6).await;
    assert_eq!(published.at_once(), None);
    server.set(NAME, Addresses(&["127.0.0.3"], 0), EMPTY);
    assert_eq!(published.next().await, ["127.0.0.3:5432"]);
}

#[tokio::test]
async fn a_name_is_asked_for_again_when_its_ttl_is_over_and_not_before() {
    let server = DnsServer::start(NAME, Addresses(&["127.0.0.1"], 1), EMPTY).await;
    let question = question(Duration::from_millis(10), Duration::from_secs(60));
    let mut published = Published::by(&server, question).await;
    let begin = Instant::now();
    published.next().await;
    server.set(NAME, Addresses(&["127.0.0.2"], 1), EMPTY);
    assert_eq!(published.next().await, ["127.0.0.2:5432"]);
    // The TTL counts from the answer, a moment before `begin`.
    assert!(
        begin.elapsed() > Duration::from_millis(900),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_ttl_of_zero_is_raised_to_the_floor() {
    let server = DnsServer::start(NAME, Addresses(&["127.0.0.1"], 0), EMPTY).await;
    let floor = Duration::from_millis(400);
    let mut published = Published::by(&server, question(floor, Duration::from_secs(60))).await;
    let begin = Instant::now();
    published.next().await;
    server.set(NAME, Addresses(&["127.0.0.2"], 0), EMPTY);
    published.next().await;
    assert!(begin.elapsed() > floor * 9 / 10, "{:?}", begin.elapsed());
    assert!(server.questions() <= 4, "{} questions", server.questions());
}

#[tokio::test]
async fn while_a_name_fails_its_last_answer_stays() {
    let server = DnsServer::start(NAME, Addresses(&["127.0.0.1"], 0), EMPTY).await;
    let mut published = Published::by(&server, often()).await;
    assert_eq!(published.next().await, ["127.0.0.1:5432"]);
    for failure in [SERVFAIL, NXDOMAIN, EMPTY] {
        server.set(NAME, failure.clone(), failure);
        asked_again(&server, 1).await;
        assert_eq!(published.at_once(), None);
    }
    server.set(NAME, Addresses(&["127.0.0.2"], 0), EMPTY);
    assert_eq!(published.next().await, ["127.0.0.2:5432"]);
}

#[tokio::test]
async fn a_family_whose_question_fails_keeps_its_addresses_and_one_that_is_gone_loses_them() {
    let (a, aaaa) = (Addresses(&["127.0.0.1"], 0), Addresses(&["::1"], 0));
    let server = DnsServer::start(NAME, a, aaaa).await;
    let mut published = Published::by(&server, often()).await;
    assert_eq!(published.next().await.len(), 2);
    server.set(NAME, Addresses(&["127.0.0.2"], 0), SERVFAIL);
    assert_eq!(published.next().await, ["127.0.0.2:5432", "[::1]:5432"]);
    server.set(NAME, Addresses(&["127.0.0.2"], 0), EMPTY);
    assert_eq!(published.next().await, ["127.0.0.2:5432"]);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_said_in_words_with_a_cure() {
    let server = DnsServer::start("other.example.", EMPTY, EMPTY).await;
    let error = server.source().lookup(NAME, &[]).await.unwrap_err();
    assert_eq!(error, LookupError::NoSuchName);
    let complaint = WatchedName::new(often()).complaint(&error);
    assert!(
        complaint.starts_with("db.example. cannot be resolved:"),
        "{complaint}"
    );
    assert!(
        complaint.contains("does not exist (NXDOMAIN); check its spelling"),
        "{complaint}"
    );
    assert!(complaint.contains("it gets no connection"), "{complaint}");
}

#[tokio::test]
async fn each_way_to_fail_has_its_own_words() {
    for (reply, error) in [
        (EMPTY, LookupError::NoAddress),
        (SERVFAIL, LookupError::Refused(ResponseCode::ServFail)),
        (Silence, LookupError::Timeout),
    ] {
        let server = DnsServer::start(NAME, reply.clone(), reply).await;
        assert_eq!(server.source().lookup(NAME, &[]).await, Err(error));
    }
    let server = DnsServer::start(NAME, EMPTY, EMPTY).await;
    let too_long = "a".repeat(300);
    let error = server.source().lookup(&too_long, &[]).await.unwrap_err();
    assert!(matches!(error, LookupError::BadName(_)), "{error}");
}

#[tokio::test]
async fn the_hosts_file_goes_before_the_name_server_and_may_change() {
    let server = DnsServer::start(NAME, Addresses(&["127.0.0.1"], 0), EMPTY).await;
    let mut hosts = tempfile::NamedTempFile::new().unwrap();
    writeln!(hosts, "127.0.0.7 other.example db.example # comment").unwrap();
    let source = server.source_after(hosts.path().into());
    let mut published = Published::from(source, often()).await;
    assert_eq!(published.next().await, ["127.0.0.7:5432"]);
    assert_eq!(server.questions(), 0);
    std::fs::write(hosts.path(), "").unwrap();
    assert_eq!(published.next().await, ["127.0.0.1:5432"]);
}

#[tokio::test]
async fn a_silent_name_server_delays_the_start_no_longer_than_its_bound() {
    let server = DnsServer::start(NAME, Silence, Silence).await;
    let source = server.source_with_timeout(FIRST_WAIT_MAX * 8);
    let begin = Instant::now();
    let mut published = Published::from(source, often()).await;
    assert!(begin.elapsed() < FIRST_WAIT_MAX * 4);
    assert_eq!(published.at_once(), None);
}

#[tokio::test]
async fn a_name_that_fails_at_the_start_is_published_once_it_resolves() {
    let server = DnsServer::start(NAME, Silence, Silence).await;
    let mut published = Published::by(&server, often()).await;
    assert_eq!(published.at_once(), None);
    server.set(NAME, Addresses(&["127.0.0.1"], 0), EMPTY);
    assert_eq!(published.next().await, ["127.0.0.1:5432"]);
}

#[tokio::test]
async fn dropping_the_resolver_ends_the_questions() {
    let server = DnsServer::start(NAME, Addresses(&["127.0.0.1"], 0), EMPTY).await;
    let published = Published::by(&server, often()).await;
    let Published {
        _resolver,
        mut addresses,
    } = published;
    drop(_resolver);
    let deadline = tokio::time::Instant::now() + DEADLINE;
    addresses.recv().await.unwrap();
    assert_eq!(timeout_at(deadline, addresses.recv()).await, Ok(None));
}

#[test]
fn the_servers_of_a_plan_that_are_names_become_questions() {
    let plan = crate::observe::sample::plan(crate::config::AccessLog::Off, 1);
    let questions = questions(&plan);
    assert_eq!(questions.len(), 1);
    assert_eq!(
        questions[0].sought,
        Sought::Host {
            host: "db.example.org".into(),
            port: 5432
        }
    );
    assert_eq!(questions[0].key.server, ServerId(0));
}

const SERVICE: &str = "_pg._tcp.example.";
const FIRST: &str = "one.example.";
const SECOND: &str = "two.example.";

fn service(ttl_min: Duration) -> Question {
    Question {
        sought: Sought::Service("_pg._tcp.example".into()),
        ..question(ttl_min, ttl_min.max(Duration::from_secs(60)))
    }
}

/// One host of the service at priority 10 and weight 5, one at 20 and 0.
async fn service_of_two() -> DnsServer {
    let records = &[(20, 0, 7002, SECOND), (10, 5, 7001, FIRST)];
    let server = DnsServer::start(SERVICE, Service(records, 0), EMPTY).await;
    let v6 = Addresses(&["::1"], 0);
    server.also(FIRST, Addresses(&["127.0.0.1"], 0), v6);
    server.also(SECOND, Addresses(&["127.0.0.2"], 0), EMPTY);
    server
}

const SOON: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_service_is_its_hosts_with_their_ports_and_weights_and_higher_priorities_are_backups() {
    let server = service_of_two().await;
    let mut published = Published::by(&server, service(SOON)).await;
    let expected = [
        "127.0.0.1:7001 *5",
        "127.0.0.2:7002 backup",
        "[::1]:7001 *5",
    ];
    assert_eq!(published.next().await, expected);
}

#[tokio::test]
async fn two_families_of_one_host_of_a_service_are_told_from_another_host() {
    let server = service_of_two().await;
    let (source, sought) = (server.source(), service(SOON).sought);
    let answer = source.find(&sought, &KnownHosts::new()).await;
    let found = answer.unwrap().found;
    assert_eq!(found[0].host, found[2].host);
    assert_ne!(found[0].host, found[1].host);
}

#[tokio::test]
async fn a_host_of_a_service_whose_question_fails_keeps_its_addresses() {
    let server = service_of_two().await;
    let mut published = Published::by(&server, service(SOON)).await;
    assert_eq!(published.next().await.len(), 3);
    server.also(FIRST, SERVFAIL, SERVFAIL);
    server.also(SECOND, Addresses(&["127.0.0.3"], 0), EMPTY);
    let expected = [
        "127.0.0.1:7001 *5",
        "127.0.0.3:7002 backup",
        "[::1]:7001 *5",
    ];
    assert_eq!(published.next().await, expected);
}

#[tokio::test]
async fn while_a_service_fails_its_last_hosts_stay_and_one_that_left_it_goes() {
    let server = service_of_two().await;
    let mut published = Published::by(&server, service(SOON)).await;
    assert_eq!(published.next().await.len(), 3);
    for failure in [SERVFAIL, NXDOMAIN, EMPTY] {
        server.also(SERVICE, failure.clone(), failure);
        asked_again(&server, 1).await;
        assert_eq!(published.at_once(), None);
    }
    server.also(SERVICE, Service(&[(20, 0, 7002, SECOND)], 0), EMPTY);
    assert_eq!(published.next().await, ["127.0.0.2:7002"]);
}

#[tokio::test]
async fn a_service_that_is_not_there_has_no_address_until_it_is_back() {
    let server = service_of_two().await;
    let mut published = Published::by(&server, service(SOON)).await;
    assert_eq!(published.next().await.len(), 3);
    server.also(SERVICE, Service(&[(0, 0, 0, ".")], 0), EMPTY);
    assert!(published.next().await.is_empty());
    server.also(SERVICE, Service(&[(10, 5, 7001, FIRST)], 0), EMPTY);
    assert_eq!(published.next().await.len(), 2);
}

#[tokio::test]
async fn the_earlier_of_the_two_ttls_counts() {
    let records = Service(&[(10, 5, 7001, FIRST)], 3600);
    let server = DnsServer::start(SERVICE, records, EMPTY).await;
    server.also(FIRST, Addresses(&["127.0.0.1"], 1), EMPTY);
    let question = service(Duration::from_millis(10));
    let mut published = Published::by(&server, question).await;
    assert_eq!(published.next().await, ["127.0.0.1:7001 *5"]);
    server.also(FIRST, Addresses(&["127.0.0.2"], 1), EMPTY);
    assert_eq!(published.next().await, ["127.0.0.2:7001 *5"]);
}

#[tokio::test]
async fn a_host_of_a_service_without_an_address_is_left_aside_and_named() {
    let server = service_of_two().await;
    server.also(FIRST, NXDOMAIN, NXDOMAIN);
    let (source, sought) = (server.source(), service(SOON).sought);
    let answer = source.find(&sought, &KnownHosts::new()).await.unwrap();
    assert_eq!(shown(&answer.found), ["127.0.0.2:7002 backup"]);
    let missing = Some((FIRST.to_owned(), LookupError::NoSuchName));
    assert_eq!(answer.missing, missing);
    assert_eq!(answer.ttl, Duration::ZERO, "it is soon asked for again");
}

#[tokio::test]
async fn a_service_without_records_and_one_without_addresses_are_said_apart() {
    let server = DnsServer::start(SERVICE, EMPTY, EMPTY).await;
    let (sought, known) = (service(SOON).sought, KnownHosts::new());
    let error = server.source().find(&sought, &known).await.unwrap_err();
    assert_eq!(error, LookupError::NoService);
    server.also(SERVICE, Service(&[(10, 5, 7001, FIRST)], 0), EMPTY);
    let error = server.source().find(&sought, &known).await.unwrap_err();
    let words = error.to_string();
    assert!(
        words.contains("no host of its SRV records has an address"),
        "{words}"
    );
    assert!(
        words.contains("one.example.: the name does not exist"),
        "{words}"
    );
}
