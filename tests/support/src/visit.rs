//! One whole connection through the listener `front`, for tests that are about its record.

use crate::link::{Ending, Link};
use crate::proxy::Proxy;
use crate::record::Record;

impl Proxy {
    /// A client whom an echo serves, to a clean end.
    ///
    /// # Panics
    /// When it is not served.
    #[must_use]
    pub fn visit(&self) -> Record {
        let mut link = Link::connect(self.address("front")).expect("the proxy accepts");
        link.ping(b"hello");
        link.finish().expect("an end");
        assert_eq!(link.expect_end(), Ending::Clean);
        self.record_of(link.local())
    }

    /// A client that no server takes.
    ///
    /// # Panics
    /// When one does.
    #[must_use]
    pub fn visit_in_vain(&self) -> Record {
        let mut link = Link::connect(self.address("front")).expect("the proxy accepts");
        let (bytes, ending) = link.receive_to_end();
        assert!(bytes.is_empty() && ending != Ending::Silence, "{ending:?}");
        self.record_of(link.local())
    }
}
