//! CPU time and memory of a process family, from /proc.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, anyhow};

/// What the tasks of some processes have used so far, or between two looks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    tasks: BTreeMap<u32, TaskTimes>,
    /// Tasks of the earlier look that were gone at the later one: what they used last is missing.
    pub(crate) tasks_gone: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct TaskTimes {
    running_ns: u64,
    waiting_ns: u64,
}

impl Usage {
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let spent = |(tid, now): (&u32, &TaskTimes)| {
            let then = earlier.tasks.get(tid).copied().unwrap_or_default();
            let times = TaskTimes {
                running_ns: now.running_ns.saturating_sub(then.running_ns),
                waiting_ns: now.waiting_ns.saturating_sub(then.waiting_ns),
            };
            (*tid, times)
        };
        Self {
            tasks: self.tasks.iter().map(spent).collect(),
            tasks_gone: earlier
                .tasks
                .keys()
                .filter(|tid| !self.tasks.contains_key(tid))
                .count(),
        }
    }

    pub(crate) fn running_seconds(&self) -> f64 {
        self.tasks
            .values()
            .map(|times| times.running_ns)
            .sum::<u64>() as f64
            / 1e9
    }

    /// Runnable, but the core was somebody else's.
    pub(crate) fn waiting_seconds(&self) -> f64 {
        self.tasks
            .values()
            .map(|times| times.waiting_ns)
            .sum::<u64>() as f64
            / 1e9
    }
}

/// All tasks of these processes: threads, and the kernel's workers of their rings (iou-*), which
/// are tasks of the process too.
pub(crate) fn family_usage(pids: &[u32]) -> anyhow::Result<Usage> {
    let mut usage = Usage::default();
    for pid in pids {
        let dir = format!("/proc/{pid}/task");
        for task in fs::read_dir(&dir).with_context(|| format!("process {pid} has ended"))? {
            let task = task?;
            let Some(tid) = number(&task.file_name().to_string_lossy()) else {
                continue;
            };
            // A task may end between the listing and the look.
            if let Ok(text) = fs::read_to_string(task.path().join("schedstat")) {
                usage
                    .tasks
                    .insert(tid, task_times(&text).context("no schedstat in /proc")?);
            }
        }
    }
    Ok(usage)
}

/// "time on the CPU, time waiting for it, slices", in nanoseconds
/// (Documentation/scheduler/sched-stats.rst).
fn task_times(text: &str) -> Option<TaskTimes> {
    let mut fields = text.split_whitespace().map(str::parse);
    let (Some(Ok(running_ns)), Some(Ok(waiting_ns))) = (fields.next(), fields.next()) else {
        return None;
    };
    Some(TaskTimes {
        running_ns,
        waiting_ns,
    })
}

/// The process and all that descend from it.
pub(crate) fn family(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = number(&entry.file_name().to_string_lossy()) else {
            continue;
        };
        if let Ok(stat) = fs::read_to_string(entry.path().join("stat")) {
            parents.insert(pid, parent_of(&stat).unwrap_or(0));
        }
    }
    let mut members = vec![root];
    let mut next = 0;
    while let Some(member) = members.get(next).copied() {
        members.extend(
            parents
                .iter()
                .filter(|(_, parent)| **parent == member)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    Ok(members)
}

/// The fourth field. The second is the name in parentheses, which may hold anything.
fn parent_of(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn number(name: &str) -> Option<u32> {
    name.parse().ok()
}

/// Proportional: a page that master and worker share counts once.
pub(crate) fn memory_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| anyhow!("no Pss in {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_behind_a_name_with_spaces_and_parentheses() {
        assert_eq!(parent_of("12 (a) b (c)) S 7 12 12"), Some(7));
    }

    #[test]
    fn the_difference_of_two_looks_counts_new_tasks_and_names_lost_ones() {
        let look = |tasks: &[(u32, u64)]| Usage {
            tasks: tasks
                .iter()
                .map(|(tid, ns)| {
                    (
                        *tid,
                        TaskTimes {
                            running_ns: *ns,
                            waiting_ns: 0,
                        },
                    )
                })
                .collect(),
            tasks_gone: 0,
        };
        let spent = look(&[(1, 3_000_000_000), (3, 500_000_000)])
            .since(&look(&[(1, 1_000_000_000), (2, 9)]));
        assert!((spent.running_seconds() - 2.5).abs() < 1e-9);
        assert_eq!(spent.tasks_gone, 1);
    }

    #[test]
    fn this_process_uses_cpu_time_and_memory() {
        let own = std::process::id();
        assert!(family(own).unwrap().contains(&own));
        assert!(family_usage(&[own]).unwrap().running_seconds() > 0.0);
        assert!(memory_bytes(own).unwrap() > 0);
    }
}
