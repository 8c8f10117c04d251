//! From a configuration's text to its plan: what a reload costs before files are opened.

use std::fmt::Write as _;

use divan::{Bencher, black_box};
use ringway::config::parse;

#[divan::bench(args = [1, 100])]
fn text_to_plan(bencher: Bencher<'_, '_>, listeners: usize) {
    let text = text(listeners);
    assert!(parse("bench.toml", text.as_str()).plan().is_some());
    bencher.bench(|| parse("bench.toml", black_box(text.as_str())));
}

fn text(listeners: usize) -> String {
    let mut text = String::new();
    for number in 1..=listeners {
        let _ = write!(
            text,
            "[[listener]]\nname = \"edge{number}\"\nbind = \"127.0.0.1:{}\"\n\
             upstream = \"app{number}\"\nidle_timeout = \"5m\"\n\
             [listener.tls]\ncertificate = \"/etc/ringway/edge.crt\"\n\
             private_key = \"/etc/ringway/edge.key\"\nclient_ca = \"/etc/ringway/clients.crt\"\n\
             [upstream.app{number}]\nservers = [\"10.0.0.1:443\", \"10.0.0.2:443\"]\n\
             [upstream.app{number}.tls]\ntrusted_certificate = \"/etc/ringway/internal.crt\"\n\
             server_name = \"app.internal\"\n",
            20_000 + number
        );
    }
    text
}
