use std::fs;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::config::AccessLog;
use crate::observe::sample::{bare_record, plan};

const DEADLINE: Duration = Duration::from_secs(20);

fn spawn(path: &Path, queue_max: usize) -> SinkHandle {
    SinkHandle::spawn(&plan(AccessLog::File(path.into()), queue_max).log).unwrap()
}

fn send(sender: &mut RecordSender, id: u64) {
    let mut record = bare_record();
    record.id = id;
    sender.send(Box::new(record));
}

fn ids(text: &str) -> Vec<u64> {
    text.lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            u64::from_str_radix(line["id"].as_str().unwrap(), 16).unwrap()
        })
        .collect()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < DEADLINE, "{what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn closing_writes_all_that_every_core_has_sent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let sink = spawn(&path, 20_000);
    let cores: Vec<_> = (0..3)
        .map(|core| {
            let mut sender = sink.sender();
            thread::spawn(move || (0..10_000).for_each(|n| send(&mut sender, core << 48 | n)))
        })
        .collect();
    cores.into_iter().for_each(|core| core.join().unwrap());
    sink.close();

    let ids = ids(&fs::read_to_string(&path).unwrap());
    assert_eq!(ids.len(), 30_000);
    for core in 0..3 {
        let of_core = ids.iter().filter(|id| **id >> 48 == core);
        assert!(
            of_core.map(|id| id & 0xffff).eq(0..10_000),
            "order of core {core}"
        );
    }
}

#[test]
fn a_line_comes_soon_after_a_long_sleep() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let sink = spawn(&path, 16);
    let mut sender = sink.sender();
    for id in 0..20 {
        until("the writer falls asleep", || is_asleep(&sink));
        send(&mut sender, id);
        until("the line is written", || sink.written() == id + 1);
    }
    assert!(
        ids(&fs::read_to_string(&path).unwrap())
            .into_iter()
            .eq(0..20)
    );
}

fn is_asleep(sink: &SinkHandle) -> bool {
    sink.thread.as_ref().unwrap().asleep.load(Ordering::SeqCst)
}

#[test]
fn no_wake_up_is_lost_however_sender_and_writer_meet() {
    let dir = tempfile::tempdir().unwrap();
    let sink = spawn(&dir.path().join("access.log"), 64);
    let mut sender = sink.sender();
    for id in 0..300 {
        send(&mut sender, id);
        // Shifts each send a little against the writer's way to sleep.
        thread::park_timeout(GATHER + Duration::from_micros(id % 100));
    }
    until("all are written", || sink.written() == 300);
}

#[test]
fn an_idle_writer_does_not_wake_up() {
    let dir = tempfile::tempdir().unwrap();
    let sink = spawn(&dir.path().join("access.log"), 16);
    let mut sender = sink.sender();
    send(&mut sender, 1);
    until("the line is written", || sink.written() == 1);
    until("the writer falls asleep", || is_asleep(&sink));
    let begin = Instant::now();
    while begin.elapsed() < GATHER * 10 {
        assert!(is_asleep(&sink));
    }
}

#[test]
fn a_full_queue_costs_lines_that_are_counted_and_the_sender_never_waits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let sink = spawn(&path, 8);
    let mut sender = sink.sender();
    (0..5_000).for_each(|id| send(&mut sender, id));
    drop(sender);
    until("each line is written or dropped", || {
        sink.written() + sink.dropped() == 5_000
    });
    let written = sink.written();
    assert!((1..5_000).contains(&written), "{written} written");
    sink.close();
    assert_eq!(
        ids(&fs::read_to_string(&path).unwrap()).len() as u64,
        written
    );
}

#[test]
fn a_restarted_worker_gets_a_sender_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let sink = spawn(&path, 16);
    for id in 0..5 {
        send(&mut sink.sender(), id);
    }
    sink.close();
    assert_eq!(ids(&fs::read_to_string(&path).unwrap()), [0, 1, 2, 3, 4]);
}

#[test]
fn an_access_log_that_is_off_takes_records_and_runs_no_thread() {
    let sink = SinkHandle::spawn(&plan(AccessLog::Off, 16).log).unwrap();
    send(&mut sink.sender(), 1);
    assert!(sink.thread.is_none());
    assert_eq!(sink.dropped(), 0);
}

