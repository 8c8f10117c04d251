//! A scrape of the proxy's metrics, read as strictly as the formats are written.

use std::collections::{BTreeMap, BTreeSet};

use crate::link::{Address, Link};

/// One answer to a scrape.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// By name, as `# TYPE` has it.
    pub families: BTreeMap<String, Family>,
    /// Of the answer; empty for a text that was parsed.
    pub content_type: String,
}

#[derive(Debug, Clone, Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
    pub samples: Vec<Sample>,
}

/// Samples of this name that have these labels, and their sum.
pub type Expected<'a> = (&'a str, &'a [(&'a str, &'a str)], u32);

#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Scrape {
    /// Asks an admin server.
    ///
    /// # Panics
    /// When it does not answer with metrics.
    #[must_use]
    pub fn of(admin: &Address) -> Self {
        Self::accepting(admin, "")
    }

    /// The same, with an `Accept`.
    ///
    /// # Panics
    /// When it does not answer with metrics.
    #[must_use]
    pub fn accepting(admin: &Address, accept: &str) -> Self {
        let mut link = Link::connect(admin).expect("an admin server");
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: ringway\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        link.send(request.as_bytes()).expect("it reads");
        let (answer, _) = link.receive_to_end();
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
        let kind = |line: &str| Some(line.split_once(':')?.1.trim().to_owned());
        let mut lines = head.lines();
        let kind = lines
            .find(|line| line.to_lowercase().starts_with("content-type:"))
            .and_then(kind);
        Self {
            content_type: kind.expect("a content type"),
            ..Self::parse(body)
        }
    }

    /// # Panics
    /// When the text breaks a rule of Prometheus's format or of OpenMetrics.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        let mut open = String::new();
        assert!(text.ends_with('\n'), "the last line has no end");
        let lines = text.strip_suffix("# EOF\n").unwrap_or(text);
        for line in lines.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("words of help");
                let is_new = !scrape.families.contains_key(name);
                assert!(is_new, "{name} is in two places");
                name.clone_into(&mut open);
                let family = scrape.families.entry(open.clone()).or_default();
                help.clone_into(&mut family.help);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert_eq!(name, open, "its HELP stands before its TYPE");
                let family = scrape.families.entry(open.clone()).or_default();
                assert!(
                    family.kind.is_empty() && family.samples.is_empty(),
                    "{line}"
                );
                kind.clone_into(&mut family.kind);
            } else {
                let family = scrape.families.get_mut(&open).expect("a family");
                family.take(&open, sample(line));
            }
        }
        scrape.families.values().for_each(Family::check);
        scrape
    }

    /// The sum of all samples of this name that have these labels.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.matching(name, labels);
        found.iter().map(|it| it.value).sum()
    }

    /// The one sample of this name that has these labels.
    ///
    /// # Panics
    /// When there is none, or there are more.
    #[must_use]
    pub fn one(&self, name: &str, labels: &[(&str, &str)]) -> &Sample {
        let found = self.matching(name, labels);
        match found[..] {
            [one] => one,
            _ => panic!("not one sample {name} {labels:?} but {found:?}"),
        }
    }

    /// # Panics
    /// When the sum of some samples is not what is expected; all that differ are shown.
    pub fn expect(&self, expected: &[Expected<'_>]) -> &Self {
        let differ = |(name, labels, value): &&Expected<'_>| {
            (self.sum(name, labels) - f64::from(*value)).abs() > f64::EPSILON
        };
        let found: Vec<_> = expected
            .iter()
            .filter(differ)
            .map(|(name, labels, value)| {
                let seen = self.matching(name, &[]);
                format!("{name} {labels:?} is not {value} in {seen:#?}")
            })
            .collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
        self
    }

    fn matching<'s>(&'s self, name: &str, labels: &[(&str, &str)]) -> Vec<&'s Sample> {
        let samples = self.families.values().flat_map(|it| &it.samples);
        let matches = |sample: &&Sample| {
            let has = |(label, value): &(&str, &str)| {
                sample.labels.get(*label).is_some_and(|it| it == value)
            };
            sample.name == name && labels.iter().all(has)
        };
        samples.filter(matches).collect()
    }
}

impl Family {
    fn take(&mut self, family: &str, sample: Sample) {
        let suffix = sample.name.strip_prefix(family);
        let fits = match self.kind.as_str() {
            "counter" => matches!(suffix, Some("" | "_total")) && sample.name.ends_with("_total"),
            "gauge" => suffix == Some(""),
            "histogram" => matches!(suffix, Some("_bucket" | "_sum" | "_count")),
            other => panic!("{family} is of the unknown type {other:?}"),
        };
        assert!(fits, "{} in the {} {family}", sample.name, self.kind);
        let is_counted = self.kind != "gauge";
        assert!(!is_counted || sample.value >= 0.0, "{sample:?}");
        self.samples.push(sample);
    }

