//! What stands in contrib/ fits the binary: man pages, completions, the service, the package.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap_complete::{Generator as _, Shell};
use ringway::{cli, config};
use ringway_support::openssl::MISSING;
use ringway_support::toml::{listener, upstream};
use ringway_support::{House, Link, Peer, ringway};

const UNIT: &str = "contrib/systemd/ringway.service";

/// What docs/operations.md says of `systemd-analyze security`.
const EXPOSURE: &str = "1.6";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Compares the folder's files with `made`, or writes them where `UPDATE_CONTRIB` is set.
fn expect_folder(folder: &str, made: &BTreeMap<String, Vec<u8>>) {
    let folder_path = path(folder);
    let names = || {
        let entries = fs::read_dir(&folder_path).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
    };
    if std::env::var_os("UPDATE_CONTRIB").is_some() {
        fs::create_dir_all(&folder_path).unwrap();
        for stale in names().filter(|name| !made.contains_key(name)) {
            fs::remove_file(folder_path.join(stale)).unwrap();
        }
        for (name, bytes) in made {
            fs::write(folder_path.join(name), bytes).unwrap();
        }
    }
    let cure = "cure: UPDATE_CONTRIB=1 cargo test --test contrib";
    let there: BTreeSet<String> = names().collect();
    let wanted: BTreeSet<String> = made.keys().cloned().collect();
    assert_eq!(there, wanted, "files of {folder}; {cure}");
    for (name, bytes) in made {
        let file = fs::read(folder_path.join(name)).unwrap();
        assert!(file == *bytes, "{folder}/{name} is out of date; {cure}");
    }
}

#[test]
fn man_pages_are_those_of_the_commands_and_options() {
    let pages = cli::man::pages().into_iter();
    let made = pages.map(|page| (format!("{}.1", page.name), page.roff));
    expect_folder("contrib/man", &made.collect());
}

#[test]
fn completions_are_those_of_the_commands_and_options() {
    let made = [Shell::Bash, Shell::Zsh, Shell::Fish].map(|shell| {
        let name = shell.file_name(cli::command().get_name());
        (name, cli::completions::script(shell))
    });
    expect_folder("contrib/completions", &BTreeMap::from(made));
}

#[test]
fn every_command_and_option_says_what_it_does() {
    let mut waiting = vec![cli::command()];
    while let Some(command) = waiting.pop() {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name} has no help");
        for argument in command.get_arguments() {
            let help = argument.get_help();
            assert!(help.is_some(), "{name}: {} has no help", argument.get_id());
        }
        waiting.extend(command.get_subcommands().cloned());
    }
}

#[test]
fn man_and_completions_go_to_stdout_and_a_page_that_is_not_there_is_a_wrong_command_line() {
    let run = |arguments: &[&str]| output(env!("CARGO_BIN_EXE_ringway"), arguments);
    let page = run(&["man", "check"]);
    assert!(page.status.success());
    assert_eq!(
        page.stdout,
        fs::read(path("contrib/man/ringway-check.1")).unwrap()
    );
    let script = run(&["completions", "fish"]);
    assert!(script.status.success());
    assert_eq!(
        script.stdout,
        fs::read(path("contrib/completions/ringway.fish")).unwrap()
    );
    let none = run(&["man", "chekc"]);
    assert_eq!(none.status.code(), Some(2));
    let words = String::from_utf8(none.stderr).unwrap();
    assert!(
        words.contains("ringway-chekc(1)") && words.contains("ringway help"),
        "{words}"
    );
}

fn output(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}; {MISSING}"))
}

/// Values of a key of the unit, in the file's order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let pairs = unit.lines().filter_map(|line| line.split_once('='));
    pairs
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn the_service_runs_a_command_that_ringway_takes() {
    let unit = text(UNIT);
    let starts = values(&unit, "ExecStart");
    assert_eq!(starts.len(), 1);
    let words: Vec<&str> = starts[0].split_whitespace().collect();
    assert_eq!(words[0], "/usr/bin/ringway");
    if let Err(error) = cli::command().try_get_matches_from(&words) {
        panic!("{}: {error}", starts[0]);
    }
    let refusals: Vec<u8> = values(&unit, "RestartPreventExitStatus")
        .iter()
        .flat_map(|value| value.split(' '))
        .map(|code| code.parse().unwrap())
        .collect();
    assert_eq!(refusals, [cli::EXIT_COMMAND_LINE, cli::EXIT_REFUSED]);
}

