# Read by init.sh, in the guest's new root: users, the units of a quick boot, and systemd as the first process.
$bb umount sys/fs/cgroup || fail "cannot unmount cgroup2: it is systemd's to mount"
$bb touch sys/fs/cgroup 2> /dev/null
if [ -n "$legacy" ]; then # in a container systemd keeps what it finds: no switch of the kernel's command line does this here
    $bb mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup || fail "cannot mount a tmpfs for the hierarchies"
    for name in memory freezer pids; do
        $bb mkdir sys/fs/cgroup/$name
        $bb mount -t cgroup -o $name $name sys/fs/cgroup/$name || fail "cannot mount the hierarchy of $name"
    done
    $bb mkdir sys/fs/cgroup/systemd
    $bb mount -t cgroup -o none,name=systemd,xattr systemd sys/fs/cgroup/systemd || fail "cannot mount systemd's hierarchy"
fi

user() { # user NAME UID
    $bb grep -q "^$1:" etc/passwd && return
    echo "$1:x:$2:$2::/home/$1:/bin/bash" >> etc/passwd
    echo "$1:x:$2:" >> etc/group
    echo "$1:*:19000:0:99999:7:::" >> etc/shadow
    $bb mkdir -p "home/$1" && $bb chown "$2:$2" "home/$1"
}
user alice 4201
user bob 4202
user messagebus 4203
echo "$opened" | while read -r directory; do [ -z "$directory" ] || $bb chmod o+x ".$directory"; done
$bb mkdir -p var/lib/systemd/linger && $bb touch var/lib/systemd/linger/alice

echo 0123456789abcdef0123456789abcdef > etc/machine-id
: > etc/fstab
: > etc/mtab
# What `su` and `cron` do at a plain user's is not to depend on the host: no session, as where pam_systemd is not installed...
echo 'session required pam_unix.so' > etc/pam.d/common-session
echo 'session required pam_unix.so' > etc/pam.d/common-session-noninteractive
# ...and a login that opens one.
printf '%s\n' 'auth sufficient pam_permit.so' 'account sufficient pam_permit.so' 'session required pam_unix.so' \
    'session required pam_systemd.so' > etc/pam.d/memrun-login

units=run/systemd/system
$bb mkdir -p $units run/systemd/system.conf.d run/systemd/user.conf.d run/systemd/journald.conf.d
for unit in systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-udev-trigger.service \
    systemd-udev-settle.service getty.target systemd-pstore.service systemd-random-seed.service systemd-hwdb-update.service \
    systemd-binfmt.service systemd-sysctl.service systemd-modules-load.service kmod-static-nodes.service \
    systemd-boot-system-token.service systemd-machine-id-commit.service systemd-update-utmp.service systemd-timesyncd.service \
    systemd-networkd.service networking.service dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount \
    modprobe@.service systemd-remount-fs.service systemd-firstboot.service systemd-sysusers.service ldconfig.service \
    systemd-journal-catalog-update.service systemd-journal-flush.service systemd-update-done.service apparmor.service; do
    $bb ln -s /dev/null $units/$unit
done
$bb cat > $units/memrun-guest.service << 'U'
[Unit]
Description=the command that guest.py was given
After=basic.target dbus.socket systemd-logind.service systemd-user-sessions.service user@4201.service
Wants=dbus.socket systemd-logind.service systemd-user-sessions.service user@4201.service
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/run/memrun-vm/busybox sh /run/memrun-vm/main.sh KIND
FailureAction=poweroff-force
SuccessAction=poweroff-force
U
$bb sed -i "s/KIND/$kind/" $units/memrun-guest.service
printf '[Unit]\nDescription=no more than the command needs\nRequires=basic.target memrun-guest.service\nAfter=basic.target\nAllowIsolate=yes\n' \
    > $units/memrun-guest.target
for manager in system user; do
    printf '[Manager]\nShowStatus=no\nDefaultTimeoutStopSec=20s\n' > run/systemd/$manager.conf.d/memrun.conf
done
printf '[Journal]\nStorage=volatile\nAudit=no\nForwardToConsole=no\n' > run/systemd/journald.conf.d/memrun.conf

# systemd starts less where it believes to be in a container; whether it does must not depend on the host's /.dockerenv.
export container=docker
exec $bb switch_root /root /usr/lib/systemd/systemd --unit=memrun-guest.target
fail "cannot start systemd"
