//! Tells the service manager that all is well, as long as every core answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::board::Board;
use super::notify::Notify;

/// One question to a core.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) worker: usize,
    pub(super) answered: Arc<AtomicBool>,
}

impl Question {
    /// Not answered; and not lost with a thread that has died, which is started again.
    fn is_open(&self) -> bool {
        !self.answered.load(Ordering::Relaxed) && Arc::strong_count(&self.answered) > 1
    }
}

/// Looks at the answers, within an interval.
const LOOKS: u32 = 20;

/// Asks every core at each half of the watchdog's time, and says that all is well when all have
/// answered. Goes on for ever.
pub(super) async fn watch(board: Board, notify: Notify, time: Duration) {
    let interval = time / 2;
    let mut next = Instant::now();
    loop {
        next += interval;
        let silent = silent(board.ask_all(), next, interval / LOOKS).await;
        if silent.is_empty() {
            notify.ping();
        } else {
            tracing::error!("workers {silent:?} have not answered within {interval:?}");
        }
        sleep_until(next).await;
    }
}

/// The workers that have not answered at the end.
async fn silent(mut questions: Vec<Question>, end: Instant, look: Duration) -> Vec<usize> {
    loop {
        questions.retain(Question::is_open);
        if questions.is_empty() || Instant::now() >= end {
            return questions.iter().map(|question| question.worker).collect();
        }
        sleep(look).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::{Letter, Mailbox, mailbox};

    fn answer(mailbox: &Mailbox) {
        for letter in mailbox.received() {
            let Letter::Answer(answered) = letter else {
                panic!("nobody asked for {letter:?}");
            };
            answered.store(true, Ordering::Relaxed);
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_core_that_does_not_answer_is_named() {
        let board = Board::default();
        let mailboxes = [0, 1, 7].map(|worker| {
            let (postbox, mailbox) = mailbox().unwrap();
            board.enlist(worker, postbox);
            mailbox
        });
        let look = Duration::from_millis(1);
        let asked = |cores: &[Mailbox]| {
            let questions = board.ask_all();
            cores.iter().for_each(answer);
            block_on(silent(questions, Instant::now() + look, look))
        };
        assert_eq!(asked(&mailboxes), [] as [usize; 0]);
        assert_eq!(asked(&mailboxes[..1]), [1, 7]);
        assert_eq!(asked(&mailboxes), [] as [usize; 0], "it answers again");
    }

    #[test]
    fn a_core_whose_thread_has_ended_is_not_waited_for() {
        let board = Board::default();
        let (postbox, mailbox) = mailbox().unwrap();
        board.enlist(0, postbox);
        let questions = board.ask_all();
        drop(mailbox);
        let end = Instant::now() + Duration::from_secs(60);
        let silent = block_on(silent(questions, end, Duration::from_millis(1)));
        assert_eq!(silent, [] as [usize; 0]);
        board.strike(0);
        assert!(board.ask_all().is_empty());
    }
}
