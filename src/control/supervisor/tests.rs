use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ringway_support::link::Address;
use ringway_support::toml::front_to_back;
use ringway_support::{DEADLINE, Link, Peer};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::config::parse;
use crate::control::crew::RESTARTS_MAX;
use crate::observe::metrics::Syntax;
use crate::session::RunState;

fn plan(server: &Address) -> Plan {
    let own = "[runtime]\nworkers = 1\n[log]\naccess = \"off\"\n";
    let loaded = parse("x.toml", own.to_owned() + &front_to_back("", "", server));
    loaded.into_plan().unwrap()
}

/// Runs the control thread on this one.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

/// The lines that this thread logs, as an operator reads them. Every test that runs a supervisor
/// begins with it: tracing remembers of a line whether anybody wants it, and one test that does not
/// would speak for the others.
struct Logged {
    lines: mpsc::Receiver<String>,
    _subscriber: DefaultGuard,
}

impl Logged {
    fn begin() -> Self {
        let (sender, lines) = mpsc::channel();
        let subscriber = tracing_subscriber::fmt()
            .compact()
            .with_ansi(false)
            .with_writer(move || LineSender(sender.clone()));
        Self {
            lines,
            _subscriber: tracing::subscriber::set_default(subscriber.finish()),
        }
    }

    /// How many lines, since last asked, held each of `words`.
    fn count<const N: usize>(&self, words: [&str; N]) -> [usize; N] {
        let lines: Vec<String> = self.lines.try_iter().collect();
        words.map(|words| lines.iter().filter(|line| line.contains(words)).count())
    }
}

struct LineSender(mpsc::Sender<String>);

