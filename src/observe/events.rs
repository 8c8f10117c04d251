//! What the process says about itself: one line an event on stderr.

use std::env::{self, VarError};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Level of the process's events: "error", "warn", "info" (the default), "debug", "trace", or
/// a filter in the syntax of `tracing_subscriber::EnvFilter`.
pub const LEVEL_VARIABLE: &str = "RINGWAY_LOG";

/// The resolver library reports each failed question itself; `control::resolver` says it once.
const DEFAULT_FILTER: &str = "info,hickory_resolver=error,hickory_net=error,hickory_proto=error";

/// Events that may wait for stderr; more are dropped and counted.
const QUEUE_MAX: usize = 1024;

/// How long the end of the process waits for stderr to take the last events.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(1);

/// Events that found no room, of the process.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Events dropped so far.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Keeps the events flowing to stderr: hold it to the end of `main`.
#[must_use = "dropping it ends the events"]
#[derive(Debug)]
pub struct Events {
    queue: Queue,
    /// Disconnected when the thread has written all and ended.
    ended: Receiver<()>,
}

/// Events that wait in their queue. [`begin`](Self::begin), or dropping it, has them written.
#[derive(Debug)]
#[must_use = "dropping it begins the thread that writes"]
pub struct HeldEvents {
    writer: Option<EventWriter>,
}

#[derive(Debug)]
struct EventWriter {
    queued: Receiver<Text>,
    dropped: Arc<AtomicU64>,
    running: mpsc::Sender<()>,
}

/// Sends the process's events to stderr from here on. Later calls change nothing.
///
/// A thread of its own writes them, so that a stalled terminal or pipe stops neither a core nor
/// the shutdown. It begins with the end of what is returned second: a thread that began before the
/// process gave up its rights would keep them.
pub fn hold() -> (Events, HeldEvents) {
    let asked = env::var(LEVEL_VARIABLE);
    let text = asked.clone().unwrap_or_else(|_| DEFAULT_FILTER.to_owned());
    let (filter, complaint) = filter(asked);
    let (events, writer) = Events::gather();
    let text = complaint
        .as_ref()
        .map_or(text, |_| DEFAULT_FILTER.to_owned());
    let subscriber = tracing_subscriber::fmt()
        .compact()
        .with_target(false)
        .with_writer(events.queue.clone())
        // It would complain with eprintln!, which panics when stderr is a closed pipe.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_filter_reloading();
    let handle = subscriber.reload_handle();
    let installed = subscriber.try_init();
    if installed.is_ok() {
        let change = move |filter| handle.reload(filter).map_err(|error| error.to_string());
        let _ = LEVEL.set(Level::new(text, Box::new(change)));
    }
    if let (Ok(()), Some(complaint)) = (installed, complaint) {
        tracing::warn!("{complaint}");
    }
    let writer = Some(writer);
    (events, HeldEvents { writer })
}

impl HeldEvents {
    /// Starts the thread that writes them.
    pub fn begin(self) {}
}

impl Drop for HeldEvents {
    fn drop(&mut self) {
        // Where there is no thread to be had no worker starts either, and the exit code says so.
        let _ = self.writer.take().map(|it| it.spawn(io::stderr()));
    }
}

/// The level of the events of this process, once they are sent.
static LEVEL: OnceLock<Level> = OnceLock::new();

/// How the level is changed while the process runs. Which events are of interest is looked up at
/// their place in the code, so that those that are not cost what they cost without a change.
struct Level {
    text: LevelLock,
    change: Change,
}

type Change = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

#[expect(
    clippy::disallowed_types,
    reason = "the control thread's own; no worker sees it"
)]
type LevelLock = std::sync::Mutex<String>;

impl Level {
    fn new(text: String, change: Change) -> Self {
        Self {
            text: LevelLock::new(text),
            change,
        }
    }
}

/// The level in effect; `None`: the process sends no events.
#[must_use]
pub fn level() -> Option<String> {
    let text = LEVEL.get()?.text.lock();
    let text = text.unwrap_or_else(std::sync::PoisonError::into_inner);
    Some(text.clone())
}

/// Changes the level from now on.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn set_level(asked: &str) -> Result<(), String> {
    let (filter, complaint) = filter(Ok(asked.to_owned()));
    if complaint.is_some() {
        return Err(format!(
            "{asked:?} is not a level; write error, warn, info, debug or trace"
        ));
    }
    let level = LEVEL.get().ok_or("this process sends no events")?;
    (level.change)(filter)?;
    let text = level.text.lock();
    *text.unwrap_or_else(std::sync::PoisonError::into_inner) = asked.to_owned();
    Ok(())
}

/// What an event's text is written to: taken whole, or dropped and counted.
#[derive(Debug, Clone)]
struct Queue {
    texts: SyncSender<Text>,
    dropped: Arc<AtomicU64>,
}

enum Text {
    Event(Box<[u8]>),
    /// All before it is to be written, nothing after it is.
    Last,
}

impl Events {
    fn gather() -> (Self, EventWriter) {
        let (texts, queued) = mpsc::sync_channel(QUEUE_MAX);
        let (running, ended) = mpsc::channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let queue = Queue {
            texts,
            dropped: dropped.clone(),
        };
        let writer = EventWriter {
            queued,
            dropped,
            running,
        };
        (Self { queue, ended }, writer)
    }
}

