"""python -m tools.chaos.slurm: a real SLURM over two hosts of this machine, and slurm/pretrain.sbatch on it.

Submits, preempts, sees the job commit and requeue itself, and resume; prints what happened when. Needs root, iproute2,
util-linux and Debian's slurm-wlm and munge.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.chaos.hosts import REPOSITORY, Hosts, missing
from tools.chaos.run import SHARED, digits

CONF = """\
ClusterName=chaos
SlurmctldHost={controller}({subnet}.254)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd_%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd_%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
SlurmctldTimeout=30
SlurmdTimeout=30
KillWait=5
NodeName=host[1-{n}] NodeAddr={subnet}.[1-{n}] CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 \
RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=host[1-{n}] Default=YES MaxTime=60 State=UP PriorityTier=1 GraceTime=30
PartitionName=high Nodes=host[1-{n}] MaxTime=60 State=UP PriorityTier=10
"""


class Slurm:
    """slurmctld beside the bridge and a slurmd on every host, for as long as the context lasts."""

    def __init__(self, hosts: Hosts):
        self.hosts, self.folder = hosts, hosts.folder / "slurm"
        self.env = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}

    @contextlib.contextmanager
    def up(self) -> Iterator[Slurm]:
        munge = self.folder / "munge"
        munge.mkdir(parents=True)
        (self.folder / "state").mkdir()
        key = munge / "key"
        key.write_bytes(secrets.token_bytes(128))
        for path, mode in {key: 0o400, munge: 0o755}.items():
            path.chmod(mode)
            shutil.chown(path, "munge", "munge")
        facts = {"controller": socket.gethostname(), "folder": self.folder, "subnet": self.hosts.subnet}
        (self.folder / "slurm.conf").write_text(CONF.format(n=self.hosts.n, **facts))
        files = [f"--{k}-file={munge}/{k}" for k in ("pid", "log", "seed")] + [f"--key-file={key}"]
        user = ["setpriv", "--reuid", "munge", "--regid", "munge", "--clear-groups"]
        started = [self._start(*user, "munged", "-F", f"--socket={munge}/munge.sock", *files)]
        try:
            self._until(lambda: (munge / "munge.sock").exists(), "munged")
            started.append(self._start("slurmctld", "-D", "-c"))
            for i in self.hosts.all:
                (self.folder / f"spool_host{i}").mkdir()
                with open(self.folder / "out.log", "a") as log:
                    self.hosts.run(i, "slurmd", "-D", "-N", f"host{i}", env=self.env, stdout=log, stderr=log)
            self._until(
                lambda: self.do("sinfo", "-h", "-N", "-o", "%t").split().count("idle") >= self.hosts.n, "slurmd"
            )
            yield self
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()

    def _start(self, *command: str) -> subprocess.Popen:
        with open(self.folder / "out.log", "a") as log:
            return subprocess.Popen(command, env={**os.environ, **self.env}, stdout=log, stderr=log)

    def _until(self, done: Callable[[], bool], what: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not done():
            if time.monotonic() > until:
                raise TimeoutError(f"{what} is not up; see {self.folder}")
            time.sleep(0.3)

    def do(self, *command: str, cwd: Path | None = None) -> str:
        """What a command of SLURM's prints."""
        done = subprocess.run(command, env={**os.environ, **self.env}, cwd=cwd, text=True, capture_output=True)
        return done.stdout.strip() or done.stderr.strip()


class Transcript:
    """Prints what happens, with the seconds since the beginning."""

    def __init__(self, slurm: Slurm, log: Path):
        self.slurm, self.log, self.began = slurm, log, time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def until(self, pattern: str, after: int = 0, seconds: float = 240) -> re.Match:
        """The first match in the job's log behind character `after`; prints its line."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            text = self.log.read_text() if self.log.exists() else ""
            if found := re.compile(pattern, re.MULTILINE).search(text, after):
                self.say(found[0])
                return found
            time.sleep(0.3)
        raise TimeoutError(f"no {pattern!r} in the log, which ends with:\n{text[-3000:]}")

    def state(self, job: str, *wanted: str, seconds: float = 120) -> None:
        until = time.monotonic() + seconds
        while (state := self.slurm.do("squeue", "-h", "-j", job, "-o", "%T (%r)").split(" ")[0]) not in wanted:
            if time.monotonic() > until:
                raise TimeoutError(f"job {job} is {state}, not {wanted}")
            time.sleep(0.3)
        self.say(f"squeue: job {job} {self.slurm.do('squeue', '-h', '-j', job, '-o', '%T (%r)') or 'gone'}")


def main() -> int:
    absent = next((p for p in ("slurmctld", "slurmd", "munged", "setpriv") if shutil.which(p) is None), None)
    if why := missing() or (absent and f"needs {absent} (Debian packages slurm-wlm and munge)"):
        print(f"error: tools.chaos.slurm {why}.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Hosts(2, folder / "hosts", prefix="slurm", subnet="10.79.0") as hosts, Slurm(hosts).up() as slurm:
            rehearse(slurm, folder)
    return 0


def rehearse(slurm: Slurm, folder: Path) -> None:
    """Submit, preempt, requeue, resume, end."""
    checkout = folder / "checkout"  # where slurm-logs/ is made
    checkout.mkdir()
    for room in ("distpre", "launch", "tools", "slurm", "recipes"):
        (checkout / room).symlink_to(REPOSITORY / room)
    overrides = [
        *SHARED,
        digits(folder / "digits"),
        f"run.dir={folder}/run",
        "train.batch=48",
        "train.commit_every=1000",
    ]
    command = ["sbatch", "--parsable", "-N2", "-c1", "-t10", "slurm/pretrain.sbatch", "recipes/quickstart.yaml:small"]
    job = slurm.do(*command, *overrides, "launch.workers=2", "train.steps=120", cwd=checkout)
    log = checkout / "slurm-logs" / job / "launch.log"
    told = Transcript(slurm, log)
    told.say(f"sbatch -N2 slurm/pretrain.sbatch: job {job}")
    told.state(job, "RUNNING")
    told.until(r"^2 workers on .*")
    told.until(r"^step 20/.*")
    high = slurm.do("sbatch", "--parsable", "-p", "high", "-N2", "-c2", "-t5", "--wrap", "sleep 5", cwd=checkout)
    told.say(f"sbatch -p high -N2: job {high}, which preempts job {job}")
    told.until(r"^committed step \d+.*")
    end = told.until(r"^launch ended with 75").end()
    told.state(high, "RUNNING", "COMPLETING", "COMPLETED", "")
    told.state(job, "PENDING")
    told.state(high, "COMPLETED", "")
    told.say(
        f"scontrol update StartTime=now: {slurm.do('scontrol', 'update', f'JobId={job}', 'StartTime=now') or 'done'}"
    )
    told.state(job, "RUNNING")
    told.until(r"^2 workers on .*resumed from step \d+", end)
    told.until(r"^step \d+/.*", end)
    told.until(r"^finished 120 steps.*", end)
    told.until(r"^launch ended with 0", end)
    told.state(job, "COMPLETED", "")
    told.say(f"slurm-logs/{job}: {' '.join(sorted(p.name for p in log.parent.iterdir()))}")


if __name__ == "__main__":
    sys.exit(main())
