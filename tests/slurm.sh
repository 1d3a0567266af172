#!/usr/bin/env bash
# A real Slurm of one node, without systemd, on loopback only: for tests, and for trying things out.
#
#   tests/slurm.sh install [--accounting]      what is missing, by apt-get (needs root)
#   tests/slurm.sh start DIR [--accounting]    then: export SLURM_CONF=DIR/slurm.conf
#   tests/slurm.sh stop DIR                    ends its jobs and daemons; DIR stays
#
# All its files and sockets lie in DIR, an absolute path; nothing below /etc is written. Starting
# what runs changes nothing. The node claims eight cores and two GPUs, which are character devices
# that we make. Memory limits are real where the machine has cgroup v1.
set -euo pipefail

PORT=${CUPEL_SLURM_PORT:-26817} # of slurmctld; slurmd, slurmdbd and the database take the next ones
CPUS=8
MEMORY_MB=8000

say() { echo "slurm.sh: $*"; }
die() { echo "slurm.sh: $*" >&2; exit 1; }

install() {
  local packages=()
  command -v slurmctld >/dev/null && command -v slurmd >/dev/null || packages+=(slurm-wlm)
  command -v munged >/dev/null || packages+=(munge)
  if [[ $accounting ]]; then
    command -v slurmdbd >/dev/null || packages+=(slurmdbd)
    command -v mariadbd >/dev/null || packages+=(mariadb-server)
  fi
  [[ ${#packages[@]} -eq 0 ]] && return
  command -v apt-get >/dev/null || die "apt-get is not there; install ${packages[*]} yourself"
  say "installing ${packages[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" \
    >/dev/null
}

# A process that is dead and not yet buried is no daemon.
alive() { [[ -s $1 ]] && grep -qs '^State:[[:space:]]*[RSDTtI]' "/proc/$(cat "$1")/status"; }

# Debian's packages start daemons where there is a systemd; ours are started here, by hand.
until_true() { # seconds, what, command…
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || die "$what did not come up; see $DIR"
    sleep 0.1
  done
}

configure() {
  local node
  node=$(hostname -s)
  mkdir -p "$DIR"/{state,spool,munge,run}
  chmod 711 "$DIR" "$DIR/munge" "$DIR/run"
  [[ -s $DIR/munge/key ]] || (umask 077 && head -c 64 /dev/urandom >"$DIR/munge/key")
  for number in 0 1; do
    # Slurm refuses plain files as GPUs, and does not say so. This device is another /dev/null.
    [[ -c $DIR/gpu$number ]] || mknod "$DIR/gpu$number" c 1 3 2>/dev/null || gpus=
  done
  {
    cat <<CONF
ClusterName=cupel
SlurmUser=root
SlurmdUser=root
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$PORT
SlurmdPort=$((PORT + 1))
# Without these two, the daemons listen on every address of the machine.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/socket
CredType=cred/munge
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.pid
SlurmctldLogFile=$DIR/slurmctld.log
SlurmdLogFile=$DIR/slurmd.log
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=5
MinJobAge=600
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# Else each job is given the memory of the whole node, and one runs after the other.
DefMemPerCPU=200
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0,sched_interval=1,bf_interval=1
# Two of these on one machine share its cgroups, which are named by the jobs' numbers.
FirstJobId=${PORT}000
JobRequeue=1
# Jobs of the partition urgent take the place of others.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$node NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=$MEMORY_MB State=UNKNOWN${gpus:+ Gres=gpu:fake:2}
PartitionName=work Nodes=$node Default=YES MaxTime=INFINITE PriorityTier=1 State=UP
PartitionName=urgent Nodes=$node MaxTime=60 PriorityTier=10 PreemptMode=OFF State=UP
CONF
    if [[ $gpus ]]; then echo GresTypes=gpu; fi
    if [[ -e /sys/fs/cgroup/memory/memory.limit_in_bytes ]]; then
      printf '%s\n' ProctrackType=proctrack/cgroup TaskPlugin=task/cgroup
    else
      printf '%s\n' ProctrackType=proctrack/linuxproc TaskPlugin=task/none
    fi
    if [[ $accounting ]]; then
      printf '%s\n' AccountingStorageType=accounting_storage/slurmdbd \
        AccountingStorageHost=127.0.0.1 AccountingStoragePort=$((PORT + 2)) \
        "AccountingStoragePass=$DIR/munge/socket" JobAcctGatherType=jobacct_gather/linux \
        JobAcctGatherFrequency=5
    fi
  } >"$DIR/slurm.conf"
  if [[ -e /sys/fs/cgroup/memory/memory.limit_in_bytes ]]; then
    printf '%s\n' CgroupPlugin=cgroup/v1 ConstrainRAMSpace=yes ConstrainSwapSpace=no \
      >"$DIR/cgroup.conf"
  else
    rm -f "$DIR/cgroup.conf"
    say "no cgroup v1 here: memory limits are not enforced, no job ends OUT_OF_MEMORY"
  fi
  if [[ $gpus ]]; then
    echo "NodeName=$node Name=gpu Type=fake File=$DIR/gpu[0-1]" >"$DIR/gres.conf"
  else
    say "character devices cannot be made here: the node has no GPUs"
  fi
}

start_accounting() {
  local database=(--no-defaults --datadir="$DIR/database" --socket="$DIR/run/database.sock")
  cat >"$DIR/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/socket
CommunicationParameters=NoInAddrAny
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((PORT + 2))
SlurmUser=root
PidFile=$DIR/run/slurmdbd.pid
LogFile=$DIR/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + 3))
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
CONF
  chmod 600 "$DIR/slurmdbd.conf"
  if ! alive "$DIR/run/database.pid"; then
    [[ -d $DIR/database/mysql ]] ||
      mariadb-install-db "${database[@]:0:2}" --user=root --auth-root-authentication-method=socket \
        --skip-test-db >"$DIR/database.log" 2>&1
    setsid mariadbd "${database[@]}" --user=root --bind-address=127.0.0.1 --port=$((PORT + 3)) \
      --pid-file="$DIR/run/database.pid" --innodb-buffer-pool-size=64M --skip-log-bin \
      >>"$DIR/database.log" 2>&1 </dev/null &
    until_true 60 "the database" mariadb "${database[@]:2}" -e 'select 1'
    mariadb --no-defaults --socket="$DIR/run/database.sock" -e "
      create database if not exists slurm;
      create user if not exists 'slurm'@'localhost' identified by 'slurm';
      create user if not exists 'slurm'@'127.0.0.1' identified by 'slurm';
      grant all on slurm.* to 'slurm'@'localhost';
      grant all on slurm.* to 'slurm'@'127.0.0.1';"
  fi
  if ! alive "$DIR/run/slurmdbd.pid"; then
    SLURM_CONF=$DIR/slurm.conf slurmdbd
    until_true 60 slurmdbd sacctmgr -n list cluster
    sacctmgr -i add cluster cupel >/dev/null 2>&1 || true # there already when started again
    sacctmgr -i add account cupel >/dev/null 2>&1 || true
    sacctmgr -i add user root account=cupel >/dev/null 2>&1 || true
  fi
}

start() {
  [[ $(id -u) == 0 ]] || die "Slurm is started here by root alone; this is $(id -un)"
  export SLURM_CONF=$DIR/slurm.conf
  if alive "$DIR/run/slurmctld.pid" && alive "$DIR/run/slurmd.pid" && sinfo >/dev/null 2>&1; then
    say "runs already in $DIR"
    return
  fi
  install
  gpus=yes
  configure
  if ! alive "$DIR/run/munged.pid"; then
    rm -f "$DIR/munge/socket"
    # --force: it would rather not run as root, nor below /tmp.
    munged --force --key-file="$DIR/munge/key" --socket="$DIR/munge/socket" \
      --pid-file="$DIR/run/munged.pid" --log-file="$DIR/munged.log" --seed-file="$DIR/munge/seed" \
      2>>"$DIR/munged.log"
    until_true 10 munged munge -n --socket="$DIR/munge/socket"
  fi
  if [[ $accounting ]]; then start_accounting; fi
  alive "$DIR/run/slurmctld.pid" || slurmctld
  alive "$DIR/run/slurmd.pid" || slurmd
  until_true 60 "the node" bash -c '[[ $(sinfo -h -o %T) == *idle* ]]'
  say "ready; type: export SLURM_CONF=$SLURM_CONF"
}

# Our daemons, and what watches over jobs, known by the files in DIR that they hold open.
holders() {
  local folder pid
  for folder in /proc/[0-9]*; do
    pid=${folder#/proc/}
    case "$(cat "$folder/comm" 2>/dev/null)" in
    slurmctld | slurmscriptd | slurmd | slurmstepd | slurmdbd | mariadbd | munged) ;;
    *) continue ;;
    esac
    if find "$folder/fd" -lname "$DIR/*" 2>/dev/null | grep -q .; then echo "$pid"; fi
  done
}

