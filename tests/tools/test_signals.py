"""Recordings to segments: each format read alike, options that do what they say, people never split, damage named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("wfdb", reason="pip install 'distpre[signals]'")

from distpre.data.source import Source
from distpre.errors import DataError
from tools.shard.recordings import Columns, read
from tools.shard.signals import Making, conditioned, write
from tools.shard.writer import Unusable, held_out

REPOSITORY = Path(__file__).parents[2]
IDS = r"(?P<participant>p\d+)_(?P<visit>\d+)"
RATE = 200.0


def waves(seconds: float = 10, hertz: tuple[float, ...] = (5.0,), rate: float = RATE, seed: int = 0) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(0, 0.01, len(t))
    return sum(np.sin(2 * np.pi * h * t + seed) for h in hertz) + noise


def csv(path: Path, channels: dict[str, np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.stack(list(channels.values()), 1)
    path.write_text("\n".join([",".join(channels), *(",".join(map(repr, r)) for r in rows.tolist())]) + "\n")
    return path


def making(**changed) -> Making:
    usual = {"columns": Columns(rate=RATE), "rate": 100.0, "seconds": 2.0, "stride": 2.0}
    return Making(**(usual | changed))


def segments(folder: Path, split: str = "train") -> list:
    source = Source.open(sorted(map(str, folder.glob(f"{split}-*.tar"))), {"x": "npy", "told": "json"})
    return [(s.fields["x"], s.fields["told"]) for s in source.samples()]


def left(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]


# formats


def test_wfdb_edf_csv_and_parquet_say_the_same(tmp_path):
    import edfio
    import pandas
    import wfdb

    x = np.stack([waves(), waves(seed=1)])
    comments = ["Age: 41", "Sex: female"]
    wfdb.wrsamp("r", RATE, ["mV"] * 2, ["I", "II"], x.T, fmt=["16"] * 2, comments=comments, write_dir=str(tmp_path))
    signals = [edfio.EdfSignal(c, RATE, label=n) for c, n in zip(x, ("I", "II"), strict=True)]
    edfio.Edf(signals).write(tmp_path / "r.edf")
    csv(tmp_path / "r.csv", {"I": x[0], "II": x[1]})
    pandas.DataFrame({"I": x[0], "II": x[1]}).to_parquet(tmp_path / "r.parquet")
    for suffix in (".hea", ".edf", ".csv", ".parquet"):
        both = read(tmp_path / f"r{suffix}", Columns(rate=RATE))
        second = read(tmp_path / f"r{suffix}", Columns(channels=("II",), rate=RATE))
        assert both.rate == RATE
        np.testing.assert_allclose(both.signal, x, atol=1e-4)
        np.testing.assert_array_equal(second.signal, both.signal[1:])
    assert read(tmp_path / "r.hea", Columns()).facts == {"age": 41, "sex": "female"}
    with pytest.raises(Unusable, match="no channel 'V9'; it has I, II"):
        read(tmp_path / "r.edf", Columns(channels=("V9",)))


def test_an_uneven_clock_becomes_an_even_grid_with_its_holes_marked(tmp_path):
    t = np.cumsum(np.random.default_rng(0).uniform(8, 12, 1000)).round()
    t = t[(t < 3000) | (t > 3500)]
    labels = np.where(t < 5000, "sit", "walk")
    rows = ["t,x,what", *(f"{a},{np.sin(a / 500)},{b}" for a, b in zip(t, labels, strict=True))]
    (tmp_path / "r.csv").write_text("\n".join(rows))
    it = read(tmp_path / "r.csv", Columns(time="t", unit=0.001, label="what"))
    grid = t[0] + np.arange(it.signal.shape[1]) * 1000 / it.rate
    inside = (grid > t[t < 3000].max()) & (grid < t[t > 3500].min())
    assert it.rate == pytest.approx(100, rel=0.02) and inside.sum() > 40
    np.testing.assert_array_equal(np.isnan(it.signal[0]), inside)
    np.testing.assert_allclose(it.signal[0][~inside], np.sin(grid / 500)[~inside], atol=1e-3)
    assert (it.labels == np.where(grid < 5000, "sit", "walk"))[~inside].mean() > 0.99


def test_a_table_without_a_rate_is_asked_for_one(tmp_path):
    with pytest.raises(DataError, match="--time COLUMN, or --source-rate HZ"):
        read(csv(tmp_path / "a.csv", {"x": waves()}), Columns())


# conditioning


def test_the_band_keeps_what_is_inside_and_resampling_keeps_time(tmp_path):
    path = csv(tmp_path / "a.csv", {"x": waves(30, (0.1, 5.0, 45.0))})
    it = conditioned(path, making(band=(0.5, 20.0), rate=128.0))
    middle = slice(10 * 128, -10 * 128)  # the high-pass swings for some of its periods of 2 s
    expected = np.sin(2 * np.pi * 5.0 * np.arange(it.signal.shape[1]) / 128)
    assert it.signal.shape[1] == 30 * 128
    assert np.abs(it.signal[0] - expected)[middle].max() < 0.05
    assert np.abs(conditioned(path, making(rate=128.0)).signal[0] - expected)[middle].max() > 1


def test_segments_are_z_scored_or_left_in_their_units(tmp_path):
    csv(tmp_path / "in" / "p1_1.csv", {"x": 7 + 3 * waves(), "y": waves(seed=2)})
    write(tmp_path / "in", tmp_path / "z", IDS, making(stride=1.0))
    write(tmp_path / "in", tmp_path / "raw", IDS, making(stride=1.0, zscore=False))
    scored, raw = segments(tmp_path / "z"), segments(tmp_path / "raw")
    assert len(scored) == len(raw) == 9 and [told["start"] for _, told in scored] == list(range(9))
    for (z, told), (x, _) in zip(scored, raw, strict=True):
        assert z.shape == (2, 200) and z.dtype == np.float32 and told["visit"] == "1"
        np.testing.assert_allclose(z.mean(1), 0, atol=1e-5)
        np.testing.assert_allclose(z.std(1), 1, rtol=1e-4)
        assert x.mean(1)[0] == pytest.approx(7, abs=0.5)
    half = raw[0][0][:, 100:]  # segments overlap by half
    np.testing.assert_array_equal(half, raw[1][0][:, :100])


# people, and what is left out


@pytest.fixture
def people(tmp_path) -> Path:
    for p in range(12):
        for visit in range(2):
            csv(tmp_path / "in" / f"p{p}_{visit}.csv", {"x": waves(seed=p), "y": waves(seed=p + 50)})
    return tmp_path / "in"


def test_a_participant_is_never_on_both_sides(people, tmp_path):
    write(people, tmp_path / "out", IDS, making(), share=0.4, shard_samples=7, workers=2)
    sides = {s: {told["participant"] for _, told in segments(tmp_path / "out", s)} for s in ("train", "test")}
    assert sides["train"] and sides["test"] and not sides["train"] & sides["test"]
    assert sides["train"] | sides["test"] == {f"p{i}" for i in range(12)}
    made = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (made["rate"], made["seconds"], made["share"], made["ids"]) == (100.0, 2.0, 0.4, IDS)


def test_together_a_sample_is_all_segments_of_a_participant(people, tmp_path):
    lonely = next(f"p{i}" for i in range(30, 60) if not held_out(f"p{i}", 0.4))
    csv(people / f"{lonely}_0.csv", {"x": waves(2), "y": waves(2, seed=1)})  # one segment: no pair can be made of it
    write(people, tmp_path / "one", IDS, making(), share=0.4)
    write(people, tmp_path / "all", IDS, making(), share=0.4, together=True)
    assert segments(tmp_path / "all", "test")[3][1] == segments(tmp_path / "one", "test")[3][1]
    single = [(x, told) for x, told in segments(tmp_path / "one") if told["participant"] != lonely]
    whole = segments(tmp_path / "all")
    np.testing.assert_array_equal(np.concatenate([x for x, _ in whole]), np.stack([x for x, _ in single]))
    facts = [
        {**{k: v for k, v in told.items() if k != "segments"}, **own} for _, told in whole for own in told["segments"]
    ]
    assert facts == [told for _, told in single] and len({told["participant"] for _, told in whole}) == len(whole)
    assert [line["reason"] for line in left(tmp_path / "all")] == ["the participant's only segment"]


def test_other_options_are_not_mixed_in(people, tmp_path):
    write(people, tmp_path / "out", IDS, making())
    with pytest.raises(DataError, match="other rows"):
        write(people, tmp_path / "out", IDS, making(zscore=False))


def test_the_damaged_are_left_out_with_their_reasons(people, tmp_path):
    x, y = waves(), waves(seed=1)
    spoiled = x.copy()
    spoiled[900] = np.nan  # at 4.5 s: in the third segment of two seconds
    idle = x.copy()
    idle[1200:1600] = 0.3  # 6 to 8 s
    csv(people / "p20_0.csv", {"x": x, "y": np.zeros_like(x)})
    csv(people / "p21_0.csv", {"x": x[:300], "y": y[:300]})
    csv(people / "p22_0.csv", {"x": spoiled, "y": y})
    csv(people / "p23_0.csv", {"x": idle, "y": y})
    (people / "p24_0.csv").write_bytes(b"\x00\xff" * 40)
    (people / "p25_0.hea").write_text("p25_0 1 500 10000\np25_0.dat 16 200 12 0 0 0 0 I\n")  # its .dat is missing
    csv(people / "other.csv", {"x": x})  # --ids does not match it
    out = tmp_path / "out"
    said = write(people, out, IDS, making(columns=Columns(("x", "y"), rate=RATE)))
    reasons = {(line["file"], line["start"]): line["reason"] for line in left(out)}
    assert reasons.pop(("p20_0.csv", None)) == "a channel is flat all through"
    assert reasons.pop(("p21_0.csv", None)) == "too short: 1.50 s of 2 s"
    assert reasons.pop(("p22_0.csv", 4.0)) == "holes or values that are not finite"
    assert reasons.pop(("p23_0.csv", 6.0)) == "flat"
    assert reasons.pop(("p24_0.csv", None)).startswith("cannot be read: ")
    assert reasons.pop(("p25_0.hea", None)).startswith("cannot be read: FileNotFoundError")
    assert not reasons and "6 left out" in said
    kept = [(told["participant"], told["start"]) for _, told in segments(out)]
    assert [s for p, s in kept if p == "p22"] == [0.0, 2.0, 6.0, 8.0]
    assert [s for p, s in kept if p == "p23"] == [0.0, 2.0, 4.0, 8.0] and len(kept) == 24 * 5 + 8
    assert all(np.isfinite(x).all() for x, _ in segments(out))


def test_wrong_ids_and_empty_folders_are_plain_errors(people, tmp_path):
    with pytest.raises(DataError, match="has no participant"):
        write(people, tmp_path / "out", r"(?P<person>p\d+)", making())
    with pytest.raises(DataError, match="holds no samples"):
        write(people, tmp_path / "out", r"(?P<participant>q\d+)", making())
    csv(people / "p7_9.csv", {"x": waves()})
    with pytest.raises(DataError, match="recordings of 1 and of 2 channels"):
        write(people, tmp_path / "out", IDS, making())
    with pytest.raises(DataError, match="none of 25 recordings can be used; the first: too short"):
        write(people, tmp_path / "out", IDS, making(seconds=60.0))
    assert not (tmp_path / "out").exists()


def test_the_command_line_shards_real_heartbeats_by_person(shared_data, tmp_path):
    ids = r"Person_(?P<participant>0[4-8])/(?P<recording>rec_\d+)"
    arguments = ["--ids", ids, "--channels", "ECG I", "--band", "0.5", "40", "--rate", "128", "--seconds", "5"]
    command = [sys.executable, "-m", "tools.shard", "signals", shared_data / "ecg_id", "--out", tmp_path / "out"]
    done = subprocess.run(
        [*map(str, command), *arguments, "--held-out", "0.5"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    every = segments(tmp_path / "out") + segments(tmp_path / "out", "test")
    assert {x.shape for x, _ in every} == {(1, 640)} and len({told["participant"] for _, told in every}) == 5
    assert all(told["sex"] in ("male", "female") and told["age"] > 10 for _, told in every)


def test_a_segment_gets_its_labels_number_and_a_fact_of_each_code_that_is_asked_for(tmp_path):
    pandas = pytest.importorskip("pandas")
    (tmp_path / "in").mkdir()
    rows = pandas.DataFrame({"x": np.sin(np.arange(1600)), "what": ["walk"] * 900 + ["sit"] * 700})
    rows.to_csv(tmp_path / "in/p1_0.csv", index=False)
    columns = Columns(("x",), rate=RATE, label="what")
    how = making(columns=columns, classes=("sit", "stand"), has=(("ill", "dx", "12"), ("well", "dx", "1")))
    write(tmp_path / "in", tmp_path / "out", IDS, how, facts={"p1": {"dx": "7, 12"}})
    told = [told for _, told in segments(tmp_path / "out")]
    assert [t["class"] for t in told] == [-1, -1, 0, 0] and {(t["ill"], t["well"]) for t in told} == {(1, 0)}


@pytest.mark.parametrize("codes, ill, well", [("12,3", 1, 0), ("1, 12", 1, 1), ("112", 0, 0), (None, 0, 0)])
def test_codes_of_a_header_are_told_apart(codes, ill, well):
    from tools.shard.signals import listed

    assert (listed(codes).count("12"), listed(codes).count("1")) == (ill, well)


def test_pairs_are_what_two_devices_recorded_at_one_time_by_their_clocks(tmp_path):
    def recorded(name: str, begin: float, end: float, rate: float) -> None:
        t = np.arange(begin, end, 1 / rate)
        x = np.sin(t) + (10 if "watch" in name else 0)
        csv(tmp_path / "in" / f"{name}.csv", {"t": t * 1000, "x": x})

    for p in range(3):
        recorded(f"p{p}_0_phone", 100.03, 112.0, 97.0)
        recorded(f"p{p}_0_watch", 101.77, 110.1, 113.0)
    recorded("p9_0_phone", 50.0, 60.0, 97.0)
    how = making(columns=Columns(("x",), time="t", unit=0.001), stride=1.0, zscore=False)
    ids = IDS + "_(?P<device>phone|watch)"
    write(tmp_path / "in", tmp_path / "out", ids, how, share=0.5, pair="device")
    shards = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    found = list(Source.open(shards, {"phone": "phone.npy", "watch": "watch.npy", "told": "json"}).samples())
    assert len(found) == 3 * 7  # whole seconds 102 .. 108
    for sample in found:
        told = sample.fields["told"]
        wanted = np.sin(told["segment"] + np.arange(200) / 100)[None]
        middle = slice(20, -20)  # resampling swings at a recording's ends
        np.testing.assert_allclose(sample.fields["phone"][:, middle], wanted[:, middle], atol=0.02)
        np.testing.assert_allclose(sample.fields["watch"][:, middle] - 10, wanted[:, middle], atol=0.02)
    assert {line["reason"] for line in left(tmp_path / "out")} == {"not there of every device"}
    with pytest.raises(DataError, match="Name a group of --ids"):
        write(tmp_path / "in", tmp_path / "other", ids, how, pair="wrist")
    with pytest.raises(DataError, match="without a clock cannot be paired"):
        write(tmp_path / "in", tmp_path / "other", ids, making(columns=Columns(("x",), rate=RATE)), pair="device")
