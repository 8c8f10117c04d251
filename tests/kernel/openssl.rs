//! OpenSSL at the other end of a leg in the kernel.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use ringway_support::openssl::{Dialogue, SClient};
use ringway_support::pattern::Pattern;
use ringway_support::sys::die_with_parent;
use ringway_support::wait::within;
use ringway_support::{DEADLINE, House, Link, Peer, Proxy, Record, ringway, toml};

tests! {
    Ktls: s_client_carries_bulk_both_ways_with_each_cipher,
    Ktls: s_server_answers_with_bulk_with_each_cipher,
    Rekey: s_client_renews_its_keys_with_and_without_asking_for_ours,
    Rekey: s_server_renews_its_keys_with_and_without_asking_for_ours,
    NoRekey: new_keys_of_s_client_end_the_connection_where_the_kernel_cannot_follow,
}

/// Every cipher of both versions, as OpenSSL's programs are told.
const CIPHERS: [[&str; 3]; 6] = [
    ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
    ["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"],
    ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"],
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
];

const BULK: usize = 3_000_017;

const KERNEL: &str = "relay_path = \"splice\"";

fn expect_kernel(record: &Record) {
    record.expect(&[
        ("end", "finished"),
        ("path_up", "kernel"),
        ("path_down", "kernel"),
    ]);
}

fn proxy_before(house: &House, server: &Peer) -> Proxy {
    ringway!().start(&toml::front_to_back(
        KERNEL,
        &house.terminate(),
        server.address(),
    ))
}

fn s_client_carries_bulk_both_ways_with_each_cipher() {
    let directory = tempfile::tempdir().unwrap();
    let [sent, came] = ["sent", "came"].map(|name| directory.path().join(name));
    fs::write(&sent, Pattern::new(1).take(BULK)).unwrap();
    for cipher in CIPHERS {
        let house = House::new();
        let server = Peer::plain();
        let proxy = proxy_before(&house, &server);
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-quiet", "-connect"])
            .arg(proxy.address("front").to_string())
            .args(cipher)
            .stdin(File::open(&sent).unwrap())
            .stdout(File::create(&came).unwrap())
            .stderr(Stdio::null());
        die_with_parent(&mut command);
        let mut client = command.spawn().unwrap();
        let mut server = server.accept();
        // s_client reads and writes by turns: both ways at once is what it does not do well.
        Pattern::new(1).check(&server.receive(BULK)).unwrap();
        server.send(&Pattern::new(2).take(BULK)).unwrap();
        server.finish().unwrap();
        let ended = within(DEADLINE, || client.try_wait().unwrap());
        assert!(ended.is_some(), "{cipher:?}: s_client sees the end");
        let came = fs::read(&came).unwrap();
        assert_eq!(came.len(), BULK, "{cipher:?}");
        Pattern::new(2).check(&came).unwrap();
        let record = proxy.wait_records(1).remove(0);
        expect_kernel_paths(&record);
    }
}

/// s_client closes in its own way.
fn expect_kernel_paths(record: &Record) {
    record.expect(&[("path_up", "kernel"), ("path_down", "kernel")]);
    assert_eq!(record.count("bytes_up"), BULK as u64, "{record}");
    assert_eq!(record.count("bytes_down"), BULK as u64, "{record}");
}

fn proxy_behind(house: &House, server: &Dialogue) -> Proxy {
    let back = format!("{KERNEL}\n{}", house.originate("back"));
    let toml = toml::listener("front", "back", "", "")
        + &toml::upstream("back", &[&server.address()], &back);
    ringway!().start(&toml)
}

/// What `s_server -WWW` says before a file.
const HEADER: &[u8] = b"HTTP/1.0 200 ok\r\nContent-type: text/plain\r\n\r\n";

