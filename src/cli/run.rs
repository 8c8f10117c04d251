use std::panic::PanicHookInfo;
use std::path::Path;
use std::process::ExitCode;

use super::{EXIT_INTERNAL, EXIT_REFUSED, EXIT_SYSTEM, report};
use crate::config;
use crate::control::{Enclosure, Options, StartError, Started, examine, start};
use crate::observe::events;
use crate::sys::take_activated;

/// `ringway run FILE`: everything that `check` says, then the proxy until a signal ends it.
#[must_use]
pub(super) fn run(path: &Path, mut options: Options) -> ExitCode {
    // First, while there is one thread, and before a descriptor of ours could have their numbers.
    let activated = take_activated();
    let examined = examine(config::load(path));
    report(&examined.loaded);
    let Some(checked) = examined.checked(path) else {
        return ExitCode::from(EXIT_REFUSED);
    };
    let (_events, held) = events::hold();
    std::panic::set_hook(Box::new(on_panic));
    match activated {
        Ok(activated) => options.activated = activated,
        Err(words) => return refuse(&StartError::System(words)),
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            options.enclosure = Some(Enclosure {
                file: path.to_owned(),
                events: held,
            });
            let started = start(checked, options).await;
            serve(started).await
        }),
        Err(error) => refuse(&StartError::System(error.to_string())),
    }
}

async fn serve(started: Result<Started, StartError>) -> ExitCode {
    let started = match started {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ringway_support::toml::front_to_back;
    use ringway_support::{DEADLINE, Peer};
    use tokio::time::timeout;

    use super::*;
    use crate::control::start_with;
    use crate::worker::{Assignment, Shared};

    #[test]
    fn a_worker_that_keeps_dying_ends_the_process_with_70() {
        let nobody = Peer::plain();
        let text = "[runtime]\nworkers = 1\n[log]\naccess = \"off\"\n".to_owned()
            + &front_to_back("", "", nobody.address());
        let plan = config::parse("x.toml", text).into_plan().unwrap();
        let body = |_: Arc<Shared>, assignment: Assignment| {
            (assignment.on_ready)();
            Err("a defect, on purpose".to_owned())
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let exit = runtime.unwrap().block_on(async {
            let started = start_with(plan, Options::default(), Arc::new(body)).await;
            timeout(DEADLINE, serve(started)).await
        });
        assert_eq!(exit, Ok(ExitCode::from(70)));
    }
}
