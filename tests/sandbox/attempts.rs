//! Attempts from inside.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::inside::calls;
use crate::scene::{NOBODY, Said, Scene, of_every_thread, renew, text};
use crate::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    (
        Needs::Landlock,
        "another_file_cannot_be_opened_and_no_program_started",
        everything_on,
    ),
    (
        Needs::Nothing,
        "a_thread_that_began_before_has_the_system_calls_closed_too",
        earlier_threads,
    ),
    (
        Needs::Nothing,
        "without_landlock_files_are_open_and_programs_are_not",
        without_landlock,
    ),
    (
        Needs::Landlock,
        "without_seccomp_no_program_can_be_started_all_the_same",
        without_seccomp,
    ),
    (Needs::Nothing, "all_of_it_can_be_turned_off", all_off),
    (
        Needs::Root,
        "every_thread_becomes_the_user_and_keeps_no_capability",
        becomes_user,
    ),
    (
        Needs::Root,
        "user_and_group_may_be_numbers_and_the_group_another",
        numbers,
    ),
    (
        Needs::Root,
        "who_is_not_root_cannot_become_another_user_and_is_told_so",
        not_root,
    ),
    (
        Needs::Landlock,
        "a_later_plan_is_told_what_it_cannot_have",
        later_plan,
    ),
    (
        Needs::Nothing,
        "core_dumps_are_off_unless_they_are_wanted",
        core_dumps,
    ),
];

fn expect(said: &Said, thread: &str, expected: &[(&str, &str)]) {
    let outcomes = said.outcomes(thread);
    for (what, outcome) in expected {
        assert_eq!(
            outcomes.get(what),
            Some(outcome),
            "{thread}: {what}\n{}",
            said.text
        );
    }
}

const CLOSED_CALLS: &[(&str, &str)] = &[
    ("start a thread", "done"),
    ("listen", "done"),
    ("start a program", "EPERM"),
    ("become a program", "EPERM"),
    ("make memory executable", "EPERM"),
    ("packet socket", "EPERM"),
];

const CLOSED_FILES: &[(&str, &str)] = &[
    ("read a stranger's file", "EACCES"),
    ("make a file beside the keys", "EACCES"),
    ("remove a key", "EACCES"),
    ("read a log", "EACCES"),
    ("make a file in /tmp", "EACCES"),
];

const OPEN_FILES: &[(&str, &str)] = &[
    ("read a key", "done"),
    ("read a link's target", "done"),
    ("make a log", "done"),
];

fn everything_on() {
    let scene = Scene::new("", "");
    let inside = scene.enter();
    for (field, value) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        for (thread, seen) in of_every_thread(inside.pid(), field) {
            assert_eq!(seen, value, "{field} of {thread}");
        }
    }
    renew(&scene.path("a.key"));
    let said = inside.go_on();
    for expected in [CLOSED_CALLS, CLOSED_FILES, OPEN_FILES] {
        expect(&said, "later", expected);
    }
    let closed = calls().map(|(name, _)| (name, "EPERM"));
    expect(&said, "later", &closed);
}

/// Landlock alone holds only for threads that begin after it, and the proxy begins its own then.
fn earlier_threads() {
    let said = Scene::new("", "").enter().go_on();
    expect(&said, "earlier", CLOSED_CALLS);
    expect(&said, "earlier", &calls().map(|(name, _)| (name, "EPERM")));
}

fn without_landlock() {
    let said = Scene::new("[sandbox]\nlandlock = false", "")
        .enter()
        .go_on();
    expect(&said, "later", CLOSED_CALLS);
    expect(&said, "later", OPEN_FILES);
    expect(
        &said,
        "later",
        &[("read a stranger's file", "done"), ("read a log", "done")],
    );
}

fn without_seccomp() {
    let said = Scene::new("[sandbox]\nseccomp = false", "").enter().go_on();
    expect(&said, "later", CLOSED_FILES);
    expect(
        &said,
        "later",
        &[("start a program", "EACCES"), ("unshare", "done")],
    );
}

fn all_off() {
    let scene = Scene::new(
        "[sandbox]\nlandlock = false\nseccomp = false\nno_new_privs = false\ncore_dumps = true",
        "",
    );
    let inside = scene.enter();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    for field in ["NoNewPrivs", "Seccomp", "CapEff"] {
        for (thread, seen) in of_every_thread(inside.pid(), field) {
            assert!(
                own.contains(&format!("{field}:\t{seen}\n")),
                "{field} of {thread}"
            );
        }
    }
    let said = inside.go_on();
    expect(&said, "later", OPEN_FILES);
    expect(
        &said,
        "later",
        &[
            ("read a stranger's file", "done"),
            ("start a program", "done"),
        ],
    );
}