impl io::Write for LineSender {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_worker_that_dies_is_started_again_on_its_sockets_and_both_are_logged() {
    let logged = Logged::begin();
    let echo = Peer::plain().echo();
    let (lives, death) = (AtomicUsize::new(0), Arc::new(Barrier::new(2)));
    let killed = Arc::clone(&death);
    let body = move |shared: Arc<Shared>, assignment: Assignment| {
        if lives.fetch_add(1, Ordering::SeqCst) > 0 {
            return work(shared, assignment).map_err(|error| error.to_string());
        }
        (assignment.on_ready)();
        killed.wait();
        panic!("a defect, on purpose");
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let (ended, metrics) = block_on(async {
        let started = start_with(plan(echo.address()), Options::default(), Arc::new(body));
        let started = started.await.unwrap();
        let metrics = started.metrics().clone();
        let (_, PeerAddress::Ip(address)) = started.addresses().remove(0) else {
            panic!("an IP address was bound");
        };
        let client = thread::spawn(move || {
            // Taken by the kernel while no worker accepts: it must find the next one.
            let mut waiting = Link::connect(&Address::Ip(address)).unwrap();
            death.wait();
            waiting.ping(b"still here?");
            let _ = stop.send(());
        });
        let stopped = async { drop(stopped.await) };
        let ended = started.run(stopped).await;
        client.join().unwrap();
        (ended, metrics)
    });
    assert_eq!(ended, Ok(()));
    let text = metrics.text(Syntax::Prometheus);
    assert!(
        text.contains("\nringway_worker_restarts_total 1\n"),
        "{text}"
    );
    let words = [
        "worker 0 died with its connections: it panicked; it is started again",
        "worker 0 serves again",
    ];
    assert_eq!(logged.count(words), [1, 1]);
}

#[test]
fn a_worker_that_keeps_dying_ends_the_process() {
    let logged = Logged::begin();
    let nobody = Peer::plain();
    let lives = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lives);
    let body = move |_: Arc<Shared>, assignment: Assignment| {
        counted.fetch_add(1, Ordering::SeqCst);
        (assignment.on_ready)();
        Err("the ring is gone".to_owned())
    };
    let ended = block_on(async {
        let started = start_with(plan(nobody.address()), Options::default(), Arc::new(body));
        started.await.unwrap().run(sleep(DEADLINE)).await
    });
    let words = "worker 0 keeps dying: the ring is gone";
    assert_eq!(ended, Err(words.to_owned()));
    assert_eq!(lives.load(Ordering::SeqCst), 1 + RESTARTS_MAX);
    let words = [
        "the ring is gone; it is started again",
        "worker 0 serves again",
    ];
    assert_eq!(logged.count(words), [RESTARTS_MAX; 2]);
}

#[test]
fn each_worker_has_a_cpu_of_those_allowed() {
    let four = [0, 2, 4, 6];
    let given = |workers| cpus(&workers, &four).unwrap();
    assert_eq!(given(Workers::Auto), [0, 2, 4, 6].map(Some));
    assert_eq!(given(Workers::Count(2)), [0, 2].map(Some));
    assert_eq!(given(Workers::Count(5)), [0, 2, 4, 6, 0].map(Some));
    assert_eq!(given(Workers::Cpus(vec![4, 0])), [4, 0].map(Some));
    assert_eq!(cpus(&Workers::Auto, &[]).unwrap(), [None]);
    assert_eq!(cpus(&Workers::Count(2), &[]).unwrap(), [None, None]);
}

#[test]
fn a_cpu_that_this_process_may_not_run_on_is_refused_with_those_it_may() {
    let refused = cpus(&Workers::Cpus(vec![2, 3]), &[0, 2]).unwrap_err();
    assert!(matches!(refused, StartError::System(_)));
    let words = refused.to_string();
    assert!(words.contains("may not run on CPU 3 of `cpus`"), "{words}");
    assert!(words.contains("it has [0, 2]"), "{words}");
    assert!(words.contains("taskset"), "{words}");
}

/// A configuration in a file, for the plan before or after.
fn put(file: &std::path::Path, server: &Address, keys: &str) {
    let own = "[runtime]\nworkers = 1\n[log]\naccess = \"off\"\n";
    let text = own.to_owned() + &front_to_back(keys, "", server);
    std::fs::write(file, text).unwrap();
}

fn checked(file: &std::path::Path) -> Checked {
    let examined = crate::control::examine(crate::config::load(file));
    examined.checked(file).unwrap()
}

/// A worker that answers `Prepare` so, and is no more after a `Switch`.
fn stub(assignment: Assignment, prepared: Result<(), String>) -> Result<(), String> {
    use crate::worker::Letter;
    (assignment.on_ready)();
    loop {
        for letter in assignment.mailbox.received() {
            match letter {
                Letter::Prepare(order) => (order.answer)(prepared.clone()),
                Letter::Switch(order) => {
                    (order.answer)(Ok(()));
                    return Err("a defect, on purpose".to_owned());
                }
                Letter::Advance(RunState::Draining) => return Ok(()),
                _ => {}
            }
        }
        ringway_support::wait::pause(Duration::from_millis(1));
    }
}

/// The first worker does this, in a reload, and the one after it serves by the new plan.
fn expect_new_plan_after_the_death_of(
    first: impl Fn(Assignment) -> Result<(), String> + Send + Sync + 'static,
) {
    let (old, new) = (Peer::plain(), Peer::plain().echo());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringway.toml");
    put(&file, old.address(), "");
    let lives = AtomicUsize::new(0);
    let body = move |shared: Arc<Shared>, assignment: Assignment| {
        if lives.fetch_add(1, Ordering::SeqCst) == 0 {
            return first(assignment);
        }
        assert_eq!(shared.generation, 1);
        work(shared, assignment).map_err(|error| error.to_string())
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = block_on(async {
        let started = start_with(checked(&file), Options::default(), Arc::new(body));
        let mut started = started.await.unwrap();
        put(&file, new.address(), "idle_timeout = \"1h\"");
        started.reload().await.unwrap();
        let (_, PeerAddress::Ip(address)) = started.addresses().remove(0) else {
            panic!("an IP address was bound");
        };
        let client = thread::spawn(move || {
            Link::connect(&Address::Ip(address)).unwrap().ping(b"new");
            let _ = stop.send(());
        });
        let ended = started.run(async { drop(stopped.await) }).await;
        client.join().unwrap();
        ended
    });
    assert_eq!(ended, Ok(()));
}

#[test]
fn a_worker_that_is_started_again_after_a_reload_serves_by_the_new_plan() {
    let _logged = Logged::begin();
    expect_new_plan_after_the_death_of(|assignment| stub(assignment, Ok(())));
}

#[test]
fn a_core_that_cannot_prepare_leaves_the_plan_in_force() {
    let _logged = Logged::begin();
    let (old, new) = (Peer::plain(), Peer::plain());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringway.toml");
    put(&file, old.address(), "");
    let body = |_: Arc<Shared>, assignment: Assignment| stub(assignment, Err("no ring".to_owned()));
    block_on(async {
        let started = start_with(checked(&file), Options::default(), Arc::new(body));
        let mut started = started.await.unwrap();
        put(&file, new.address(), "");
        let refused = started.reload().await.unwrap_err();
        assert_eq!(refused, "no ring");
        let shared = &started.context.shared;
        assert_eq!(shared.generation, 0);
        let server = shared.plan.upstreams[0].servers[0]
            .address
            .value
            .to_string();
        assert_eq!(server, old.address().to_string());
        started.board.advance(RunState::Draining);
    });
}

/// Where in a reload a worker dies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    BeforeItPrepares,
    BeforeItSwitches,
}

/// A worker that dies in the first reload that it sees.
fn mortal(assignment: Assignment, death: Death) -> Result<(), String> {
    use crate::worker::Letter;
    (assignment.on_ready)();
    loop {
        for letter in assignment.mailbox.received() {
            if let Letter::Prepare(order) = letter {
                if death == Death::BeforeItSwitches {
                    (order.answer)(Ok(()));
                }
                return Err("a defect, on purpose".to_owned());
            }
        }
        ringway_support::wait::pause(Duration::from_millis(1));
    }
}

#[test]
fn a_worker_that_dies_between_prepare_and_switch_comes_back_with_the_new_plan() {
    let logged = Logged::begin();
    expect_new_plan_after_the_death_of(|assignment| mortal(assignment, Death::BeforeItSwitches));
    let words = [
        "a worker did not switch: a worker died",
        "worker 0 died with its connections",
        "worker 0 serves again",
    ];
    assert_eq!(logged.count(words), [1; 3]);
}

/// Takes what workers have reported, until one serves again.
async fn until_served_again(started: &mut Started) {
    loop {
        let notice = started.notices.recv().await.unwrap();
        assert_eq!(started.on_notice(&notice), ControlFlow::Continue(()));
        if matches!(notice, Notice::Ready { .. }) {
            return;
        }
    }
}

#[test]
fn a_worker_that_dies_before_it_has_prepared_costs_that_reload_and_the_next_succeeds() {
    let _logged = Logged::begin();
    let echo = Peer::plain().echo();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringway.toml");
    let put = |keys: &str| {
        put(&file, echo.address(), keys);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("workers = 1", "workers = 2")).unwrap();
    };
    put("");
    let first = AtomicUsize::new(0);
    let body = move |shared: Arc<Shared>, assignment: Assignment| {
        if assignment.id == CoreId(0) && first.fetch_add(1, Ordering::SeqCst) == 0 {
            return mortal(assignment, Death::BeforeItPrepares);
        }
        work(shared, assignment).map_err(|error| error.to_string())
    };
    block_on(async {
        let started = start_with(checked(&file), Options::default(), Arc::new(body));
        let mut started = started.await.unwrap();
        put("idle_timeout = \"1h\"");
        assert_eq!(started.reload().await.unwrap_err(), "a worker died");
        assert_eq!(started.context.shared.generation, 0);
        until_served_again(&mut started).await;
        started.reload().await.unwrap();
        let shared = &started.context.shared;
        assert_eq!(shared.generation, 1);
        let idle = shared.plan.listeners[0].idle_timeout;
        assert_eq!(idle, Duration::from_secs(3600));
        started.board.advance(RunState::Draining);
    });
}