impl EventWriter {
    fn spawn(self, out: impl io::Write + Send + 'static) -> io::Result<()> {
        let write = move || {
            write_events(&self.queued, &self.dropped, out);
            drop(self.running);
        };
        let thread = thread::Builder::new().name("ringway-events".into());
        thread.spawn(write).map(drop)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // With a full queue the thread is stuck in a write: nothing is left to wait for.
        if self.queue.texts.try_send(Text::Last).is_ok() {
            let _ = self.ended.recv_timeout(CLOSE_WAIT_MAX);
        }
    }
}

fn write_events(queued: &Receiver<Text>, dropped: &AtomicU64, mut out: impl io::Write) {
    while let Ok(Text::Event(text)) = queued.recv() {
        // Where stderr takes nothing there is no place left to say so.
        let _ = out.write_all(&text);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(out, "{lost} events were dropped: stderr was not read");
        }
    }
}

impl io::Write for Queue {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.texts.try_send(Text::Event(text.into())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Queue {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The filter to use, and what is wrong with the one asked for.
fn filter(asked: Result<String, VarError>) -> (EnvFilter, Option<String>) {
    let asked = match asked {
        Ok(asked) => asked,
        Err(VarError::NotPresent) => return (EnvFilter::new(DEFAULT_FILTER), None),
        Err(VarError::NotUnicode(raw)) => raw.to_string_lossy().into_owned(),
    };
    match EnvFilter::try_new(&asked) {
        Ok(filter) if !is_misspelt(&asked) => (filter, None),
        _ => {
            let complaint = format!(
                "{LEVEL_VARIABLE}={asked:?} is not a level: using info; \
                 write error, warn, info, debug or trace"
            );
            (EnvFilter::new(DEFAULT_FILTER), Some(complaint))
        }
    }
}

/// A lone word that is no level would be taken for a module's name, and silence all others.
fn is_misspelt(asked: &str) -> bool {
    !asked.contains(['=', ',', ':', '[']) && asked.trim().parse::<LevelFilter>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_wait_in_their_queue_until_the_thread_that_writes_begins() {
        let (events, writer) = Events::gather();
        let (release, stall) = mpsc::channel();
        let (taken, texts) = mpsc::channel();
        drop(release);
        io::Write::write_all(&mut events.queue.make_writer(), b"early\n").unwrap();
        let stalled = Stalled {
            release: stall,
            taken,
        };
        writer.spawn(stalled).unwrap();
        drop(events);
        assert_eq!(texts.iter().next().unwrap(), b"early\n");
    }

    #[test]
    fn without_the_variable_the_level_is_info() {
        let (filter, complaint) = filter(Err(VarError::NotPresent));
        assert_eq!(filter.max_level_hint(), Some(LevelFilter::INFO));
        assert_eq!(complaint, None);
    }

    #[test]
    fn a_level_that_does_not_parse_is_named_with_the_cure_and_info_is_used() {
        for asked in ["inof", "info=loud="] {
            let (filter, complaint) = filter(Ok(asked.into()));
            assert_eq!(filter.max_level_hint(), Some(LevelFilter::INFO));
            let complaint = complaint.unwrap();
            assert!(
                complaint.contains(&format!("RINGWAY_LOG={asked:?}")),
                "{complaint}"
            );
            assert!(complaint.contains("write error, warn, info"), "{complaint}");
        }
    }

    #[test]
    fn a_level_and_a_filter_by_module_are_taken() {
        for asked in ["debug", "off", "info,ringway=trace"] {
            assert_eq!(filter(Ok(asked.into())).1, None, "{asked}");
        }
    }

    /// A pipe whose reader has stopped: takes the first event when it is let go.
    struct Stalled {
        release: Receiver<()>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl io::Write for Stalled {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let _ = self.release.recv();
            let _ = self.taken.send(text.to_vec());
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_costs_events_that_are_counted_and_no_time() {
        let (release, stall) = mpsc::channel();
        let (taken, texts) = mpsc::channel();
        let (events, writer) = Events::gather();
        let stalled = Stalled {
            release: stall,
            taken,
        };
        writer.spawn(stalled).unwrap();
        let mut writer = events.queue.make_writer();
        for _ in 0..QUEUE_MAX * 2 {
            io::Write::write_all(&mut writer, b"event\n").unwrap();
        }
        drop(release);
        drop(writer);
        drop(events);
        let text: Vec<u8> = texts.iter().flatten().collect();
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("event\n"), "{text}");
        assert!(
            text.contains(" events were dropped: stderr was not read\n"),
            "{text}"
        );
    }

    #[test]
    fn the_end_of_the_process_does_not_wait_for_a_reader_that_never_comes() {
        let (_release, stall) = mpsc::channel();
        let (taken, _texts) = mpsc::channel();
        let (events, writer) = Events::gather();
        let stalled = Stalled {
            release: stall,
            taken,
        };
        writer.spawn(stalled).unwrap();
        io::Write::write_all(&mut events.queue.make_writer(), b"event\n").unwrap();
        let begin = std::time::Instant::now();
        drop(events);
        assert!(begin.elapsed() < CLOSE_WAIT_MAX * 20);
    }
}
