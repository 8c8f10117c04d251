#[derive(Debug, Default, Clone, Copy)]
pub struct ClientBound;
pub fn with_client_bound<R>(_b: &mut ClientBound, run: impl FnOnce() -> R) -> R { run() }