stop() {
  export SLURM_CONF=$DIR/slurm.conf
  if alive "$DIR/run/slurmctld.pid"; then
    timeout 10 scancel -f -u root >/dev/null 2>&1 || true
    timeout 10 bash -c 'while [[ $(squeue -h) ]]; do sleep 0.2; done' || true
  fi
  local name
  for name in slurmd slurmctld slurmdbd database munged; do
    alive "$DIR/run/$name.pid" && kill "$(cat "$DIR/run/$name.pid")" || true
  done
  local deadline=$((SECONDS + 20))
  while [[ $(holders) ]] && ((SECONDS < deadline)); do sleep 0.2; done
  # shellcheck disable=SC2046
  [[ $(holders) ]] && kill -KILL $(holders) || true
  rm -f "$DIR"/run/*.pid
  find /sys/fs/cgroup/*/slurm* -depth -type d -exec rmdir {} + 2>/dev/null || true
  say "stopped"
}

accounting=
[[ " $* " == *" --accounting "* ]] && accounting=yes
DIR=${2:-}
case "${1:-}" in
install) install ;;
start | stop)
  [[ $DIR == /* ]] || die "give an absolute path, as: tests/slurm.sh $1 /tmp/slurm"
  "$1"
  ;;
*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 2 ;;
esac
