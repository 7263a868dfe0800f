"""python -m launch submit RECIPE [key=value ...] --address http://HOST:8265: the run as a Ray job, on the cluster."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys

from distpre.errors import ClusterError
from distpre.recipe import load
from launch.arguments import REPOSITORY, arguments, found

_STOP_SECONDS = 600  # a job that is stopped has so long to finish its step and commit


def submit(given: list[str]) -> int:
    """Hands the job in and shows what it prints; its exit status. An interrupt leaves the job running.

    Raises RecipeError before anything is sent, ClusterError when no job server answers.
    """
    wanted = arguments(given)
    if not (wanted.address or "").startswith("http"):
        raise ClusterError("submit: --address is needed, as http://HOST:8265.", "It is the head's dashboard.")
    load(found(wanted.recipe), overrides=wanted.overrides)
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    from ray.job_submission import JobStatus, JobSubmissionClient

    command = [sys.executable, "-m", "launch", found(wanted.recipe), *wanted.overrides, "--address", "auto"]
    try:
        jobs = JobSubmissionClient(wanted.address)
        job = jobs.submit_job(
            # In this folder: the nodes share it, as they share the folder of the runs.
            entrypoint=f"cd {shlex.quote(os.getcwd())} && exec {shlex.join(command)}",
            runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY), "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS)}},
        )
    except (ConnectionError, RuntimeError, ValueError) as e:
        raise ClusterError(
            f"--address {wanted.address}: no job server takes the job ({str(e).splitlines()[0]}).",
            "Start the head with its dashboard, and export its RAY_AUTH_TOKEN_PATH here too.",
        ) from e
    print(f"job {job}; stop it with: ray job stop {job} --address {wanted.address}", flush=True)
    try:
        asyncio.run(_show(jobs, job))
    except KeyboardInterrupt:
        print(f"job {job} goes on; look again with: ray job logs {job} --follow --address {wanted.address}")
        return 130
    info = jobs.get_job_info(job)
    if info.driver_exit_code is not None:
        return info.driver_exit_code if info.driver_exit_code >= 0 else 128 - info.driver_exit_code
    print(f"job {job}: {info.status}: {info.message}", file=sys.stderr)
    return 0 if info.status == JobStatus.SUCCEEDED else 1


async def _show(jobs, job: str) -> None:
    async for text in jobs.tail_job_logs(job):
        print(text, end="", flush=True)
