//! Reloads, and what one would change.

use hyper::StatusCode;
use tokio::sync::oneshot;

use super::answer::Answer;
use super::reach::Command;
use super::routes::Asked;

/// What a reload would change: the file is read and checked, and nothing else happens.
pub(super) async fn diff(asked: Asked) -> Result<Answer, Answer> {
    let preview = asked.reach.look(|started| started.preview()).await?;
    match preview {
        Ok(changes) => Ok(Answer::json(&changes)),
        Err(words) => Err(refused(&words)),
    }
}

/// Answers when every core serves by the new configuration.
pub(super) async fn reload(asked: Asked) -> Result<Answer, Answer> {
    let (reply, answer) = oneshot::channel();
    asked.reach.command(Command::Reload(reply)).await?;
    match answer.await {
        Ok(Ok(reloaded)) => Ok(Answer::json(&reloaded)),
        Ok(Err(words)) => Err(refused(&words)),
        Err(_) => Err(Answer::busy()),
    }
}

/// `words`: those of `ringway check`.
fn refused(words: &str) -> Answer {
    let cure = "correct what it says; everything stays as it was";
    Answer::refused(StatusCode::UNPROCESSABLE_ENTITY, words.trim_end(), cure)
}
