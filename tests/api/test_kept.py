"""Pictures, texts, tables and files: what goes in comes back, and nothing stops training."""

from __future__ import annotations

import io
import json
import struct
import wave
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cupel
from cupel.api.images import pixels, png
from cupel.errors import UsageError
from cupel.record.reader import RunRecord

Init = Callable[..., cupel.Run]


def media(run: cupel.Run) -> list[dict[str, Any]]:
    return [event for event in RunRecord(run.dir).events() if event["_event"] == "media"]


def content(run: cupel.Run, event: dict[str, Any]) -> bytes:
    return (run.dir / event["path"]).read_bytes()


def rows(run: cupel.Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "_t"} for row in RunRecord(run.dir).history()]


def decoded(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(PIL.Image.open(io.BytesIO(data)))


@settings(deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 3, 4]), st.integers(0, 2**32 - 1)
)
def test_a_png_gives_every_byte_back(height: int, width: int, channels: int, seed: int) -> None:
    """Read by Pillow, which did not write it."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    assert np.array_equal(decoded(png(image)).reshape(image.shape), image)


def test_a_png_is_made_of_whole_chunks() -> None:
    data = png(np.zeros((2, 3, 3), np.uint8))[8:]
    names = []
    while data:
        (length,) = struct.unpack(">I", data[:4])
        names.append(data[4:8])
        assert zlib.crc32(data[4 : 8 + length]) == struct.unpack(">I", data[8 + length :][:4])[0]
        data = data[12 + length :]
    assert names == [b"IHDR", b"IDAT", b"IEND"]


@pytest.mark.parametrize(
    "values,expected",
    [
        (np.array([[0, 1]], np.uint8), [0, 1]),
        (np.array([[0.0, 1.0]]), [0, 255]),
        (np.array([[0.0, 0.5]]), [0, 128]),
        (np.array([[0.0, 200.0]]), [0, 200]),
        (np.array([[-1.0, 1.0]]), [0, 255]),
        (np.array([[0.0, 1000.0]]), [0, 255]),
        (np.array([[False, True]]), [0, 255]),
        (np.array([[-5, 300]]), [0, 255]),
        (np.array([[np.nan, 1.0]]), [0, 255]),
        (np.array([[2.0, 2.0]], np.float32), [2, 2]),
    ],
)
def test_numbers_become_bytes_by_one_rule(values: Any, expected: list[int]) -> None:
    assert pixels(values, channels_first=False).ravel().tolist() == expected


def test_tensors_are_channels_first_and_arrays_channels_last(init: Init) -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    with init() as run:
        run.log_image("array", image)
        run.log_image("tensor", torch.from_numpy(image).permute(2, 0, 1).contiguous(), caption="c")
        run.log_image("grey", torch.from_numpy(image[:, :, 0]))
        run.log_image("half", torch.ones(1, 2, 4, dtype=torch.bfloat16))
        run.log_image("batch", np.zeros((5, 2, 4, 3), np.uint8))
        run.log_image("pil", PIL.Image.fromarray(image))
    found = {event["key"]: event for event in media(run)}
    for key in ("array", "tensor", "pil"):
        assert np.array_equal(decoded(content(run, found[key])), image), key
    assert np.array_equal(decoded(content(run, found["grey"])), image[:, :, 0])
    assert (found["tensor"]["width"], found["tensor"]["height"]) == (4, 2)
    assert found["tensor"]["caption"] == "c"
    assert decoded(content(run, found["half"])).tolist() == [[255] * 4] * 2
    assert decoded(content(run, found["batch"])).shape == (2 * 4 - 2, 3 * 6 - 2, 3)
    assert {event["kind"] for event in found.values()} == {"image"}


def test_media_stand_between_the_numbers_of_a_line(init: Init, tmp_path: Path) -> None:
    picture = tmp_path / "a.JPG"
    picture.write_bytes(b"as it is")
    with init() as run:
        run.log({"loss": 1.0, "samples": [cupel.Image(picture), cupel.Image(picture, caption="b")]})
        run.log({"val": {"hist": cupel.Histogram([1, 2]), "acc": 0.5}}, step=7)
        run.log({"only": cupel.Text("é" * 3)}, step=8)
        run.log({"page": cupel.Html("<b>x</b>")})
    assert rows(run) == [{"_step": 0, "loss": 1.0}, {"_step": 7, "val/acc": 0.5}]
    found = [(e["step"], e["key"], e["kind"], Path(e["path"]).suffix) for e in media(run)]
    assert found == [
        (0, "samples", "image", ".jpg"), (0, "samples", "image", ".jpg"),
        (7, "val/hist", "histogram", ".json"), (8, "only", "text", ".txt"),
        (8, "page", "html", ".html"),
    ]  # fmt: skip
    assert content(run, media(run)[0]) == b"as it is"
    assert content(run, media(run)[3]).decode() == "ééé"


def test_without_a_step_the_helpers_go_to_the_step_of_the_next_line(init: Init) -> None:
    with init() as run:
        run.log({"loss": 1.0})
        cupel.log_text("note", "x")
        run.log({"loss": 2.0})
        run.log_text("late", "x", step=9)
    assert [(event["key"], event["step"]) for event in media(run)] == [("note", 1), ("late", 9)]


def test_histograms_count_as_numpy_does_and_leave_out_what_is_not_finite(init: Init) -> None:
    values = np.random.default_rng(1).normal(size=(10, 10))
    values[0, :3] = np.nan, np.inf, -np.inf
    with init() as run:
        run.log_histogram("h", torch.from_numpy(values), bins=8)
        run.log({"ready": cupel.Histogram(np_histogram=([1, 2], [0.0, 0.5, 1.0]))})
        run.log({"empty": cupel.Histogram([])})
    first, ready, empty = (json.loads(content(run, event)) for event in media(run))
    counts, edges = np.histogram(values[np.isfinite(values)], bins=8)
    assert (first["counts"], first["edges"]) == (counts.tolist(), edges.tolist())
    assert first["not_finite"] == 3
    assert ready == {"counts": [1, 2], "edges": [0.0, 0.5, 1.0], "not_finite": 0}
    assert sum(empty["counts"]) == 0


def test_tables_keep_rows_of_every_kind_and_media_inside(init: Init) -> None:
    table = cupel.Table(columns=["step", "text", "picture"])
    table.add_data(1, "a", cupel.Image(np.zeros((2, 2), np.uint8)))
    table.add_data(np.int64(2), None, {"nested": [1, Path("x")]})
    table.add_column("more", [0.5, float("nan")])
    with init() as run:
        run.log({"table": table})
        run.log_table("frame", dataframe=pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}))
        run.log({"bare": pd.DataFrame({"a": [1]})})
        run.log_table("rows", ["a"], [[1], [2]])
    inside, first, frame, bare, plain_rows = media(run)
    assert (inside["key"], inside["kind"]) == ("table/media", "image")
    told = json.loads(content(run, first))
    assert told["columns"] == ["step", "text", "picture", "more"]
    assert told["rows"][0] == [1, "a", {"media": inside["path"]}, 0.5]
    assert told["rows"][1] == [2, None, {"nested": [1, "x"]}, "NaN"]
    assert first["rows"] == 2
    assert json.loads(content(run, frame)) == {"columns": ["a", "b"], "rows": [[1, "x"], [2, "y"]]}
    assert json.loads(content(run, bare)) == {"columns": ["a"], "rows": [[1]]}
    assert json.loads(content(run, plain_rows))["rows"] == [[1], [2]]
    assert table.get_column("step") == [1, 2]
    assert [number for number, _ in table.iterrows()] == [0, 1]


@pytest.mark.slow
def test_figures_are_drawn_when_they_are_logged(init: Init, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    with init() as run:
        run.log({"curve": figure})
        run.log_figure("vector", figure, suffix="svg", caption="c")
    drawn, vector = media(run)
    assert content(run, drawn).startswith(b"\x89PNG")
    assert b"<svg" in content(run, vector)
    assert (vector["kind"], vector["caption"]) == ("figure", "c")


def test_sounds_are_waves_and_files_stay_as_they_are(init: Init, tmp_path: Path) -> None:
    film = tmp_path / "a.mp4"
    film.write_bytes(b"film")
    with init() as run:
        run.log({"sound": cupel.Audio(np.array([0.0, 1.0, -1.0]), sample_rate=8000)})
        run.log({"film": cupel.Video(film)})
    sound, kept = media(run)
    with wave.open(io.BytesIO(content(run, sound))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (8000, 1, 3)
        assert np.frombuffer(file.readframes(3), "<i2").tolist() == [0, 32767, -32767]
    assert content(run, kept) == b"film"


@pytest.mark.parametrize(
    "makes,told",
    [
        (lambda: cupel.Image(np.zeros((2, 2, 7))), r"shape \(2, 2, 7\) shows; it must be height ×"),
        (lambda: cupel.Image(np.array(["a"])), "Image() needs numbers"),
        (lambda: cupel.Image("absent.png"), "cannot read the picture absent.png"),
        (lambda: cupel.Image("a.exe"), "does not know the ending of a.exe"),
        (lambda: cupel.Histogram(), "Histogram() needs values"),
        (lambda: cupel.Histogram(["a"]), "Histogram() needs numbers"),
        (lambda: cupel.Histogram([1.0], num_bins=0), "num_bins=0; it must be 1 or more"),
        (lambda: cupel.Histogram(np_histogram=([1], [0])), "one edge more than counts"),
        (lambda: cupel.Table(["a"], [[1, 2]]), "a row of 2 values does not fit the 1 columns"),
        (lambda: cupel.Audio([0.0]), "needs sample_rate="),
        (lambda: cupel.Audio("absent.wav"), "cannot read absent.wav"),
        (lambda: cupel.Video(np.zeros((1, 1))), "takes the path of a file"),
    ],
)
def test_what_cannot_be_a_medium_is_refused_in_one_line(
    makes: Callable[[], Any], told: str
) -> None:
    with pytest.raises(UsageError) as raised:
        makes()
    assert told.replace("\\", "") in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@settings(deadline=None)
@given(
    st.lists(st.floats() | st.sampled_from([1e16, 1e16 + 2, 1.79e308, -1.79e308, 5e-324]))
    | st.floats().map(lambda x: [x] * 3),
    st.integers(1, 70),
)
def test_any_values_have_a_histogram_that_counts_all_of_them(
    values: list[float], bins: int
) -> None:
    made = cupel.Histogram(values, num_bins=bins)
    finite = [x for x in values if np.isfinite(x)]
    assert (sum(made.histogram), made.not_finite) == (len(finite), len(values) - len(finite))
    assert len(made.histogram) == bins
    assert np.isfinite(made.bins).all()
    assert all(a <= b for a, b in zip(made.bins, made.bins[1:], strict=False))
    assert not finite or made.bins[0] <= min(finite) <= max(finite) <= made.bins[-1]


def test_ordinary_values_are_counted_as_numpy_does() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    counts, edges = np.histogram(values, bins=64)
    made = cupel.Histogram(values)
    assert (made.histogram, made.bins) == (counts.tolist(), edges.tolist())


def test_media_that_cannot_be_made_or_written_stop_nothing_and_are_told_once(
    init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def savefig(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("no backend")

    with init() as run:
        for _ in range(2):
            run.log({"loss": 1.0, "broken": Broken()})
            run.log_image("shape", np.zeros(3))
        (run.dir / "media").write_text("in the way")
        run.log({"loss": 2.0, "text": cupel.Text("x")})
    assert [row["loss"] for row in rows(run)] == [1.0, 1.0, 2.0]
    told = [line for line in capsys.readouterr().err.splitlines() if "media" in line]
    assert [line.split(":")[1].strip() for line in told] == [
        "media broken", "media shape", "media text",
    ]  # fmt: skip


@pytest.mark.parametrize("key", ["../../../escape", "/tmp/escape", "🎈/x", "k" * 10_000, "a/b", ""])
def test_no_key_leads_out_of_the_run(init: Init, root: Path, key: str) -> None:
    with init() as run:
        run.log({key: cupel.Text("x")})
        run.log_artifact(__file__, name=key or None)
    (event,) = media(run)
    assert event["key"] == key
    assert (run.dir / event["path"]).resolve().is_relative_to(run.dir.resolve() / "media")
    outside = [path for path in root.parent.rglob("*escape*") if run.dir not in path.parents]
    assert outside == []


def test_files_and_folders_are_kept_as_versions(init: Init, tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    with init() as run:
        for text in ("a", "b"):
            model.write_text(text)
            kept = run.log_artifact(model, type="model")
        assert kept is not None
        assert (kept / "model.pt").read_text() == "b"
        artifact = cupel.Artifact("set", type="dataset", metadata={"rows": 2})
        artifact.add_file(model, name="inner/m.pt")
        (tmp_path / "data").mkdir()  # not tmp_path: the run writes there, too
        (tmp_path / "data" / "rows.csv").write_text("1")
        artifact.add_dir(tmp_path / "data", name="all")
        folder = cupel.log_artifact(artifact)
        run.log_model(model, name="best")
        saved = cupel.save(tmp_path / "*.pt", base_path=tmp_path)
    assert folder is not None
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} == {
        "all", "all/rows.csv", "inner", "inner/m.pt",
    }  # fmt: skip
    assert saved == [str(model)]
    events = [event for event in RunRecord(run.dir).events() if event["_event"] == "artifact"]
    assert [(e["name"], e["version"], e["kind"]) for e in events] == [
        ("model.pt", 0, "model"), ("model.pt", 1, "model"), ("set", 0, "dataset"),
        ("best", 0, "model"),
    ]  # fmt: skip  # what `save` was given equals v1


def test_an_artifact_that_is_not_there_is_refused(init: Init, tmp_path: Path) -> None:
    with init() as run:
        with pytest.raises(UsageError, match="there is no file and no folder at"):
            run.log_artifact(tmp_path / "absent")
        for adds, told in (("add_file", "there is no file at"), ("add_dir", "there is no folder")):
            with pytest.raises(UsageError, match=told):
                getattr(cupel.Artifact("a"), adds)(tmp_path / "absent")
        assert run.save(str(tmp_path / "absent*")) == []


def test_a_disk_that_refuses_an_artifact_stops_nothing(
    init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    with init() as run:
        (run.dir / "artifacts").write_text("in the way")
        assert run.log_artifact(__file__) is None
    assert "cupel: artifact: RecordError: cannot write" in capsys.readouterr().err
