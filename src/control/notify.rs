//! What a service manager is told (sd_notify(3)). Without NOTIFY_SOCKET all of it does nothing.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use crate::sys::monotonic_clock;

/// A way to the service manager, which never waits for it.
#[derive(Debug, Clone, Default)]
pub struct Notify {
    line: Option<Arc<Line>>,
    watchdog: Option<Duration>,
}

#[derive(Debug)]
struct Line {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notify {
    /// As the environment says. What it says wrongly is logged, and left out.
    #[must_use]
    pub fn from_environment() -> Self {
        let variable = |name| env::var(name).ok();
        let line = env::var_os("NOTIFY_SOCKET").and_then(|name| match Line::to(&name) {
            Ok(line) => Some(Arc::new(line)),
            Err(error) => {
                let name = name.display();
                tracing::warn!(%error, "the service manager cannot be told anything: NOTIFY_SOCKET={name}");
                None
            }
        });
        let pid = std::process::id();
        let watchdog = watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), pid);
        Self {
            watchdog: watchdog.filter(|_| line.is_some()),
            line,
        }
    }

    /// `WatchdogSec=`: the service manager ends this process when it hears nothing for so long.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// It serves, for the first time or after [`reloading`](Self::reloading); `status` is one line.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// It serves in the place of another process of the unit, which has been the main one.
    pub fn ready_as_main(&self, status: &str) {
        let pid = std::process::id();
        self.tell(&format!("READY=1\nMAINPID={pid}\nSTATUS={status}"));
    }

    /// A new configuration is read; [`ready`](Self::ready) says that it is over, with either end
    /// (`Type=notify-reload`).
    pub fn reloading(&self) {
        let now = monotonic_clock().as_micros();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// It ends, and nobody takes its place.
    pub fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={status}"));
    }

    pub fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// All is well.
    pub fn ping(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, words: &str) {
        if let Some(line) = &self.line
            && let Err(error) = line.say(words)
        {
            tracing::warn!(%error, "the service manager was not told {words:?}");
        }
    }
}

impl Line {
    /// `@` begins the name of an abstract socket.
    fn to(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes().split_first() {
            Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
            Some((b'/', _)) => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::other("neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }

    fn say(&self, words: &str) -> io::Result<()> {
        self.socket.send_to_addr(words.as_bytes(), &self.address)?;
        Ok(())
    }
}

/// The time in microseconds; for one process alone where there is a pid (sd_watchdog_enabled(3)).
fn watchdog(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let is_for_us = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let usec: u64 = usec.filter(|_| is_for_us)?.parse().ok()?;
    (usec > 0).then_some(Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its end, and a way to it.
    fn systemd(address: &SocketAddr, name: &OsStr) -> (UnixDatagram, Notify) {
        let systemd = UnixDatagram::bind_addr(address).unwrap();
        let notify = Notify {
            line: Some(Arc::new(Line::to(name).unwrap())),
            watchdog: None,
        };
        (systemd, notify)
    }

    fn heard(systemd: &UnixDatagram) -> String {
        let mut bytes = [0; 512];
        let count = systemd.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn systemd_hears_each_change_at_a_path_and_at_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("ringway-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let abstract_name = format!("@{name}");
        for (address, name) in [
            (SocketAddr::from_pathname(&path).unwrap(), path.as_os_str()),
            (abstract_address, OsStr::new(&abstract_name)),
        ] {
            let (systemd, notify) = systemd(&address, name);
            notify.ready("serving");
            assert_eq!(heard(&systemd), "READY=1\nSTATUS=serving");
            notify.reloading();
            let reloading = heard(&systemd);
            let now = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
            let now: u128 = now.unwrap().parse().unwrap();
            assert!(now <= monotonic_clock().as_micros());
            notify.stopping("bye");
            assert_eq!(heard(&systemd), "STOPPING=1\nSTATUS=bye");
            notify.ping();
            assert_eq!(heard(&systemd), "WATCHDOG=1");
            notify.ready_as_main("serving");
            let pid = std::process::id();
            let words = format!("READY=1\nMAINPID={pid}\nSTATUS=serving");
            assert_eq!(heard(&systemd), words);
        }
    }

    #[test]
    fn systemd_that_does_not_listen_or_read_holds_up_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let address = SocketAddr::from_pathname(&path).unwrap();
        let (systemd, notify) = systemd(&address, path.as_os_str());
        (0..10_000).for_each(|_| notify.status("nobody reads this"));
        drop(systemd);
        notify.ready("nobody is there");
        Notify::default().ready("nobody was ever there");
        assert!(Line::to(OsStr::new("vsock:2:1")).is_err());
        assert!(Line::to(OsStr::new("")).is_err());
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        let text = |text: &str| Some(text.to_owned());
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(text("1000000"), None, 7), second);
        assert_eq!(watchdog(text("1000000"), text("7"), 7), second);
        assert_eq!(watchdog(text("1000000"), text("8"), 7), None);
        assert_eq!(watchdog(text("0"), None, 7), None);
        assert_eq!(watchdog(text("soon"), None, 7), None);
        assert_eq!(watchdog(None, text("7"), 7), None);
    }
}
