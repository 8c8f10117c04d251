//! Groups of servers: which one is next, how they are, and a connection to one of them.

pub mod balance;
mod connect;
mod found;
mod group;
mod health;
mod lease;
mod places;
mod queue;
mod race;
mod roster;
#[cfg(test)]
mod simulation;
mod tally;
mod tries;
mod warm;

pub use connect::{Attempts, Connected, Request, connect};
pub use found::Found;
pub use group::{Asked, Change, Endpoint, EndpointSeen, Group, GroupParts, Hold, Tell};
pub use health::{Event, Health, ServerState};
pub use lease::Lease;
pub use places::ServerCounts;
pub use roster::{Lack, Member, Places, Roster};
pub use tries::TryLimits;
pub(crate) use tries::is_ours;
pub use warm::{WARMING_AT_ONCE, WarmMeans};
