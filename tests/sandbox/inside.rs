//! What runs in a process of its own: it gives up its rights by the code that the proxy uses, and
//! then tries what an intruder would.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::thread;

use ringway::config;
use ringway::control::confine::{Confinement, confine};
use ringway_support::sys::call;

/// The configuration's file; set in the process that is to be the one inside.
pub(crate) const FILE: &str = "RINGWAY_TEST_INSIDE";
/// A user to become before, as if the process had been started so.
pub(crate) const STARTED_AS: &str = "RINGWAY_TEST_STARTED_AS";

pub(crate) fn run(file: &Path) -> ExitCode {
    let plan = config::load(file)
        .into_plan()
        .expect("a good configuration");
    if let Ok(uid) = std::env::var(STARTED_AS) {
        let uid = nix::unistd::Uid::from_raw(uid.parse().unwrap());
        nix::unistd::setresuid(uid, uid, uid).unwrap();
    }
    let (go, wait) = mpsc::channel::<PathBuf>();
    let earlier = thread::spawn(move || wait.recv().map(|folder| attempts(&folder, "earlier")));
    let confinement = match confine(&plan, file) {
        Ok(confinement) => confinement,
        Err(error) => {
            println!("refused\t{error}");
            return ExitCode::FAILURE;
        }
    };
    println!("confined");
    // Until whoever looks from outside has seen enough, and replaced what is to be replaced.
    io::stdin().lock().lines().next();
    let folder = file.parent().unwrap().to_owned();
    go.send(folder.clone()).unwrap();
    tell("earlier", earlier.join().unwrap().unwrap());
    tell(
        "later",
        thread::spawn(move || attempts(&folder, "later"))
            .join()
            .unwrap(),
    );
    tell_later_plan(&confinement, &plan, file);
    ExitCode::SUCCESS
}

fn tell(thread: &str, attempts: Vec<(&str, io::Result<()>)>) {
    for (what, outcome) in attempts {
        let words = match outcome {
            Ok(()) => "done".to_owned(),
            Err(error) => error.raw_os_error().map_or_else(|| error.to_string(), name),
        };
        println!("{thread}\t{what}\t{words}");
    }
}

fn name(code: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(code))
}

/// `who` has files of its own to make and remove.
fn attempts(folder: &Path, who: &str) -> Vec<(&'static str, io::Result<()>)> {
    let open = |path: &Path| File::open(path).map(drop);
    let append = |path: &Path| {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map(drop)
    };
    let log = folder.join("log").join(who);
    let foreign = Path::new("/tmp/ringway-test-sandbox").with_extension(who);
    let executable = [
        0,
        4096,
        flags(libc::PROT_READ | libc::PROT_EXEC),
        flags(MEMORY),
    ];
    let mut all = vec![
        ("read a stranger's file", open(Path::new("/etc/passwd"))),
        ("read a key", open(&folder.join("a.key"))),
        ("read a link's target", open(&folder.join("live.crt"))),
        ("make a file beside the keys", append(&folder.join(who))),
        (
            "remove a key",
            fs::remove_file(folder.join(format!("{who}.key"))),
        ),
        ("make a log", append(&log)),
        ("read a log", open(&log)),
        ("make a file in /tmp", append(&foreign)),
        ("listen", TcpListener::bind("127.0.0.1:0").map(drop)),
        (
            "listen on a low port",
            TcpListener::bind("127.0.0.1:1").map(drop),
        ),
        (
            "start a thread",
            thread::Builder::new().spawn(|| {}).map(drop),
        ),
        (
            "start a program",
            Command::new("/bin/true").status().map(drop),
        ),
        (
            "become a program",
            Err(Command::new("/bin/false-that-is-not-there").exec()),
        ),
        ("make memory executable", call(libc::SYS_mmap, executable)),
    ];
    all.extend(
        calls()
            .into_iter()
            .map(|(name, number)| (name, call(number, [0; 4]))),
    );
    all.push((
        "packet socket",
        call(
            libc::SYS_socket,
            [flags(libc::AF_PACKET), flags(libc::SOCK_RAW), 0, 0],
        ),
    ));
    let _ = fs::remove_file(&foreign);
    all
}

const MEMORY: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

fn flags(flags: i32) -> u32 {
    flags.cast_unsigned()
}

/// Calls that do nothing with arguments of zero, or fail by them.
pub(crate) fn calls() -> [(&'static str, i64); 10] {
    [
        ("setresuid", libc::SYS_setresuid),
        ("unshare", libc::SYS_unshare),
        ("mount", libc::SYS_mount),
        ("chroot", libc::SYS_chroot),
        ("bpf", libc::SYS_bpf),
        ("keyctl", libc::SYS_keyctl),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("kill", libc::SYS_kill),
        ("execveat", libc::SYS_execveat),
        ("perf_event_open", libc::SYS_perf_event_open),
    ]
}

/// What the confinement says of the configuration that would come next.
fn tell_later_plan(confinement: &Confinement, plan: &config::Plan, file: &Path) {
    let later = file.with_file_name("later.toml");
    let Ok(text) = fs::read_to_string(&later) else {
        return;
    };
    let loaded = config::parse(later.display().to_string(), text);
    for diagnostic in confinement.inspect(loaded.plan().expect("a good configuration"), plan) {
        println!(
            "later plan\t{}\t{}",
            diagnostic.message,
            diagnostic.cure.unwrap()
        );
    }
    println!(
        "forbids /etc/passwd\t{}",
        confinement.forbids(Path::new("/etc/passwd"))
    );
    println!(
        "forbids the key\t{}",
        confinement.forbids(&file.with_file_name("a.key"))
    );
}
