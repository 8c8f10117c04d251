//! The metrics as Prometheus reads them: their names, and the text.

pub mod catalog;
mod counted;
mod page;
mod process;

pub use catalog::{Kind, Metric};
pub use counted::write_counted;
pub use page::{Page, Syntax};
pub use process::{Threads, write_process, write_threads};
