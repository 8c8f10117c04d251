use std::time::Duration;

use ipnet::IpNet;

use super::answer::Answer;
use crate::config::{Refusal, cidr, duration};

/// What stands behind the `?` of a request: each name once.
#[derive(Debug)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// # Errors
    /// The answer to give to a name that is not among `known`, or that stands twice.
    pub(super) fn parse(text: &str, known: &[&str]) -> Result<Self, Answer> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if !known.contains(&&*name) {
                let cure = match known {
                    [] => "ask without any".to_owned(),
                    known => format!("the parameters are {}", known.join(", ")),
                };
                return Err(Answer::wrong(&format!("unknown parameter `{name}`"), &cure));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                let error = format!("the parameter `{name}` stands twice");
                return Err(Answer::wrong(&error, "keep one of the two"));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self { pairs })
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.pairs.iter().find(|(it, _)| it == name)?;
        Some(value)
    }

    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    pub(super) fn required(&self, name: &str, example: &str) -> Result<&str, Answer> {
        self.text(name).ok_or_else(|| {
            let error = format!("the parameter `{name}` is missing");
            Answer::wrong(&error, &format!("add it: `{name}={example}`"))
        })
    }

    pub(super) fn number(&self, name: &str, default: usize, max: usize) -> Result<usize, Answer> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        let number = text.parse().ok().filter(|it| (1..=max).contains(it));
        number.ok_or_else(|| not_a(name, text, &format!("write a number from 1 to {max}")))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Answer> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => Err(not_a(name, text, "write true or false")),
        }
    }

    /// An id as the access log has it.
    pub(super) fn id(&self, name: &str) -> Result<Option<u64>, Answer> {
        let cure = "write an id as `ringway connections` and the access log show it, 16 digits";
        let read = |text: &str| u64::from_str_radix(text, 16).map_err(|_| not_a(name, text, cure));
        self.text(name).map(read).transpose()
    }

    pub(super) fn network(&self, name: &str) -> Result<Option<IpNet>, Answer> {
        let network = self.text(name).map(cidr).transpose();
        network.map_err(|refusal| refused(name, &refusal))
    }

    pub(super) fn duration(&self, name: &str) -> Result<Duration, Answer> {
        let read = self.text(name).map_or(Ok(Duration::ZERO), duration);
        read.map_err(|refusal| refused(name, &refusal))
    }
}

fn not_a(name: &str, text: &str, cure: &str) -> Answer {
    Answer::wrong(&format!("`{name}` cannot be \"{text}\""), cure)
}

fn refused(name: &str, refusal: &Refusal) -> Answer {
    Answer::wrong(&format!("`{name}`: {}", refusal.message), &refusal.cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Query, Answer> {
        Query::parse(text, &["id", "source", "age", "limit", "all"])
    }

    #[test]
    fn parameters_are_decoded_and_read_by_their_kind() {
        let query =
            parse("id=000100000000002a&source=2001%3Adb8%3A%3A%2F32&age=1h30m&limit=7").unwrap();
        assert_eq!(query.id("id").unwrap(), Some((1 << 48) + 42));
        assert_eq!(
            query.network("source").unwrap().unwrap().to_string(),
            "2001:db8::/32"
        );
        assert_eq!(query.duration("age").unwrap(), Duration::from_secs(5400));
        assert_eq!(query.number("limit", 100, 1000).unwrap(), 7);
        let none = parse("").unwrap();
        assert_eq!(
            (none.id("id").unwrap(), none.network("source").unwrap()),
            (None, None)
        );
        assert_eq!(none.number("limit", 100, 1000).unwrap(), 100);
        assert!(!none.flag("all").unwrap());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_cure() {
        let cured = |answer: Answer, words: &str| {
            assert!(answer.body().contains(words), "{}", answer.body());
        };
        cured(parse("lmit=1").unwrap_err(), "id, source, age, limit, all");
        cured(parse("limit=1&limit=2").unwrap_err(), "keep one of the two");
        let query = |text| parse(text).unwrap();
        cured(query("id=xyz").id("id").unwrap_err(), "16 digits");
        cured(query("id=-1").id("id").unwrap_err(), "16 digits");
        cured(
            query("source=10.0.0.1/8").network("source").unwrap_err(),
            "10.0.0.0/8",
        );
        cured(query("age=5").duration("age").unwrap_err(), "5s");
        cured(
            query("limit=0").number("limit", 1, 9).unwrap_err(),
            "from 1 to 9",
        );
        cured(query("all=yes").flag("all").unwrap_err(), "true or false");
        cured(query("").required("id", "00").unwrap_err(), "id=00");
    }
}
