# PID 1 of the guest once its root is in place (with --systemd: a service there): runs the command, sends its output to the host,
# leaves its exit status where guest.py looks for it, and switches the guest off.
shared=/run/memrun-vm
bb=$shared/busybox

output=
case $1 in
    uml)
        output=/dev/tty1
        $bb stty -F $output raw -echo
        ;;
    *)
        for port in /sys/class/virtio-ports/*; do
            read -r name < "$port/name"
            [ "$name" != output ] || output=/dev/${port##*/}
        done
        ;;
esac

# The command writes to a pipe, as it would under a CI runner: no terminal, no terminal's tricks.
$bb mkfifo -m 600 /run/memrun-output
$bb cat < /run/memrun-output > "$output" &
pump=$!
$bb setsid $bb sh $shared/command < /dev/null > /run/memrun-output 2>&1
status=$?

# Whatever the command left behind would keep the pipe open, and so the guest alive.
for process in /proc/[0-9]*; do
    process=${process#/proc/}
    case $process in 1 | "$$" | "$pump") ;; *) kill -9 "$process" 2> /dev/null ;; esac
done
wait "$pump"
case $1 in uml) $bb stty -F $output raw -echo ;; esac # waits until everything is written

echo $status > $shared/status.new
$bb mv $shared/status.new $shared/status
$bb sync
$bb poweroff -f
