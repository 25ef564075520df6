# First process of the guest, run by busybox inside the initramfs that guest.py packs.
#
# Builds the guest's real root, a tmpfs laid over the host's / (which is never written), and
# hands over to main.sh there. An error ends the guest; guest.py shows what the console said.
bb=/busybox

fail() {
    echo "memrun guest: $*"
    $bb poweroff -f
}

# kind (uml or qemu), shared (the host directory with command, main.sh and busybox), zram, here (the caller's directory),
# systemd (the tree to lay over the host's /, if systemd is wanted), opened (directories that everybody is to pass).
. /settings
$bb mkdir -p /proc /sys /dev /lower /layers /root
$bb mount -t proc proc /proc || fail "cannot mount /proc"
$bb mount -t sysfs sysfs /sys || fail "cannot mount /sys"
$bb mount -t devtmpfs devtmpfs /dev || fail "cannot mount /dev"

for module in /modules/*.ko; do
    $bb insmod "$module" || fail "cannot load $module"
done

options=trans=virtio,version=9p2000.L,msize=524288,access=any
host() { # host DIRECTORY: mount the host's / there
    case $kind in
        uml) $bb mount -t hostfs -o ro,/ none "$1" ;;
        *) $bb mount -t 9p -o "$options,cache=loose,ro" root "$1" ;;
    esac || fail "cannot mount the host's root directory"
}
host /lower

$bb mount -t tmpfs -o mode=755,size=90% tmpfs /layers || fail "cannot mount the upper layer"
$bb mkdir -p /layers/upper /layers/scratch
lower=/lower
if [ -n "$systemd" ] && [ -d "/lower$systemd/usr" ]; then # mounted once more: no layer of an overlay may lie within another
    $bb mkdir -p /packages
    host /packages
    lower=/packages$systemd:/lower
fi
$bb mount -t overlay -o lowerdir=$lower,upperdir=/layers/upper,workdir=/layers/scratch overlay /root ||
    fail "cannot lay a tmpfs over the host's root directory"

cd /root || fail "there is no new root"
for directory in dev proc sys; do
    $bb mount -o move /$directory $directory || fail "cannot move /$directory"
done
$bb mkdir -p dev/pts dev/shm
$bb mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts dev/pts || fail "cannot mount /dev/pts"
$bb mount -t tmpfs -o mode=1777 tmpfs dev/shm || fail "cannot mount /dev/shm"
$bb mount -t tmpfs -o mode=1777,size=90% tmpfs tmp || fail "cannot mount /tmp"
$bb mount -t tmpfs -o mode=755 tmpfs run || fail "cannot mount /run"
$bb mount -t cgroup2 -o nsdelegate cgroup2 sys/fs/cgroup || fail "cannot mount cgroup2"
for link in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
    $bb ln -sf "/proc/self/${link#*:}" "dev/${link%%:*}"
done

$bb mkdir -p -m 700 run/memrun-vm
$bb mkdir -p run/lock
case $kind in
    uml) $bb mount -t hostfs -o "$shared" none run/memrun-vm ;;
    *) $bb mount -t 9p -o "$options" shared run/memrun-vm ;;
esac || fail "cannot mount the directory shared with the host"

# A checkout below /tmp or /run (a CI runner's, say) would be hidden by the fresh ones: it gets an overlay of its own.
case $here in
    /tmp/* | /run/*)
        $bb mkdir -p "/root$here" /layers/upper2 /layers/scratch2
        $bb mount -t overlay -o "lowerdir=/lower$here,upperdir=/layers/upper2,workdir=/layers/scratch2" overlay "/root$here" ||
            fail "cannot lay a tmpfs over $here"
        ;;
esac

$bb hostname memrun-vm
$bb ip link set lo up || fail "cannot bring the loopback interface up"

if [ -n "$zram" ]; then
    for module in /swap-modules/*.ko; do
        [ ! -e "$module" ] || $bb insmod "$module" || fail "cannot load $module"
    done
    { echo "$zram" > sys/block/zram0/disksize && $bb mkswap dev/zram0 > /dev/null &&
        $bb swapon dev/zram0; } || fail "cannot swap to zram"
fi

[ -z "$systemd" ] || . /systemd.sh
exec $bb switch_root /root /run/memrun-vm/busybox sh /run/memrun-vm/main.sh "$kind"
fail "cannot start main.sh"
