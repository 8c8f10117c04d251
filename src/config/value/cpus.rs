use std::collections::BTreeSet;

use super::Refusal;

/// CPU_SETSIZE of the kernel's affinity mask (sched.h).
const CPUS_MAX: usize = 1024;

/// "0-3,6": the numbers of CPUs, as taskset and cgroups write them.
pub(in crate::config) fn cpu_list(text: &str) -> Result<Vec<usize>, Refusal> {
    let cure = "write numbers and ranges such as \"0-3,6\"; `lscpu -e` lists the machine's CPUs";
    let mut cpus = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = number(first).zip(number(last));
        let Some((first, last)) = range.filter(|(first, last)| first <= last) else {
            return Err(Refusal::new(
                format!("`{part}` is not a CPU or a range of CPUs"),
                cure,
            ));
        };
        if last >= CPUS_MAX {
            return Err(Refusal::new(
                format!(
                    "CPU {last} is beyond the last that Linux can pin to, {}",
                    CPUS_MAX - 1
                ),
                cure,
            ));
        }
        if let Some(twice) = (first..=last).find(|cpu| !cpus.insert(*cpu)) {
            return Err(Refusal::new(
                format!("CPU {twice} is named twice"),
                "name each CPU once: a CPU has one worker",
            ));
        }
    }
    Ok(cpus.into_iter().collect())
}

fn number(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_and_ranges() {
        assert_eq!(cpu_list("0-3,6").unwrap(), [0, 1, 2, 3, 6]);
        assert_eq!(cpu_list("5, 1").unwrap(), [1, 5]);
    }

    #[test]
    fn refuses_empty_reversed_doubled_and_enormous_lists() {
        for text in [
            "",
            "a",
            "3-1",
            "0-3,2",
            "1,",
            "-1",
            "0-",
            "+1",
            "1024",
            "0-99999999999",
        ] {
            assert!(cpu_list(text).is_err(), "{text}");
        }
    }
}
