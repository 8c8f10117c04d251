use std::panic::PanicHookInfo;
use std::path::Path;
use std::process::ExitCode;

use super::{EXIT_INTERNAL, EXIT_REFUSED, EXIT_SYSTEM, check, report};
use crate::config::{self, Plan};
use crate::control::{Options, StartError, start};
use crate::observe::events;

/// `ringway run FILE`: everything that `check` says, then the proxy until a signal ends it.
#[must_use]
pub(super) fn run(path: &Path, allow_epoll: bool) -> ExitCode {
    let loaded = check::examine(config::load(path));
    report(&loaded);
    let Some(plan) = loaded.into_plan() else {
        return ExitCode::from(EXIT_REFUSED);
    };
    let Ok(_events) = events::init() else {
        return ExitCode::from(EXIT_SYSTEM);
    };
    std::panic::set_hook(Box::new(on_panic));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(serve(plan, Options { allow_epoll })),
        Err(error) => refuse(&StartError::System(error.to_string())),
    }
}

async fn serve(plan: Plan, options: Options) -> ExitCode {
    let started = match start(plan, options).await {
        Ok(started) => started,
        Err(error) => return refuse(&error),
    };
    tracing::info!("ringway is ready");
    match started.run(std::future::pending()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            tracing::error!("{words}");
            ExitCode::from(EXIT_INTERNAL)
        }
    }
}

pub(super) fn refuse(error: &StartError) -> ExitCode {
    tracing::error!("{error}");
    ExitCode::from(match error {
        StartError::System(_) => EXIT_SYSTEM,
        StartError::Material(_) => EXIT_REFUSED,
    })
}

/// A panic is a defect, and its place is what its report needs most.
pub(super) fn on_panic(panic: &PanicHookInfo<'_>) {
    let words = panic.payload_as_str().unwrap_or("(no words)");
    let place = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    tracing::error!("panic at {place}: {words}; please report it");
}
