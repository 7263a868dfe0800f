import io

import numpy as np
from PIL import Image

from tests.data.tars import numbered, tar
from tools.inspect import bars, main


def png(colour, size=(20, 10)):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "png")
    return out.getvalue()


def test_it_says_what_the_shards_hold(tmp_path, capsys):
    names = numbered(tmp_path, [3, 4])
    assert main([*names, "--id", "json.group"]) == 0
    said = capsys.readouterr().out
    for part in ("7 samples in 2 shards of 3 to 4", "json.group: 3 values, 2 to 3 samples each; 0 samples without it"):
        assert part in said
    assert "str (7)" in said and "{group, n} (7)" in said


def test_the_sheet_shows_the_pictures(tmp_path, capsys):
    members = [(f"{i}.{e}", c) for i in range(5) for e, c in (("png", png("red")), ("txt", b"a red thing"))]
    path, sheet = tar(tmp_path / "a.tar", members), tmp_path / "sheet.png"
    assert main([str(path), "--sheet", str(sheet)]) == 0
    assert "5 pictures" in capsys.readouterr().out
    there = np.array(Image.open(sheet))
    red = (there == [255, 0, 0]).all(-1).sum()
    assert red == 5 * 128 * 64, "five pictures, scaled to 128 by 64"
    assert (there.max(-1) < 100).sum() > 100, "captions in black"


def test_the_sheet_shows_every_field_of_pictures(tmp_path, capsys):
    members = [(f"{i}.{view}.png", png(c)) for i in range(3) for view, c in (("0", "red"), ("1", "blue"))]
    sheet = tmp_path / "sheet.png"
    assert main([str(tar(tmp_path / "a.tar", members)), "--sheet", str(sheet)]) == 0
    there = np.array(Image.open(sheet))
    assert "6 pictures" in capsys.readouterr().out
    assert [(there == colour).all(-1).sum() for colour in ([255, 0, 0], [0, 0, 255])] == [3 * 128 * 64] * 2


def test_without_pictures_there_is_no_sheet(tmp_path, capsys):
    assert main([*numbered(tmp_path, [3]), "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert "no pictures" in capsys.readouterr().out and not (tmp_path / "sheet.png").exists()


def test_a_damaged_picture_is_counted_not_fatal(tmp_path, capsys):
    path = tar(tmp_path / "a.tar", [("a.png", png("red")), ("b.png", b"no picture")])
    assert main([str(path), "--sheet", str(tmp_path / "sheet.png")]) == 0
    said = capsys.readouterr().out
    assert "unreadable" in said and "1 pictures" in said


def test_a_histogram_is_highest_where_most_are():
    line = bars(np.array([0] * 10 + [50] * 5 + [100]))
    assert len(line) == 10 and line[0] == "█" and line[5] == "▄" and line[-1] == "▁" and line[2] == " "
