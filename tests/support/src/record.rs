//! One line of the access log.

use std::fmt;

use serde_json::Value;

/// A record of the access log in JSON.
#[derive(Debug, Clone)]
pub struct Record(pub Value);

impl Record {
    /// A field's text, if it is there.
    #[must_use]
    pub fn find(&self, field: &str) -> Option<&str> {
        self.0.get(field)?.as_str()
    }

    /// # Panics
    /// When the field is missing or no text.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.find(field)
            .unwrap_or_else(|| panic!("no text `{field}` in the record {self}"))
    }

    /// # Panics
    /// When the field is missing or no whole number.
    #[must_use]
    pub fn count(&self, field: &str) -> u64 {
        self.0[field]
            .as_u64()
            .unwrap_or_else(|| panic!("no count `{field}` in the record {self}"))
    }

    /// # Panics
    /// When the field is missing or no number.
    #[must_use]
    pub fn number(&self, field: &str) -> f64 {
        self.0[field]
            .as_f64()
            .unwrap_or_else(|| panic!("no number `{field}` in the record {self}"))
    }

    /// # Panics
    /// When the field is missing or neither true nor false.
    #[must_use]
    pub fn flag(&self, field: &str) -> bool {
        self.0[field]
            .as_bool()
            .unwrap_or_else(|| panic!("no true or false `{field}` in the record {self}"))
    }

    /// # Panics
    /// When a field is not what is expected.
    pub fn expect(&self, fields: &[(&str, &str)]) -> &Self {
        for (field, expected) in fields {
            assert_eq!(
                self.find(field),
                Some(*expected),
                "field `{field}` of the record {self}"
            );
        }
        self
    }

    /// # Panics
    /// When `end` is none of `causes` or `phase` is none of `phases`.
    pub fn expect_end(&self, causes: &[&str], phases: &[&str]) -> &Self {
        let (end, phase) = (self.text("end"), self.text("phase"));
        assert!(
            causes.contains(&end) && phases.contains(&phase),
            "expected end in {causes:?} and phase in {phases:?}, got end {end:?} and phase \
             {phase:?} in the record {self}"
        );
        self
    }

    /// Checks that the record names the alert which the peer says it received.
    ///
    /// # Panics
    /// When there is none, or another.
    pub fn expect_alert(&self, told: &str) -> &Self {
        let bare = |text: &str| text.replace(['_', ' '], "").to_lowercase();
        assert!(
            bare(told).contains(&bare(self.text("alert"))),
            "the peer was told {told:?}, the record says {self}"
        );
        self
    }

    /// All that says why: detail and the reasons of servers passed over, in lower case.
    #[must_use]
    pub fn reasons(&self) -> String {
        let passed_over = self.0["passed_over"].to_string();
        let detail = self.find("detail").unwrap_or_default();
        format!("{detail} {passed_over}").to_lowercase()
    }

    /// # Panics
    /// When none of `words` stands in [`Self::reasons`].
    pub fn expect_reason(&self, words: &[&str]) -> &Self {
        let reasons = self.reasons();
        assert!(
            words.iter().any(|word| reasons.contains(word)),
            "expected one of {words:?} in detail or passed_over of the record {self}"
        );
        self
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
