use std::future::ready;
use std::pin::Pin;

use hyper::{Method, StatusCode};
use serde::Serialize;

use super::answer::Answer;
use super::listen::Peer;
use super::model::LogLevel;
use super::query::Query;
use super::reach::{Command, Reach};
use super::{connections, reload, servers, status};
use crate::control::Started;
use crate::observe::events;
use crate::observe::metrics::Syntax;

/// A request that has found its route.
pub(super) struct Asked {
    /// Behind the `?`; empty: there is none.
    pub(super) query: String,
    /// The header of this name; empty: there is none.
    pub(super) accept: String,
    pub(super) peer: Peer,
    pub(super) reach: Reach,
}

type Answering = Pin<Box<dyn Future<Output = Result<Answer, Answer>> + Send>>;

struct Route {
    /// It changes something: POST, and by a unix socket only.
    changes: bool,
    path: &'static str,
    run: fn(Asked) -> Answering,
}

const fn get(path: &'static str, run: fn(Asked) -> Answering) -> Route {
    Route {
        changes: false,
        path,
        run,
    }
}

const fn post(path: &'static str, run: fn(Asked) -> Answering) -> Route {
    Route {
        changes: true,
        path,
        run,
    }
}

impl Route {
    fn takes(&self, method: &Method) -> bool {
        match self.changes {
            true => method == Method::POST,
            false => [Method::GET, Method::HEAD].contains(method),
        }
    }
}

/// All that is served. docs/operations.md has each, held together by a test.
const ROUTES: &[Route] = &[
    get("/", |_| Box::pin(ready(Ok(paths())))),
    get("/health", |asked| Box::pin(health(asked))),
    get("/metrics", |asked| Box::pin(metrics(asked))),
    get("/status", |asked| Box::pin(status::status(asked))),
    get("/plan", |asked| Box::pin(status::plan(asked))),
    get("/connections", |asked| Box::pin(connections::list(asked))),
    post("/connections/close", |asked| {
        Box::pin(connections::close(asked))
    }),
    post("/server", |asked| Box::pin(servers::hold(asked))),
    get("/log-level", |_| Box::pin(ready(log_level()))),
    post("/log-level", |asked| Box::pin(ready(set_log_level(&asked)))),
    post("/drain", |asked| Box::pin(drain(asked))),
    get("/diff", |asked| Box::pin(reload::diff(asked))),
    post("/reload", |asked| Box::pin(reload::reload(asked))),
];

pub(super) async fn answer(method: &Method, path: &str, asked: Asked) -> Answer {
    let route = match find(method, path, asked.peer) {
        Ok(route) => route,
        Err(refused) => return refused,
    };
    let peer = asked.peer;
    let answer = run(route, asked).await.unwrap_or_else(|refused| refused);
    if route.changes {
        let status = answer.status.as_u16();
        tracing::info!("admin: POST {path} by {peer}: {status}");
    }
    answer
}

async fn run(route: &Route, asked: Asked) -> Result<Answer, Answer> {
    if !route.changes {
        return (route.run)(asked).await;
    }
    let reach = asked.reach.clone();
    reach.in_charge()?;
    let answer = (route.run)(asked).await?;
    // It may not be any more.
    reach.in_charge()?;
    Ok(answer)
}

fn find(method: &Method, path: &str, peer: Peer) -> Result<&'static Route, Answer> {
    let here: Vec<&Route> = ROUTES.iter().filter(|route| route.path == path).collect();
    if here.is_empty() {
        let paths: Vec<&str> = ROUTES.iter().map(|route| route.path).collect();
        return Err(Answer::refused(
            StatusCode::NOT_FOUND,
            "there is nothing at this path",
            &format!("the paths are {}", paths.join(", ")),
        ));
    }
    let Some(route) = here.iter().find(|route| route.takes(method)) else {
        let allowed = match here[..] {
            [Route { changes: true, .. }] => "POST",
            [_] => "GET, HEAD",
            _ => "GET, HEAD, POST",
        };
        let error = format!("{path} takes {allowed} and not {method}");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let answer = Answer::refused(status, &error, "see docs/operations.md");
        return Err(answer.allowing(allowed));
    };
    if route.changes && matches!(peer, Peer::Network(_)) {
        return Err(Answer::refused(
            StatusCode::FORBIDDEN,
            "who comes by TCP is unknown, and may look but not change",
            "ask by the unix socket: `listen` of [admin] names it",
        ));
    }
    Ok(route)
}

