use std::collections::BTreeMap;
use std::sync::Arc;

use super::{CoreMeters, GroupMeters, GroupShare, ListenerMeters, ServerMeters};
use crate::config::{Plan, UpstreamPlan};
use crate::types::{CoreId, GroupId, ListenerId};

/// One meter for each core.
pub type PerCore<M> = Vec<Arc<M>>;

/// The meters of all cores, by name. The control thread's own.
#[derive(Debug)]
pub struct Registry {
    cores: PerCore<CoreMeters>,
    listeners: BTreeMap<String, PerCore<ListenerMeters>>,
    groups: BTreeMap<String, PerCore<GroupMeters>>,
    /// By group and server.
    servers: BTreeMap<(String, String), PerCore<ServerMeters>>,
}

/// The meters of one plan, in its order.
#[derive(Debug, Default)]
pub struct PlanMeters {
    cores: PerCore<CoreMeters>,
    listeners: Vec<PerCore<ListenerMeters>>,
    groups: Vec<GroupPlanMeters>,
}

#[derive(Debug)]
struct GroupPlanMeters {
    group: PerCore<GroupMeters>,
    servers: Vec<PerCore<ServerMeters>>,
}

impl Registry {
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self {
            cores: per_core(cores),
            listeners: BTreeMap::new(),
            groups: BTreeMap::new(),
            servers: BTreeMap::new(),
        }
    }

    /// Meters for this plan. What has a name that was there before goes on with its counts.
    pub fn meters(&mut self, plan: &Plan) -> PlanMeters {
        let cores = self.cores.len();
        let listeners = plan.listeners.iter().map(|listener| {
            let known = self.listeners.entry(listener.name.clone());
            known.or_insert_with(|| per_core(cores)).clone()
        });
        PlanMeters {
            listeners: listeners.collect(),
            groups: plan.upstreams.iter().map(|it| self.group(it)).collect(),
            cores: self.cores.clone(),
        }
    }

    fn group(&mut self, plan: &UpstreamPlan) -> GroupPlanMeters {
        let cores = self.cores.len();
        let servers = plan.servers.iter().map(|server| {
            let name = (plan.name.clone(), server.address.value.to_string());
            let known = self.servers.entry(name);
            known.or_insert_with(|| per_core(cores)).clone()
        });
        let servers = servers.collect();
        let known = self.groups.entry(plan.name.clone());
        let group = known.or_insert_with(|| per_core(cores)).clone();
        GroupPlanMeters { group, servers }
    }

    /// Forgets the names that no plan has any more and no connection.
    pub fn prune(&mut self) {
        self.listeners.retain(|_, meters| is_held(meters));
        self.groups.retain(|_, meters| is_held(meters));
        self.servers.retain(|_, meters| is_held(meters));
    }

    /// A core has died: what was alive on it is not.
    pub fn forget_live(&self, core: usize) {
        let listeners = self.listeners.values().filter_map(|it| it.get(core));
        listeners.for_each(|meters| meters.forget_live());
        let groups = self.groups.values().filter_map(|it| it.get(core));
        groups.for_each(|meters| meters.warm.ready.set(0));
        let servers = self.servers.values().filter_map(|it| it.get(core));
        servers.for_each(|meters| meters.live.set(0));
        if let Some(meters) = self.cores.get(core) {
            meters.live.set(0);
            meters.generations.set(0);
        }
    }

    #[must_use]
    pub fn cores(&self) -> &PerCore<CoreMeters> {
        &self.cores
    }

    #[must_use]
    pub fn listeners(&self) -> &BTreeMap<String, PerCore<ListenerMeters>> {
        &self.listeners
    }

    #[must_use]
    pub fn groups(&self) -> &BTreeMap<String, PerCore<GroupMeters>> {
        &self.groups
    }

    /// By group and server.
    #[must_use]
    pub fn servers(&self) -> &BTreeMap<(String, String), PerCore<ServerMeters>> {
        &self.servers
    }
}

impl PlanMeters {
    /// For a proxy whose metrics nobody reads.
    #[must_use]
    pub fn unread(plan: &Plan, cores: usize) -> Self {
        Registry::new(cores).meters(plan)
    }

