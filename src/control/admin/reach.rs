use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Board;
use super::answer::Answer;
use crate::control::Started;
use crate::control::reload::Reloaded;

/// Commands that may wait: each belongs to a connection of the admin server, and those are few.
const COMMANDS_MAX: usize = 64;

/// The supervisor answers at once, but while it switches from one state to another.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// What is asked of the supervisor, which takes it up between signals and workers' ends.
pub(in crate::control) enum Command {
    /// Looks at what the supervisor has, and answers by itself.
    Look(Box<dyn FnOnce(&mut Started) + Send>),
    /// What SIGTERM asks for.
    Drain,
    /// What SIGHUP asks for, and what came of it.
    Reload(oneshot::Sender<Result<Reloaded, String>>),
}

pub(in crate::control) type Commands = mpsc::Receiver<Command>;

/// What routes may ask of the process.
#[derive(Clone)]
pub(in crate::control) struct Reach {
    commands: mpsc::Sender<Command>,
    #[expect(dead_code, reason = "for routes that are to come")]
    /// By which every core is spoken to.
    pub(super) board: Board,
}

/// Both ends: what routes have, and what the supervisor listens to.
pub(in crate::control) fn reach(board: &Board) -> (Reach, Commands) {
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let reach = Reach {
        commands: sender,
        board: board.clone(),
    };
    (reach, commands)
}

impl Reach {
    /// Runs on the supervisor, which has the plan, the sockets and the workers.
    ///
    /// # Errors
    /// The answer to give when the supervisor does not answer.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Started) -> T + Send + 'static,
    ) -> Result<T, Answer> {
        let (reply, answer) = oneshot::channel();
        let look = move |started: &mut Started| {
            // Who asked may have left.
            let _ = reply.send(look(started));
        };
        self.command(Command::Look(Box::new(look))).await?;
        match timeout(ANSWER_WAIT_MAX, answer).await {
            Ok(Ok(value)) => Ok(value),
            _ => Err(Answer::busy()),
        }
    }

    /// # Errors
    /// The answer to give when the supervisor has ended.
    pub(super) async fn command(&self, command: Command) -> Result<(), Answer> {
        self.commands
            .send(command)
            .await
            .map_err(|_| Answer::busy())
    }
}
