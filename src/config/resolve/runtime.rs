use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;

use crate::config::defaults;
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{RuntimeFile, Table, Text, TextOrWhole};
use crate::config::plan::{BindAddress, RuntimePlan, Workers};
use crate::config::value::{Refusal, bind_address, cpu_list};

use super::names::name_servers;
use super::sandbox::account;
use super::scope::{Desk, Scope, quoted};

pub(super) fn runtime(
    desk: &mut Desk<'_>,
    file: Option<Spanned<Table<RuntimeFile>>>,
) -> RuntimePlan {
    let (file, table) = opened(file);
    let scope = &mut desk.scope("runtime", table);
    RuntimePlan {
        workers: workers(scope, &file),
        drain_timeout: scope.duration(&file.drain_timeout, &defaults::DRAIN_TIMEOUT),
        handshakes_max: scope.count(&file.max_handshakes, &defaults::MAX_HANDSHAKES),
        accept_batch: scope.count(&file.accept_batch, &defaults::ACCEPT_BATCH),
        pipes_max: scope.count(&file.pipes, &defaults::PIPES),
        resolver: name_servers(scope, &file.resolver),
        watch: scope.switch(&file.watch, &defaults::WATCH),
        takeover: takeover(scope, &file.takeover),
        account: account(scope, &file),
    }
}

/// Descriptors pass between processes of one machine alone: a unix socket.
fn takeover(scope: &mut Scope<'_, '_>, field: &Text) -> Option<PathBuf> {
    let Some(text) = field else {
        scope.note_none(&defaults::TAKEOVER);
        return None;
    };
    let refusal = match bind_address(text.get_ref(), &scope.base()) {
        Ok(BindAddress::Unix(path)) => {
            scope.note(defaults::TAKEOVER.key, quoted(text.get_ref()), &text.span());
            return Some(path);
        }
        Ok(BindAddress::Tcp(_)) => Refusal {
            message: "sockets are taken over by way of a unix socket".to_owned(),
            cure: "write a path, such as \"unix:/run/ringway/takeover.sock\"".to_owned(),
        },
        Err(refusal) => refusal,
    };
    scope.refuse(refusal, text.span());
    None
}

pub(super) fn opened<T: Default>(file: Option<Spanned<Table<T>>>) -> (T, Range<usize>) {
    match file {
        Some(file) => {
            let table = file.span();
            (file.into_inner().0, table)
        }
        None => (T::default(), 0..0),
    }
}

fn workers(scope: &mut Scope<'_, '_>, file: &RuntimeFile) -> Workers {
    match (&file.workers, &file.cpus) {
        (Some(_), Some(cpus)) => {
            scope.push(
                Diagnostic::error("`cpus` and `workers` both say how many workers there are")
                    .at(cpus.span())
                    .cure("keep `cpus` to choose the CPUs, or `workers` for a number alone"),
            );
            Workers::Auto
        }
        (None, Some(cpus)) => match cpu_list(cpus.get_ref()) {
            Ok(list) => {
                scope.note("cpus", quoted(cpus.get_ref()), &cpus.span());
                Workers::Cpus(list)
            }
            Err(refusal) => {
                scope.refuse(refusal, cpus.span());
                Workers::Auto
            }
        },
        (Some(workers), None) => counted(scope, workers),
        (None, None) => {
            scope.note_default("workers", quoted("auto"), defaults::WORKERS_WHY);
            Workers::Auto
        }
    }
}

fn counted(scope: &mut Scope<'_, '_>, workers: &Spanned<TextOrWhole>) -> Workers {
    match workers.get_ref() {
        TextOrWhole::Whole(number) => match usize::try_from(*number) {
            Ok(count) if (1..=defaults::WORKERS_MAX).contains(&count) => {
                scope.note("workers", count.to_string(), &workers.span());
                Workers::Count(count)
            }
            _ => {
                let refusal = Refusal {
                    message: format!("there cannot be {number} workers"),
                    cure: format!(
                        "write a number from 1 to {}, or \"auto\" for one on each CPU",
                        defaults::WORKERS_MAX
                    ),
                };
                scope.refuse(refusal, workers.span());
                Workers::Auto
            }
        },
        TextOrWhole::Text(text) if text == "auto" => {
            scope.note("workers", quoted("auto"), &workers.span());
            Workers::Auto
        }
        TextOrWhole::Text(text) => {
            let refusal = Refusal {
                message: format!("`workers` cannot be {}", quoted(text)),
                cure: "write \"auto\" or a number without quotes; for a list of CPUs use `cpus`"
                    .to_owned(),
            };
            scope.refuse(refusal, workers.span());
            Workers::Auto
        }
    }
}
