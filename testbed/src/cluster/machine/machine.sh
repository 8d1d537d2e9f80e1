# pid 1 of one machine of the test cluster: sets up its file system, starts its parts, restarts those that end.
# The variables STATE, LOGS, CGROUP and the lines that use the functions below are written by `cluster up`.
set -u

# A part: a program in its own cgroup, started again one second after it ends, as an init system would.
part() { # NAME PROGRAM ARGUMENT...
  local name=$1 status; shift
  while :; do
    (echo 0 >"$CGROUP/$name/cgroup.procs" && exec "$@") >>"$LOGS/$name.log" 2>&1 </dev/null
    status=$?
    echo "$(date --iso-8601=seconds) $name ended with status $status; it starts again in 1 s" >>"$LOGS/$name.log"
    sleep 1
  done &
}

# Waits until the command succeeds: what comes after needs what was started before.
wait_for() { # COMMAND...
  until "$@" >/dev/null 2>&1 </dev/null; do sleep 0.1; done
}

# A node's file system: the machine's own, with the directories that Kubernetes writes to replaced. What is written
# elsewhere in /etc, /opt, /var/lib and /run stays in memory and goes with the node.
node_file_system() { # DIRECTORY OF THE NODE
  local node=$1 dir upper
  mount -t tmpfs -o mode=755 tmpfs /run || exit
  mkdir -p /run/lock /run/netns /run/bed/state
  mount --bind "$STATE" /run/bed/state || exit
  for dir in /etc /opt /var/lib; do
    upper=/run/bed/overlay$dir
    mkdir -p "$upper/upper" "$upper/work"
    mount -t overlay -o "lowerdir=$dir,upperdir=$upper/upper,workdir=$upper/work" overlay "$dir" || exit
  done
  mount --bind /run/bed/state "$STATE" || exit
  replace "$LOGS/var-log" /var/log
  replace "$node/cni-conf" /etc/cni/net.d
  replace "$node/cni-bin" /opt/cni/bin
  pretend vm/overcommit_memory 1
  pretend vm/panic_on_oom 0
  pretend kernel/panic 10
  pretend kernel/panic_on_oops 1
  pretend kernel/keys/root_maxkeys 1000000
  pretend kernel/keys/root_maxbytes 25000000
  for dir in kubelet cni containerd containers crio; do replace "$node/$dir" "/var/lib/$dir"; done
}

# The kubelet insists on settings of the whole machine, how it panics among them. It reads here what it wants to see and
# so leaves the real ones alone.
pretend() { # SETTING VALUE
  local file=/run/bed/sysctl/$1
  mkdir -p "${file%/*}" && echo "$2" >"$file" && mount --bind "$file" "/proc/sys/$1" || exit
}

replace() { # DIRECTORY WITH
  mkdir -p "$1" "$2" && mount --bind "$1" "$2" || exit
}
