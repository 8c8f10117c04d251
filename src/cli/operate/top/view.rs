//! The figures on a terminal.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, Row, Table, Widget};

use super::figures::Figures;
use super::text::{bytes_rate, percent, rate, sides, time};
use crate::cli::operate::show::age;
use crate::control::admin::model::{ServerSeen, Status};

/// Reasons of failures that have room in a row.
const REASONS_MAX: usize = 4;

/// All that is shown.
pub(super) struct Screen<'a> {
    pub(super) status: &'a Status,
    pub(super) figures: &'a Figures,
}

impl Widget for Screen<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let Self { status, figures } = self;
        // A core a row, but never more than half of the screen: the rest is then for the servers.
        let cores = u16::try_from(figures.cores.len()).unwrap_or(u16::MAX);
        let cores = cores.min(area.height / 2);
        let [head, handshakes, bars, servers] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(5),
            Constraint::Length(cores + 2),
            Constraint::Min(3),
        ])
        .areas(area);
        head_lines(status, figures).render(head, buffer);
        Widget::render(handshake_table(figures), handshakes, buffer);
        draw_cores(figures, bars, buffer);
        Widget::render(server_table(status), servers, buffer);
    }
}

fn head_lines(status: &Status, figures: &Figures) -> Paragraph<'static> {
    let uptime = age(Duration::from_secs(status.uptime_secs));
    let first = format!(
        "ringway {}  process {}  {} for {uptime}  {}  (q ends this)",
        status.version, status.pid, status.state, status.plan.file
    );
    let second = format!(
        "{:.0} connections  {} new  up {}  down {}",
        figures.connections,
        rate(figures.accepted),
        bytes_rate(figures.up),
        bytes_rate(figures.down)
    );
    Paragraph::new(vec![Line::from(first).bold(), Line::from(second)])
}

fn handshake_table(figures: &Figures) -> Table<'static> {
    let rows = sides(figures).map(|(side, it)| {
        let reasons = it.failed.iter().take(REASONS_MAX);
        let reasons: Vec<String> = reasons
            .map(|(reason, failed)| format!("{reason} {}", rate(*failed)))
            .collect();
        let failures = it.failures();
        let colour = if failures > 0.0 {
            Color::Red
        } else {
            Color::Reset
        };
        Row::new([
            Line::from(side),
            Line::from(rate(it.full)),
            Line::from(rate(it.resumed)),
            Line::from(it.p99.map_or_else(|| "-".to_owned(), time)),
            Line::from(Span::styled(rate(failures), Style::new().fg(colour))),
            Line::from(reasons.join("  ")),
        ])
    });
    let heads = Row::new(["", "full", "resumed", "p99", "failed", "reasons"]).bold();
    let widths = [10, 10, 10, 10, 10].map(Constraint::Length);
    let widths = widths.into_iter().chain([Constraint::Fill(1)]);
    Table::new(rows, widths)
        .header(heads)
        .block(Block::bordered().title("handshakes"))
}

fn draw_cores(figures: &Figures, area: Rect, buffer: &mut Buffer) {
    let block = Block::bordered().title("cores");
    let inner = block.inner(area);
    block.render(area, buffer);
    for (core, row) in figures.cores.iter().zip(inner.rows()) {
        let [name, bar] =
            Layout::horizontal([Constraint::Length(28), Constraint::Fill(1)]).areas(row);
        let words = format!("{:>4}  {:.0} connections", core.name, core.connections);
        Line::from(words).render(name, buffer);
        let Some(busy) = core.busy else {
            continue;
        };
        let colour = if busy > 0.9 { Color::Red } else { Color::Green };
        let gauge = Gauge::default()
            .ratio(busy.clamp(0.0, 1.0))
            .label(percent(busy))
            .gauge_style(Style::new().fg(colour));
        gauge.render(bar, buffer);
    }
}

fn server_table(status: &Status) -> Table<'static> {
    let rows = status.upstreams.iter().flat_map(|upstream| {
        let row = |it: &ServerSeen| {
            Row::new([
                Line::from(upstream.name.clone()),
                Line::from(it.address.clone().unwrap_or_else(|| it.server.clone())),
                Line::from(it.state.replace('_', " ")).style(colour(&it.state)),
                Line::from(it.connections.to_string()),
                Line::from(it.reason.clone().unwrap_or_default()),
            ])
        };
        upstream.servers.iter().map(row)
    });
    let heads = Row::new(["upstream", "server", "state", "connections", "why"]).bold();
    let widths = [
        Constraint::Length(16),
        Constraint::Length(28),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Fill(1),
    ];
    Table::new(rows, widths)
        .header(heads)
        .block(Block::bordered().title("servers"))
}

fn colour(state: &str) -> Style {
    Style::new().fg(match state {
        "up" => Color::Green,
        "down" | "barred" | "unresolved" => Color::Red,
        _ => Color::Yellow,
    })
}

#[cfg(test)]
mod tests {
    use ratatui::buffer::Cell;

    use super::super::text::{sample_figures, sample_status};
    use super::*;

    fn drawn(width: u16, height: u16) -> String {
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        let screen = Screen {
            status: &sample_status(),
            figures: &sample_figures(),
        };
        screen.render(area, &mut buffer);
        let rows = buffer.content.chunks(usize::from(width));
        let text = |row: &[Cell]| row.iter().map(Cell::symbol).collect::<String>() + "\n";
        rows.map(text).collect()
    }

    #[test]
    fn a_screen_has_handshakes_cores_and_servers() {
        let screen = drawn(100, 24);
        for words in [
            "process 7",
            "345 connections  12.0/s new  up 2.0KiB/s",
            "downstream 10.0/s",
            "timeout 0.5/s",
            "1.02ms",
            "34%",
            "10.0.0.1:5432",
            "drained",
        ] {
            assert!(screen.contains(words), "{words}\n{screen}");
        }
    }

    #[test]
    fn no_screen_is_too_small_to_draw_on() {
        for (width, height) in [(1, 1), (10, 3), (30, 8), (500, 4)] {
            let _ = drawn(width, height);
        }
    }
}
