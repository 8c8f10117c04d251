//! Where the process is operated from.

use std::path::Path;

use toml::Spanned;

use crate::config::defaults;
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{AdminFile, Table, Text, Texts};
use crate::config::plan::{AdminPlan, BindAddress, Located, Place};
use crate::config::value::{Refusal, bind_address};

use super::scope::{Desk, Scope, array, quoted, shown};

/// More would be a slip: it is one small server.
const LISTEN_MAX: usize = 8;

/// The largest permissions that mean something for a socket.
const MODE_MAX: u32 = 0o777;

pub(super) fn admin(
    desk: &mut Desk<'_>,
    file: Option<Spanned<Table<AdminFile>>>,
) -> Option<AdminPlan> {
    let file = file?;
    let table = file.span();
    let file = file.into_inner().0;
    let scope = &mut desk.scope("admin", table);
    Some(AdminPlan {
        listen: listen(scope, &file.listen),
        mode: mode(scope, &file.mode),
    })
}

fn listen(scope: &mut Scope<'_, '_>, field: &Texts) -> Vec<Located<BindAddress>> {
    let defaults::Optional { key, why } = defaults::ADMIN_LISTEN;
    let Some(field) = field else {
        let default = format!("unix:{}", defaults::ADMIN_SOCKET);
        scope.note_default(key, array([default.as_str()]), why);
        return vec![Located {
            value: BindAddress::Unix(Path::new(defaults::ADMIN_SOCKET).to_owned()),
            place: Place::default(),
        }];
    };
    scope.note(key, shown(field), &field.span());
    let base = scope.base();
    let listen = scope.list(key, field, |text| bind_address(text, &base));
    if let Some(extra) = listen.get(LISTEN_MAX) {
        scope.push(
            Diagnostic::error(format!("`{key}` has more than {LISTEN_MAX} addresses"))
                .at_place(&extra.place)
                .cure("keep those that somebody asks"),
        );
    }
    for it in &listen {
        warn_if_open(scope, it);
    }
    listen
}

/// Nothing on a port asks who is there, nor hides what it says.
fn warn_if_open(scope: &mut Scope<'_, '_>, it: &Located<BindAddress>) {
    let BindAddress::Tcp(address) = it.value else {
        return;
    };
    if !address.ip().is_loopback() {
        scope.push(
            Diagnostic::warning(format!(
                "whoever reaches `{address}` reads clients' addresses and the configuration, without \
                 a password and without TLS"
            ))
            .at_place(&it.place)
            .cure(
                "listen on \"127.0.0.1\" or a unix socket, or see that a firewall lets in only \
                 who collects metrics",
            ),
        );
    }
}

/// As chmod(1) takes it, in quotes: TOML would read `0660` as a slip and `660` as a decimal number.
fn mode(scope: &mut Scope<'_, '_>, field: &Text) -> u32 {
    let defaults::Optional { key, why } = defaults::ADMIN_MODE;
    let show = |mode: u32| quoted(&format!("{mode:04o}"));
    let Some(text) = field else {
        scope.note_default(key, show(defaults::ADMIN_MODE_DEFAULT), why);
        return defaults::ADMIN_MODE_DEFAULT;
    };
    let digits = text.get_ref().bytes().all(|it| it.is_ascii_digit());
    let mode = u32::from_str_radix(text.get_ref(), 8).ok();
    match mode.filter(|mode| digits && *mode <= MODE_MAX) {
        Some(mode) => {
            scope.note(key, show(mode), &text.span());
            mode
        }
        None => {
            let refusal = Refusal {
                message: format!("`{key}` cannot be {}", quoted(text.get_ref())),
                cure: "write permissions as chmod takes them, in octal: \"0660\" for owner and \
                       group, \"0600\" for the owner alone"
                    .to_owned(),
            };
            scope.refuse(refusal, text.span());
            defaults::ADMIN_MODE_DEFAULT
        }
    }
}
