#!/bin/sh
# The first process under user-mode-linux: makes what a booted machine has, runs the tests, writes the outcome, ends the guest.
# $TRIREME_SHARED is a directory of the host with the list of tests (an executable and a filter a line).
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=1

end() {
    echo "$1" >/mnt/outcome
    busybox poweroff -f
}

# A process that fails here ends the machine with a message, not with the panic of a kernel without a first process.
need() {
    "$@" || end "cannot $*"
}

mount -t proc proc /proc
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
need mount -t hostfs -o "$TRIREME_SHARED" none /mnt
need mount -t sysfs sysfs /sys
need mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /dev/shm /dev/pts
need mount -t tmpfs tmpfs /dev/shm
need mount -t devpts devpts /dev/pts
ln -s /proc/self/fd /dev/fd
need ip link set lo up
need busybox insmod "/usr/lib/uml/modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko"
# As systemd does: what is below the root has the controllers. Every one of them, or the tests would prove nothing.
for controller in cpu io memory pids; do
    need sh -c "echo +$controller >/sys/fs/cgroup/cgroup.subtree_control"
done

while read -r executable filter; do
    # One processor, and a guest's system calls are slow: more threads than two only wait for each other.
    "$executable" --test-threads 2 $filter </dev/null 2>&1 || end failed
done </mnt/tests
end passed
