//! The admin server: HTTP on the control thread, for those who operate the process.
//!
//! A route is one line of [`routes`]: GET looks, POST changes. What routes may ask of the process
//! is [`Reach`]. Whoever connects to a unix socket has been let in by the file's permissions; who
//! comes by TCP is unknown, and may only look.

mod answer;
mod connections;
mod listen;
pub mod model;
mod query;
mod reach;
mod reload;
mod routes;
mod serve;
mod servers;
mod status;

use std::fmt;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::board::Board;
use crate::config::{AdminPlan, BindAddress, Located};
use listen::{Door, ListenError};

pub(super) use reach::{Command, Commands, Reach, reach};

/// Between two tries to listen where the process before this still does.
const AGAIN: Duration = Duration::from_secs(1);

/// The server at work. Dropping it closes its sockets and its connections.
#[derive(Default)]
pub(super) struct Admin {
    /// One for each unix socket.
    local: JoinSet<()>,
    /// One for each address of the network.
    network: JoinSet<()>,
}

impl Admin {
    /// Listens on all addresses of the plan. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ListenError`]; nothing is left listening.
    pub(super) fn start(plan: &AdminPlan, reach: &Reach) -> Result<Self, ListenError> {
        let open = |it: &Located<BindAddress>| Ok((it.value.clone(), Door::open(&it.value, plan)?));
        let opened: Vec<_> = plan.listen.iter().map(open).collect::<Result<_, _>>()?;
        let mut admin = Self::default();
        for (address, door) in opened {
            admin.serve(&address, door, reach);
        }
        Ok(admin)
    }

    /// The same, in the place of the process that this one has followed. What that process does not
    /// let go of at once is tried again for as long as it may live.
    pub(super) fn succeed(plan: &AdminPlan, followed: Followed, reach: &Reach) -> Self {
        let mut admin = Self::default();
        for address in plan.listen.iter().map(|it| &it.value) {
            match Door::succeed(address, plan, followed.pid) {
                Ok(door) => admin.serve(address, door, reach),
                Err(error) => {
                    tracing::warn!("{error}; it is tried again for {:?}", followed.time);
                    let (address, plan, reach) = (address.clone(), plan.clone(), reach.clone());
                    let doors = admin.doors(&address);
                    doors.spawn(async move { serve_later(&address, &plan, followed, reach).await });
                }
            }
        }
        admin
    }

    fn serve(&mut self, address: &BindAddress, door: Door, reach: &Reach) {
        tracing::info!("admin address={door}");
        self.doors(address)
            .spawn(serve::accept(door, reach.clone()));
    }

    fn doors(&mut self, address: &BindAddress) -> &mut JoinSet<()> {
        match address {
            BindAddress::Unix(_) => &mut self.local,
            BindAddress::Tcp(_) => &mut self.network,
        }
    }

    /// Another process follows, which needs the addresses of the network free. The paths of unix
    /// sockets it takes by itself; until then this process is the one to be asked.
    pub(super) fn yield_network(&mut self) {
        self.network = JoinSet::new();
    }
}

/// The process that this one has followed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Followed {
    pub(super) pid: u32,
    /// How long it may live on.
    pub(super) time: Duration,
}

async fn serve_later(address: &BindAddress, plan: &AdminPlan, followed: Followed, reach: Reach) {
    let deadline = Instant::now() + followed.time;
    loop {
        sleep(AGAIN).await;
        match Door::succeed(address, plan, followed.pid) {
            Ok(door) => {
                tracing::info!("admin address={door}");
                return serve::accept(door, reach).await;
            }
            Err(error) if Instant::now() >= deadline => {
                tracing::error!("{error}; there is no admin server at this address");
                return;
            }
            Err(_) => {}
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admin({} doors)", self.local.len() + self.network.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    use socket2::{Domain, SockAddr, Socket, Type};
    use tokio::net::UnixStream;
    use tokio::time::timeout;

    const FOLLOWED: Followed = Followed {
        pid: u32::MAX,
        time: Duration::from_secs(30),
    };

    /// One whose queue is full: nobody can connect, and it lives.
    fn busy(path: &Path) -> [Socket; 2] {
        let socket = || Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
        let address = SockAddr::unix(path).unwrap();
        let (listener, waiting) = (socket(), socket());
        listener.bind(&address).unwrap();
        listener.listen(0).unwrap();
        waiting.connect(&address).unwrap();
        socket().connect(&address).unwrap_err();
        [listener, waiting]
    }

    fn plan(path: &Path) -> AdminPlan {
        let toml = format!("[admin]\nlisten = \"unix:{}\"\n", path.display());
        let toml = toml
            + "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n"
            + "[upstream.b]\nservers = [\"127.0.0.1:1\"]\n";
        let plan = crate::config::parse("x.toml", toml).into_plan().unwrap();
        plan.admin.unwrap()
    }

    #[tokio::test]
    async fn where_the_process_before_cannot_be_reached_its_place_is_taken_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let inode = || fs::metadata(&path).unwrap().ino();
        let (reach, _commands) = reach(&Board::default());
        let [listener, waiting] = busy(&path);
        let before = inode();
        let _admin = Admin::succeed(&plan(&path), FOLLOWED, &reach);
        assert_eq!(inode(), before);
        // Its queue empties, and it goes on.
        drop((waiting, listener.accept().unwrap()));
        let taken = async {
            while inode() == before {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(FOLLOWED.time, taken).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_place_that_does_not_become_free_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let (reach, _commands) = reach(&Board::default());
        let _busy = busy(&path);
        let time = Duration::ZERO;
        let mut admin = Admin::succeed(&plan(&path), Followed { time, ..FOLLOWED }, &reach);
        let given_up = timeout(FOLLOWED.time, admin.local.join_next()).await;
        given_up.unwrap().unwrap().unwrap();
    }
}
