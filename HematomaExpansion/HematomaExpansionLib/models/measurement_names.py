"""Names of all measurements a risk model may use; a package that asks for others is rejected when it is opened.

This needs no third-party library: packages are listed before any library is installed.
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
"""What ``markers.find_markers`` measures for each CT marker, as far as there is something to measure."""

PRESENT = "present"
"""Whether a marker is present."""

MEASUREMENTS = (
    LOG_VOLUME,
    ONSET_HOURS,
    *(f"{marker}.{what}" for marker, measured in EVIDENCE.items() for what in (PRESENT, *measured)),
)
"""Names of everything that ``forecast.probability.measurements`` may return."""
