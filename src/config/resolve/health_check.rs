//! The table of a group's active health checks.

use std::time::Duration;

use toml::Spanned;

use crate::config::defaults::{self, Optional};
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{CheckFile, Table, Text, Whole};
use crate::config::keys;
use crate::config::plan::{CheckKind, CheckPlan, ServerAddress, ServerPlan};
use crate::config::value::Refusal;

use super::scope::{Scope, quoted};

/// Of a group with these servers, and with TLS or without.
pub(super) fn check(
    scope: &mut Scope<'_, '_>,
    file: Option<Spanned<Table<CheckFile>>>,
    servers: &[ServerPlan],
    has_tls: bool,
) -> Option<CheckPlan> {
    let Some(file) = file else {
        if !scope.lost("check") {
            scope.note_default("check", "none", defaults::CHECK_WHY);
        }
        return None;
    };
    let table = file.span();
    let file = file.into_inner().0;
    let scope = &mut scope.inner("check", table);
    let plan = CheckPlan {
        kind: kind(scope, &file.kind, has_tls),
        port: port(scope, &file.port, servers),
        send: bytes(scope, &file.send, &defaults::CHECK_SEND),
        expect: bytes(scope, &file.expect, &defaults::CHECK_EXPECT),
        interval: scope.duration(&file.interval, &defaults::CHECK_INTERVAL),
        timeout: scope.duration(&file.timeout, &defaults::CHECK_TIMEOUT),
        rise: scope.count(&file.rise, &defaults::CHECK_RISE),
        fall: scope.count(&file.fall, &defaults::CHECK_FALL),
    };
    someone_listens_for_the_answer(scope, &file);
    plain_words_to_tls(scope, &file, &plan, has_tls);
    Some(plan)
}

const KINDS: [(&str, CheckKind); 2] = [("tcp", CheckKind::Tcp), ("tls", CheckKind::Tls)];

fn kind(scope: &mut Scope<'_, '_>, field: &Text, has_tls: bool) -> CheckKind {
    let (default, why) = match has_tls {
        true => (CheckKind::Tls, defaults::CHECK_KIND_TLS_WHY),
        false => (CheckKind::Tcp, defaults::CHECK_KIND_TCP_WHY),
    };
    let Some(text) = field else {
        scope.note_default("type", quoted(default.name()), why);
        return default;
    };
    let word = text.get_ref();
    let Some((_, kind)) = KINDS.iter().find(|(known, _)| known == word) else {
        let cure = match keys::nearest(word, KINDS.iter().map(|(word, _)| *word)) {
            Some(near) => format!("did you mean {}?", quoted(near)),
            None => "choose one of \"tcp\", \"tls\"".to_owned(),
        };
        let message = format!("`type` cannot be {}", quoted(word));
        scope.refuse(Refusal { message, cure }, text.span());
        return default;
    };
    scope.note("type", quoted(kind.name()), &text.span());
    if *kind == CheckKind::Tls && !has_tls {
        let refusal = Refusal {
            message:
                "a check by TLS needs to know whom to trust, and this upstream has no tls table"
                    .to_owned(),
            cure: "add [upstream.X.tls], or write `type = \"tcp\"`".to_owned(),
        };
        scope.refuse(refusal, text.span());
    }
    *kind
}

fn port(scope: &mut Scope<'_, '_>, field: &Whole, servers: &[ServerPlan]) -> Option<u16> {
    let optional = &defaults::CHECK_PORT;
    let Some(number) = field else {
        scope.note_none(optional);
        return None;
    };
    let Some(port) = u16::try_from(*number.get_ref()).ok().filter(|it| *it > 0) else {
        let refusal = Refusal {
            message: format!("`port` cannot be {}", number.get_ref()),
            cure: "write a port from 1 to 65535; without it, each server's own is asked".to_owned(),
        };
        scope.refuse(refusal, number.span());
        return None;
    };
    scope.note(optional.key, port.to_string(), &number.span());
    let is_unix = |it: &&ServerPlan| matches!(it.address.value, ServerAddress::Unix(_));
    if let Some(server) = servers.iter().find(is_unix) {
        let refusal = Refusal {
            message: format!("`{}` has no port to check", server.address.value),
            cure: "take the line with `port` out, or put the unix sockets in a group of their own"
                .to_owned(),
        };
        scope.refuse(refusal, number.span());
    }
    Some(port)
}

fn bytes(scope: &mut Scope<'_, '_>, field: &Text, optional: &Optional) -> Vec<u8> {
    let Some(text) = field else {
        scope.note_none(optional);
        return Vec::new();
    };
    let max = defaults::CHECK_BYTES_MAX;
    let (key, words) = (optional.key, text.get_ref());
    if words.is_empty() || words.len() > max {
        let refusal = Refusal {
            message: format!("`{key}` has {} bytes", words.len()),
            cure: format!("write 1 to {max} bytes, or take the line with `{key}` out"),
        };
        scope.refuse(refusal, text.span());
        return Vec::new();
    }
    scope.note(key, quoted(words), &text.span());
    words.as_bytes().to_vec()
}

/// What is sent proves nothing while nobody looks at the answer.
fn someone_listens_for_the_answer(scope: &mut Scope<'_, '_>, file: &CheckFile) {
    if let (Some(send), None, false) = (&file.send, &file.expect, scope.lost("expect")) {
        let refusal = Refusal {
            message: "`send` stands without `expect`: nobody would look at the answer".to_owned(),
            cure: "write what the server shall answer, such as `expect = \"+PONG\"`, or take the line out".to_owned(),
        };
        scope.refuse(refusal, send.span());
    }
}

fn plain_words_to_tls(
    scope: &mut Scope<'_, '_>,
    file: &CheckFile,
    plan: &CheckPlan,
    has_tls: bool,
) {
    let speaks = file.send.as_ref().or(file.expect.as_ref());
    if let (Some(text), true, CheckKind::Tcp, None) = (speaks, has_tls, plan.kind, plan.port) {
        scope.push(
            Diagnostic::warning("the servers speak TLS on this port, and the check speaks without")
                .at(text.span())
                .cure("write `type = \"tls\"`, or the `port` that answers without TLS"),
        );
    }
    let slow = plan.interval < Duration::from_millis(500) && plan.kind == CheckKind::Tls;
    if let (Some(text), true) = (&file.interval, slow) {
        scope.push(
            Diagnostic::warning(
                "each check is a full TLS handshake, several a second to each server",
            )
            .at(text.span())
            .cure("write a longer `interval`: \"2s\" is the default"),
        );
    }
}
