//! Threads, CPUs and cores.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::BTreeSet;

use ringway_support::toml::{front_to_back, listener};
use ringway_support::{Bridge, Ending, Leg, Link, Peer, Proxy, ringway};

/// Name and CPUs of the workers, in the order of their names.
fn workers(proxy: &Proxy) -> Vec<(String, String)> {
    let named = |name: &str| {
        let number = name.strip_prefix("ringway-");
        number.is_some_and(|n| n.parse::<u16>().is_ok())
    };
    let mut threads = proxy.threads();
    threads.retain(|(name, _)| named(name));
    threads.sort();
    threads
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(name, cpu): &(&str, &str)| ((*name).to_owned(), (*cpu).to_owned());
    expected.iter().map(own).collect()
}

#[test]
fn each_worker_is_a_thread_of_its_own_pinned_to_a_cpu_of_its_own() {
    let echo = Peer::plain().echo();
    let proxy = ringway!()
        .workers(2)
        .start(&front_to_back("", "", echo.address()));
    let workers = workers(&proxy);
    let names: Vec<_> = workers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ringway-0", "ringway-1"], "{:?}", proxy.threads());
    let cpus: BTreeSet<_> = workers.iter().map(|(_, cpu)| cpu).collect();
    assert_eq!(cpus.len(), 2, "two CPUs: {workers:?}");
    for cpu in cpus {
        assert!(cpu.parse::<u16>().is_ok(), "pinned to one CPU: {workers:?}");
    }
}

#[test]
fn workers_auto_is_one_for_each_cpu() {
    let echo = Peer::plain().echo();
    let toml = format!(
        "[runtime]\nworkers = \"auto\"\n{}",
        front_to_back("", "", echo.address())
    );
    let proxy = ringway!().start(&toml);
    let cpus = std::thread::available_parallelism().unwrap().get();
    assert_eq!(workers(&proxy).len(), cpus, "{:?}", proxy.threads());
}

#[test]
fn one_worker_is_one_thread() {
    let echo = Peer::plain().echo();
    let proxy = ringway!()
        .workers(1)
        .start(&front_to_back("", "", echo.address()));
    assert_eq!(workers(&proxy).len(), 1, "{:?}", proxy.threads());
}

#[test]
fn cpus_names_the_cpus_of_the_workers() {
    let echo = Peer::plain().echo();
    let toml = front_to_back("", "", echo.address());
    for (cpus, expected) in [
        ("1", vec![("ringway-0", "1")]),
        ("0-1", vec![("ringway-0", "0"), ("ringway-1", "1")]),
        ("1,0", vec![("ringway-0", "1"), ("ringway-1", "0")]),
    ] {
        let proxy = ringway!()
            .runtime(&format!("cpus = \"{cpus}\""))
            .start(&toml);
        let mut seen = workers(&proxy);
        let mut expected = pairs(&expected);
        if cpus == "1,0" {
            // Which worker sits on which CPU of a list is not promised, only the CPUs.
            for (name, _) in seen.iter_mut().chain(&mut expected) {
                name.clear();
            }
            seen.sort();
            expected.sort();
        }
        assert_eq!(seen, expected, "cpus = {cpus:?}");
    }
}

#[test]
fn a_cpu_that_does_not_exist_is_refused_before_anything_runs() {
    let echo = Peer::plain().echo();
    let exit = ringway!()
        .runtime("cpus = \"1000\"")
        .run_to_end(&front_to_back("", "", echo.address()));
    exit.expect_code(71)
        .expect_words(&["may not run on CPU 1000 of `cpus` in [runtime]"])
        .expect_words(&["taskset -p, CPUAffinity="]);
    assert!(!exit.stderr.contains("listening"), "{}", exit.stderr);
}

#[test]
fn the_kernel_spreads_connections_over_all_cores() {
    let echo = Peer::plain().echo();
    let proxy = ringway!().start(&front_to_back("", "", echo.address()));
    let mut cores = BTreeSet::new();
    for _ in 0..64 {
        let mut link = Link::connect(proxy.address("front")).unwrap();
        link.ping(b"hello");
        link.finish().unwrap();
        assert_eq!(link.expect_end(), Ending::Clean);
        cores.insert(proxy.record_of(link.local()).count("core"));
    }
    assert_eq!(cores, BTreeSet::from([0, 1]));
}

