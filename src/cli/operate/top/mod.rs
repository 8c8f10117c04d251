//! `ringway top`: what a running proxy does just now, from two looks at its metrics.

mod figures;
mod scrape;
mod text;
mod view;

use std::io::{self, IsTerminal as _};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};

use crate::cli::ask::{AskError, Socket};
use crate::config;
use crate::control::admin::model::Status;
use figures::Figures;
use scrape::Scrape;
use view::Screen;

/// A second shows a change at once; rates over less jump about.
pub(super) const INTERVAL_DEFAULT: &str = "1s";

const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_hours(1);

/// For clap: a duration as the configuration takes it.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval = config::duration(text).map_err(|it| format!("{}: {}", it.message, it.cure))?;
    if (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
        Ok(interval)
    } else {
        Err("write a duration from \"100ms\" to \"1h\"".to_owned())
    }
}

/// One look at the process.
struct Look {
    at: Instant,
    scrape: Scrape,
    status: Status,
}

impl Look {
    fn take(socket: &Socket) -> Result<Self, AskError> {
        let scrape = Scrape::parse(&socket.get("/metrics")?);
        let at = Instant::now();
        let status = serde_json::from_str(&socket.get("/status")?);
        Ok(Self {
            at,
            scrape: scrape.ok_or_else(|| socket.strange())?,
            status: status.map_err(|_| socket.strange())?,
        })
    }

    fn since(&self, before: &Self) -> Figures {
        let passed = self.at.duration_since(before.at);
        Figures::between(&before.scrape, &self.scrape, passed)
    }
}

/// The figures of one interval, as lines.
pub(super) fn once(socket: &Socket, interval: Duration) -> Result<String, AskError> {
    let first = Look::take(socket)?;
    pass(interval);
    let second = Look::take(socket)?;
    Ok(text::lines(&second.status, &second.since(&first)))
}

fn pass(interval: Duration) {
    let begun = Instant::now();
    while let Some(left) = interval
        .checked_sub(begun.elapsed())
        .filter(|it| !it.is_zero())
    {
        park_timeout(left);
    }
}

/// Shows the figures until the user has seen enough.
pub(super) fn live(socket: &Socket, interval: Duration) -> Result<(), AskError> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(AskError::NoTerminal);
    }
    let mut before = Look::take(socket)?;
    let mut terminal = ratatui::try_init().map_err(AskError::Terminal)?;
    let result = loop {
        let now = match Look::take(socket) {
            Ok(now) => now,
            Err(error) => break Err(error),
        };
        let figures = now.since(&before);
        let screen = Screen {
            status: &now.status,
            figures: &figures,
        };
        let drawn = terminal.draw(|frame| frame.render_widget(screen, frame.area()));
        if let Err(error) = drawn {
            break Err(AskError::Terminal(error));
        }
        before = now;
        match wait(interval) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(AskError::Terminal(error)),
        }
    };
    ratatui::restore();
    result
}

/// Until the next look is due, or the terminal has another size. False: the user has seen enough.
fn wait(interval: Duration) -> io::Result<bool> {
    let begun = Instant::now();
    loop {
        let left = interval.saturating_sub(begun.elapsed());
        if !event::poll(left)? {
            return Ok(true);
        }
        match event::read()? {
            Event::Key(key) => {
                let is_break = key.modifiers.contains(KeyModifiers::CONTROL);
                match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(false),
                    KeyCode::Char('c') if is_break => return Ok(false),
                    _ => {}
                }
            }
            Event::Resize(..) => return Ok(true),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_a_unit_and_bounds() {
        assert_eq!(interval(INTERVAL_DEFAULT), Ok(Duration::from_secs(1)));
        assert_eq!(interval("100ms"), Ok(Duration::from_millis(100)));
        for wrong in ["1", "99ms", "2h", ""] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