#[test]
fn the_file_is_appended_to_and_not_for_everyone_to_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    for id in 0..2 {
        let sink = spawn(&path, 16);
        send(&mut sink.sender(), id);
        sink.close();
    }
    assert_eq!(ids(&fs::read_to_string(&path).unwrap()), [0, 1]);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "mode {mode:o}");
}

#[test]
fn a_path_that_cannot_be_opened_is_refused_with_its_name_and_a_cure() {
    let path = Path::new("/nonexistent-directory/access.log");
    let error = SinkHandle::spawn(&plan(AccessLog::File(path.into()), 16).log).unwrap_err();
    let words = error.to_string();
    assert!(
        words.contains("/nonexistent-directory/access.log"),
        "{words}"
    );
    assert!(words.contains("create its directory"), "{words}");
}

#[test]
fn after_rotation_reopen_starts_a_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (
        dir.path().join("access.log"),
        dir.path().join("access.log.1"),
    );
    let sink = spawn(&path, 16);
    let mut sender = sink.sender();
    send(&mut sender, 1);
    until("the line is written", || sink.written() == 1);
    fs::rename(&path, &moved).unwrap();
    sink.reopen();
    until("the new file is there", || path.exists());
    send(&mut sender, 2);
    sink.close();
    assert_eq!(ids(&fs::read_to_string(&moved).unwrap()), [1]);
    assert_eq!(ids(&fs::read_to_string(&path).unwrap()), [2]);
}

#[test]
fn a_full_disk_ends_nothing_and_waiting_lines_are_written_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    symlink("/dev/full", &path).unwrap();
    let sink = spawn(&path, 4);
    let mut sender = sink.sender();
    send(&mut sender, 0);
    until("writing fails", || sink.failures() > 0);
    (1..10).for_each(|id| send(&mut sender, id));
    assert_eq!(sink.written(), 0);

    fs::remove_file(&path).unwrap();
    until("the log works again", || sink.written() == 5);
    until("the drops are counted", || sink.dropped() == 5);
    assert_eq!(ids(&fs::read_to_string(&path).unwrap()), [0, 1, 2, 3, 4]);
}

#[test]
fn closing_on_a_full_disk_counts_what_is_lost_and_comes_back() {
    let sink = spawn(Path::new("/dev/full"), 16);
    let mut sender = sink.sender();
    (0..10).for_each(|id| send(&mut sender, id));
    let counters = sink.counters.clone();
    let begin = Instant::now();
    sink.close();
    assert!(begin.elapsed() < DEADLINE);
    assert_eq!(counters.dropped(), 10);
    send(&mut sender, 10);
}

#[test]
fn a_pipe_whose_reader_went_away_works_again_with_a_new_reader() {
    let (reader, writer) = io::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let sink = spawn(Path::new(&path), 16);
    let mut sender = sink.sender();
    drop(reader);
    send(&mut sender, 1);
    until("writing fails", || sink.failures() > 0);
    let mut reader = fs::File::open(&path).unwrap();
    send(&mut sender, 2);
    until("the log works again", || sink.written() == 2);
    sink.close();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(ids(&text), [1, 2]);
}

#[test]
fn a_stalled_pipe_stops_neither_the_sender_nor_the_end() {
    let (_reader, writer) = io::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let sink = spawn(Path::new(&path), 16);
    let mut sender = sink.sender();
    let begin = Instant::now();
    (0..5_000).for_each(|id| send(&mut sender, id));
    assert!(sink.dropped() > 0, "told while the writer is stuck");
    let counters = sink.counters.clone();
    sink.close();
    assert!(begin.elapsed() < DEADLINE);
    drop(sender);
    until("each line is written or lost", || {
        counters.written.load(Ordering::Relaxed) + counters.dropped() == 5_000
    });
}

#[test]
fn senders_go_to_other_threads() {
    fn is_send<T: Send>() {}
    is_send::<RecordSender>();
    is_send::<SinkHandle>();
}
