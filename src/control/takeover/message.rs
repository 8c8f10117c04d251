//! What the two processes say to each other: JSON, one message a packet.
//!
//! The successor begins and says which protocol it speaks; the predecessor answers in the lower one
//! of both. Fields that a process does not know are passed over, so that a later one can add some.

use serde::{Deserialize, Serialize};

use crate::tls::PassedKeys;

/// Rises when a process of the protocol before could misunderstand something.
pub(super) const PROTOCOL: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// Successor: asks for everything.
    Ask(Introduction),
    /// Predecessor: what follows is all that it has, up to [`Complete`](Self::Complete).
    Offer(Introduction),
    /// Predecessor: sockets of one address, as descriptors of this packet. An address of many
    /// sockets comes in several packets of one `id`.
    Sockets(OfferedSockets),
    /// Predecessor: the keys of a listener's tickets.
    TicketKeys {
        listener: String,
        keys: PassedKeys,
    },
    /// Predecessor: the socket of this very conversation, for the successor's successor.
    Door,
    Complete,
    /// Successor: it accepts on the sockets of these ids.
    Taken {
        ids: Vec<u32>,
    },
    /// Predecessor: it accepts on them no more.
    Yielded,
    /// Predecessor: nothing comes of it, and it goes on; why.
    Withdrawn {
        words: String,
    },
}

/// Who speaks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Introduction {
    pub(super) protocol: u32,
    pub(super) version: String,
    pub(super) pid: u32,
}

impl Introduction {
    pub(super) fn own() -> Self {
        Self {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OfferedSockets {
    pub(super) id: u32,
    /// The listener's name.
    pub(super) listener: String,
    /// The address as the configuration has it: its port may be 0.
    pub(super) bind: String,
    /// The file of a unix socket is the service manager's, and stays.
    pub(super) keeps_file: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_a_later_process_may_have_more_fields() {
        let text = r#"{"ask":{"protocol":2,"version":"9.0.0","pid":7,"mood":"good"}}"#;
        let Message::Ask(introduction) = serde_json::from_str(text).unwrap() else {
            panic!("another message");
        };
        assert_eq!((introduction.protocol, introduction.pid), (2, 7));
    }

    /// The words are what processes of different versions agree on: they must not change.
    #[test]
    fn messages_are_written_as_protocol_1_has_them() {
        let written = |message: &Message| serde_json::to_string(message).unwrap();
        assert_eq!(written(&Message::Door), r#""door""#);
        assert_eq!(written(&Message::Complete), r#""complete""#);
        assert_eq!(written(&Message::Yielded), r#""yielded""#);
        let taken = Message::Taken { ids: vec![0, 2] };
        assert_eq!(written(&taken), r#"{"taken":{"ids":[0,2]}}"#);
        let sockets = Message::Sockets(OfferedSockets {
            id: 0,
            listener: "a".to_owned(),
            bind: "[::]:443".to_owned(),
            keeps_file: false,
        });
        assert_eq!(
            written(&sockets),
            r#"{"sockets":{"id":0,"listener":"a","bind":"[::]:443","keeps_file":false}}"#
        );
        let withdrawn = Message::Withdrawn {
            words: "no".to_owned(),
        };
        assert_eq!(written(&withdrawn), r#"{"withdrawn":{"words":"no"}}"#);
    }
}
