import io
import json

import pytest
from rich.console import Console

from distpre.runtime.report import Reporter, Screen, duration

START = {
    "kind": "start", "workers": 2, "device": "cpu", "batch": 256, "of": 600, "seconds": 3.21,
    "parameters": {"image": 12345, "text": 678}, "resumed_from": None,
}  # fmt: skip
STEP = {
    "kind": "step", "step": 10, "of": 100, "samples": 2560, "samples_per_second": 1234.5, "data_wait": 0.031,
    "loss": 2.3456789, "lr": 9.8e-4, "scale": 14.2857, "memory_bytes": 512 * 2**20, "eta_seconds": 83, "terms": {},
}  # fmt: skip
TABLES = {"retrieval": [["R@1", 0.51234, 360, None, None]], "zero_shot": [["top-1", 0.97, 360, 0.95, 0.98]]}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def shown(*records, terminal=False, command=None):
    out = io.StringIO()
    with Screen(command, Console(file=out, force_terminal=terminal, width=200, soft_wrap=True)) as screen:
        for record in records:
            screen.show(record)
    return out.getvalue()


def test_each_kind_has_its_file_with_wall_clock_time(tmp_path):
    reporter = Reporter(tmp_path, None)
    for record in (STEP, {"kind": "note", "text": "x"}, {"kind": "eval", "step": 10, "tables": TABLES}):
        reporter.write(record)
    (metrics,), (evaluation,) = lines(tmp_path / "metrics.jsonl"), lines(tmp_path / "eval.jsonl")
    assert metrics.pop("time") > 1e9 and metrics == {k: v for k, v in STEP.items() if k != "kind"}
    assert evaluation["tables"] == TABLES and evaluation["step"] == 10


def test_lines_are_on_the_disk_at_once(tmp_path):
    reporter = Reporter(tmp_path, None)
    reporter.write(STEP)
    assert len(lines(tmp_path / "metrics.jsonl")) == 1
    reporter.close()


def test_what_is_not_finite_becomes_null(tmp_path):
    Reporter(tmp_path, None).write({**STEP, "loss": float("nan"), "terms": {"match": [float("inf"), 1.0]}})
    (line,) = lines(tmp_path / "metrics.jsonl")
    assert line["loss"] is None and line["terms"] == {"match": [None, 1.0]}


@pytest.mark.parametrize("resumed, left", [(20, [10, 20]), (25, [10, 20]), (None, []), (40, [10, 20, 30, 40])])
def test_resume_keeps_each_step_once(tmp_path, resumed, left):
    first = Reporter(tmp_path, None)
    for step in (10, 20, 30, 40):
        first.write({**STEP, "step": step})
    again = Reporter(tmp_path, resumed)
    again.write({**STEP, "step": 50})
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [*left, 50]


def test_resume_cuts_the_line_a_crash_left_unfinished(tmp_path):
    Reporter(tmp_path, None).write(STEP)
    with open(tmp_path / "metrics.jsonl", "a") as f:
        f.write('{"step": 1')
    Reporter(tmp_path, 10).write({**STEP, "step": 20})
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [10, 20]


def test_elsewhere_than_on_a_terminal_a_step_is_one_plain_line():
    text = shown(STEP)
    for part in ("step 10/100", "loss 2.346", "scale 14.29", "lr 9.80e-04", "1,234 samples/s", "data wait 3%",
                 "2,560 seen", "512 MiB", "1:23 left"):  # fmt: skip
        assert part in text
    assert text.count("\n") == 1 and "\x1b" not in text


def test_a_terminal_keeps_one_live_line_and_lets_others_stay():
    text = shown(
        STEP, {**STEP, "step": 20}, {"kind": "commit", "step": 20, "seconds": 0.5, "waited": 0.02}, terminal=True
    )
    assert "step 20/100" in text and "\x1b" in text
    assert "committed step 20 in 0.5 s, 0.02 s of them training's\n" in text.replace("\r\n", "\n")


def test_evaluation_is_short_at_intervals_and_a_table_at_the_end():
    evaluation = {"kind": "eval", "step": 50, "tables": TABLES}
    assert shown(evaluation).strip() == "evaluation at step 50: retrieval R@1 0.512; zero_shot top-1 0.970"
    done = {"kind": "done", "step": 100, "run_dir": "runs/x"}
    text = shown({**START, "seconds": 60.0}, evaluation, done, command="python -m launch r.yaml")
    for part in ("0.5123", "0.9700  [0.9500, 0.9800]", "360", "finished 100 steps in 1:00", "runs/x",
                 "python -m launch r.yaml train.steps=200"):  # fmt: skip
        assert part in text


def test_steps_and_time_at_the_end_are_of_all_stages_and_of_all_sets_of_workers_and_not_of_an_earlier_run():
    stages = [{**START, "resumed_from": step, "seconds": 60.0} for step in (40, 60, 80)]
    text = shown(*stages, {"kind": "done", "step": 100, "run_dir": "runs/x"})
    assert "finished 100 steps, the last 60 of them in 1:00; everything is in runs/x" in text


def test_start_says_where_training_begins():
    expected = "2 workers on cpu, global batch 256, 600 steps, parameters: image 12,345 text 678; ready in 3.2 s, "
    assert shown(START).strip() == expected + "from the beginning"
    assert shown({**START, "resumed_from": 40}).strip() == expected + "resumed from step 40"


def test_text_with_brackets_is_shown_as_it_is():
    assert "[rank 1] [/red]" in shown({"kind": "note", "text": "[rank 1] [/red]"})


@pytest.mark.parametrize("seconds, text", [(4.49, "4.5 s"), (83, "1:23"), (3723, "1:02:03")])
def test_duration(seconds, text):
    assert duration(seconds) == text
