//! Seccomp profiles: the runtime's default, and those of users in files.
//!
//! The default allows what containerd's and Docker's default profiles allow (the names are facts of those projects), so
//! that an image which runs there runs here; everything else answers EPERM, except that `clone3` answers ENOSYS, because
//! its flags cannot be inspected and C libraries then fall back to `clone`.

use serde_json::{Value, json};

/// Allowed without conditions.
const ALLOWED: &str = "accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown
    fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv
    futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
    getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid
    getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday
    getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen
    listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt
    mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
    mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep
    newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
    pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64
    process_vm_readv process_vm_writev ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv
    recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
    restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam
    sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
    semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32
    setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32
    setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address
    setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask
    sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat
    utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Allowed to holders of a capability.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname \
         sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module query_module"),
    (
        "CAP_SYS_NICE",
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Values of `personality` that change nothing dangerous.
const PERSONALITIES: &[u64] = &[0x0, 0x0008, 0x20000, 0x20008, 0xffff_ffff];
/// All `CLONE_NEW*` flags but time.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// Sockets to the hypervisor, which no namespace confines.
const AF_VSOCK: u64 = 40;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// The default profile for a container with these capabilities, as an OCI `linux.seccomp`.
pub fn default_profile(capabilities: &[String]) -> Value {
    let allow =
        |names: &str| json!({"names": names.split_ascii_whitespace().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW"});
    let condition = |name: &str, value: u64, two: u64, op: &str| {
        let args = json!([{"index": 0, "value": value, "valueTwo": two, "op": op}]);
        json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": args})
    };
    let mut rules = vec![allow(ALLOWED), condition("socket", AF_VSOCK, 0, "SCMP_CMP_NE")];
    rules.extend(
        PERSONALITIES
            .iter()
            .map(|value| condition("personality", *value, 0, "SCMP_CMP_EQ")),
    );
    for (capability, names) in BY_CAPABILITY {
        if capabilities.iter().any(|name| name == capability) {
            rules.push(allow(names));
        }
    }
    if !capabilities.iter().any(|name| name == "CAP_SYS_ADMIN") {
        rules.push(condition("clone", CLONE_NAMESPACES, 0, "SCMP_CMP_MASKED_EQ"));
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

/// A user's profile, in the format that the kubelet's `seccomp` directory holds (an OCI `linux.seccomp`).
pub fn load(path: &std::path::Path) -> Result<Value, String> {
    let bytes = std::fs::read(path).map_err(|err| format!("cannot load seccomp profile {path:?}: {err}"))?;
    let profile: Value =
        serde_json::from_slice(&bytes).map_err(|err| format!("cannot load seccomp profile {path:?}: {err}"))?;
    // Parsed here, so that a mistake is told by its name and not as a failed start.
    serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(profile.clone())
        .map_err(|err| format!("cannot load seccomp profile {path:?}: {err}"))?;
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_a_profile() {
        for capabilities in [vec![], vec!["CAP_SYS_ADMIN".to_owned()]] {
            let profile = default_profile(&capabilities);
            serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(profile).unwrap();
        }
    }

    #[test]
    fn capabilities_open_calls() {
        let allows = |capabilities: &[&str], name: &str| {
            let capabilities: Vec<String> = capabilities.iter().map(|name| (*name).to_owned()).collect();
            let profile = default_profile(&capabilities);
            profile["syscalls"].as_array().unwrap().iter().any(|rule| {
                rule["action"] == "SCMP_ACT_ALLOW"
                    && rule.get("args").is_none()
                    && rule["names"].as_array().unwrap().iter().any(|other| other == name)
            })
        };
        assert!(
            !allows(&[], "mount") && !allows(&[], "unshare") && !allows(&[], "clone") && !allows(&[], "io_uring_setup")
        );
        assert!(allows(&["CAP_SYS_ADMIN"], "mount") && allows(&["CAP_SYS_ADMIN"], "clone"));
        assert!(allows(&["CAP_SYS_CHROOT"], "chroot") && !allows(&["CAP_SYS_CHROOT"], "mount"));
    }
}
