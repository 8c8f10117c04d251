//! CPU time and memory of a process family, from /proc.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, anyhow};
use rustix::param::clock_ticks_per_second;

/// What the tasks of some processes have used so far, or between two looks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    tasks: BTreeMap<u32, TaskTimes>,
    /// CPU time of the processes as a whole, ended threads included, in the kernel's ticks.
    ticks: u64,
    processes: u32,
    /// Tasks of the earlier look that were gone at the later one.
    pub(crate) tasks_gone: usize,
}

/// Ticks by which a process's two times, user and system, may be off at both looks together.
const TICKS_OFF: u32 = 4;

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
            ticks: self.ticks.saturating_sub(earlier.ticks),
            processes: self.processes,
            tasks_gone: earlier
                .tasks
                .keys()
                .filter(|tid| !self.tasks.contains_key(tid))
                .count(),
        }
    }

    /// The tasks' own times are exact to the nanosecond, but those of threads that have ended are
    /// lost with them (stunnel has a thread for each connection). The processes' times keep them,
    /// in ticks of 10 ms, and count when they hold more than ticks can be off.
    pub(crate) fn running_seconds(&self) -> f64 {
        let running_ns = self.tasks.values().map(|times| times.running_ns);
        let exact = running_ns.sum::<u64>() as f64 / 1e9;
        let tick = 1.0 / clock_ticks_per_second() as f64;
        let whole = self.ticks as f64 * tick;
        if whole > exact + f64::from(self.processes * TICKS_OFF) * tick {
            return whole;
        }
        exact
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
    let mut usage = Usage {
        processes: u32::try_from(pids.len())?,
        ..Usage::default()
    };
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("process {pid} has ended"))?;
        usage.ticks += process_ticks(&stat).context("no times in /proc/PID/stat")?;
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

/// Fields 14 and 15, utime and stime (proc_pid_stat(5)).
fn process_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_whitespace().skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
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
            ..Usage::default()
        };
        let spent = look(&[(1, 3_000_000_000), (3, 500_000_000)])
            .since(&look(&[(1, 1_000_000_000), (2, 9)]));
        assert!((spent.running_seconds() - 2.5).abs() < 1e-9);
        assert_eq!(spent.tasks_gone, 1);
    }

    #[test]
    fn what_ended_threads_used_is_not_lost() {
        let mut usage = Usage {
            processes: 1,
            ..Usage::default()
        };
        usage.tasks.insert(
            1,
            TaskTimes {
                running_ns: 1_000_000_000,
                waiting_ns: 0,
            },
        );
        usage.ticks = clock_ticks_per_second() + 2;
        assert!(
            (usage.running_seconds() - 1.0).abs() < 1e-9,
            "within a tick or two"
        );
        usage.ticks = clock_ticks_per_second() * 3;
        assert!((usage.running_seconds() - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_process_has_its_times_behind_a_name_with_spaces() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 31 0 0 20 0 1 0 99";
        assert_eq!(process_ticks(stat), Some(281));
    }

    #[test]
    fn this_process_uses_cpu_time_and_memory() {
        let own = std::process::id();
        assert!(family(own).unwrap().contains(&own));
        assert!(family_usage(&[own]).unwrap().running_seconds() > 0.0);
        assert!(memory_bytes(own).unwrap() > 0);
    }
}
