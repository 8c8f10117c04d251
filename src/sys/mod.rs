//! What needs `unsafe`, and what asks the kernel about itself. Nothing else may use `unsafe`.

mod activation;
mod background;
mod bind;
mod clock;
mod fd;
mod ktls;
mod page;
mod pair;
mod probe;
mod reuseport;
mod rlimit;
mod seccomp;

pub use activation::{Activated, take_activated};
pub use background::{Herald, Split, go_to_background};
pub use bind::leave_port_to_connect;
pub use clock::{coarse_clock, monotonic_clock, process_cpu_time};
pub use fd::borrow_stream;
pub use ktls::{
    KtlsAbility, KtlsCipher, KtlsHalf, KtlsKeys, KtlsReceived, KtlsSuite, ktls_attach,
    ktls_keep_keys, ktls_next_sequence, ktls_receive, ktls_send_record, ktls_set_keys, ktls_words,
    probe_ktls, tcp_bytes_taken,
};
pub use page::page_bytes;
pub use probe::{Probe, RingFeatures, RingRefusal, probe, ring_builder};
pub use reuseport::{steer_by_source, stop_steering};
pub use rlimit::{Nofile, raise_nofile};
pub use seccomp::restrict_calls;
