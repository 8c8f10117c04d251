//! The text format of Prometheus, 0.0.4, and OpenMetrics 1.0 where it differs.

use std::fmt::Write as _;
use std::time::Duration;

use super::catalog::{Kind, Metric};
use crate::observe::meters::{Histogram, PerCore, Scale};

/// Which of both is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    Prometheus,
    OpenMetrics,
}

impl Syntax {
    /// By the `Accept` of a request; Prometheus asks for OpenMetrics where it knows it.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let is_asked = |it: &str| it.trim().starts_with("application/openmetrics-text");
        if accept.split(',').any(is_asked) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// For `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// One answer to a scrape.
#[derive(Debug)]
pub struct Page {
    syntax: Syntax,
    text: String,
}

/// The samples of one metric.
pub struct Family<'a> {
    metric: &'static Metric,
    text: &'a mut String,
}

impl Page {
    #[must_use]
    pub fn new(syntax: Syntax) -> Self {
        Self {
            syntax,
            text: String::new(),
        }
    }

    /// All of a metric's samples follow in one go.
    pub fn family(&mut self, metric: &'static Metric) -> Family<'_> {
        let (name, kind) = (metric.name, metric.kind.name());
        let family = match (self.syntax, metric.kind) {
            (Syntax::OpenMetrics, Kind::Counter) => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let text = &mut self.text;
        // A String takes every write.
        let _ = writeln!(text, "# HELP {family} {}", metric.help);
        let _ = writeln!(text, "# TYPE {family} {kind}");
        Family { metric, text }
    }

    #[must_use]
    pub fn finish(mut self) -> String {
        if self.syntax == Syntax::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

impl Family<'_> {
    /// `labels`: one value for each of the metric's.
    pub fn count<const N: usize>(&mut self, labels: [&str; N], value: u64) {
        self.open("", labels, None);
        let _ = writeln!(self.text, " {value}");
    }

    /// The same, of what is seldom: a series appears with its first event.
    pub fn count_if_any<const N: usize>(&mut self, labels: [&str; N], value: u64) {
        if value > 0 {
            self.count(labels, value);
        }
    }

    pub fn seconds<const N: usize>(&mut self, labels: [&str; N], value: Duration) {
        self.open("", labels, None);
        let _ = writeln!(self.text, " {}", value.as_secs_f64());
    }

    /// What all cores have measured; nothing, if they have not.
    pub fn histogram<'h, const N: usize>(
        &mut self,
        labels: [&str; N],
        scale: &Scale,
        cores: impl Iterator<Item = &'h Histogram> + Clone,
    ) {
        let total: u64 = cores.clone().map(Histogram::count).sum();
        if total == 0 {
            return;
        }
        for (octave, bound) in scale.bounds() {
            let within: u64 = cores.clone().map(|it| it.up_to(octave)).sum();
            self.open("_bucket", labels, Some(&bound.to_string()));
            // Counted on while it is read: no bucket may be above the total.
            let _ = writeln!(self.text, " {}", within.min(total));
        }
        self.open("_bucket", labels, Some("+Inf"));
        let _ = writeln!(self.text, " {total}");
        let nanos = cores.map(|it| it.sum().value());
        let sum = Duration::from_nanos(nanos.fold(0, u64::wrapping_add));
        self.open("_sum", labels, None);
        let _ = writeln!(self.text, " {}", sum.as_secs_f64());
        self.open("_count", labels, None);
        let _ = writeln!(self.text, " {total}");
    }

    fn open<const N: usize>(&mut self, suffix: &str, labels: [&str; N], le: Option<&str>) {
        debug_assert_eq!(self.metric.labels.len(), N, "{}", self.metric.name);
        let own = self.metric.labels.iter().copied().zip(labels);
        let _ = write!(self.text, "{}{suffix}", self.metric.name);
        for (at, (name, value)) in own.chain(le.map(|le| ("le", le))).enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{name}=\"");
            escape(value, self.text);
            self.text.push('"');
        }
        if N > 0 || le.is_some() {
            self.text.push('}');
        }
    }
}

fn escape(value: &str, text: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

/// The histograms of one kind, by core.
pub(super) fn each<'a, M>(
    cores: &'a PerCore<M>,
    of: impl Fn(&M) -> &Histogram + Clone + 'a,
) -> impl Iterator<Item = &'a Histogram> + Clone + 'a {
    cores.iter().map(move |core| of(core))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::catalog;

    #[test]
    fn openmetrics_names_a_counter_without_its_suffix_and_has_an_end() {
        for (syntax, expected) in [
            (
                Syntax::Prometheus,
                "# TYPE ringway_worker_restarts_total counter\n",
            ),
            (
                Syntax::OpenMetrics,
                "# TYPE ringway_worker_restarts counter\n",
            ),
        ] {
            let mut page = Page::new(syntax);
            page.family(&catalog::WORKER_RESTARTS).count([], 3);
            let text = page.finish();
            assert!(text.contains(expected), "{text}");
            assert!(
                text.contains("\nringway_worker_restarts_total 3\n"),
                "{text}"
            );
            let has_end = text.ends_with("# EOF\n");
            assert_eq!(has_end, syntax == Syntax::OpenMetrics);
        }
    }

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let mut page = Page::new(Syntax::Prometheus);
        let evil = "a\"} 1\n\\";
        page.family(&catalog::CONNECTIONS_MAX).count([evil], 1);
        let text = page.finish();
        let sample = text.lines().last().unwrap();
        assert_eq!(
            sample,
            "ringway_connections_max{listener=\"a\\\"} 1\\n\\\\\"} 1"
        );
    }

    #[test]
    fn a_scraper_gets_the_syntax_that_it_asks_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3";
        for (accept, expected) in [
            ("", Syntax::Prometheus),
            ("*/*", Syntax::Prometheus),
            ("text/plain;version=0.0.4", Syntax::Prometheus),
            (prometheus, Syntax::OpenMetrics),
        ] {
            assert_eq!(Syntax::accepted(accept), expected, "{accept}");
        }
    }
}