#[test]
fn a_worker_that_dies_while_a_reload_waits_for_a_name_is_started_again_at_once() {
    let logged = Logged::begin();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let echo = Peer::plain().echo();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringway.toml");
    put(&file, echo.address(), "");
    let text = std::fs::read_to_string(&file).unwrap();
    let resolver = format!("resolver = \"{}\"", silent.local_addr().unwrap());
    let named = text
        .replace("[runtime]", &format!("[runtime]\n{resolver}"))
        .replace(&echo.address().to_string(), "nobody.answers.example:1");
    let lives = AtomicUsize::new(0);
    let body = move |shared: Arc<Shared>, assignment: Assignment| {
        if lives.fetch_add(1, Ordering::SeqCst) > 0 {
            return work(shared, assignment).map_err(|error| error.to_string());
        }
        (assignment.on_ready)();
        silent.recv(&mut [0; 512]).unwrap();
        Err("a defect, on purpose".to_owned())
    };
    block_on(async {
        let started = start_with(checked(&file), Options::default(), Arc::new(body));
        let mut started = started.await.unwrap();
        std::fs::write(&file, named).unwrap();
        assert_eq!(started.reload().await.unwrap_err(), "a worker died");
        until_served_again(&mut started).await;
        assert_eq!(started.context.shared.generation, 0);
        started.board.advance(RunState::Draining);
    });
    let words = ["going on although", "worker 0 serves again"];
    assert_eq!(logged.count(words), [0, 1]);
}
