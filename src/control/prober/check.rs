//! One check of one address: connect, shake hands, send, expect.

use tokio::time::timeout;

use super::standing::Outcome;
use super::wire::{Fault, Stream, TlsStream, Wire};
use crate::config::{CheckPlan, LocalAddress, ProxyVersion, SocketOptions};
use crate::net::{Origin, PeerAddress, origin};
use crate::proto::proxy::{Ends, ProxyHeader, Tlvs};
use crate::tls;

/// Bytes of an answer in which what is expected must stand.
pub(super) const ANSWER_BYTES_MAX: usize = 4096;

/// Bytes of an answer that one line of the log shows.
const SHOWN_BYTES_MAX: usize = 64;

/// Where and how to ask.
pub(super) struct Question {
    /// With the port of the plan.
    pub(super) address: PeerAddress,
    pub(super) plan: CheckPlan,
    pub(super) socket: SocketOptions,
    pub(super) local: LocalAddress,
    /// What each connection of the group begins with.
    pub(super) proxy_protocol: Option<ProxyVersion>,
    /// `None`: without TLS.
    pub(super) tls: Option<tls::Endpoint>,
}

/// How far a check has come.
struct Progress {
    /// What comes next, unless time runs out.
    awaits: &'static str,
    answer: Vec<u8>,
}

impl Question {
    pub(super) async fn ask(&self) -> Outcome {
        let limit = self.plan.timeout;
        let mut progress = Progress {
            awaits: "connection",
            answer: Vec::new(),
        };
        // In a box of its own: a task that waits for its turn should not carry it.
        let run = Box::pin(self.run(&mut progress));
        match timeout(limit, run).await {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(Fault::Server(words))) => Outcome::Failed(words),
            Ok(Err(Fault::Ours(words))) => Outcome::Unmade(words),
            Err(_) => Outcome::Failed(self.late(&progress)),
        }
    }

    async fn run(&self, progress: &mut Progress) -> Result<(), Fault> {
        let stream = Stream::connect(&self.address, &self.socket, self.origin()?).await?;
        let header = self.proxy_header();
        let sent = stream.send_all(&header).await;
        sent.map_err(|error| Fault::io("send", &error))?;
        let mut wire = match &self.tls {
            None => Wire::Plain(stream),
            Some(endpoint) => {
                progress.awaits = "TLS handshake";
                let shaken = TlsStream::shake(stream, endpoint.clone()).await?;
                Wire::Tls(Box::new(shaken))
            }
        };
        if !self.plan.expect.is_empty() {
            progress.awaits = "answer";
            self.converse(&mut wire, &mut progress.answer).await?;
        }
        wire.finish();
        Ok(())
    }

    /// A transparent group is checked from this host: there is no client.
    fn origin(&self) -> Result<Option<Origin>, Fault> {
        match (&self.address, &self.local) {
            (PeerAddress::Ip(server), LocalAddress::Fixed(_)) => {
                let found = origin(&self.local, None, server.ip());
                found.map_err(|words| Fault::Server(words.to_owned()))
            }
            _ => Ok(None),
        }
    }

    /// For a connection of the proxy's own. Version 1 has no better word for one.
    fn proxy_header(&self) -> Vec<u8> {
        let header = ProxyHeader {
            ends: Ends::Local,
            tlvs: Tlvs::default(),
        };
        match self.proxy_protocol {
            None => Vec::new(),
            Some(ProxyVersion::V1) => header.v1(),
            Some(ProxyVersion::V2) => header.v2(),
        }
    }

    async fn converse(&self, wire: &mut Wire, answer: &mut Vec<u8>) -> Result<(), Fault> {
        if !self.plan.send.is_empty() {
            wire.send(&self.plan.send).await?;
        }
        let mut buffer = [0; 1024];
        loop {
            let received = wire.receive(&mut buffer).await?;
            let before = answer.len();
            answer.extend_from_slice(buffer.get(..received).unwrap_or(&[]));
            answer.truncate(ANSWER_BYTES_MAX);
            if has_new(answer, before, &self.plan.expect) {
                return Ok(());
            }
            if received == 0 {
                let words = match answer.is_empty() {
                    true => "it closed without an answer".to_owned(),
                    false => format!("{}, and it closed", self.lacks(answer)),
                };
                return Err(Fault::Server(words));
            }
            if answer.len() >= ANSWER_BYTES_MAX {
                return Err(Fault::Server(self.lacks(answer)));
            }
        }
    }

    fn late(&self, progress: &Progress) -> String {
        let limit = self.plan.timeout;
        match progress.answer.is_empty() {
            true => format!("no {} within {limit:?}", progress.awaits),
            false => format!("{} within {limit:?}", self.lacks(&progress.answer)),
        }
    }

    fn lacks(&self, answer: &[u8]) -> String {
        format!(
            "the answer {} has no {}",
            shown(answer),
            shown(&self.plan.expect)
        )
    }
}

/// Whether `expect` stands in `answer` and was not whole in its first `before` bytes.
fn has_new(answer: &[u8], before: usize, expect: &[u8]) -> bool {
    let from = before.saturating_sub(expect.len().saturating_sub(1));
    let rest = answer.get(from..).unwrap_or(&[]);
    !expect.is_empty() && rest.windows(expect.len()).any(|window| window == expect)
}

/// As text, whatever a server sends: nothing of it reaches a terminal as it is.
fn shown(bytes: &[u8]) -> String {
    match bytes.get(..SHOWN_BYTES_MAX) {
        Some(first) if bytes.len() > SHOWN_BYTES_MAX => format!("\"{}…\"", first.escape_ascii()),
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_found_wherever_it_stands_and_however_it_is_cut() {
        let whole = b"banner\r\n+PONG\r\n";
        for step in 1..=whole.len() {
            let mut found = 0;
            let mut answer = Vec::new();
            for part in whole.chunks(step) {
                let before = answer.len();
                answer.extend_from_slice(part);
                found += usize::from(has_new(&answer, before, b"+PONG"));
            }
            assert_eq!(found, 1, "in parts of {step}");
        }
        assert!(!has_new(b"+PON", 0, b"+PONG"));
        assert!(!has_new(b"", 0, b"+PONG"));
    }

    #[test]
    fn an_answer_is_shown_as_text_and_cut() {
        assert_eq!(shown(b"a\x1b[2J\"\r\n"), r#""a\x1b[2J\"\r\n""#);
        let long = shown(&[b'x'; 1000]);
        assert_eq!(long.chars().count(), SHOWN_BYTES_MAX + 3);
    }
}
