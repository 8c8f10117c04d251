//! Pieces of configuration that many tests share.

use crate::link::Address;

/// Puts every listener and group of the tests on this `relay_path`, so that the same tests run over
/// another path: `splice`, where the kernel has TLS.
pub const RELAY_PATH: &str = "RINGWAY_TEST_RELAY_PATH";

/// The word of the access log for a bulky direction with TLS on that path.
#[must_use]
pub fn tls_path() -> &'static str {
    match std::env::var(RELAY_PATH) {
        Ok(path) if path == "splice" => "kernel",
        _ => "user",
    }
}

fn relay_path() -> String {
    std::env::var(RELAY_PATH).map_or_else(
        |_| String::new(),
        |path| format!("relay_path = \"{path}\"\n"),
    )
}

/// A listener on 127.0.0.1, port 0. `keys` are lines of its table, `tls` its `[listener.tls]`.
#[must_use]
pub fn listener(name: &str, upstream: &str, keys: &str, tls: &str) -> String {
    format!(
        "[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\nupstream = \"{upstream}\"\n\
         {}{keys}\n{tls}\n",
        relay_path()
    )
}

/// An upstream group. `tls` is its `[upstream.NAME.tls]`.
#[must_use]
pub fn upstream(name: &str, servers: &[&Address], tls: &str) -> String {
    let servers: Vec<_> = servers.iter().map(|s| format!("\"{s}\"")).collect();
    format!(
        "[upstream.{name}]\nservers = [{}]\n{}{tls}\n",
        servers.join(", "),
        relay_path()
    )
}

/// Listener `front` to upstream `back`.
#[must_use]
pub fn front_to_back(keys: &str, tls: &str, server: &Address) -> String {
    listener("front", "back", keys, tls) + &upstream("back", &[server], "")
}
