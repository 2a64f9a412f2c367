#!/usr/bin/env bash
# A SLURM of one node on this machine, and a sweep on it: submit, preempt, requeue, cancel.
#
#     apt-get install slurm-wlm munge && tests/integration/slurm.sh
#
# Needs root, or the right to run munged and slurmd. Ends what it started. Exit status 77 (skipped)
# where SLURM's programs are absent.
set -euo pipefail
for program in slurmctld slurmd sbatch munged; do
    command -v "$program" > /dev/null || { echo "skipped: there is no $program"; exit 77; }
done
root=$(cd "$(dirname "$0")/../.." && pwd)
here=$(mktemp -d)
host=$(hostname -s)
trap 'kill $(cat "$here"/*.pid 2> /dev/null) 2> /dev/null || true' EXIT

mkdir -p "$here/state" "$here/spool" /run/munge
[ -f /etc/munge/munge.key ] || mungekey --create
pgrep -x munged > /dev/null || munged --force
cat > "$here/slurm.conf" << CONF
ClusterName=test
SlurmctldHost=$host
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
StateSaveLocation=$here/state
SlurmdSpoolDir=$here/spool
SlurmctldPidFile=$here/slurmctld.pid
SlurmdPidFile=$here/slurmd.pid
SlurmctldLogFile=$here/slurmctld.log
SlurmdLogFile=$here/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
AccountingStorageType=accounting_storage/none
JobRequeue=1
ReturnToService=2
NodeName=$host CPUs=$(nproc) State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$here/slurm.conf
slurmctld
slurmd -N "$host"
for _ in $(seq 30); do sinfo -h -o %T 2> /dev/null | grep -q idle && break; sleep 1; done
sinfo

cd "$root"
export PYTHONPATH=$root:$root/tests
run() {
    python tests/sweeps/driver_program.py "output=$here/runs" seeds=1 executor=slurm slurm.cpus=1 \
        trainer.accelerator=cpu workers=2 slurm.warning=30 "$@"
}
began() { grep -q "$1" "$here/runs/ran.txt" 2> /dev/null; }

mkdir -p "$here/runs"
echo '{"0.4-0": "hang", "0.5-0": "hang"}' > "$here/runs/behaviour.json"
run > "$here/first.txt" 2>&1 &
driver=$!
for _ in $(seq 120); do began 0.4-0 && break; sleep 1; done
job=$(python -c "import json, glob; print(json.load(open(
    glob.glob('$here/runs/threshold/trials/threshold=0.4-seed0/slurm.json')[0]))['job'])")
scancel --signal=USR1 "$job" # As a preemption does: a checkpoint, and the job waits again
for _ in $(seq 120); do [ "$(grep -c 0.4-0 "$here/runs/ran.txt")" = 2 ] && break; sleep 1; done
for _ in $(seq 120); do began 0.5-0 && break; sleep 1; done
kill -9 $driver # Its jobs live on
run > "$here/second.txt" 2>&1 &
driver=$!
sleep 5
hung=$(python -c "import json; print(json.load(open(
    '$here/runs/threshold/trials/threshold=0.5-seed0/slurm.json'))['job'])")
scancel "$hung" # It failed, and is tried again
wait $driver
cat "$here/second.txt"
[ "$(find "$here/runs/threshold/trials" -name result.json | wc -l)" = 4 ]
[ "$(squeue -h | wc -l)" = 0 ]
echo "passed: $here"
