//! Prometheus's text format, as far as `top` reads it: series and their values.

use std::collections::BTreeMap;

/// All series of one scrape.
#[derive(Debug, Default)]
pub(super) struct Scrape {
    /// By name.
    series: BTreeMap<String, Vec<Series>>,
}

#[derive(Debug, PartialEq)]
struct Series {
    labels: Vec<(String, String)>,
    value: f64,
}

impl Scrape {
    /// `None`: the text is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut scrape = Self::default();
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        for line in lines {
            let (name, series) = parsed(line)?;
            scrape.series.entry(name).or_default().push(series);
        }
        Some(scrape)
    }

    /// All series of this name whose labels have these values, together.
    pub(super) fn sum(&self, name: &str, wanted: &[(&str, &str)]) -> f64 {
        self.of(name, wanted).fold(0.0, |sum, it| sum + it.value)
    }

    /// The same, for each value of a label by itself.
    pub(super) fn by(
        &self,
        name: &str,
        label: &str,
        wanted: &[(&str, &str)],
    ) -> BTreeMap<&str, f64> {
        let mut sums = BTreeMap::new();
        for series in self.of(name, wanted) {
            if let Some(value) = series.label(label) {
                *sums.entry(value).or_insert(0.0) += series.value;
            }
        }
        sums
    }

    fn of(&self, name: &str, wanted: &[(&str, &str)]) -> impl Iterator<Item = &Series> {
        let fits = move |series: &&Series| {
            wanted
                .iter()
                .all(|(label, value)| series.label(label) == Some(*value))
        };
        self.series.get(name).into_iter().flatten().filter(fits)
    }
}

impl Series {
    fn label(&self, name: &str) -> Option<&str> {
        let (_, value) = self.labels.iter().find(|(it, _)| it == name)?;
        Some(value)
    }
}

/// `name{label="value",…} 1.5`, with or without a time behind it.
fn parsed(line: &str) -> Option<(String, Series)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some((name.to_owned(), Series { labels, value }))
}

type Labels = Vec<(String, String)>;

/// What stands before the closing brace, and what behind it.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, behind) = rest.split_once("=\"")?;
        let (value, behind) = quoted(behind)?;
        labels.push((name.to_owned(), value));
        rest = behind.strip_prefix(',').unwrap_or(behind);
    }
}

/// The text up to the closing quote, which is passed over.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, it)) = characters.next() {
        match it {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                escaped => escaped,
            }),
            it => value.push(it),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP x What it is.\n# TYPE x counter\n\
        x{listener=\"a\",kind=\"full\"} 3\nx{listener=\"b\",kind=\"full\"} 4\n\
        x{listener=\"a\",kind=\"resumed\",} 5 1700000000000\ny 1.5e3\n\
        z{file=\"a \\\"b\\\\c\\\" }\\nd\"} NaN\nb{le=\"+Inf\"} +Inf\n";

    #[test]
    fn series_are_summed_by_their_labels() {
        let scrape = Scrape::parse(TEXT).unwrap();
        assert_eq!(scrape.sum("x", &[]), 12.0);
        assert_eq!(scrape.sum("x", &[("kind", "full")]), 7.0);
        assert_eq!(scrape.sum("x", &[("kind", "full"), ("listener", "b")]), 4.0);
        assert_eq!(scrape.sum("y", &[]), 1500.0);
        assert_eq!(scrape.sum("nothing", &[]), 0.0);
        let by = scrape.by("x", "listener", &[]);
        assert_eq!(by, BTreeMap::from([("a", 8.0), ("b", 4.0)]));
        assert_eq!(
            scrape.by("z", "file", &[]).keys().next(),
            Some(&"a \"b\\c\" }\nd")
        );
        assert!(scrape.sum("b", &[]).is_infinite());
    }

    #[test]
    fn what_is_no_scrape_is_not_taken() {
        for text in [
            "<html>",
            "x",
            "x{a=\"b\" 1",
            "x{a=b} 1",
            "x one",
            "{\"json\": 1}",
        ] {
            assert!(Scrape::parse(text).is_none(), "{text}");
        }
        for cut in (0..TEXT.len()).filter(|it| TEXT.is_char_boundary(*it)) {
            let _ = Scrape::parse(&TEXT[..cut]);
        }
    }
}