fn s_server_answers_with_bulk_with_each_cipher() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bulk");
    fs::write(&file, Pattern::new(1).take(BULK)).unwrap();
    for cipher in CIPHERS {
        let house = House::new();
        let arguments = [&["-WWW"][..], &cipher].concat();
        let server = Dialogue::server_in(directory.path(), &house.backend, &arguments);
        let proxy = proxy_behind(&house, &server);
        let mut client = Link::connect(proxy.address("front")).unwrap();
        client.send(b"GET /bulk HTTP/1.0\r\n\r\n").unwrap();
        let (came, ending) = client.receive_to_end();
        assert!(
            came.starts_with(HEADER) && came.len() == HEADER.len() + BULK,
            "{cipher:?}: {} bytes, then {ending:?}",
            came.len()
        );
        assert!(ending.looks_complete(), "{cipher:?}: {ending:?}");
        Pattern::new(1).check(&came[HEADER.len()..]).unwrap();
        client.finish().unwrap();
        let record = proxy.record_of(client.local());
        record.expect(&[("path_up", "kernel"), ("path_down", "kernel")]);
    }
}

/// Both directions with something in them, the number of the round in it.
fn talk(openssl: &mut Dialogue, link: &mut Link, round: usize) {
    let line = format!("typed in round {round:03}");
    openssl.type_line(&line);
    let came = link.receive(line.len() + 1);
    assert_eq!(String::from_utf8_lossy(&came), line + "\n");
    // Several records, and a mark behind them.
    let bulk = format!("{}\n", "bulk ".repeat(20)).repeat(500);
    let mark = format!("all of round {round:03} came\n");
    link.send((bulk + &mark).as_bytes()).unwrap();
    openssl.expect(&mark, 1);
    openssl.expect("bulk ", 20 * 500 * (round + 1));
}

/// `k` renews its own keys, `K` asks for ours, too.
fn renew(openssl: &mut Dialogue, link: &mut Link, told: &str) {
    talk(openssl, link, 0);
    for round in 1..12 {
        openssl.type_line(if round % 2 == 0 { "k" } else { "K" });
        openssl.expect(told, round);
        talk(openssl, link, round);
    }
}

fn s_client(proxy: &Proxy) -> Dialogue {
    Dialogue::client(&SClient::to(proxy.address("front")).args(&CIPHERS[0]))
}

fn s_client_renews_its_keys_with_and_without_asking_for_ours() {
    let house = House::new();
    let server = Peer::plain();
    let proxy = proxy_before(&house, &server);
    let mut client = s_client(&proxy);
    let mut server = server.accept();
    renew(&mut client, &mut server, "KEYUPDATE");
    server.finish().unwrap();
    let _ = client.finish();
    assert!(server.expect_end().looks_complete());
    expect_kernel(&proxy.wait_records(1).remove(0));
}

fn s_server_renews_its_keys_with_and_without_asking_for_ours() {
    let house = House::new();
    let mut server = Dialogue::server(&house.backend, &CIPHERS[0]);
    let proxy = proxy_behind(&house, &server);
    let mut client = Link::connect(proxy.address("front")).unwrap();
    client.send(b"begin\n").unwrap();
    server.expect("begin\n", 1);
    renew(&mut server, &mut client, "SSL_do_handshake -> 1");
    client.finish().unwrap();
    let _ = server.finish();
    let (_, ending) = client.receive_to_end();
    assert!(ending.looks_complete(), "{ending:?}");
    expect_kernel(&proxy.record_of(client.local()));
}

fn new_keys_of_s_client_end_the_connection_where_the_kernel_cannot_follow() {
    let house = House::new();
    let server = Peer::plain();
    let proxy = proxy_before(&house, &server);
    let mut client = s_client(&proxy);
    let mut server = server.accept();
    talk(&mut client, &mut server, 0);
    client.type_line("k");
    assert!(!server.expect_end().looks_complete());
    let record = proxy.wait_records(1).remove(0);
    record.expect(&[("end", "system_error")]);
    record.expect_reason(&["linux 6.14"]);
}
