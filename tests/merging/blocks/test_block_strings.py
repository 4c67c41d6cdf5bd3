"""Block weights as people type them: names, presets, and the lists of other tools."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.adapters.families import FAMILIES
from optimizer.errors import RecipeError
from optimizer.merging import BLOCK_MAPS, BLOCK_PRESETS, Recipe, block_map, block_of, block_preset_names, block_weight, merge, read_blocks
from optimizer.merging.blocks.lists import LAYOUTS
from optimizer.merging.blocks.presets import LBW_PRESETS
from tests.merging.samples import PATHS, make_adapter, relative_error

UNETS = ("sd1", "sd2", "sdxl")
SD_ATTENTION = [*(f"IN{i:02d}" for i in (1, 2, 4, 5, 7, 8)), "MID", *(f"OUT{i:02d}" for i in range(3, 12))]


def counted(length: int) -> str:
    """The list 1,2,3,…"""
    return ",".join(str(i) for i in range(1, length + 1))


@pytest.mark.parametrize(
    ("text", "base", "total", "wanted"),
    [
        (
            "lbw:17",
            "sd1",
            26,
            {"TE": 1, "IN00": 0, "IN01": 2, "IN03": 0, "IN04": 4, "IN08": 7, "MID": 8, "OUT02": 0, "OUT03": 9, "OUT11": 17},
        ),
        ("lbw:26", "sd2", 26, {"TE": 1, "IN00": 2, "IN11": 13, "MID": 14, "OUT00": 15, "OUT11": 26}),
        (
            "lbw:12",
            "sdxl",
            21,
            {"TE": 1, "TE2": 1, "IN00": 0, "IN04": 2, "IN06": 0, "IN08": 5, "MID": 6, "OUT00": 7, "OUT05": 12, "OUT06": 0},
        ),
        ("lbw:20", "sdxl", 21, {"TE": 1, "TE2": 1, "IN00": 2, "IN08": 10, "MID": 11, "OUT00": 12, "OUT08": 20}),
        ("kohya:17", "sd1", 26, {"TE": 1, "IN00": 1, "IN01": 2, "IN03": 1, "MID": 8, "OUT02": 1, "OUT03": 9, "OUT11": 17}),
        ("kohya:26", "unknown", 26, {"TE": 1, "IN00": 2, "MID": 14, "OUT11": 26}),
        ("kohya:12", "sdxl", 21, {"TE2": 1, "IN00": 1, "IN04": 2, "MID": 6, "OUT05": 12, "OUT06": 1, "OUT08": 1}),
        ("kohya:20", "sdxl", 21, {"TE2": 1, "IN00": 2, "MID": 11, "OUT08": 20}),
        ("inspire:17", "sd1", 18, {"BASE": 1, "TE": 1, "IN01": 2, "MID": 8, "OUT11": 17}),
        ("inspire:12", "sdxl", 14, {"BASE": 1, "TE": 1, "TE2": 1, "IN04": 2, "MID": 6, "OUT05": 12}),
        ("inspire:58", "flux1", 60, {"BASE": 1, "TE": 1, "TE2": 1, "DOUBLE_00": 2, "DOUBLE_18": 20, "SINGLE_00": 21, "SINGLE_37": 58}),
        ("inspire:20", "flux1", 60, {"BASE": 1, "TE2": 1, "DOUBLE_00": 2, "DOUBLE_18": 20, "SINGLE_00": 20, "SINGLE_37": 20}),
    ],
)
def test_every_list_of_every_tool(text: str, base: str, total: int, wanted: dict[str, float]) -> None:
    tool, _, length = text.partition(":")
    weights = read_blocks(f"{tool}:{counted(int(length))}", base)
    assert len(weights) == total
    assert {block: weights[block] for block in wanted} == wanted
    assert set(weights) <= set(block_map(base).names)


def test_the_list_of_flux_that_lbw_takes() -> None:
    numbers = [0.25, 0.5, 3.0, *(float(i) for i in range(100, 157)), 3.0]
    weights = read_blocks(",".join(map(str, numbers)), "flux1")
    assert len(weights) == 60
    assert (weights["TE"], weights["TE2"], weights["BASE"]) == (0.25, 0.5, 3.0)
    assert (weights["DOUBLE_00"], weights["DOUBLE_18"], weights["SINGLE_00"], weights["SINGLE_37"]) == (100, 118, 119, 156)


@pytest.mark.parametrize(("base", "inputs", "total"), [("sd1", 11, 26), ("sdxl", 8, 21)])
def test_inspires_lists_of_all_blocks_have_the_middle_three_times(base: str, inputs: int, total: int) -> None:
    outputs = 12 if base == "sd1" else 9
    text = ",".join(["0.5", *["2"] * inputs, *["3"] * 3, *["4"] * outputs])
    weights = read_blocks(text, base)
    assert len(weights) == total == len(block_map(base).names) - 1
    assert "IN00" not in weights
    assert {weights[name] for name in ("BASE", "TE")} == {0.5}
    assert (weights["IN01"], weights[f"IN{inputs:02d}"], weights["MID"], weights["OUT00"], weights[f"OUT{outputs - 1:02d}"]) == (
        2,
        2,
        3,
        4,
        4,
    )


def test_lengths_of_one_tool_and_base_are_all_different() -> None:
    readings = [(layout.tool, base, len(layout.entries)) for layout in LAYOUTS for base in layout.bases]
    assert len(readings) == len(set(readings))


def test_without_a_prefix_a_list_is_read_as_lbw_reads_it() -> None:
    for length, base in ((12, "sdxl"), (17, "sd1"), (20, "sdxl"), (26, "sd1")):
        assert read_blocks(counted(length), base) == read_blocks(f"lbw:{counted(length)}", base)
        assert read_blocks(f"LBW: {counted(length)}", base) == read_blocks(counted(length), base)
    assert read_blocks(counted(58), "flux1") == read_blocks(f"inspire:{counted(58)}", "flux1")


def test_the_three_readings_of_one_list_differ_where_the_list_is_silent() -> None:
    ones = ",".join("1" * 17)
    lbw, kohya, inspire = (read_blocks(f"{tool}:{ones}", "sd1") for tool in ("lbw", "kohya", "inspire"))
    assert {block for block, weight in lbw.items() if weight == 0} == {
        "IN00",
        "IN03",
        "IN06",
        "IN09",
        "IN10",
        "IN11",
        "OUT00",
        "OUT01",
        "OUT02",
    }
    assert set(kohya.values()) == set(inspire.values()) == {1.0}
    assert "BASE" in inspire
    assert "BASE" not in {**lbw, **kohya}


def test_brackets_and_blanks_do_not_matter() -> None:
    assert read_blocks(f" [{counted(17).replace(',', ' , ')}] ", "sd1") == read_blocks(counted(17), "sd1")
    assert read_blocks(f"kohya:[{counted(17)}]", "sd1") == read_blocks(f"kohya:{counted(17)}", "sd1")
    assert read_blocks("-.5,+1e-1" + ",0" * 15, "sd1")["IN01"] == 0.1


def test_blocks_and_families_by_name() -> None:
    assert read_blocks("IN04=0.5, OUT=1.2, TE=0", "sd1") == {"IN04": 0.5, "OUT": 1.2, "TE": 0.0}
    assert read_blocks("IN04:0.5,OUT : -1.2", "unknown") == {"IN04": 0.5, "OUT": -1.2}
    assert read_blocks("TE3=0.25, JOINT=0.5, JOINT_37=0", "sd3") == {"TE3": 0.25, "JOINT": 0.5, "JOINT_37": 0.0}
    assert read_blocks("DOUBLE=0.5, SINGLE_07=2", "flux1") == {"DOUBLE": 0.5, "SINGLE_07": 2.0}
    assert read_blocks("JOINT_59=0.5", "qwen-image") == {"JOINT_59": 0.5}


@given(base=st.sampled_from([*BLOCK_MAPS, "unknown"]), data=st.data(), sign=st.sampled_from("=:"))
def test_a_full_list_of_named_blocks_comes_back(base: str, data: st.DataObject, sign: str) -> None:
    names = block_map(base).names
    finite = st.floats(allow_nan=False, allow_infinity=False)
    weights = dict(zip(names, data.draw(st.lists(finite, min_size=len(names), max_size=len(names))), strict=True))
    assert read_blocks(", ".join(f"{name}{sign}{weight!r}" for name, weight in weights.items()), base) == weights


TEXTS = st.text(st.characters(codec="utf-8"), max_size=40) | st.text("INOUTE0123456789=:,.[]+- lbwRx", max_size=40)


@given(text=TEXTS, base=st.sampled_from([*BLOCK_MAPS]))
def test_any_text_is_read_or_refused_with_a_remedy(text: str, base: str) -> None:
    refusal = None
    try:
        Recipe(method="linear", weights=(1.0,), blocks=(read_blocks(text, base),))
    except RecipeError as error:
        refusal = error
    assert refusal is None or (str(refusal).startswith("blocks: ") and refusal.remedy)


def off(text: str, base: str) -> set[str]:
    weights = read_blocks(text, base)
    assert set(weights.values()) <= {0.0}
    return set(weights)


def blocks(family: str, first: int, last: int) -> set[str]:
    return {f"{family}{i:02d}" for i in range(first, last + 1)}


@pytest.mark.parametrize("base", ["sd1", "sd2", "unknown"])
def test_presets_of_sd1(base: str) -> None:
    ins, outs = blocks("IN", 0, 11), blocks("OUT", 0, 11)
    assert off("INS", base) == blocks("IN", 5, 11) | {"MID"} | outs
    assert off("IND", base) == blocks("IN", 0, 4) | {"MID"} | outs
    assert off("INALL", base) == {"MID"} | outs
    assert off("MIDD", base) == blocks("IN", 0, 4) | blocks("OUT", 7, 11)
    assert off("OUTD", base) == ins | {"MID"} | blocks("OUT", 7, 11)
    assert off("OUTS", base) == ins | {"MID"} | blocks("OUT", 0, 6)
    assert off("OUTALL", base) == off("STYLE", base) == ins | {"MID"}
    assert off("CONTENT", base) == outs


def test_presets_of_sdxl() -> None:
    ins, outs = blocks("IN", 0, 8), blocks("OUT", 0, 8)
    assert off("INS", "sdxl") == blocks("IN", 7, 8) | {"MID"} | outs
    assert off("IND", "sdxl") == blocks("IN", 0, 6) | {"MID"} | outs
    assert off("INALL", "sdxl") == {"MID"} | outs
    assert off("MIDD", "sdxl") == blocks("IN", 0, 6) | blocks("OUT", 3, 8)
    assert off("OUTD", "sdxl") == ins | {"MID"} | blocks("OUT", 3, 8)
    assert off("OUTS", "sdxl") == ins | {"MID"} | blocks("OUT", 0, 2)
    assert off("OUTALL", "sdxl") == ins | {"MID"}
    assert off("STYLE", "sdxl") == ins | {"MID"} | (outs - {"OUT01"})
    assert off("CONTENT", "sdxl") == {"OUT01"}


@pytest.mark.parametrize("base", UNETS)
def test_style_and_content_share_no_block_and_leave_none_out(base: str) -> None:
    style, content = off("STYLE", base), off("CONTENT", base)
    assert not style & content
    assert style | content == {name for name in block_map(base).names if name not in ("BASE", "TE", "TE2")}


@pytest.mark.parametrize("base", BLOCK_MAPS)
def test_presets_of_every_base(base: str) -> None:
    assert read_blocks("ALL", base) == {}
    assert read_blocks("NONE", base) == dict.fromkeys(block_map(base).names, 0.0)
    assert read_blocks("all0.5", base) == dict.fromkeys(block_map(base).names, 0.5)
    assert block_preset_names(base) == (tuple(BLOCK_PRESETS) if base in UNETS else ("ALL", "ALL0.5", "NONE"))
    for name in block_preset_names(base):
        assert read_blocks(f" {name.lower()} ", base) == read_blocks(name, base)


@pytest.mark.parametrize("name", [name for name in LBW_PRESETS if name != "FLUXALL"])
def test_presets_agree_with_lbw_on_the_blocks_that_it_names(name: str) -> None:
    theirs, ours = read_blocks(f"lbw:{name}", "sd1"), read_blocks(name, "sd1")
    assert {block: ours.get(block, 1.0) for block in ["TE", *SD_ATTENTION]} == {block: theirs[block] for block in ["TE", *SD_ATTENTION]}
    assert read_blocks(f"lbw:{LBW_PRESETS[name]}", "sd1") == theirs


def test_lbws_preset_for_flux() -> None:
    assert read_blocks("lbw:FluxAll", "flux1") == dict.fromkeys(block_map("flux1").names, 1.0)


@pytest.mark.parametrize("base", BLOCK_MAPS)
def test_every_text_encoder_has_a_block_of_its_own(base: str) -> None:
    parts = [encoder.part for encoder in FAMILIES[base].text_encoders]
    found = [block_of(f"{part}.x", base) for part in parts]
    assert found == ["TE", "TE2", "TE3"][: len(parts)]
    assert set(found) <= set(block_map(base).names)


def test_each_text_encoder_has_a_scale_of_its_own() -> None:
    weights = read_blocks("TE=0.5, TE2=0.25, TE3=0", "sd3")
    assert [block_weight(f"{part}.x", weights, "sd3") for part in ("text_encoder", "text_encoder_2", "text_encoder_3")] == [0.5, 0.25, 0.0]


FIT_SD = "entries of its lists: lbw: 17 or 26, kohya: 17 or 26, inspire: 17 or 27; or name the blocks: OUT11=0.5"
FIT_XL = "entries of its lists: lbw: 12 or 20, kohya: 12 or 20, inspire: 12 or 21; or name the blocks: OUT08=0.5"
FIT_FLUX = "entries of its lists: lbw: 61, inspire: 20 or 58; or name the blocks: SINGLE_37=0.5"
REPEAT = "give the number itself, so that the merge can be repeated"
SD_PRESETS = (
    "presets of this base: ALL, ALL0.5, NONE, INS, IND, INALL, MIDD, OUTD, OUTS, OUTALL, STYLE, CONTENT; or name the blocks: OUT11=0.5"
)


@pytest.mark.parametrize(
    ("text", "base", "message"),
    [
        ("", "sd1", "no block weights given — write ALL to leave every block at 1"),
        (counted(12), "sd1", f"the base 'sd1' has no list of 12 entries — {FIT_SD}"),
        (counted(12), "unknown", f"the base 'unknown' has no list of 12 entries — {FIT_SD}"),
        (counted(17), "sdxl", f"the base 'sdxl' has no list of 17 entries — {FIT_XL}"),
        (counted(20), "flux1", f"the base 'flux1' has no list of 20 entries — {FIT_FLUX}"),
        (f"kohya:{counted(61)}", "flux1", f"the base 'flux1' has no kohya list of 61 entries — {FIT_FLUX}"),
        (f"inspire:{counted(26)}", "sd1", f"the base 'sd1' has no inspire list of 26 entries — {FIT_SD}"),
        (counted(17), "sd3", "the base 'sd3' has no list of 17 entries — name the blocks: JOINT_37=0.5"),
        ("0.5", "sd1", f"the base 'sd1' has no list of 1 entries — {FIT_SD}"),
        ("1,R" + ",0" * 15, "sd1", f"entry 2 is 'R', a random number — {REPEAT}"),
        ("u" + ",0" * 16, "sd1", f"entry 1 is 'u', a random number — {REPEAT}"),
        ("1,1,X+0.5" + ",0" * 14, "sd1", f"entry 3 is 'X+0.5', a number given elsewhere — {REPEAT}"),
        ("inspire:A" + ",0" * 16, "sd1", f"entry 1 is 'A', a number given elsewhere — {REPEAT}"),
        ("1,,1" + ",0" * 14, "sd1", "entry 2 is '', not a finite number — give a number such as 0.5"),
        ("1,nan" + ",0" * 15, "sd1", "entry 2 is 'nan', not a finite number — give a number such as 0.5"),
        ("1,0.5 1" + ",0" * 15, "sd1", "entry 2 is '0.5 1', not a finite number — give a number such as 0.5"),
        ("1,1_0" + ",0" * 15, "sd1", "entry 2 is '1_0', not a finite number — give a number such as 0.5"),
        (
            "1,1,0" + ",1" * 58,
            "flux1",
            "entries 3 and 61 are 0 and 1, but BASE is one block here — give them the same number",
        ),
        (
            "1" + ",1" * 11 + ",0,0.5,0" + ",1" * 12,
            "sd1",
            "entries 13 and 14 are 0 and 0.5, but MID is one block here — give them the same number",
        ),
        ("IN04=R", "sd1", f"the weight of IN04 is 'R', a random number — {REPEAT}"),
        ("IN04=inf", "sd1", "the weight of IN04 is 'inf', not a finite number — give a number such as 0.5"),
        ("IN04=1:2", "sd1", "the weight of IN04 is '1:2', not a finite number — give a number such as 0.5"),
        ("IN04=1, IN04=2", "sd1", "the block IN04 is named twice — name it once"),
        ("IN04=1, OUT", "sd1", "'OUT' gives no number — write name=number, with commas between them"),
        ("FOO", "sd1", f"unknown preset 'FOO' — {SD_PRESETS}"),
        (
            "style",
            "flux1",
            "the preset 'STYLE' is not defined for the base 'flux1' — presets of this base: ALL, ALL0.5, NONE; "
            "or name the blocks: SINGLE_37=0.5",
        ),
        ("kohya:INS", "sd1", "'INS' is not a list of kohya — give numbers with commas between them"),
        (
            "lbw:STYLE",
            "sd1",
            "'STYLE' is not a list of lbw — give numbers with commas between them, or one of its presets: NONE, ALL, INS, IND, "
            "INALL, MIDD, OUTD, OUTS, OUTALL, ALL0.5, FLUXALL",
        ),
        ("lbw:INS", "sdxl", f"the base 'sdxl' has no lbw list of 17 entries — {FIT_XL}"),
    ],
)
def test_refusals(text: str, base: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_blocks(text, base)
    assert str(caught.value) == f"blocks: {message}"


def test_an_unknown_block_is_refused_with_the_valid_names() -> None:
    with pytest.raises(RecipeError, match=r"^here: unknown block 'IN12' of the base 'sd1' — valid names: BASE, TE, IN, MID, OUT, IN00, "):
        read_blocks("IN12=1", "sd1", where="here")
    with pytest.raises(RecipeError, match=r"^blocks: unknown block 'OUT09' of the base 'sdxl' — valid names: .*OUT08$"):
        read_blocks("OUT09=1", "sdxl")


def test_a_base_without_named_blocks_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^blocks: no named blocks are known for the base 'other' — leave the block weights out"):
        read_blocks("ALL", "other")


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("IN04=0.5", {PATHS[1]: 0.5}),
        ("TE=0.25, MID=2", {PATHS[0]: 0.25, PATHS[3]: 2.0}),
        ("lbw:1,1,1,0.5" + ",1" * 13, {PATHS[1]: 0.5}),
        ("lbw:1,1,0.5" + ",1" * 14, {PATHS[2]: 0.5}),
        ("STYLE", {PATHS[1]: 0.0, PATHS[2]: 0.0, PATHS[3]: 0.0}),
        ("CONTENT", {PATHS[4]: 0.0}),
        ("ALL", {}),
    ],
)
def test_a_merge_changes_exactly_the_modules_that_the_text_names(text: str, changed: dict[str, float]) -> None:
    adapter = make_adapter(1, base="sd1")
    merged = merge([adapter], Recipe(method="linear", weights=(1.0,), blocks=(read_blocks(text, "sd1"),)))
    for path, factors in adapter.modules.items():
        factor = changed.get(path, 1.0)
        if factor:
            assert relative_error(merged.modules[path].delta(), factor * factors.delta()) < 3e-6
        else:
            assert path not in merged.modules


def test_style_and_content_take_each_block_from_one_source() -> None:
    style, character = make_adapter(1, base="sd1"), make_adapter(2, base="sd1")
    weights = (read_blocks("STYLE", "sd1"), read_blocks("CONTENT", "sd1"))
    merged = merge([style, character], Recipe(method="linear", weights=(1.0, 1.0), blocks=weights))
    text, *unet = PATHS
    assert relative_error(merged.modules[text].delta(), style.modules[text].delta() + character.modules[text].delta()) < 3e-6
    for path in unet:
        source = style if ".up_blocks." in path else character
        assert relative_error(merged.modules[path].delta(), source.modules[path].delta()) < 3e-6
