//! What the kernel tells of this process. Where it does not, the samples are missing.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::catalog;
use super::page::Page;
use crate::sys::{page_bytes, process_cpu_time};
use crate::types::UnixSeconds;

/// What the kernel knows of the cores' threads.
#[derive(Debug, Default)]
pub struct Threads(Vec<Thread>);

#[derive(Debug)]
struct Thread {
    core: String,
    ran: Duration,
    waited: Duration,
}

impl Threads {
    /// Finds the threads by name: `prefix` and the core's number.
    #[must_use]
    pub fn look(prefix: &str) -> Self {
        let Ok(tasks) = fs::read_dir("/proc/self/task") else {
            return Self::default();
        };
        let mut threads: Vec<Thread> = tasks
            .filter_map(|task| {
                let task = task.ok()?.path();
                let name = fs::read_to_string(task.join("comm")).ok()?;
                let core = name.trim_end().strip_prefix(prefix)?;
                core.parse::<u16>().ok()?;
                let (ran, waited) = times(&fs::read_to_string(task.join("schedstat")).ok()?)?;
                let core = core.to_owned();
                Some(Thread { core, ran, waited })
            })
            .collect();
        threads.sort_by(|a, b| a.core.len().cmp(&b.core.len()).then(a.core.cmp(&b.core)));
        Self(threads)
    }
}

/// "ran waited slices", nanoseconds (Documentation/scheduler/sched-stats.rst).
fn times(schedstat: &str) -> Option<(Duration, Duration)> {
    let mut numbers = schedstat.split_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok().map(Duration::from_nanos);
    Some((next()?, next()?))
}

pub fn write_threads(page: &mut Page, threads: &Threads) {
    let mut family = page.family(&catalog::CORE_BUSY);
    for thread in &threads.0 {
        family.seconds([&thread.core], thread.ran);
    }
    let mut family = page.family(&catalog::CORE_WAIT);
    for thread in &threads.0 {
        family.seconds([&thread.core], thread.waited);
    }
}

/// `began`: the process.
pub fn write_process(page: &mut Page, began: UnixSeconds) {
    page.family(&catalog::CPU).seconds([], process_cpu_time());
    let mut family = page.family(&catalog::OPEN_FDS);
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory's own.
        family.count([], (files.count() as u64).saturating_sub(1));
    }
    let mut family = page.family(&catalog::MAX_FDS);
    if let Some(max) = getrlimit(Resource::Nofile).current {
        family.count([], max);
    }
    let mut family = page.family(&catalog::RESIDENT);
    let pages = fs::read_to_string("/proc/self/statm").ok();
    if let Some(pages) = pages.as_deref().and_then(resident_pages) {
        family.count([], pages * page_bytes());
    }
    page.family(&catalog::START_TIME).count([], began);
}

/// The second number of "size resident shared ..." (proc(5)).
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::Syntax;

    #[test]
    fn the_kernels_numbers_are_read_and_what_is_no_number_is_not() {
        let (ran, waited) = times("1500000000 250 7\n").unwrap();
        assert_eq!((ran.as_millis(), waited.as_nanos()), (1500, 250));
        assert_eq!(times("1500000000"), None);
        assert_eq!(times("many few 1"), None);
        assert_eq!(resident_pages("900 120 80 1 0 2 0\n"), Some(120));
        assert_eq!(resident_pages("900"), None);
    }

    #[test]
    fn threads_are_found_by_name_in_the_order_of_their_numbers() {
        let wait = std::sync::Arc::new(std::sync::Barrier::new(4));
        let threads: Vec<_> = ["look-10", "look-2", "look-x"]
            .map(|name| {
                let wait = wait.clone();
                let body = move || {
                    wait.wait();
                    wait.wait();
                };
                std::thread::Builder::new().name(name.into()).spawn(body)
            })
            .into_iter()
            .map(Result::unwrap)
            .collect();
        wait.wait();
        let found = Threads::look("look-");
        wait.wait();
        threads.into_iter().for_each(|it| it.join().unwrap());
        let cores: Vec<_> = found.0.iter().map(|it| it.core.as_str()).collect();
        assert_eq!(cores, ["2", "10"]);
    }

    #[test]
    fn a_process_is_told_of_with_its_files_and_memory() {
        let mut page = Page::new(Syntax::Prometheus);
        write_process(&mut page, 17);
        let text = page.finish();
        for metric in [
            &catalog::CPU,
            &catalog::OPEN_FDS,
            &catalog::MAX_FDS,
            &catalog::RESIDENT,
        ] {
            assert!(text.contains(&format!("\n{} ", metric.name)), "{text}");
        }
        assert!(text.ends_with("process_start_time_seconds 17\n"), "{text}");
    }
}
