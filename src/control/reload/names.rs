//! Names of the next plan may take seconds to be found: what the process does meanwhile.

use std::pin::pin;
use std::sync::Arc;

use crate::control::admin::Command;
use crate::control::crew::Notice;
use crate::control::outside::Names;
use crate::control::signals::Asked;
use crate::control::supervisor::Started;
use crate::worker::Shared;

impl Started {
    /// Waits for the first answers. Who only looks is answered meanwhile, and who wants a reload has
    /// one after this.
    ///
    /// # Errors
    /// The process is to end, or a worker has died, which comes first.
    pub(super) async fn names(&mut self, shared: &Arc<Shared>) -> Result<Names, String> {
        let mut names = pin!(self.outside.names(shared, &self.board));
        let (mut again, mut reloads) = (false, Vec::new());
        let found = loop {
            tokio::select! {
                names = &mut names => break Ok(names),
                asked = self.signals.next() => match asked {
                    Asked::Stop => {
                        self.signals.put_back(Asked::Stop);
                        break Err(TOLD_TO_END.to_owned());
                    }
                    Asked::Reopen => self.reopen_logs(),
                    Asked::Reload => again = true,
                },
                Some(command) = self.commands.next() => match command {
                    Command::Look(look) => look(self),
                    Command::Drain => {
                        self.commands.put_back([Command::Drain]);
                        break Err(TOLD_TO_END.to_owned());
                    }
                    reload @ Command::Reload(_) => reloads.push(reload),
                },
                Some(notice) = self.notices.recv() => match notice {
                    Notice::Ready { .. } => drop(self.on_notice(&notice)),
                    death => {
                        self.crew.postpone(death);
                        break Err("a worker died".to_owned());
                    }
                },
            }
        };
        if again {
            self.signals.put_back(Asked::Reload);
        }
        self.commands.put_back(reloads);
        found
    }
}

const TOLD_TO_END: &str = "ringway was told to end";
