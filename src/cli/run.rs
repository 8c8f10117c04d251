use std::io::{self, Write as _};
use std::panic::PanicHookInfo;
use std::path::Path;
use std::process::ExitCode;

use super::{EXIT_DONE, EXIT_INTERNAL, EXIT_REFUSED, EXIT_SYSTEM, report};
use crate::config;
use crate::control::{Enclosure, Options, StartError, Started, examine, start};
use crate::observe::events;
use crate::sys::{Activated, Herald, Split, go_to_background, take_activated};

/// `ringway run FILE`: everything that `check` says, then the proxy until a signal ends it.
#[must_use]
pub(super) fn run(path: &Path, options: Options, background: bool) -> ExitCode {
    // First, while there is one thread, and before a descriptor of ours could have their numbers.
    let activated = take_activated();
    let mut herald = Herald::default();
    if background {
        match go_to_background() {
            Ok(Split::Foreground(code)) => return ExitCode::from(code.unwrap_or(EXIT_INTERNAL)),
            Ok(Split::Background(it)) => herald = it,
            Err(error) => {
                let _ = writeln!(io::stderr(), "ringway: not in the background: {error}");
                return ExitCode::from(EXIT_SYSTEM);
            }
        }
    }
    let code = proxy(path, (options, activated), &mut herald);
    herald.tell(code);
    ExitCode::from(code)
}

/// The exit code.
fn proxy(
    path: &Path,
    (mut options, activated): (Options, Result<Vec<Activated>, String>),
    herald: &mut Herald,
) -> u8 {
    let examined = examine(config::load(path));
    report(&examined.loaded);
    let Some(checked) = examined.checked(path) else {
        return EXIT_REFUSED;
    };
    let (_events, held) = events::hold();
    std::panic::set_hook(Box::new(on_panic));
    match activated {
        Ok(activated) => options.activated = activated,
        Err(words) => return refusal(&StartError::System(words)),
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
            serve(started, herald).await
        }),
        Err(error) => refusal(&StartError::System(error.to_string())),
    }
}

async fn serve(started: Result<Started, StartError>, herald: &mut Herald) -> u8 {
    let started = match started {
        Ok(started) => started,
        Err(error) => return refusal(&error),
    };
    tracing::info!("ringway is ready");
    herald.tell(EXIT_DONE);
    match started.run(std::future::pending()).await {
        Ok(()) => EXIT_DONE,
        Err(words) => {
            tracing::error!("{words}");
            EXIT_INTERNAL
        }
    }
}

pub(super) fn refuse(error: &StartError) -> ExitCode {
    ExitCode::from(refusal(error))
}

fn refusal(error: &StartError) -> u8 {
    tracing::error!("{error}");
    match error {
        StartError::System(_) => EXIT_SYSTEM,
        StartError::Material(_) => EXIT_REFUSED,
    }
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
            timeout(DEADLINE, serve(started, &mut Herald::default())).await
        });
        assert_eq!(exit, Ok(70));
    }
}
