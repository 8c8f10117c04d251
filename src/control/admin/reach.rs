use std::collections::VecDeque;
use std::process;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Board;
use super::answer::Answer;
use crate::control::Started;
use crate::control::reload::Reloaded;
use crate::worker::{Letter, Reply};

/// Commands that may wait: each belongs to a connection of the admin server, and those are few.
const COMMANDS_MAX: usize = 64;

/// The supervisor answers at once, but while it switches from one state to another.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// A core reads its letters within a turn of its ring: milliseconds, under whatever load.
const CORES_WAIT_MAX: Duration = Duration::from_secs(2);

/// What is asked of the supervisor, which takes it up between signals and workers' ends.
pub(in crate::control) enum Command {
    /// Looks at what the supervisor has, and answers by itself.
    Look(Box<dyn FnOnce(&mut Started) + Send>),
    /// What SIGTERM asks for.
    Drain,
    /// What SIGHUP asks for, and what came of it.
    Reload(oneshot::Sender<Result<Reloaded, String>>),
}

/// The supervisor's end.
pub(in crate::control) struct Commands {
    received: mpsc::Receiver<Command>,
    /// Asked for while something else could not be left.
    postponed: VecDeque<Command>,
}

impl Commands {
    /// `None`: nobody can ask any more.
    pub(in crate::control) async fn next(&mut self) -> Option<Command> {
        match self.postponed.pop_front() {
            Some(command) => Some(command),
            None => self.received.recv().await,
        }
    }

    /// The next commands will be these.
    pub(in crate::control) fn put_back(&mut self, commands: impl IntoIterator<Item = Command>) {
        self.postponed.extend(commands);
    }
}

/// What routes may ask of the process.
#[derive(Clone)]
pub(in crate::control) struct Reach {
    commands: mpsc::Sender<Command>,
    /// By which every core is spoken to.
    pub(super) board: Board,
    began: Instant,
    /// The process that has taken over from this one.
    successor: Arc<OnceLock<u32>>,
}

/// Both ends: what routes have, and what the supervisor listens to.
pub(in crate::control) fn reach(board: &Board) -> (Reach, Commands) {
    let (sender, received) = mpsc::channel(COMMANDS_MAX);
    let reach = Reach {
        commands: sender,
        board: board.clone(),
        began: Instant::now(),
        successor: Arc::default(),
    };
    let commands = Commands {
        received,
        postponed: VecDeque::new(),
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

    /// Asks every core, and gives the answers of those that answer soon.
    pub(super) async fn ask_cores<T: Send + 'static>(
        &self,
        letter: impl Fn(Reply<T>) -> Letter,
    ) -> Vec<T> {
        // At most one answer of each core; sending never waits.
        let (sender, mut answers) = mpsc::unbounded_channel();
        let reply = Reply::new(move |answer| {
            let _ = sender.send(answer);
        });
        let asked = self.board.post_all(|_| letter(reply.clone()));
        let mut all = Vec::with_capacity(asked);
        let collect = async {
            while all.len() < asked
                && let Some(answer) = answers.recv().await
            {
                all.push(answer);
            }
        };
        // A core that is too busy is left out: who asks sees who has answered.
        let _ = timeout(CORES_WAIT_MAX, collect).await;
        all
    }

    /// Another process has taken over: what is to change has to change there.
    pub(in crate::control) fn yield_to(&self, pid: u32) {
        // Nobody takes over twice.
        let _ = self.successor.set(pid);
    }

    /// # Errors
    /// The answer to whoever would change something, where another process has taken over.
    pub(super) fn in_charge(&self) -> Result<(), Answer> {
        self.successor.get().map_or(Ok(()), |pid| {
            Err(Answer::refused(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("process {pid} has taken over, and this one drains"),
                &format!(
                    "ask again: process {pid} answers as soon as its admin server is there; SIGTERM \
                     closes what this one, process {}, still has",
                    process::id()
                ),
            ))
        })
    }

    pub(super) fn uptime(&self) -> Duration {
        self.began.elapsed()
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