/// For whoever looks around with curl.
fn paths() -> Answer {
    let line = |route: &Route| {
        let method = if route.changes { "POST" } else { "GET" };
        format!("{method} {}\n", route.path)
    };
    Answer::text(ROUTES.iter().map(line).collect::<String>())
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

async fn health(asked: Asked) -> Result<Answer, Answer> {
    let draining = asked.reach.look(|started| started.is_draining()).await?;
    let status = if draining { "draining" } else { "running" };
    let answer = Answer::json(&Health { status });
    Ok(match draining {
        // A load balancer in front sends no more.
        true => answer.with_status(StatusCode::SERVICE_UNAVAILABLE),
        false => answer,
    })
}

async fn metrics(asked: Asked) -> Result<Answer, Answer> {
    let syntax = Syntax::accepted(&asked.accept);
    let look = move |started: &mut Started| started.metrics().text(syntax);
    let text = asked.reach.look(look).await?;
    Ok(Answer::page(syntax.content_type(), text))
}

async fn drain(asked: Asked) -> Result<Answer, Answer> {
    asked.reach.command(Command::Drain).await?;
    Ok(Answer::json(&Health { status: "draining" }))
}

fn log_level() -> Result<Answer, Answer> {
    match events::level() {
        Some(level) => Ok(Answer::json(&LogLevel { level })),
        None => Err(Answer::busy()),
    }
}

fn set_log_level(asked: &Asked) -> Result<Answer, Answer> {
    let query = Query::parse(&asked.query, &["level"])?;
    let level = query.required("level", "debug")?;
    events::set_level(level).map_err(|words| Answer::wrong(&words, "see docs/operations.md"))?;
    log_level()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Peer = Peer::Local { uid: 0, pid: 1 };

    fn status(method: &Method, path: &str, peer: Peer) -> Option<u16> {
        find(method, path, peer)
            .err()
            .map(|answer| answer.status.as_u16())
    }

    #[test]
    fn who_comes_by_tcp_may_look_and_not_change() {
        let network = Peer::Network("127.0.0.1:1".parse().unwrap());
        for route in ROUTES {
            let method = if route.changes {
                Method::POST
            } else {
                Method::GET
            };
            assert_eq!(status(&method, route.path, LOCAL), None, "{}", route.path);
            let expected = route.changes.then_some(403);
            assert_eq!(
                status(&method, route.path, network),
                expected,
                "{}",
                route.path
            );
        }
    }

    #[test]
    fn other_paths_and_methods_are_refused_by_name() {
        assert_eq!(status(&Method::GET, "/x", LOCAL), Some(404));
        assert_eq!(status(&Method::GET, "/drain", LOCAL), Some(405));
        assert_eq!(status(&Method::POST, "/health", LOCAL), Some(405));
        assert_eq!(status(&Method::HEAD, "/health", LOCAL), None);
        assert_eq!(status(&Method::PUT, "/log-level", LOCAL), Some(405));
        let refused = find(&Method::DELETE, "/health", LOCAL).err().unwrap();
        assert!(refused.body().contains("takes GET, HEAD and not DELETE"));
    }

    #[test]
    fn each_route_stands_once_and_in_the_document() {
        let line = |route: &Route| {
            let method = if route.changes { "POST" } else { "GET" };
            format!("{method} {}", route.path)
        };
        let mut lines: Vec<String> = ROUTES.iter().map(line).collect();
        let documented = include_str!("../../../docs/operations.md");
        for line in &lines {
            let row = format!("\n| `{line}` |");
            assert!(documented.contains(&row), "{line}");
        }
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), ROUTES.len());
    }
}
