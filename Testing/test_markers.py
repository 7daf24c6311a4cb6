"""CT markers and BAT, on bleeds with every sign known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.forecast.probability import measurements
from HematomaExpansionLib.markers.markers import Marker, describe_markers, find_markers
from HematomaExpansionLib.markers.scores import (
    ClinicalData,
    bat_score,
    brain_score,
    markers_text,
    overrule,
    present_markers,
)
from HematomaExpansionLib.models.measurement_names import MEASUREMENTS
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.training.risk.marker_evaluation import MarkerRow, painted_markers, summarize_markers
from phantoms import STRAIGHT, positions
from scipy.ndimage import gaussian_filter

CENTER = np.array([12.0, -20.0, 30.0])
BRAIN_HU, CLOT_HU, RADIUS_MM = 33.0, 65.0, 16.0
Signed = Callable[[np.ndarray], np.ndarray]


def turned(degrees: float) -> tuple[float, ...]:
    """Directions of a scan whose gantry is tilted, or whose head is turned, about the left-right axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (1.0, 0.0, 0.0, 0.0, c, -s, 0.0, s, c)


def grid(spacing: tuple[float, float, float] = (0.6, 0.6, 5.0), direction: tuple[float, ...] = STRAIGHT) -> Grid:
    size = tuple(round(96 / step) for step in spacing)
    rough = Grid((size[0], size[1], size[2]), spacing, (0.0, 0.0, 0.0), direction)
    origin = CENTER - rough.point((np.array(size) - 1) / 2)
    return Grid(rough.size, spacing, (float(origin[0]), float(origin[1]), float(origin[2])), direction)


