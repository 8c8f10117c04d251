//! seccomp: the system calls that the process can still make.
//!
//! What is not on the list fails with EPERM and is logged by the kernel, so that a call which was
//! forgotten shows, and takes no connection down. A kernel keeps a map of calls whose answer does
//! not hang on their arguments (Linux 5.11), so the data plane's calls do not run the filter.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::State;
use crate::sys::restrict_calls;

/// Why a filter could not be compiled: a defect, or a processor that seccompiler does not know.
type Unbuilt = Box<dyn std::error::Error>;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Connections, their bytes, and waiting for both.
const TRAFFIC: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_splice,
    libc::SYS_pipe2,
    libc::SYS_socketpair,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
];

/// Threads, memory and time, as the allocator, the C library and the runtimes need them.
const PROCESS: &[libc::c_long] = &[
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_getcpu,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_capget,
    // It only takes away once `no_new_privs` is set.
    libc::SYS_capset,
];

/// Files: configuration, certificates and keys to be read, logs to be written, sockets to be
/// removed. Which ones, says Landlock.
const FILES: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_flock,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_umask,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // journald takes long messages by it.
    libc::SYS_memfd_create,
];

/// Older forms of the same, which only this architecture has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_create,
    libc::SYS_eventfd,
    libc::SYS_accept,
    libc::SYS_time,
    libc::SYS_getpgrp,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[libc::SYS_accept];

/// Leaves the process, with all its threads, the calls of this file's lists, for good.
pub(super) fn close_but_the_list() -> State {
    let installed = programs().map_err(|error| error.to_string());
    let calls = match installed.and_then(|(programs, calls)| install(programs).map(|()| calls)) {
        Ok(calls) => calls,
        Err(words) => return State::Unavailable(words),
    };
    State::On(format!("{calls} system calls"))
}

fn install([clone3, list]: [BpfProgram; 2]) -> Result<(), String> {
    // Each thread that begins tries clone3, and that is no news.
    for (program, logs) in [(clone3, false), (list, true)] {
        let mut program: Vec<libc::sock_filter> = program.iter().map(instruction).collect();
        restrict_calls(&mut program, logs).map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL | libc::ENOSYS) => {
                "this kernel has no filters (CONFIG_SECCOMP_FILTER)".to_owned()
            }
            _ => format!("this system refuses it: {error}"),
        })?;
    }
    Ok(())
}

fn instruction(it: &seccompiler::sock_filter) -> libc::sock_filter {
    libc::sock_filter {
        code: it.code,
        jt: it.jt,
        jf: it.jf,
        k: it.k,
    }
}

/// The filters, and how many calls they leave.
///
/// Two, because the C library must be told that there is no clone3(2), whose flags a filter cannot
/// see: only then it makes threads by clone(2).
fn programs() -> Result<([BpfProgram; 2], usize), Unbuilt> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let errno = |code: i32| SeccompAction::Errno(code.unsigned_abs());
    let mut allowed = rules()?;
    let calls = allowed.len();
    allowed.insert(libc::SYS_clone3, Vec::new());
    let list = SeccompFilter::new(allowed, errno(libc::EPERM), SeccompAction::Allow, arch)?;
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let clone3 = SeccompFilter::new(clone3, SeccompAction::Allow, errno(libc::ENOSYS), arch)?;
    Ok(([clone3.try_into()?, list.try_into()?], calls))
}

fn rules() -> Result<Rules, Unbuilt> {
    let whole = [TRAFFIC, PROCESS, FILES, OLDER].concat();
    let mut rules: Rules = whole.into_iter().map(|call| (call, Vec::new())).collect();
    rules.extend(bounded()?);
    Ok(rules)
}

/// ioctl(2) for sockets and pipes, and for asking what stderr is: FIONBIO, FIONREAD, TIOCOUTQ and
/// TCGETS (asm-generic/ioctls.h; libc's types for them differ between C libraries).
const IOCTLS: [u64; 4] = [0x5421, 0x541b, 0x5411, 0x5401];

