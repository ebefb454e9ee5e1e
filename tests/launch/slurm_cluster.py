"""A SLURM of two nodes on this machine: munged, slurmctld and two slurmd, in a folder of its own.

    python -m tests.launch.slurm_cluster FOLDER     # until Ctrl-C; prints the SLURM_CONF to export

Debian's packages (`apt-get install slurm-wlm munge`), started as root without systemd. Nothing
outside the folder changes but one line of /etc/hosts while the cluster is up: processes of a job
look each other up by the names of their nodes.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HOSTS = Path("/etc/hosts")
NODES = "127.0.0.1 n1 n2"  # in it, while a cluster is up
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")

CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=10
SchedulerParameters=sched_interval=1,bf_interval=1,requeue_delay=0
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port_1} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port_2} CPUs=2
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no cluster can be started here; empty when one can."""
    absent = [name for name in PROGRAMS if not _program(name)]
    if absent:
        return f"no {absent[0]}; apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "SLURM's daemons want root"


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@contextlib.contextmanager
def cluster(folder: Path):
    """The environment in which sbatch, srun, squeue and scontrol speak to the cluster."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("state", "spool-n1", "spool-n2", "munge"):
        (folder / name).mkdir(exist_ok=True)
    host = socket.gethostname()
    ports = _free_ports(3)
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(folder=folder, host=host, port=ports[0], port_1=ports[1], port_2=ports[2])
    )
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    hosts = HOSTS.read_text()
    environment = os.environ | {"SLURM_CONF": str(conf)}
    munge = [f"--{part}={folder}/munge/{part.partition('-')[0]}" for part in ("key-file", "socket")]
    munge += [f"--{part}={folder}/munge/{part}" for part in ("log-file", "pid-file", "seed-file")]
    commands = (
        ["munged", "--foreground", "--force", *munge],
        ["slurmctld", "-D", "-c", "-f", str(conf)],
        ["slurmd", "-D", "-N", "n1", "-f", str(conf)],
        ["slurmd", "-D", "-N", "n2", "-f", str(conf)],
    )
    daemons = []
    try:
        HOSTS.write_text(f"{hosts.rstrip()}\n{NODES}\n")
        for command in commands:
            with (folder / "daemons.log").open("ab") as log:
                daemons.append(
                    subprocess.Popen(
                        [_program(command[0]), *command[1:]],
                        env=environment,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
            time.sleep(0.5)
        _wait_until_idle(environment, folder)
        yield environment
    finally:
        _end_jobs(environment)
        # The controller first: a node that goes is then nobody's failure.
        for daemon in (*daemons[1:], *daemons[:1]):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
        HOSTS.write_text(HOSTS.read_text().replace(f"{NODES}\n", ""))


def _end_jobs(environment) -> None:
    """Steps outlive their daemons: jobs that are left are ended before these."""
    subprocess.run(["scancel", "--user=root"], env=environment, check=False)
    for _ in range(60):
        left = subprocess.run(
            ["squeue", "--noheader"], env=environment, capture_output=True, text=True
        )
        if not left.stdout.strip():
            return
        time.sleep(0.5)


def _wait_until_idle(environment, folder: Path) -> None:
    for _ in range(60):
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%D %T"],
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.stdout.split() == ["2", "idle"]:
            return
        time.sleep(0.5)
    raise RuntimeError(f"the cluster did not come up; see the logs in {folder}: {done.stdout}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    if reason := missing():
        sys.exit(f"error: {reason}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with cluster(Path(sys.argv[1]).absolute()) as variables:
        print(f"export SLURM_CONF={variables['SLURM_CONF']}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(1e9)