#[test]
fn an_upgrade_within_the_unit_runs_a_command_that_ringway_takes_and_keeps_the_watchdog() {
    let (unit, upgrade) = (text(UNIT), text("contrib/systemd/upgrade.conf"));
    let reloads = values(&upgrade, "ExecReload");
    let (watchdog, command) = reloads[0].split_once(" /usr/bin/").unwrap();
    let words = command.split_whitespace();
    if let Err(error) = cli::command().try_get_matches_from(words) {
        panic!("{command}: {error}");
    }
    let seconds = values(&unit, "WatchdogSec")[0].trim_end_matches('s');
    assert_eq!(
        watchdog,
        format!("/usr/bin/env WATCHDOG_USEC={seconds}000000")
    );
    assert!(values(&unit, "ExecStart")[0].ends_with(" /etc/ringway/ringway.toml"));
    assert!(command.ends_with(" /etc/ringway/ringway.toml"));
}

#[test]
fn systemd_knows_every_directive_of_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_ringway");
    let drop_ins = folder.path().join("ringway.service.d");
    fs::create_dir(&drop_ins).unwrap();
    for entry in fs::read_dir(path("contrib/systemd")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let unit = text(&format!("contrib/systemd/{name}"));
        let unit = unit.replace("/usr/bin/ringway", binary);
        let is_drop_in = name.ends_with(".conf");
        let folder = if is_drop_in { &drop_ins } else { folder.path() };
        fs::write(folder.join(name), unit).unwrap();
    }
    let unit = folder.path().join("ringway.service");
    let unit = unit.to_str().unwrap();
    let verified = output("systemd-analyze", &["verify", "--man=no", unit]);
    let said = String::from_utf8(verified.stderr).unwrap();
    // The unit has a Type= for systemd before 253, too.
    let complaints = said
        .lines()
        .filter(|line| line.contains("ringway.") || line.contains("upgrade.conf"))
        .filter(|line| !line.ends_with("Failed to parse service type, ignoring: notify-reload"));
    assert_eq!(complaints.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn the_service_is_as_little_exposed_as_the_documents_say() {
    let unit = path(UNIT);
    let arguments = [
        "security",
        "--offline=true",
        "--no-pager",
        unit.to_str().unwrap(),
    ];
    let review = String::from_utf8(output("systemd-analyze", &arguments).stdout).unwrap();
    let overall = review
        .lines()
        .find(|line| line.contains("Overall exposure level"));
    let figure = overall.and_then(|line| line.split_once(": ")?.1.split(' ').next());
    assert_eq!(figure, Some(EXPOSURE), "{review}");
    let operations = text("docs/operations.md");
    assert!(operations.contains(&format!("exposure level of {EXPOSURE}")));
}

/// Sets of system calls by their names, as `systemd-analyze syscall-filter` lists them.
fn call_sets() -> BTreeMap<String, Vec<String>> {
    let listed = output("systemd-analyze", &["syscall-filter", "--no-pager"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in listed.lines() {
        match line.trim() {
            name if line.starts_with('@') => name.clone_into(&mut current),
            comment if comment.starts_with('#') || comment.is_empty() => {}
            member => sets
                .entry(current.clone())
                .or_default()
                .push(member.to_owned()),
        }
    }
    sets
}

#[test]
fn the_services_filter_lets_every_system_call_of_a_busy_proxy_through() {
    let unit = text(UNIT);
    let sets = call_sets();
    let filters = values(&unit, "SystemCallFilter");
    let mut waiting: Vec<&str> = filters.iter().flat_map(|it| it.split(' ')).collect();
    let mut allowed = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        match sets.get(name) {
            Some(members) => waiting.extend(members.iter().map(String::as_str)),
            None => {
                allowed.insert(name.to_owned());
            }
        }
    }
    let used = calls_of_a_busy_proxy();
    assert!(
        used.contains("io_uring_enter") && used.contains("splice"),
        "{used:?}"
    );
    let refused: Vec<_> = used.difference(&allowed).collect();
    assert!(refused.is_empty(), "{refused:?} are used and not allowed");
}

/// From its start to its end: TLS on both legs, plain bulk through a pipe, a name to resolve.
fn calls_of_a_busy_proxy() -> BTreeSet<String> {
    let house = House::new();
    let tls = Peer::tls(ringway_support::tls::ServerTls::with(&house.backend).config()).echo();
    let plain = Peer::plain().echo();
    let port = plain.address().to_string();
    let port = port.rsplit(':').next().unwrap().to_owned();
    let toml = listener("front", "back", "", &house.terminate())
        + &upstream("back", &[tls.address()], &house.originate("back"))
        + &listener("bulk", "plain", "relay_path = \"splice\"", "")
        + &format!("[upstream.plain]\nservers = [\"localhost:{port}\"]\n");
    let mut proxy = ringway!().traced("all").start(&toml);
    let config = ringway_support::tls::ClientTls::trusting(&house.ca).config();
    let mut client = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
    client.ping(&[7; 30_000]);
    let mut bulk = Link::connect(proxy.address("bulk")).unwrap();
    bulk.ping(&[7; 30_000]);
    for link in [&mut client, &mut bulk] {
        link.finish().unwrap();
        let _ = link.expect_end();
        let _ = proxy.record_of(link.local());
    }
    proxy.signal(libc::SIGUSR1);
    proxy.signal(libc::SIGTERM);
    proxy.wait_exit().expect_code(0);
    proxy.traced_names()
}

#[test]
fn the_example_configuration_is_taken_as_it_is_and_with_everything_in_it() {
    let example = text("contrib/ringway.toml");
    let checked = output(
        env!("CARGO_BIN_EXE_ringway"),
        &["check", path("contrib/ringway.toml").to_str().unwrap()],
    );
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(
        said.contains(": ok, 1 listener, 1 upstream, 0 warnings"),
        "{said}"
    );
    let uncommented = example.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => rest,
        _ => line,
    });
    let whole = uncommented.collect::<Vec<_>>().join("\n");
    let loaded = config::parse("ringway.toml", whole);
    assert!(
        loaded.plan().is_some(),
        "{}",
        loaded.report(config::Paint::Plain)
    );
    assert_eq!(loaded.diagnostics.warnings(), 0);
}