/// Names of threads and of memory; what the process may see of itself.
const PRCTLS: [libc::c_int; 5] = [
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_VMA,
    libc::PR_GET_DUMPABLE,
    libc::PR_GET_NO_NEW_PRIVS,
];

const FAMILIES: [libc::c_int; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// Calls that are allowed with some arguments only.
fn bounded() -> Result<Rules, Unbuilt> {
    let own = u64::from(std::process::id());
    let thread = flag(libc::CLONE_THREAD);
    let executable = flag(libc::PROT_EXEC);
    Ok(Rules::from([
        // Threads, and no processes.
        (libc::SYS_clone, vec![masked(0, thread, thread)?]),
        // No memory that could hold foreign code.
        (libc::SYS_mmap, vec![masked(2, executable, 0)?]),
        (libc::SYS_mprotect, vec![masked(2, executable, 0)?]),
        (libc::SYS_socket, one_of(0, FAMILIES.map(flag))?),
        (libc::SYS_ioctl, one_of(1, IOCTLS)?),
        (libc::SYS_prctl, one_of(0, PRCTLS.map(flag))?),
        // Of our own threads, as abort(3) does, and no other process.
        (libc::SYS_tgkill, one_of(0, [own])?),
        (libc::SYS_prlimit64, one_of(0, [0, own])?),
    ]))
}

fn flag(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompRule, Unbuilt> {
    rule(argument, SeccompCmpOp::MaskedEq(mask), value)
}

fn one_of<const N: usize>(argument: u8, values: [u64; N]) -> Result<Vec<SeccompRule>, Unbuilt> {
    let equal = |value| rule(argument, SeccompCmpOp::Eq, value);
    values.into_iter().map(equal).collect()
}

fn rule(argument: u8, operation: SeccompCmpOp, value: u64) -> Result<SeccompRule, Unbuilt> {
    let length = SeccompCmpArgLen::Dword;
    let condition = SeccompCondition::new(argument, length, operation, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_on_the_list_that_starts_a_program_or_reaches_into_the_system() {
        let rules = rules().unwrap();
        for (call, name) in [
            (libc::SYS_execve, "execve"),
            (libc::SYS_execveat, "execveat"),
            (libc::SYS_clone3, "clone3"),
            (libc::SYS_ptrace, "ptrace"),
            (libc::SYS_process_vm_readv, "process_vm_readv"),
            (libc::SYS_process_vm_writev, "process_vm_writev"),
            (libc::SYS_mount, "mount"),
            (libc::SYS_umount2, "umount2"),
            (libc::SYS_pivot_root, "pivot_root"),
            (libc::SYS_chroot, "chroot"),
            (libc::SYS_unshare, "unshare"),
            (libc::SYS_setns, "setns"),
            (libc::SYS_bpf, "bpf"),
            (libc::SYS_perf_event_open, "perf_event_open"),
            (libc::SYS_kexec_load, "kexec_load"),
            (libc::SYS_init_module, "init_module"),
            (libc::SYS_finit_module, "finit_module"),
            (libc::SYS_keyctl, "keyctl"),
            (libc::SYS_add_key, "add_key"),
            (libc::SYS_userfaultfd, "userfaultfd"),
            (libc::SYS_setresuid, "setresuid"),
            (libc::SYS_kill, "kill"),
            (libc::SYS_reboot, "reboot"),
        ] {
            assert!(!rules.contains_key(&call), "{name}");
        }
    }

    #[test]
    fn both_filters_compile_for_this_processor_and_fit_the_kernel() {
        let (programs, calls) = programs().unwrap();
        assert!(calls > 100, "{calls}");
        // BPF_MAXINSNS of linux/bpf_common.h.
        assert!(programs.iter().all(|it| it.len() < 4096));
    }
}
