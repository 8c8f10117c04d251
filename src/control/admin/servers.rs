//! Servers as the operator wants them: `POST /server`.

use std::sync::Arc;

use hyper::StatusCode;

use super::answer::Answer;
use super::connections::end;
use super::model::ServerHeld;
use super::query::Query;
use super::routes::Asked;
use super::status::held_word;
use crate::config::Plan;
use crate::control::board::NotHeld;
use crate::control::resolver::NameKey;
use crate::net::PeerAddress;
use crate::session::Wanted;
use crate::types::{GroupId, Order, ServerId};
use crate::upstream::Hold;
use crate::worker::Letter;

/// A server, all of it or one address.
struct Target {
    /// Whose numbers are in the key.
    plan: Arc<Plan>,
    key: NameKey,
    address: Option<PeerAddress>,
}

pub(super) async fn hold(asked: Asked) -> Result<Answer, Answer> {
    let query = Query::parse(&asked.query, &["upstream", "server", "state"])?;
    let upstream = query.required("upstream", "backend")?.to_owned();
    let server = query.required("server", "10.0.5.21:443")?.to_owned();
    let hold = match query.required("state", "drain")? {
        "drain" => Some(Hold::Drain),
        "down" => Some(Hold::Down),
        "up" => None,
        other => {
            let error = format!("`state` cannot be \"{other}\"");
            return Err(Answer::wrong(&error, "write drain, down or up"));
        }
    };
    let target = target(&asked, upstream.clone(), server.clone()).await?;
    let Target { plan, key, address } = &target;
    let held = asked.reach.board.hold((plan, *key), address.as_ref(), hold);
    held.map_err(not_held)?;
    if hold == Some(Hold::Down) {
        let wanted = Wanted {
            group: Some(upstream.clone()),
            server: Some(server.clone()),
            ..Wanted::default()
        };
        end(&asked.reach, wanted, &Order::SERVER_TAKEN_DOWN).await;
    }
    let state = hold.map_or("up", held_word).to_owned();
    Ok(Answer::json(&ServerHeld {
        upstream,
        server,
        state,
    }))
}

fn not_held(why: NotHeld) -> Answer {
    match why {
        NotHeld::Together => Answer::wrong(
            "all addresses of the server are held together",
            "name the server as the configuration does, to let all of them go",
        ),
        NotHeld::Reloaded => Answer::refused(
            StatusCode::CONFLICT,
            "the configuration was reloaded meanwhile",
            "ask again, if the server is still what is meant",
        ),
    }
}

/// By the configuration's name of the server, or by an address that one of its names has.
async fn target(asked: &Asked, upstream: String, server: String) -> Result<Target, Answer> {
    let named = server.clone();
    let found = asked.reach.look(move |started| {
        let (group, servers) = group(started.plan(), &upstream)?;
        let server = servers.iter().position(|(name, _)| *name == named);
        Ok((Arc::clone(started.plan()), (group, servers), server))
    });
    let (plan, (group, servers), position) = found.await??;
    if let Some(position) = position {
        if servers[position].1 {
            return Err(Answer::wrong(
                "the configuration says `down` of this server, and that holds",
                "take `down` out of the configuration and reload it",
            ));
        }
        let (key, address) = (key(group, position), None);
        return Ok(Target { plan, key, address });
    }
    let cores = asked.reach.ask_cores(Letter::Census).await;
    let members = cores
        .iter()
        .filter_map(|it| it.groups.get(usize::from(group.0)));
    let member = members
        .flatten()
        .find(|it| it.address.to_string() == server);
    let member = member.ok_or_else(|| {
        let names: Vec<&str> = servers.iter().map(|(name, _)| name.as_str()).collect();
        Answer::wrong(
            &format!("the upstream has no server or address \"{server}\""),
            &format!("its servers are {}", names.join(", ")),
        )
    })?;
    let server = member.server;
    Ok(Target {
        plan,
        key: NameKey { group, server },
        address: Some(member.address.clone()),
    })
}

/// A group's servers as the configuration names them, and whether it says `down` of them.
type Servers = Vec<(String, bool)>;

fn group(plan: &Plan, name: &str) -> Result<(GroupId, Servers), Answer> {
    let mut groups = (0..).map(GroupId).zip(&plan.upstreams);
    let Some((id, group)) = groups.find(|(_, group)| group.name == name) else {
        let names: Vec<&str> = plan.upstreams.iter().map(|it| it.name.as_str()).collect();
        return Err(Answer::wrong(
            &format!("there is no upstream \"{name}\""),
            &format!("the upstreams are {}", names.join(", ")),
        ));
    };
    let servers = group.servers.iter();
    let servers = servers.map(|it| (it.address.value.to_string(), it.down));
    Ok((id, servers.collect()))
}

fn key(group: GroupId, position: usize) -> NameKey {
    NameKey {
        group,
        server: ServerId(u16::try_from(position).unwrap_or(u16::MAX)),
    }
}