#[test]
fn the_package_holds_what_is_there() {
    let manifest: toml::Table = toml::from_str(&text("Cargo.toml")).unwrap();
    let package = &manifest["package"]["metadata"]["deb"];
    let assets: Vec<&str> = package["assets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|asset| asset[0].as_str().unwrap())
        .collect();
    let built = "target/release/ringway";
    assert!(assets.contains(&built));
    let files = |folder| files_below(&path(folder)).into_iter();
    let mut there: Vec<PathBuf> = ["contrib", "configs", "docs"]
        .into_iter()
        .flat_map(files)
        .collect();
    there.extend(["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"].map(path));
    let root = path("");
    let there = there
        .iter()
        .map(|file| file.strip_prefix(&root).unwrap().to_str().unwrap());
    let there: Vec<&str> = there.collect();
    for asset in assets.iter().filter(|asset| **asset != built) {
        assert!(
            there.iter().any(|name| matches(asset, name)),
            "{asset} is not there"
        );
    }
    let packed = |name: &str| assets.iter().any(|asset| matches(asset, name));
    for name in there.iter().filter(|name| name.starts_with("contrib/")) {
        let makes_the_package = name.starts_with("contrib/package/");
        assert!(makes_the_package || packed(name), "{name} is in no package");
    }
}

/// Whether the asset, which may have one `*`, is this file.
fn matches(asset: &str, name: &str) -> bool {
    match asset.split_once('*') {
        Some((before, after)) => name
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|between| !between.contains('/')),
        None => asset == name,
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| match path.is_dir() {
        true => files_below(&path),
        false => vec![path],
    });
    files.collect()
}

#[test]
fn every_kernel_setting_of_the_advice_has_its_why() {
    let operations = text("docs/operations.md");
    for line in text("contrib/sysctl.d/ringway.conf").lines() {
        let setting = line.trim_start_matches("# ").split_once(" = ");
        let Some((key, _)) = setting.filter(|(key, _)| !key.contains(' ')) else {
            continue;
        };
        assert!(operations.contains(&format!("`{key}`")), "{key}");
    }
}