#[test]
fn the_banner_has_the_lines_of_the_documents_in_their_order() {
    let echo = Peer::plain().echo();
    let keys = "max_connections = 100";
    let toml = front_to_back(keys, "", echo.address())
        + &listener("other", "back", "max_connections = 200", "");
    let proxy = ringway!()
        .runtime("cpus = \"0-1\"\nmax_handshakes = 7\npipes = 3")
        .start(&toml);
    let allowed = proxy.open_files_limit().soft;
    // Two for each connection, two for each listening socket of two workers, two for each pipe.
    let needed = 2 * 300 + 2 * 2 * 2 + 2 * 2 * 3 + 64;
    let expected = [
        format!(
            "ringway {} on Linux {}, 2 workers",
            env!("CARGO_PKG_VERSION"),
            kernel()
        ),
        "workers on CPUs 0,1".to_owned(),
        format!("io_uring: {}", ring_features()),
        format!("kernel TLS (kTLS): {}", kernel_tls()),
        format!("open files: {allowed} allowed, {needed} needed"),
        "limits of front: 100 connections, 7 TLS handshakes in flight per core".to_owned(),
        "limits of other: 200 connections, 7 TLS handshakes in flight per core".to_owned(),
        format!("listening name=front address={}", proxy.address("front")),
        format!("listening name=other address={}", proxy.address("other")),
        "ringway is ready".to_owned(),
    ];
    let stderr = proxy.stderr();
    let level = |line: &str| line.split_once("INFO ").map(|(_, said)| said.to_owned());
    // tests/sandbox has those of what the process gives up.
    let given_up = [
        "user: ",
        "capabilities: ",
        "no_new_privs: ",
        "Landlock: ",
        "seccomp: ",
        "core dumps: ",
    ];
    let said = stderr.lines().filter_map(level);
    let said = said.filter(|line| !given_up.iter().any(|what| line.starts_with(what)));
    let said: Vec<String> = said.collect();
    assert_eq!(said, expected, "{}", proxy.story());
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    release.trim().to_owned()
}

/// By the table of docs/operations.md.
fn ring_features() -> &'static str {
    let release = kernel();
    let mut numbers = release.split(|it: char| !it.is_ascii_digit());
    let mut number = || numbers.next().unwrap().parse::<u32>().unwrap();
    match (number(), number()) {
        (6, 1..) | (7.., _) => "single_issuer, defer_taskrun, coop_taskrun, submit_all",
        (5, 19..) | (6, 0) => "coop_taskrun, submit_all",
        _ => "no flags",
    }
}

/// The kernel lists what TCP_ULP takes, after the proxy has asked for it and so had the module
/// loaded, if it is there. Network namespaces other than the first one do not have the list.
fn kernel_tls() -> String {
    let list = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp");
    let has_it = match list {
        Ok(list) => list.split_whitespace().any(|it| it == "tls"),
        Err(_) => ringway::sys::probe_ktls().is_ok(),
    };
    if has_it {
        ringway::sys::ktls_words(ringway::sys::probe_ktls())
    } else {
        "no (the kernel has no tls module: `modprobe tls`, or build with CONFIG_TLS)".into()
    }
}

#[test]
fn who_asks_for_kernel_tls_by_name_is_told_where_there_is_none() {
    let legs = (Leg::Tls13, Leg::Plain);
    let bridge = Bridge::start(ringway!(), legs, "relay_path = \"splice\"");
    let told = bridge.proxy.stderr_lines("has relay_path = \"splice\"");
    let expected = usize::from(ringway::sys::probe_ktls().is_err());
    assert_eq!(told.len(), expected, "{told:?}");
    assert!(
        told.iter().all(|line| line.contains("listener front")),
        "{told:?}"
    );
}

#[test]
fn each_worker_has_a_ring_of_its_own_and_no_epoll() {
    let echo = Peer::plain().echo();
    let proxy = ringway!().start(&front_to_back("", "", echo.address()));
    let files: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid()))
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    let count = |word: &str| files.iter().filter(|file| file.contains(word)).count();
    assert_eq!(count("[io_uring]"), 2, "{files:?}");
    // The control thread's runtime has one, under two descriptors.
    assert!(count("[eventpoll]") <= 2, "{files:?}");
}