def ball(radius: float, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Signed:
    """Distance inside a ball; its center is given relative to the middle of the bleed, LPS mm."""
    return lambda points: radius - np.linalg.norm(points - CENTER - np.array(at), axis=-1)


def scan(
    on: Grid, shape: list[Signed], parts: list[tuple[Signed, float]], texture_hu: float = 0.0
) -> tuple[sitk.Image, Mask]:
    """CT and mask of a bleed in uniform brain: a union of shapes that contains parts of other densities."""
    points = positions(on)
    level = np.max([signed(points) for signed in shape], axis=0)
    blood = np.full(level.shape, CLOT_HU)
    for signed, density in parts:
        share = np.clip(signed(points) + 0.5, 0, 1)
        blood = blood * (1 - share) + density * share
    random = np.random.default_rng(1)
    width = 2.5 / np.array(on.spacing)[::-1]
    texture = gaussian_filter(random.normal(size=level.shape), width)
    blood = blood + texture_hu * texture / texture.std()
    share = np.clip(level + 0.5, 0, 1)
    hu = BRAIN_HU * (1 - share) + blood * share + random.normal(0, 2.0, level.shape)
    return image_on(on, hu.astype(np.float32)), Mask.on(on, level > 0)


def found(markers: dict[str, Marker]) -> set[str]:
    return {name for name, marker in markers.items() if marker.present}


GRIDS = pytest.mark.parametrize(
    "on", [grid(), grid((0.5, 0.5, 1.0)), grid(direction=turned(15.0))], ids=["5 mm", "1 mm", "tilted"]
)


@GRIDS
def test_an_even_round_bleed_has_no_marker(on: Grid) -> None:
    markers = find_markers(*scan(on, [ball(RADIUS_MM)], []))
    assert found(markers) == set()
    assert all(marker.place_mm is None for marker in markers.values())


@GRIDS
@pytest.mark.parametrize(("density", "expected"), [(41.0, {"hypodensity", "swirl"}), (30.0, {"black_hole"})])
def test_an_enclosed_pocket_is_found_where_it_is(on: Grid, density: float, expected: set[str]) -> None:
    at = (4.0, -3.0, 1.0)
    markers = find_markers(*scan(on, [ball(RADIUS_MM)], [(ball(6.0, at), density)]))
    assert expected <= found(markers) <= {"hypodensity", "swirl", "black_hole"}
    assert ("black_hole" in found(markers)) == (CLOT_HU - density > 28)
    assert markers["hypodensity"].evidence["difference_hu"] == pytest.approx(CLOT_HU - density, abs=5.0)
    place = markers["hypodensity"].place_mm
    assert place is not None
    assert np.linalg.norm(np.array(place) - CENTER - at) < 5.0


@GRIDS
def test_what_is_open_to_the_outside_is_a_swirl_and_no_hypodensity(on: Grid) -> None:
    markers = find_markers(*scan(on, [ball(RADIUS_MM)], [(ball(8.0, (14.0, 0.0, 0.0)), 38.0)]))
    assert "swirl" in found(markers)
    assert "hypodensity" not in found(markers)


@pytest.fixture(scope="module")
def with_all_signs() -> tuple[list[Signed], list[tuple[Signed, float]]]:
    """Shapes and parts of a bleed with a pocket, a black hole, lobes and satellites."""
    lobes = [ball(7.0, (15.0, 6.0, 0.0)), ball(7.0, (-13.0, 9.0, 0.0)), ball(7.0, (2.0, -18.0, 0.0))]
    satellites = [ball(4.0, place) for place in ((27.0, -10.0, 2.0), (-25.0, -8.0, 0.0), (14.0, 25.0, 3.0))]
    return [ball(RADIUS_MM), *lobes, *satellites], [(ball(6.0, (3.0, -4.0, 1.0)), 29.0)]


def turned_about_the_axis(degrees: float) -> tuple[float, ...]:
    """Directions of a scan whose pixels are turned in their plane."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    "on",
    [
        grid((0.45, 0.45, 5.0)),
        grid((0.9, 0.9, 5.0)),
        grid((0.45, 0.45, 1.0)),
        grid((0.9, 0.9, 2.5)),
        grid((0.6, 0.6, 1.5), turned(12.0)),
        grid((0.6, 0.6, 5.0), turned_about_the_axis(20.0)),
    ],
    ids=["5 mm, 512", "5 mm, 256", "1 mm, 512", "2.5 mm, 256", "1.5 mm, oblique", "5 mm, turned"],
)
def test_the_same_bleed_has_the_same_signs_on_every_scan(
    on: Grid, with_all_signs: tuple[list[Signed], list[tuple[Signed, float]]]
) -> None:
    shifted = replace(on, origin=tuple(np.array(on.origin) + on.axes @ np.full(3, 0.5)))
    for scanned in (on, shifted) if on.spacing[2] > 2 else (on,):
        markers = find_markers(*scan(scanned, *with_all_signs))
        assert found(markers) == {"hypodensity", "swirl", "black_hole", "irregular", "satellite", "island"}


def test_a_flipped_scan_has_the_mirrored_places(
    with_all_signs: tuple[list[Signed], list[tuple[Signed, float]]],
) -> None:
    ct, mask = scan(grid(), *with_all_signs)
    array, on = sitk.GetArrayFromImage(ct), Grid.of(ct)
    flipped = find_markers(image_on(on, array[:, :, ::-1]), Mask.on(on, mask.voxels[:, :, ::-1]))
    for name, marker in find_markers(ct, mask).items():
        assert flipped[name].probability == pytest.approx(marker.probability, abs=0.02), name
        assert flipped[name].present == marker.present


@GRIDS
@pytest.mark.parametrize("side", [(0.0, 1.0, 0.0), (0.0, 0.6, 0.8)], ids=["in its slices", "through them"])
def test_the_edge_of_a_ventricle_beside_the_bleed_is_no_hypodensity(
    on: Grid, side: tuple[float, float, float]
) -> None:
    """The mask takes in 2 mm of the ventricle, as automatic masks do."""
    normal = np.array(side) / np.linalg.norm(side)
    ct, mask = scan(on, [ball(RADIUS_MM)], [])
    beyond = (positions(on) - CENTER) @ normal - 9.0
    share = np.clip(beyond + 0.5, 0, 1) * (beyond < 14.0)
    array = sitk.GetArrayFromImage(ct) * (1 - share) + 5.0 * share
    cut = Mask.on(on, mask.voxels & (beyond < 2.0))
    markers = find_markers(image_on(on, array.astype(np.float32)), cut)
    assert not found(markers) & {"hypodensity", "black_hole"}
    assert max(markers[name].probability for name in ("hypodensity", "black_hole")) < 0.2


def test_a_sign_is_sure_far_from_its_threshold_and_unsure_beside_it() -> None:
    def drop_of(density: float) -> Marker:
        parts = [(ball(6.0, (4.0, -3.0, 1.0)), density)]
        return find_markers(*scan(grid(), [ball(RADIUS_MM)], parts))["black_hole"]

    deep, near, shallow = (drop_of(CLOT_HU - drop) for drop in (40.0, 29.0, 12.0))
    assert deep.probability > 0.99
    assert shallow.probability < 0.01
    assert 0.05 < near.probability < 0.95
    drops = [drop_of(CLOT_HU - drop).probability for drop in (20.0, 26.0, 30.0, 36.0)]
    assert drops == sorted(drops), "a darker hole is a more probable one"


def test_present_means_more_probable_than_not(
    with_all_signs: tuple[list[Signed], list[tuple[Signed, float]]],
) -> None:
    for texture in (0.0, 4.0, 7.0):
        described = describe_markers(*scan(grid(), *with_all_signs, texture))
        for marker in described.values():
            assert set(marker) == {"present", "probability", "evidence", "place_mm"}
            assert 0 <= marker["probability"] <= 1
            assert marker["present"] == (marker["probability"] >= 0.5)


def test_words_tell_an_unsure_sign_and_who_decided() -> None:
    def marker(probability: float) -> dict[str, object]:
        return {"present": probability >= 0.5, "probability": probability, "evidence": {}, "place_mm": None}

    markers = {"irregular": marker(0.63), "black_hole": marker(0.97), "swirl": marker(0.4)}
    assert markers_text(markers) == "irregular (63 % likely), black hole"
    overruled = {**markers, "irregular": {**markers["irregular"], "overruled": False}}
    assert markers_text(overruled) == "black hole"
    assert markers_text({"swirl": {"present": True, "evidence": {}, "place_mm": None}}) == "swirl", (
        "an older result"
    )


def half(normal: tuple[float, float, float]) -> Signed:
    """The side toward ``normal`` of a plane through the middle."""
    return lambda points: (points - CENTER) @ (np.array(normal) / np.linalg.norm(normal))


@GRIDS
@pytest.mark.parametrize(
    ("light_toward", "expected"),
    [
        ((0.0, -1.0, 0.0), "fluid_level"),
        ((0.0, 1.0, 0.0), "blend"),
        ((1.0, 0.0, 0.0), "blend"),
        ((0.6, -0.6, 0.5), "blend"),
    ],
)
def test_two_parts_are_a_blend_unless_their_border_is_level(
    on: Grid, light_toward: tuple[float, float, float], expected: str
) -> None:
    markers = find_markers(*scan(on, [ball(RADIUS_MM)], [(half(light_toward), CLOT_HU - 22.0)]))
    assert found(markers) & {"blend", "fluid_level"} == {expected}
    assert markers[expected].evidence["difference_hu"] == pytest.approx(22.0, abs=3.0)
    assert markers[expected].evidence["lighter_share"] == pytest.approx(0.5, abs=0.1)
    place = markers[expected].place_mm
    assert place is not None
    assert (np.array(place) - CENTER) @ light_toward > 2.0


def test_parts_less_than_18_hu_apart_are_no_blend() -> None:
    markers = find_markers(*scan(grid(), [ball(RADIUS_MM)], [(half((1.0, 0.0, 0.0)), CLOT_HU - 12.0)]))
    assert "blend" not in found(markers)


@GRIDS
def test_texture_makes_a_bleed_heterogeneous(on: Grid) -> None:
    even, uneven = (find_markers(*scan(on, [ball(RADIUS_MM)], [], texture))["heterogeneous"] for texture in (1, 7))
    assert not even.present
    assert uneven.present
    assert uneven.evidence["deviation_hu"] > even.evidence["deviation_hu"] + 1.5


@GRIDS
def test_irregular_needs_two_irregularities(on: Grid) -> None:
    def ellipsoid(points: np.ndarray) -> np.ndarray:
        return 12 * (1 - np.linalg.norm((points - CENTER) / (12.0, 20.0, 14.0), axis=-1))

    lobes = [ball(6.0, (15.0, 6.0, 0.0)), ball(6.0, (-13.0, 9.0, 0.0)), ball(6.0, (2.0, -18.0, 0.0))]
    smooth = find_markers(*scan(on, [ellipsoid], []))["irregular"]
    assert not smooth.present
    assert smooth.evidence["irregularities"] < 2
    assert find_markers(*scan(on, [ball(RADIUS_MM), *lobes], []))["irregular"].present


@GRIDS
@pytest.mark.parametrize(("number", "expected"), [(1, {"satellite"}), (3, {"satellite", "island"})])
def test_separate_small_bleeds_are_counted(on: Grid, number: int, expected: set[str]) -> None:
    places = [(25.0, 0.0, 0.0), (-18.0, 17.0, 0.0), (0.0, -26.0, 5.0)][:number]
    markers = find_markers(*scan(on, [ball(RADIUS_MM), *(ball(4.0, place) for place in places)], []))
    assert found(markers) & {"satellite", "island"} == expected
    assert markers["island"].evidence["separate_bleeds"] == number
    assert markers["satellite"].evidence["nearest_mm"] == pytest.approx(5.0, abs=2.0)


def test_a_second_large_or_a_distant_bleed_is_no_satellite() -> None:
    for other in (ball(8.0, (28.0, 0.0, 0.0)), ball(4.0, (42.0, 0.0, 0.0))):
        assert "satellite" not in found(find_markers(*scan(grid(), [ball(RADIUS_MM), other], [])))


def test_the_names_that_a_risk_model_may_ask_for_are_those_that_are_measured() -> None:
    """On three bleeds, which between them show every kind of sign."""
    named: set[str] = set()
    for shape, parts in (
        ([ball(RADIUS_MM), ball(4.0, (25.0, 0.0, 0.0))], [(ball(6.0, (4.0, -3.0, 1.0)), 30.0)]),
        ([ball(RADIUS_MM)], [(half((1.0, 0.0, 0.0)), CLOT_HU - 22.0)]),
        ([ball(RADIUS_MM)], [(half((0.0, -1.0, 0.0)), CLOT_HU - 22.0)]),
    ):
        named |= measurements(describe_markers(*scan(grid(), shape, parts)), 17.0, 2.0).keys()
    assert named == set(MEASUREMENTS)


@pytest.mark.parametrize("radius", [3.0, 0.5])
def test_a_bleed_of_a_few_voxels_is_answered_too(radius: float) -> None:
    ct, mask = scan(grid((0.6, 0.6, 5.0)), [ball(radius, (0.3, 0.3, 0.0))], [])
    assert not mask.is_empty
    markers = find_markers(ct, mask)
    assert found(markers) <= {"irregular"}
    assert all(np.isfinite(value) for marker in markers.values() for value in marker.evidence.values())


@pytest.mark.parametrize(
    ("present", "hours", "totals"),
    [
        (set(), 1.0, (2, 2, 0)),
        (set(), 2.5, (0, 2, 0)),
        ({"blend"}, None, (None, 3, 1)),
        ({"blend", "swirl", "hypodensity"}, 1.5, (5, 5, 3)),
        ({"black_hole"}, 5.0, (2, 4, 2)),
    ],
)
def test_bat_has_its_published_points(
    present: set[str], hours: float | None, totals: tuple[int | None, ...]
) -> None:
    names = ("hypodensity", "swirl", "black_hole", "blend", "fluid_level")
    score = bat_score({name: name in present for name in names}, hours)
    assert (score.total, score.total_if_early, score.total_if_late) == totals


@pytest.mark.parametrize(
    ("baseline_ml", "hours", "clinical", "total"),
    [
        (20.1, 0.5, (True, True, True), 24),
        (20.0, 1.0, (True, True, True), 22),
        (10.1, 1.1, (False, False, False), 5 + 4),
        (10.0, 5.0, (False, True, False), 6 + 1),
        (9.0, 5.1, (False, False, True), 2),
        (9.0, None, (False, False, False), None),
        (9.0, 2.0, (False, None, False), None),
    ],
)
def test_brain_has_its_published_points_and_needs_all_its_parts(
    baseline_ml: float, hours: float | None, clinical: tuple[bool | None, ...], total: int | None
) -> None:
    score = brain_score(baseline_ml, hours, ClinicalData(*clinical))
    assert (None if score is None else score.total) == total


def test_a_reader_overrules_a_marker_and_bat_follows() -> None:
    markers = {
        name: {
            "present": name == "swirl",
            "probability": 0.9 if name == "swirl" else 0.1,
            "evidence": {"area_mm2": 40.0},
            "place_mm": None,
        }
        for name in ("hypodensity", "swirl", "black_hole", "blend", "fluid_level")
    }
    result = {"input": {"onset_hours": 6.0}, "markers": markers, "scores": {}}
    without = overrule(result, "swirl", False)
    assert without["scores"]["bat"]["total"] == 0
    assert without["markers"]["swirl"] == {**markers["swirl"], "overruled": False}
    assert not any(present_markers(without["markers"]).values())
    with_blend = overrule(without, "blend", True)
    assert with_blend["scores"]["bat"]["total"] == 1
    back = overrule(overrule(with_blend, "swirl", True), "blend", False)
    assert back["markers"] == markers
    assert back["scores"]["bat"]["total"] == 2
    assert result["scores"] == {}, "the first result is not changed"
    unsure = {**result, "markers": {**markers, "swirl": {**markers["swirl"], "probability": 0.7}}}
    assert overrule(unsure, "swirl", True)["markers"]["swirl"]["overruled"] is True, "a confirmation makes it sure"


def painted(**values: float) -> dict[str, bool | None]:
    """Which markers a patient has with these figures and otherwise those of a uniform bleed."""
    even = {
        "pocket_mm": 0, "decoy_mm": 0, "swirl_mm": 0, "black_hole_mm": 0, "hu": 62, "hypodense_hu": 40,
        "blend_share": 0, "fluid_share": 0, "satellites": 0,
    }  # fmt: skip
    signs = {"heterogeneous": False, "irregular": False}
    return painted_markers({"parameters": {"bleeding": even | values, "signs": signs}})


def test_what_was_painted_is_named_by_the_criteria() -> None:
    assert not any(painted().values())
    pocket, swirl, dark = painted(pocket_mm=3), painted(swirl_mm=5), painted(pocket_mm=3, hypodense_hu=33)
    assert (pocket["hypodensity"], pocket["swirl"], pocket["black_hole"]) == (True, None, False)
    assert (swirl["hypodensity"], swirl["swirl"], swirl["any_hypodensity"]) == (None, True, True)
    assert dark["black_hole"] is None, "dark enough for one in thin slices"
    assert painted(black_hole_mm=4)["black_hole"]
    two = painted(satellites=2)
    assert (two["satellite"], two["island"]) == (True, False)
    with pytest.raises(InputError, match="simulated"):
        painted_markers({"source": "patients"})


def test_found_markers_are_counted_against_the_painted_ones() -> None:
    counts = {(True, True): 3, (True, False): 1, (False, True): 2, (False, False): 6}
    rows = [MarkerRow("case", "blend", *answer) for answer, number in counts.items() for _ in range(number)]
    summary = summarize_markers([*rows, MarkerRow("case", "island", False, False)])
    assert summary["blend"] == pytest.approx(
        {"painted": 4, "not_painted": 8, "sensitivity": 0.75, "specificity": 0.75, "balanced_accuracy": 0.75}
    )
    assert summary["island"] == {"painted": 0, "not_painted": 1}


@pytest.mark.parametrize("masks", ["true", "automatic"])
def test_markers_of_a_cohort_are_evaluated_by_one_command(masks: str, case_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "markers"
    found = ["--segmenter", "threshold"] if masks == "automatic" else []
    cohort = ["--cohort", str(case_folder.parent), "--masks", masks, *found]
    assert main(["evaluate", "markers", *cohort, "-o", str(output)]) == 0
    summary = json.loads((output / "markers.json").read_text())
    assert summary["satellite"]["painted"] + summary["satellite"]["not_painted"] == 1
    assert (output / "markers.csv").read_text().startswith("case,marker,painted,found")
