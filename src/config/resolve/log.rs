use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;

use crate::config::defaults;
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{LogFile, Table, Text};
use crate::config::keys::nearest;
use crate::config::plan::{AccessLog, LogFormat, LogPlan, Piece, SyslogPlan};
use crate::config::value::{Refusal, log_field, template};
use crate::types::{LogField, log_fields};

use super::runtime::opened;
use super::scope::{Desk, Scope, path, quoted, shown};

/// Where the C library's syslog(3) sends messages, and systemd's journald takes its own.
const SYSLOG_SOCKET: &str = "/dev/log";
const JOURNALD_SOCKET: &str = "/run/systemd/journal/socket";

pub(super) fn log(desk: &mut Desk<'_>, file: Option<Spanned<Table<LogFile>>>) -> LogPlan {
    let (file, table) = opened(file);
    let scope = &mut desk.scope("log", table);
    let errors_before = scope.errors();
    let plan = LogPlan {
        access: access(scope, &file.access),
        format: format(scope, &file.format),
        fields: fields(scope, &file),
        sample: scope.count(&file.sample, &defaults::SAMPLE),
        syslog: syslog(scope, &file),
        queue_max: scope.count(&file.queue, &defaults::QUEUE),
        refused_max: scope.count(&file.refused, &defaults::REFUSED),
    };
    // What is refused may have been meant to go with the rest.
    if scope.errors() == errors_before {
        warn_idle(scope, &file, &plan);
        warn_sample_untold(scope, &file, &plan);
    }
    plan
}

fn access(scope: &mut Scope<'_, '_>, field: &Text) -> AccessLog {
    let Some(text) = field else {
        scope.note_default("access", quoted("stderr"), defaults::ACCESS_WHY);
        return AccessLog::Stderr;
    };
    match destination(scope, text) {
        Ok(known) => {
            scope.note("access", quoted(text.get_ref()), &text.span());
            known
        }
        Err(refusal) => {
            scope.refuse(refusal, text.span());
            AccessLog::Stderr
        }
    }
}

fn destination(scope: &Scope<'_, '_>, text: &Spanned<String>) -> Result<AccessLog, Refusal> {
    const WORDS: [&str; 4] = ["stderr", "off", "syslog", "journald"];
    let word = text.get_ref().as_str();
    let socket = |rest: &str, default: &str| match rest.strip_prefix(':') {
        None => Ok(PathBuf::from(default)),
        Some(own) => path(own, &scope.base()),
    };
    if let Some(rest) = after(word, "syslog") {
        return socket(rest, SYSLOG_SOCKET).map(AccessLog::Syslog);
    }
    if let Some(rest) = after(word, "journald") {
        return socket(rest, JOURNALD_SOCKET).map(AccessLog::Journald);
    }
    let slip = nearest(word, WORDS).filter(|_| !word.contains(['/', '.']));
    match word {
        "stderr" => Ok(AccessLog::Stderr),
        "off" => Ok(AccessLog::Off),
        "stdout" => Err(Refusal {
            message: "the access log does not go to stdout".to_owned(),
            cure: "write \"stderr\", \"off\" or a file's path; \"/dev/stdout\" is one".to_owned(),
        }),
        _ if slip.is_some() => Err(Refusal {
            message: format!("`access` cannot be {}", quoted(word)),
            cure: format!(
                "did you mean {}? A file of that name is {}",
                quoted(slip.unwrap_or_default()),
                quoted(&format!("./{word}"))
            ),
        }),
        _ => path(word, &scope.base()).map(AccessLog::File),
    }
}

/// What follows the word: nothing, or a colon and more.
fn after<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let rest = text.strip_prefix(word)?;
    (rest.is_empty() || rest.starts_with(':')).then_some(rest)
}

fn format(scope: &mut Scope<'_, '_>, field: &Text) -> LogFormat {
    let words = defaults::FORMAT.words;
    match field {
        Some(text) if text.get_ref().contains('$') => of_template(scope, text),
        Some(text) if words.iter().all(|(word, _)| word != text.get_ref()) => {
            let cure = match nearest(text.get_ref(), words.iter().map(|(word, _)| *word)) {
                Some(near) => format!("did you mean {}?", quoted(near)),
                None => "write \"json\", \"logfmt\" or a template with fields, such as \"$client [$time] $listener $end\"".to_owned(),
            };
            let message = format!("`format` cannot be {}", quoted(text.get_ref()));
            scope.refuse(Refusal { message, cure }, text.span());
            LogFormat::Json
        }
        _ => scope.word(field, &defaults::FORMAT),
    }
}

fn of_template(scope: &mut Scope<'_, '_>, text: &Spanned<String>) -> LogFormat {
    match template(text.get_ref()) {
        Ok(pieces) => {
            scope.note("format", quoted(text.get_ref()), &text.span());
            LogFormat::Template(pieces)
        }
        Err(faults) => {
            for (part, refusal) in faults {
                let place = scope.place_in(text, part);
                scope.refuse(refusal, place);
            }
            LogFormat::Json
        }
    }
}

