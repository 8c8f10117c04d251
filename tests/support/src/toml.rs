//! Pieces of configuration that many tests share.

use crate::link::Address;

/// A listener on 127.0.0.1, port 0. `keys` are lines of its table, `tls` its `[listener.tls]`.
#[must_use]
pub fn listener(name: &str, upstream: &str, keys: &str, tls: &str) -> String {
    format!(
        "[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\nupstream = \"{upstream}\"\n\
         {keys}\n{tls}\n"
    )
}

/// An upstream group. `tls` is its `[upstream.NAME.tls]`.
#[must_use]
pub fn upstream(name: &str, servers: &[&Address], tls: &str) -> String {
    let servers: Vec<_> = servers.iter().map(|s| format!("\"{s}\"")).collect();
    format!(
        "[upstream.{name}]\nservers = [{}]\n{tls}\n",
        servers.join(", ")
    )
}

/// Listener `front` to upstream `back`.
#[must_use]
pub fn front_to_back(keys: &str, tls: &str, server: &Address) -> String {
    listener("front", "back", keys, tls) + &upstream("back", &[server], "")
}
