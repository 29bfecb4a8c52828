"""Common corruptions: what weather, cameras and coding do to pictures, in five severities."""

from adamant.corruptions.base import Corruption
from adamant.corruptions.blur import DefocusBlur, GaussianBlur, GlassBlur, MotionBlur, ZoomBlur
from adamant.corruptions.digital import Brightness, Contrast, Elastic, Pixelate, Saturate
from adamant.corruptions.jpeg import JPEG
from adamant.corruptions.noise import GaussianNoise, ImpulseNoise, ShotNoise, SpeckleNoise
from adamant.corruptions.road import Rain, RoadFog
from adamant.corruptions.weather import Fog, Frost, Snow, Spatter

Kind = (
    type[GaussianNoise] | type[ShotNoise] | type[ImpulseNoise] | type[DefocusBlur] | type[GlassBlur]
    | type[MotionBlur] | type[ZoomBlur] | type[Snow] | type[Frost] | type[Fog] | type[Brightness] | type[Contrast]
    | type[Elastic] | type[Pixelate] | type[JPEG] | type[SpeckleNoise] | type[GaussianBlur] | type[Spatter]
    | type[Saturate] | type[Rain] | type[RoadFog]
)  # fmt: skip

# The fifteen of Hendrycks & Dietterich (2019), in their order; their four for validation; and two for the road.
ALL15: tuple[Kind, ...] = (
    GaussianNoise, ShotNoise, ImpulseNoise, DefocusBlur, GlassBlur, MotionBlur, ZoomBlur, Snow, Frost, Fog,
    Brightness, Contrast, Elastic, Pixelate, JPEG,
)  # fmt: skip
EXTRA: tuple[Kind, ...] = (SpeckleNoise, GaussianBlur, Spatter, Saturate)
ROAD: tuple[Kind, ...] = (Rain, RoadFog)
KINDS: dict[str, Kind] = {kind.__name__: kind for kind in (*ALL15, *EXTRA, *ROAD)}

__all__ = [
    "ALL15", "EXTRA", "JPEG", "KINDS", "ROAD", "Brightness", "Contrast", "Corruption", "DefocusBlur", "Elastic", "Fog",
    "Frost", "GaussianBlur", "GaussianNoise", "GlassBlur", "ImpulseNoise", "Kind", "MotionBlur", "Pixelate", "Rain",
    "RoadFog", "Saturate", "ShotNoise", "Snow", "Spatter", "SpeckleNoise", "ZoomBlur",
]  # fmt: skip