fn becomes_user() {
    let scene = Scene::new("[runtime]\nuser = \"nobody\"", "");
    let inside = scene.enter();
    let numbers = [NOBODY; 4].map(|it| it.to_string()).join("\t");
    for field in ["Uid", "Gid"] {
        for (thread, seen) in of_every_thread(inside.pid(), field) {
            assert_eq!(seen, numbers, "{field} of {thread}");
        }
    }
    for field in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        for (thread, seen) in of_every_thread(inside.pid(), field) {
            assert_eq!(seen.trim_matches('0'), "", "{field} of {thread}");
        }
    }
    let groups = of_every_thread(inside.pid(), "Groups");
    let known = group_list("nobody");
    assert!(
        groups.iter().all(|(_, seen)| *seen == known),
        "{groups:?}, not {known}"
    );
    let said = inside.go_on();
    expect(&said, "later", CLOSED_CALLS);
    expect(&said, "later", OPEN_FILES);
    expect(&said, "later", &[("listen on a low port", "EACCES")]);
}

/// As `id` says.
fn group_list(user: &str) -> String {
    let output = std::process::Command::new("id")
        .args(["-G", user])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn numbers() {
    let scene = Scene::new("[runtime]\nuser = \"54321\"\ngroup = \"54322\"", "");
    let inside = scene.enter();
    for (field, value) in [("Uid", "54321"), ("Gid", "54322"), ("Groups", "54322")] {
        for (thread, seen) in of_every_thread(inside.pid(), field) {
            assert!(
                seen.split_whitespace().all(|it| it == value),
                "{field} of {thread}: {seen}"
            );
        }
    }
}

fn not_root() {
    let refusal = Scene::new("[runtime]\nuser = \"nobody\"", "")
        .enter_as(Some(1234))
        .refusal();
    for words in [
        "`user` is nobody",
        "runs as uid 1234",
        "start it as root, or take `user`",
    ] {
        assert!(refusal.contains(words), "{refusal}");
    }
    // Who is nobody already needs no right to become it.
    let scene = Scene::new("[runtime]\nuser = \"65534\"\ngroup = \"0\"", "");
    let inside = scene.enter_as(Some(NOBODY));
    expect(&inside.go_on(), "later", CLOSED_CALLS);
}

fn later_plan() {
    let scene = Scene::new("[sandbox]\nread = \"/usr/lib\"", "");
    let tables = "[runtime]\nuser = \"nobody\"\n[sandbox]\nseccomp = false\n";
    let key_log = "key_log = \"/var/log/later.keys\"\nkey_log_sources = \"127.0.0.1\"\n";
    let later = text(tables, "")
        .replace("live.crt", "/var/lib/later.crt")
        .replace("\"a.key\"", "\"/usr/lib/allowed.key\"")
        .replace("[upstream.b]", &format!("{key_log}[upstream.b]"))
        .replace("127.0.0.1:0", "unix:/run/later.sock")
        .replace("127.0.0.1:1\"", "name.example:1\"");
    fs::write(scene.path("later.toml"), later).unwrap();
    let said = scene.enter().go_on();
    for words in [
        "/var/lib/later.crt: the sandbox forbids it to be read",
        "/var/log/later.keys: the sandbox forbids it to be written",
        "/run/later.sock: the sandbox forbids it to be bound",
        "\trestart Ringway",
        "forbids /etc/passwd\ttrue",
        "forbids the key\tfalse",
    ] {
        assert!(said.text.contains(words), "{words}\n{}", said.text);
    }
    assert!(!said.text.contains("allowed.key"), "{}", said.text);

    // What it runs by is forbidden by nothing.
    let scene = Scene::new("", "");
    fs::write(scene.path("later.toml"), text("", "")).unwrap();
    let said = scene.enter().go_on();
    assert!(!said.text.contains("later plan"), "{}", said.text);
}

fn core_dumps() {
    let limit = |inside: &crate::scene::Inside| {
        let limits = fs::read_to_string(format!("/proc/{}/limits", inside.pid())).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        line.unwrap()
            .split_whitespace()
            .skip(4)
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let own = |name: &str| fs::metadata(name).unwrap();
    let scene = Scene::new("", "");
    let inside = scene.enter();
    assert_eq!(limit(&inside), "0 0");
    // The kernel gives the files of a process that is not dumpable to root.
    assert_eq!(own(&format!("/proc/{}/environ", inside.pid())).uid(), 0);
    drop(inside);

    let scene = Scene::new("[sandbox]\ncore_dumps = true", "");
    let inside = scene.enter();
    let before = fs::read_to_string("/proc/self/limits").unwrap();
    let line = before
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    let before = line
        .split_whitespace()
        .skip(4)
        .take(2)
        .collect::<Vec<_>>()
        .join(" ");
    assert_eq!(limit(&inside), before);
}
