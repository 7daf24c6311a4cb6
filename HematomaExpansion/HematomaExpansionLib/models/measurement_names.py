"""Names of all that a risk model may look at, so that a package which asks for more is refused when it is opened.

No library is needed here: packages are listed before any is installed.
"""

from __future__ import annotations

LOG_VOLUME, ONSET_HOURS = "log_volume_ml", "onset_hours"

EVIDENCE: dict[str, tuple[str, ...]] = {
    "hypodensity": ("area_mm2", "lowest_hu", "difference_hu", "enclosed_share", "brain_hu"),
    "swirl": (
        "area_mm2",
        "lowest_hu",
        "difference_hu",
        "enclosed_share",
        "brain_hu",
        "low_density_share",
        "darkest_above_brain_hu",
        "below_dense_clot_hu",
    ),
    "black_hole": ("difference_hu", "lowest_hu", "area_mm2"),
    "blend": ("difference_hu", "explained_share", "lighter_share"),
    "fluid_level": ("difference_hu", "explained_share", "lighter_share"),
    "heterogeneous": ("deviation_hu", "whole_deviation_hu"),
    "irregular": ("irregularities", "second_depth_of_radius"),
    "satellite": ("separate_bleeds", "nearest_mm"),
    "island": ("separate_bleeds", "nearest_mm"),
}
"""What is measured for each CT marker (``markers.find_markers``), as far as there is something to measure."""

PRESENT = "present"
"""Whether a marker is there."""

MEASUREMENTS = (
    LOG_VOLUME,
    ONSET_HOURS,
    *(f"{marker}.{what}" for marker, measured in EVIDENCE.items() for what in (PRESENT, *measured)),
)
"""Names of all that ``risk.measurements`` may give."""
