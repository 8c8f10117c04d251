use std::ops::Range;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// One finding about the configuration or about a file that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Byte range in the file's text; `None`: no single place is to blame.
    pub span: Option<Range<usize>>,
    pub message: String,
    /// What the user can do about it.
    pub cure: Option<String>,
}
