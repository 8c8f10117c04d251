//! Lines that a process writes, as they come.

#![expect(
    clippy::disallowed_types,
    reason = "a test's threads share what a process wrote; no worker does"
)]

use std::io::{BufRead as _, BufReader, Read};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::wait::{DEADLINE, within};

/// Lines that a thread reads from a process.
pub(crate) struct Lines {
    state: Mutex<State>,
}

struct State {
    incoming: Receiver<String>,
    seen: String,
}

impl Lines {
    pub(crate) fn of(stream: impl Read + Send + 'static) -> Self {
        let (sender, incoming) = mpsc::channel();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                if sender.send(without_colours(&line)).is_err() {
                    return;
                }
                line.clear();
            }
        });
        let seen = String::new();
        Self {
            state: State { incoming, seen }.into(),
        }
    }

    /// A test that has failed meanwhile leaves it as it was.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn text(&self) -> String {
        let mut state = self.state();
        let State { incoming, seen } = &mut *state;
        seen.extend(incoming.try_iter());
        seen.clone()
    }

    /// After the process ended: all that it wrote.
    pub(crate) fn text_to_end(&self) -> String {
        let mut state = self.state();
        while let Ok(line) = state.incoming.recv_timeout(DEADLINE) {
            state.seen.push_str(&line);
        }
        state.seen.clone()
    }

    /// Waits for a line that `wanted` makes something of.
    pub(crate) fn wait<T>(&self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> T {
        let found = within(DEADLINE, || self.text().lines().find_map(&wanted));
        found.unwrap_or_else(|| panic!("no {what} in {DEADLINE:?} in:\n{}", self.text()))
    }
}

/// ANSI escapes would split `name=value`.
pub(crate) fn without_colours(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut plain = String::new();
    let mut rest = text.as_ref();
    while let Some((before, escape)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = escape.split_once('m').map_or("", |(_, after)| after);
    }
    plain + rest
}
