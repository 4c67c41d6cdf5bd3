"""EvaluationCache: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies import BrokenEvaluationWarning, Evaluation, EvaluationCache, SourceScore, evaluation_key
from studies.store import FolderStore

FLOATS = st.floats(allow_nan=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PLAIN = st.text(st.characters(codec="utf-8"), max_size=8)
EVALUATIONS = st.builds(
    Evaluation,
    recipe=st.dictionaries(PLAIN, st.lists(st.floats(allow_nan=False, allow_infinity=False) | PLAIN | st.integers(-(2**53), 2**53))),
    recipe_hash=PLAIN,
    score=FLOATS,
    sources=st.dictionaries(PLAIN, st.builds(SourceScore, preservation=FLOATS, own=FLOATS, joint=FLOATS, leakage=FLOATS), max_size=3),
    artifacts=FLOATS,
    metrics=st.dictionaries(PLAIN, FLOATS, max_size=3),
    images=st.lists(PLAIN, max_size=3).map(tuple),
    seconds=FLOATS,
)
KEY = evaluation_key(recipe={"method": "linear"}, seed=1)


def example(score: float = 0.5) -> Evaluation:
    return Evaluation(recipe={"method": "linear", "weights": [1.0, 0.5]}, recipe_hash="ab", score=score, sources={}, artifacts=0.0)


@settings(deadline=None)
@given(JSON, JSON)
def test_key_depends_on_content_alone(a: object, b: object) -> None:
    assert evaluation_key(first=a, second=b) == evaluation_key(second=b, first=a)
    canonical = [json.dumps(x, sort_keys=True) for x in (a, b)]
    assert (evaluation_key(part=a) == evaluation_key(part=b)) == (canonical[0] == canonical[1])


def test_key_is_pinned() -> None:
    """The keys of existing studies must not change: their evaluations would be lost."""
    canonical = b'{"recipe":{"a":null,"b":[1,2.5]},"seeds":[1,2]}'
    assert evaluation_key(recipe={"b": [1, 2.5], "a": None}, seeds=(1, 2)) == hashlib.sha256(canonical).hexdigest()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"a": [1.0, math.nan]}, r"recipe\['a'\]\[1\] is nan, which JSON cannot hold; pass text, finite numbers"),
        ({1: 2}, "recipe has the key 1, which is no string"),
        (Path("x"), r"recipe is .*Path\('x'\), which JSON cannot hold"),
        (b"x", "recipe is b'x', which JSON cannot hold"),
    ],
)
def test_parts_that_have_no_canonical_form_are_refused(part: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluation_key(recipe=part)


def test_a_key_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        evaluation_key()


@settings(max_examples=40, deadline=None)
@given(EVALUATIONS)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, found: Evaluation) -> None:
    cache = EvaluationCache(FolderStore(tmp_path_factory.mktemp("cache")))
    cache.put(KEY, found)
    assert cache.get(KEY) == found


def test_nan_survives(tmp_path: Path) -> None:
    cache = EvaluationCache(FolderStore(tmp_path))
    cache.put(KEY, example(math.nan))
    found = cache.get(KEY)
    assert found is not None
    assert math.isnan(found.score)
    assert "NaN" in (tmp_path / "evaluations" / f"{KEY}.json").read_text()


def test_absent_and_present(tmp_path: Path) -> None:
    cache, other = EvaluationCache(FolderStore(tmp_path)), evaluation_key(seed=2)
    assert cache.get(KEY) is None
    cache.put(KEY, example())
    cache.put(KEY, example(0.7))
    assert cache.get(KEY) == example(0.7)
    assert cache.get(other) is None
    assert list(cache.keys()) == [KEY]


def test_the_first_that_is_added_stands_unless_it_is_damaged(tmp_path: Path) -> None:
    cache = EvaluationCache(FolderStore(tmp_path))
    assert cache.add(KEY, example()) == example()
    assert cache.add(KEY, example(0.7)) == example() == cache.get(KEY)
    (tmp_path / "evaluations" / f"{KEY}.json").write_bytes(b"{")
    with pytest.warns(BrokenEvaluationWarning):
        assert cache.add(KEY, example(0.7)) == example(0.7) == cache.get(KEY)


def test_keys_of_any_other_form_never_become_paths(tmp_path: Path) -> None:
    cache = EvaluationCache(FolderStore(tmp_path))
    for key in ("../x", "A" * 64, "", KEY + "0"):
        with pytest.raises(ValueError, match="is not an evaluation key"):
            cache.get(key)
        with pytest.raises(ValueError, match="is not an evaluation key"):
            cache.put(key, example())


def test_a_recipe_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recipe\['weights'\]\[0\] is inf"):
        EvaluationCache(FolderStore(tmp_path)).put(KEY, example().model_copy(update={"recipe": {"weights": [math.inf]}}))
    assert list(tmp_path.iterdir()) == []


def stored(tmp_path: Path) -> tuple[EvaluationCache, Path, bytes]:
    cache = EvaluationCache(FolderStore(tmp_path))
    cache.put(KEY, example())
    path = tmp_path / "evaluations" / f"{KEY}.json"
    return cache, path, path.read_bytes()


def test_every_torn_file_is_detected(tmp_path: Path) -> None:
    cache, path, whole = stored(tmp_path)
    lengths = range(0, len(whole) - 1, 29)
    for length in lengths:
        path.write_bytes(whole[:length])
        with pytest.warns(BrokenEvaluationWarning, match="torn or not JSON"):
            assert cache.get(KEY) is None
    assert len(list(tmp_path.glob("evaluations/*.broken"))) == len(lengths)


def test_a_broken_file_is_named_and_kept(tmp_path: Path) -> None:
    cache, path, _ = stored(tmp_path)
    path.write_bytes(b"half an evalu")
    with pytest.warns(BrokenEvaluationWarning) as caught:
        assert cache.get(KEY) is None
    expected = f"evaluations/{KEY}.json: the file is torn or not JSON; it counts as missing and is kept as evaluations/{KEY}.1.broken"
    assert str(caught[0].message) == expected
    assert (tmp_path / "evaluations" / f"{KEY}.1.broken").read_bytes() == b"half an evalu"
    assert list(cache.keys()) == []
    cache.put(KEY, example())
    assert cache.get(KEY) == example()


def altered(whole: bytes, **changes: object) -> bytes:
    return json.dumps(json.loads(whole) | changes).encode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda whole: whole.replace(b"0.5", b"0.6"), "the file was altered, its checksum does not fit"),
        (lambda whole: altered(whole, key="0" * 64), "the file belongs to another key"),
        (lambda whole: altered(whole, format="evaluation/9"), "the file is not of the format evaluation/1"),
        (lambda whole: b"[1, 2]", "the file is not of the format evaluation/1"),
        (lambda whole: b"\xff\xfe\x00", "the file is torn or not JSON"),
        (
            lambda whole: altered(whole, evaluation={}, checksum="44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
            "the file does not hold an evaluation (5 fields do not fit)",
        ),
    ],
    ids=["altered", "other key", "other format", "other JSON", "binary", "other content"],
)
def test_foreign_files_are_moved_aside(tmp_path: Path, change: Callable[[bytes], bytes], reason: str) -> None:
    cache, path, whole = stored(tmp_path)
    path.write_bytes(change(whole))
    with pytest.warns(BrokenEvaluationWarning) as caught:
        assert cache.get(KEY) is None
    assert reason in str(caught[0].message)
    assert not path.exists()


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "evaluations").mkdir()
    for name in ("readme.json", ".tmp-abc.json", f"{KEY}.1.broken"):
        (tmp_path / "evaluations" / name).write_text("x")
    assert list(EvaluationCache(FolderStore(tmp_path)).keys()) == []
