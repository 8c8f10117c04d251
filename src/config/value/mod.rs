//! The forms that a value of the file may have, each with its refusal and cure.

mod address;
mod cidr;
mod cipher;
mod cpus;
mod duration;
mod identity;
mod name;
mod protocol;
mod service;
mod size;
mod template;

pub(super) use address::{bind_address, name_server, server_address};
pub(crate) use cidr::cidr;
pub(super) use cipher::{cipher_name, cipher_suite, is_tls13, split_ciphers};
pub(super) use cpus::cpu_list;
pub(crate) use duration::{duration, show_duration};
pub(super) use identity::identity_pattern;
pub(super) use name::{host_name, name_pattern, tls_server_name};
pub(super) use protocol::{Protocol, alpn_protocol, group, group_name, protocol};
pub(super) use size::{show_size, size};
pub(super) use template::{log_field, template};

/// Why a value is not taken, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    pub(crate) cure: String,
}

impl Refusal {
    fn new(message: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            cure: cure.into(),
        }
    }
}
