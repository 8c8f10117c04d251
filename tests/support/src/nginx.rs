//! Debian's nginx as a peer, with a configuration of its own.

use std::fs;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::link::{Address, Link};
use crate::openssl::MISSING;
use crate::peer::ClosedPort;
use crate::sys;
use crate::wait::until;

/// A running nginx with one server. Killed when dropped.
pub struct Nginx {
    child: Child,
    address: Address,
    directory: TempDir,
    _port: ClosedPort,
}

impl Nginx {
    /// An `http` server; `server` is what stands in its `server` block, with `LISTEN` for the
    /// address.
    #[must_use]
    pub fn http(server: &str) -> Self {
        Self::start(|_| format!("http {{ HTTP\nserver {{ {server} }} }}"))
    }

    /// A `stream` server; `server` is what stands in its `server` block.
    #[must_use]
    pub fn stream(server: &str) -> Self {
        Self::start(|_| format!("stream {{ STREAM\nserver {{ {server} }} }}"))
    }

    /// # Panics
    /// When it does not listen in time.
    fn start(body: impl Fn(&Address) -> String) -> Self {
        let port = ClosedPort::new();
        let address = port.address();
        let directory = TempDir::new().expect("a temporary directory");
        let home = directory.path().display().to_string();
        let text = format!(
            "daemon off;\nmaster_process off;\nworker_processes 1;\npid {home}/nginx.pid;\n\
             error_log {home}/error.log info;\nevents {{ worker_connections 512; }}\n{}\n",
            body(&address)
        );
        let text = text
            .replace("HTTP\n", &http_preamble(&home))
            .replace("STREAM\n", &stream_preamble(&home))
            .replace("LISTEN", &address.to_string());
        let file = directory.path().join("nginx.conf");
        let module = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n";
        fs::write(&file, format!("{module}{text}")).expect("a writable temporary directory");

        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-e").arg(directory.path().join("start.log"));
        command.arg("-p").arg(directory.path()).arg("-c").arg(&file);
        command.stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        sys::die_with_parent(&mut command);
        let child = command.spawn().expect(MISSING);
        let nginx = Self {
            child,
            address,
            directory,
            _port: port,
        };
        until("nginx listens", || Link::connect(&nginx.address).ok());
        nginx
    }

    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its access log so far.
    #[must_use]
    pub fn access_log(&self) -> String {
        fs::read_to_string(self.directory.path().join("access.log")).unwrap_or_default()
    }

    fn story(&self) -> String {
        let read = |name| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        format!(
            "{}{}{}",
            read("start.log"),
            read("error.log"),
            read("access.log")
        )
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- nginx at {}\n{}---", self.address, self.story());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps everything in its directory, and logs what the tests ask about.
fn http_preamble(home: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {home}/{kind};\n"))
        .concat();
    format!(
        "{temporary}default_type text/plain;\n\
         log_format test 'host=$host reused=$ssl_session_reused verify=$ssl_client_verify \
         protocol=$ssl_protocol uri=$request_uri';\naccess_log {home}/access.log test;\n"
    )
}

fn stream_preamble(home: &str) -> String {
    format!(
        "log_format test 'reused=$ssl_session_reused protocol=$ssl_protocol \
         received=$bytes_received sent=$bytes_sent';\naccess_log {home}/access.log test;\n"
    )
}