    #[must_use]
    pub fn core(&self, core: CoreId) -> Arc<CoreMeters> {
        of_core(&self.cores, core)
    }

    #[must_use]
    pub fn listener(&self, core: CoreId, id: ListenerId) -> Arc<ListenerMeters> {
        of_core(&self.listeners[usize::from(id.0)], core)
    }

    #[must_use]
    pub fn group(&self, core: CoreId, id: GroupId) -> GroupShare {
        let GroupPlanMeters { group, servers } = &self.groups[usize::from(id.0)];
        let servers = servers.iter().map(|server| of_core(server, core));
        GroupShare {
            group: of_core(group, core),
            servers: servers.collect(),
        }
    }
}

fn per_core<M: Default>(cores: usize) -> PerCore<M> {
    (0..cores).map(|_| Arc::default()).collect()
}

fn of_core<M>(meters: &PerCore<M>, core: CoreId) -> Arc<M> {
    Arc::clone(&meters[usize::from(core.0)])
}

/// By somebody beside the registry.
fn is_held<M>(meters: &PerCore<M>) -> bool {
    meters.iter().any(|meters| Arc::strong_count(meters) > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::types::{Phase, ServerId};

    fn plan(listener: &str, group: &str, server: &str) -> Plan {
        let text = format!(
            "[[listener]]\nname = \"{listener}\"\nbind = \"127.0.0.1:0\"\nupstream = \"{group}\"\n\
             [upstream.{group}]\nservers = [\"{server}\"]\n"
        );
        parse("x.toml", text).into_plan().unwrap()
    }

    const CORE: CoreId = CoreId(1);
    const LISTENER: ListenerId = ListenerId(0);
    const GROUP: GroupId = GroupId(0);

    #[test]
    fn a_next_plan_goes_on_with_the_counts_of_the_names_that_it_keeps() {
        let mut registry = Registry::new(2);
        let first = registry.meters(&plan("a", "b", "10.0.0.1:1"));
        first.listener(CORE, LISTENER).accepted.add(3);
        first.group(CORE, GROUP).server(ServerId(0)).tries.add(5);
        let second = registry.meters(&plan("a", "b", "10.0.0.2:1"));
        drop(first);
        registry.prune();
        assert_eq!(second.listener(CORE, LISTENER).accepted.value(), 3);
        assert_eq!(second.listener(CoreId(0), LISTENER).accepted.value(), 0);
        let server = second.group(CORE, GROUP);
        assert_eq!(server.server(ServerId(0)).tries.value(), 0, "another one");
        let names: Vec<_> = registry.servers().keys().map(|(_, it)| it).collect();
        assert_eq!(names, ["10.0.0.2:1"]);
    }

    #[test]
    fn a_name_that_is_gone_stays_until_its_last_connection_has_ended() {
        let mut registry = Registry::new(2);
        let connection = registry
            .meters(&plan("a", "b", "10.0.0.1:1"))
            .listener(CORE, LISTENER);
        registry.prune();
        assert!(registry.listeners().contains_key("a"));
        assert!(registry.groups().is_empty() && registry.servers().is_empty());
        drop(connection);
        registry.prune();
        assert!(registry.listeners().is_empty());
    }

    #[test]
    fn what_lived_on_a_core_that_died_is_forgotten_and_what_it_counted_is_not() {
        let mut registry = Registry::new(2);
        let meters = registry.meters(&plan("a", "b", "10.0.0.1:1"));
        for core in [CoreId(0), CORE] {
            meters.listener(core, LISTENER).begin();
            meters.core(core).live.add(1);
            meters.group(core, GROUP).server(ServerId(0)).live.add(1);
            meters.group(core, GROUP).group.warm.ready.add(1);
        }
        registry.forget_live(1);
        for (core, expected) in [(CoreId(0), 1), (CORE, 0)] {
            let listener = meters.listener(core, LISTENER);
            assert_eq!(listener.live(Phase::Accept).value(), expected);
            assert_eq!(listener.accepted.value(), 1);
            assert_eq!(meters.core(core).live.value(), expected);
            let group = meters.group(core, GROUP);
            assert_eq!(group.server(ServerId(0)).live.value(), expected);
            assert_eq!(group.group.warm.ready.value(), expected);
        }
    }
}