fn fields(scope: &mut Scope<'_, '_>, file: &LogFile) -> Vec<LogField> {
    let Some(field) = &file.fields else {
        scope.note_default("fields", "none", defaults::FIELDS_WHY);
        return LogField::all().collect();
    };
    scope.note("fields", shown(field), &field.span());
    let chosen = scope.list("fields", field, log_field);
    chosen.into_iter().map(|field| field.value).collect()
}

fn syslog(scope: &mut Scope<'_, '_>, file: &LogFile) -> SyslogPlan {
    SyslogPlan {
        facility: scope.word(&file.facility, &defaults::FACILITY),
        tag: tag(scope, &file.tag),
    }
}

fn tag(scope: &mut Scope<'_, '_>, field: &Text) -> String {
    let Some(text) = field else {
        scope.note_default("tag", quoted(defaults::TAG), defaults::TAG_WHY);
        return defaults::TAG.to_owned();
    };
    let tag = text.get_ref();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if tag.is_empty() || tag.len() > defaults::TAG_BYTES_MAX || !tag.bytes().all(fits) {
        let refusal = Refusal {
            message: format!("`tag` cannot be {}", quoted(tag)),
            cure: format!(
                "write up to {} letters, digits, `-`, `_` and `.`",
                defaults::TAG_BYTES_MAX
            ),
        };
        scope.refuse(refusal, text.span());
    }
    scope.note("tag", quoted(tag), &text.span());
    tag.clone()
}

fn warn_idle(scope: &mut Scope<'_, '_>, file: &LogFile, plan: &LogPlan) {
    let to_daemon = matches!(plan.access, AccessLog::Syslog(_) | AccessLog::Journald(_));
    let of_template = matches!(plan.format, LogFormat::Template(_));
    let as_fields = matches!(plan.access, AccessLog::Journald(_));
    let span = |text: &Text| text.as_ref().map(Spanned::span);
    let no_daemon = "`access` is neither \"syslog\" nor \"journald\"";
    let keys: [(&str, Option<Range<usize>>, bool, &str); 3] = [
        ("facility", span(&file.facility), !to_daemon, no_daemon),
        ("tag", span(&file.tag), !to_daemon, no_daemon),
        (
            "fields",
            file.fields.as_ref().map(Spanned::span),
            of_template && !as_fields,
            "`format` is a template, which names its own",
        ),
    ];
    for (key, span, idle, why) in keys {
        if let Some(span) = span.filter(|_| idle) {
            scope.push(
                Diagnostic::warning(format!("`{key}` has no effect: {why}"))
                    .at(span)
                    .cure("take the line out, or turn on what it is for"),
            );
        }
    }
}

/// Who counts lines has to know for how many connections each stands.
fn warn_sample_untold(scope: &mut Scope<'_, '_>, file: &LogFile, plan: &LogPlan) {
    let is_it = |field: &LogField| field.name() == log_fields::SAMPLED;
    let told = match &plan.format {
        LogFormat::Json | LogFormat::Logfmt => plan.fields.iter().any(is_it),
        LogFormat::Template(pieces) => pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Field { field, .. } if is_it(field))),
    };
    if let Some(sample) = file.sample.as_ref().filter(|_| plan.sample > 1 && !told) {
        scope.push(
            Diagnostic::warning(
                "with `sample` a line stands for many connections, and these lines do not say so",
            )
            .at(sample.span())
            .cure(format!("add the field `{}`", log_fields::SAMPLED)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(keys: &str) -> LogPlan {
        let text = format!(
            "[log]\n{keys}\n[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n\
             [upstream.b]\nservers = [\"127.0.0.1:1\"]\n"
        );
        let loaded = crate::config::parse("/etc/ringway/x.toml", text);
        loaded.into_plan().unwrap().log
    }

    #[test]
    fn a_daemon_has_its_usual_socket_or_the_one_that_is_named() {
        for (word, expected) in [
            ("syslog", AccessLog::Syslog("/dev/log".into())),
            ("syslog:/run/log", AccessLog::Syslog("/run/log".into())),
            ("syslog:log", AccessLog::Syslog("/etc/ringway/log".into())),
            (
                "journald",
                AccessLog::Journald("/run/systemd/journal/socket".into()),
            ),
            ("journald:/j", AccessLog::Journald("/j".into())),
            (
                "./journal",
                AccessLog::File("/etc/ringway/./journal".into()),
            ),
            ("/var/syslog", AccessLog::File("/var/syslog".into())),
            (
                "syslogs.txt",
                AccessLog::File("/etc/ringway/syslogs.txt".into()),
            ),
        ] {
            assert_eq!(plan(&format!("access = \"{word}\"")).access, expected);
        }
    }

    #[test]
    fn without_fields_a_line_has_all_of_them() {
        assert_eq!(plan("").fields.len(), LogField::COUNT);
        let chosen = plan("fields = [\"end\", \"time\"]").fields;
        let names: Vec<_> = chosen.into_iter().map(LogField::name).collect();
        assert_eq!(names, ["end", "time"]);
    }
}
