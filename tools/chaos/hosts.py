"""Hosts on one machine: each a network namespace with its own address, process ids, host name and Ray folder.

Needs root, iproute2 and nsenter. Everything listens inside the namespaces; the bridge between them leads nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
# Process 1 of a host: does nothing, and takes all the others with it when it is killed.
_INIT = """
hostname {name}
mount --bind {ray} /tmp/ray
mount --bind {hosts} /etc/hosts
mount --bind /dev/null /etc/resolv.conf   # else gloo waits 20 s for names of addresses
echo up
trap : CHLD
while :; do sleep 1000 & wait $!; done
"""


def missing() -> str | None:
    """Why there can be no hosts here, or None."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    for program, package in {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux"}.items():
        if shutil.which(program) is None:
            return f"needs {program} (Debian package {package})"
    return None


class Hosts:
    """`n` hosts host1, host2 ... at `subnet`.1, .2 ...; `folder` is what they share, an ordinary folder.

    prefix: of the interfaces' and namespaces' names, at most 8 letters, so that several can be up at once.
    """

    def __init__(self, n: int, folder: Path, prefix: str = "chaos", subnet: str = "10.78.0"):
        self.n, self.folder, self.prefix, self.subnet = n, folder, prefix, subnet
        self._inits: dict[int, subprocess.Popen] = {}

    def __enter__(self) -> Hosts:
        self.folder.mkdir(parents=True, exist_ok=True)
        Path("/tmp/ray").mkdir(exist_ok=True)
        hosts = [f"{self.address(i)} host{i}" for i in self.all]
        Path(self.folder, "hosts").write_text("\n".join(["127.0.0.1 localhost", *hosts, ""]))
        self._unmake()
        bridge = f"{self.prefix}br"
        _ip(f"link add {bridge} type bridge", f"addr add {self.subnet}.254/24 dev {bridge}", f"link set {bridge} up")
        for i in self.all:
            name, outer = f"{self.prefix}{i}", self._outer(i)
            _ip(
                f"netns add {name}",
                f"link add {outer} type veth peer name eth0 netns {name}",
                f"link set {outer} master {bridge} up",
                f"-n {name} link set lo up",
                f"-n {name} link set eth0 up",
                f"-n {name} addr add {self.address(i)}/24 dev eth0",
            )
            self.boot(i)
        return self

    def __exit__(self, *_: object) -> None:
        for i in self.all:
            self.kill(i)
        self._unmake()

    def address(self, i: int) -> str:
        return f"{self.subnet}.{i}"

    @property
    def all(self) -> range:
        return range(1, self.n + 1)

    def boot(self, i: int) -> None:
        """Makes the host anew: no process, and nothing in its Ray folder."""
        ray = self.folder / f"ray{i}"
        shutil.rmtree(ray, ignore_errors=True)
        ray.mkdir()
        init = _INIT.format(name=f"host{i}", ray=ray, hosts=self.folder / "hosts")
        unshare = ["unshare", "--uts", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        self._inits[i] = subprocess.Popen(
            ["nsenter", f"--net=/var/run/netns/{self.prefix}{i}", *unshare, "bash", "-c", init],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._inits[i].stdout.readline()

    def run(self, i: int, *command: str, env: Mapping[str, str] | None = None, **popen: object) -> subprocess.Popen:
        """Runs `command` on host i, in this process's folder; it dies with the host. Settings of this
        process's own Ray are kept from it.
        """
        (first,) = psutil.Process(self._inits[i].pid).children()
        enter = ["nsenter", "-t", str(first.pid), "--mount", "--uts", "--net", "--pid", f"--wd={os.getcwd()}"]
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return subprocess.Popen([*enter, *command], env={**own, **(env or {})}, start_new_session=True, **popen)

    def processes(self, i: int) -> list[psutil.Process]:
        """Everything alive on host i, as this machine sees it."""
        inode = os.stat(f"/var/run/netns/{self.prefix}{i}").st_ino
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if os.stat(f"/proc/{process.pid}/ns/net").st_ino == inode and process.status() != "zombie":
                    found.append(process)
        return found

    def cut(self, i: int) -> None:
        """Takes the network away; processes go on."""
        _ip(f"link set {self._outer(i)} down")

    def mend(self, i: int) -> None:
        _ip(f"link set {self._outer(i)} up")

    def kill(self, i: int) -> None:
        """Every process on the host, at once."""
        init = self._inits.pop(i, None)
        if init is not None:
            for first in psutil.Process(init.pid).children():
                first.kill()
            init.wait()
            init.stdout.close()

    def _outer(self, i: int) -> str:
        return f"{self.prefix}v{i}"

    def _unmake(self) -> None:
        for i in self.all:
            subprocess.run(["ip", "netns", "del", f"{self.prefix}{i}"], capture_output=True)
            subprocess.run(["ip", "link", "del", self._outer(i)], capture_output=True)
        subprocess.run(["ip", "link", "del", f"{self.prefix}br"], capture_output=True)


class RayCluster:
    """Ray over the hosts, behind one token: host 1 is the head; `cpus` cores each."""

    PORT, DASHBOARD = 6379, 8265

    def __init__(self, hosts: Hosts, cpus: int = 1, dashboard: bool = False):
        self.hosts, self.cpus, self.dashboard = hosts, cpus, dashboard
        token = hosts.folder / "ray.token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.env = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
        }

    @property
    def address(self) -> str:
        return f"{self.hosts.address(1)}:{self.PORT}"

    def start(self, i: int) -> None:
        """`ray start` on host i, which joins by and by."""
        head = ["--head", "--port", str(self.PORT), "--include-dashboard", str(self.dashboard).lower()]
        head += ["--dashboard-host", self.hosts.address(1), "--dashboard-port", str(self.DASHBOARD)]
        common = ["--num-cpus", str(self.cpus), "--object-store-memory", "80000000", "--block"]
        with open(self.hosts.folder / f"ray{i}.log", "a") as log:
            self.run(
                i,
                *[sys.executable, "-m", "ray.scripts.scripts", "start"],
                *(head if i == 1 else ["--address", self.address]),
                *["--node-ip-address", self.hosts.address(i), *common],
                stdout=log,
                stderr=log,
            )

    def find(self, i: int, what: str) -> list[psutil.Process]:
        """The processes on host i whose command line has `what`."""
        found = []
        for process in self.hosts.processes(i):
            with contextlib.suppress(psutil.Error):
                if what in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def wait(self, *which: int, seconds: float = 120) -> None:
        """Until the raylets of these hosts are up."""
        until = time.monotonic() + seconds
        for i in which:
            while not self.find(i, "raylet/raylet"):
                if time.monotonic() > until:
                    raise RuntimeError(f"host {i} has no raylet; see {self.hosts.folder}/ray{i}.log")
                time.sleep(0.2)

    def run(self, i: int, *command: str, **popen: object) -> subprocess.Popen:
        return self.hosts.run(i, *command, env=self.env, **popen)


@contextlib.contextmanager
def cluster_of(n: int, folder: Path, cpus: int = 1, dashboard: bool = False, **hosts: object) -> Iterator[RayCluster]:
    with Hosts(n, folder, **hosts) as up:
        cluster = RayCluster(up, cpus, dashboard)
        for i in up.all:
            cluster.start(i)
        cluster.wait(*up.all)
        yield cluster


def _ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)
