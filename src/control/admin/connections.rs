//! The connections that live: `GET /connections` and `POST /connections/close`.

use std::sync::Arc;

use super::answer::Answer;
use super::model::{Closed, ConnectionSeen, Connections};
use super::query::Query;
use super::reach::Reach;
use super::routes::Asked;
use crate::session::{Connection, Wanted};
use crate::types::Order;
use crate::worker::Letter;

/// Which connections are meant.
const FILTER: [&str; 6] = ["id", "listener", "upstream", "server", "source", "min_age"];

const LIMIT_DEFAULT: usize = 100;
/// 20 MB of JSON.
const LIMIT_MAX: usize = 100_000;

pub(super) async fn list(asked: Asked) -> Result<Answer, Answer> {
    let query = Query::parse(&asked.query, &[&FILTER[..], &["limit"]].concat())?;
    let max = query.number("limit", LIMIT_DEFAULT, LIMIT_MAX)?;
    let wanted = Arc::new(wanted(&query)?);
    let letter = |reply| Letter::List {
        wanted: Arc::clone(&wanted),
        max,
        reply,
    };
    let cores = asked.reach.ask_cores(letter).await;
    let total = cores.iter().map(|it| it.total).sum();
    let connections = cores.into_iter().flat_map(|it| it.connections);
    let mut connections: Vec<Connection> = connections.collect();
    connections.sort_by_key(|it| std::cmp::Reverse(it.age));
    connections.truncate(max);
    Ok(Answer::json(&Connections {
        total,
        connections: connections.iter().map(seen).collect(),
    }))
}

pub(super) async fn close(asked: Asked) -> Result<Answer, Answer> {
    let query = Query::parse(&asked.query, &[&FILTER[..], &["all"]].concat())?;
    let names_some = FILTER.iter().any(|it| query.text(it).is_some());
    if names_some == query.flag("all")? {
        return Err(Answer::wrong(
            "it is not clear which connections are to be closed",
            "name them by id, listener, upstream, server, source or min_age, or write all=true (`--all`) alone",
        ));
    }
    let closed = end(&asked.reach, wanted(&query)?, &Order::BY_OPERATOR).await;
    Ok(Answer::json(&Closed { closed }))
}

/// Ends connections on every core, under whatever plan they began. Returns how many were told.
pub(super) async fn end(reach: &Reach, wanted: Wanted, order: &'static Order) -> usize {
    let wanted = Arc::new(wanted);
    let letter = |reply| Letter::End {
        wanted: Arc::clone(&wanted),
        order,
        reply,
    };
    reach.ask_cores(letter).await.into_iter().sum()
}

fn wanted(query: &Query) -> Result<Wanted, Answer> {
    Ok(Wanted {
        id: query.id("id")?,
        listener: query.owned("listener"),
        group: query.owned("upstream"),
        server: query.owned("server"),
        source: query.network("source")?,
        age_min: query.duration("min_age")?,
    })
}

fn seen(connection: &Connection) -> ConnectionSeen {
    let plan = connection.plan.plan();
    let group = connection.group.map(|it| plan.upstream(it));
    let server = group.zip(connection.server.as_ref());
    let server = server.and_then(|(group, (id, _))| group.servers.get(usize::from(id.0)));
    let address = connection.server.as_ref().map(|(_, address)| address);
    ConnectionSeen {
        id: format!("{:016x}", connection.id),
        core: connection.core.0,
        listener: plan.listener(connection.listener).name.clone(),
        client: connection.client.map(|it| it.to_string()),
        upstream: group.map(|it| it.name.clone()),
        server: server.map(|it| it.address.value.to_string()),
        address: address.map(ToString::to_string),
        phase: connection.phase.name().to_owned(),
        age_ms: u64::try_from(connection.age.as_millis()).unwrap_or(u64::MAX),
        bytes_up: connection.bytes_up,
        bytes_down: connection.bytes_down,
    }
}