    fn check(&self) {
        assert!(!self.kind.is_empty(), "a family without a TYPE: {self:?}");
        let mut seen = BTreeSet::new();
        for sample in &self.samples {
            let series = (&sample.name, &sample.labels);
            assert!(seen.insert(series), "{series:?} is there twice");
        }
        if self.kind == "histogram" {
            self.check_buckets();
        }
    }

    /// Buckets rise in bound and count, and the last one is the count.
    fn check_buckets(&self) {
        let buckets = self
            .samples
            .iter()
            .filter(|it| it.name.ends_with("_bucket"));
        let mut series = BTreeMap::<_, Vec<(f64, f64)>>::new();
        for bucket in buckets {
            let mut labels = bucket.labels.clone();
            let bound = labels.remove("le").expect("a bound");
            let bound = number(&bound);
            series
                .entry(labels)
                .or_default()
                .push((bound, bucket.value));
        }
        for (labels, buckets) in series {
            let rises = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
            assert!(buckets.windows(2).all(rises), "{labels:?}: {buckets:?}");
            let (bound, all) = buckets.last().expect("a bucket");
            assert!(bound.is_infinite(), "{labels:?} has no last bucket");
            let count = self
                .samples
                .iter()
                .find(|it| it.name.ends_with("_count") && it.labels == labels);
            let count = count.expect("a count").value;
            assert!((count - all).abs() < f64::EPSILON, "{labels:?}: {count}");
        }
    }
}

/// `name{label="value",…} 1`
fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let value = number(value);
    let Some((name, labels)) = series.split_once('{') else {
        return Sample {
            name: word(series),
            labels: BTreeMap::new(),
            value,
        };
    };
    let labels = labels.strip_suffix('}').expect("an end of the labels");
    Sample {
        name: word(name),
        labels: labels_of(labels),
        value,
    }
}

fn labels_of(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, quoted) = rest.split_once("=\"").expect("a label's value");
        let (value, after) = unquoted(quoted);
        let known = labels.insert(word(name), value);
        assert_eq!(known, None, "{name} is there twice in {text}");
        rest = match after.strip_prefix(',') {
            Some(next) => next,
            None => {
                assert!(after.is_empty(), "{after} behind a label in {text}");
                after
            }
        };
    }
    labels
}

/// What stands before the closing quote, and what behind it.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                other => panic!("{other:?} is escaped in {text}"),
            },
            other => value.push(other),
        }
    }
    panic!("no end of {text}")
}

fn word(text: &str) -> String {
    let is_word = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let begins = text.starts_with(|it: char| it.is_ascii_alphabetic());
    assert!(begins && text.chars().all(is_word), "{text:?} is no name");
    text.to_owned()
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        text => text
            .parse()
            .unwrap_or_else(|_| panic!("{text:?} is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaks(text: &str) -> bool {
        std::panic::catch_unwind(|| Scrape::parse(text)).is_err()
    }

    #[test]
    fn what_is_well_formed_is_read_and_what_is_not_is_refused() {
        let head = "# HELP a_total Words.\n# TYPE a_total counter\n";
        let scrape = Scrape::parse(&format!("{head}a_total{{b=\"c\\\\\\\"\\n,}}\"}} 3\n"));
        let sample = scrape.one("a_total", &[]);
        assert_eq!(sample.labels["b"], "c\\\"\n,}");
        assert!((sample.value - 3.0).abs() < f64::EPSILON);
        for broken in [
            "a_total 3\n".to_owned(),
            format!("{head}b_total 3\n"),
            format!("{head}a_total three\n"),
            format!("{head}a_total 3"),
            format!("{head}a_total -1\n"),
            format!("{head}a_total 3\na_total 4\n"),
            format!("{head}a_total{{b=c}} 3\n"),
            format!("{head}a_total{{b=\"c\",b=\"d\"}} 3\n"),
            format!("{head}{head}"),
        ] {
            assert!(breaks(&broken), "{broken}");
        }
    }

    #[test]
    fn a_histogram_whose_buckets_contradict_each_other_is_refused() {
        let of = |buckets: [u32; 3]| {
            let [first, last, count] = buckets;
            format!(
                "# HELP h Words.\n# TYPE h histogram\nh_bucket{{le=\"0.5\"}} {first}\n\
                 h_bucket{{le=\"+Inf\"}} {last}\nh_sum 1.5\nh_count {count}\n"
            )
        };
        assert!(!breaks(&of([1, 2, 2])));
        assert!(breaks(&of([3, 2, 2])));
        assert!(breaks(&of([1, 2, 3])));
    }
}
