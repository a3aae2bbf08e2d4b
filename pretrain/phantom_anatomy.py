"""The anatomy of the phantom: a table of organs, how individuals vary, and how a body is painted on a grid.

Millimetres in the average body are (z, y, x): up from the pelvis, to the back and to the left, with the body's long
axis at y = x = 0.

Shape suffixes: Z, Y, X = the voxel grid; 3 = (z, y, x).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LABELS = {
    "lung_right": 1,
    "lung_left": 2,
    "heart": 3,
    "aorta": 4,
    "liver": 5,
    "stomach": 6,
    "spleen": 7,
    "kidney_right": 8,
    "kidney_left": 9,
    "gland_right": 10,
    "gland_left": 11,
    "nodule_upper": 12,
    "nodule_lower": 13,
    "bladder": 14,
    "spine": 15,
}
"""Name and value of each labelled organ; the background is 0."""

LOOK_ALIKES = (("kidney_right", "kidney_left"), ("gland_right", "gland_left"), ("nodule_upper", "nodule_lower"))
"""Pairs with the same shape, size and intensity distribution: only the place tells which is which."""

AIR_HU = -1000
HALF_DEPTH_MM, HALF_WIDTH_MM = 120.0, 180.0
_FAT_HU, _MUSCLE_HU, _MARROW_HU, _CORTEX_HU = -100, 55, 180, 480
_VERTEBRA_MM, _RIB_MM = 28.0, 27.0


class Organ(NamedTuple):
    """An ellipsoid of one tissue. Organs of one name move together; names up to the first "_" share their HU."""

    name: str
    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    hu: float
    contrast_hu: float = 0
    """Added where the contrast agent is at its peak."""
    side: str = "both"
    """Side of the diaphragm, "above" or "below", and then within the trunk's wall, too."""
    tube: bool = False
    """An upright tube: the section does not shrink towards the ends."""
    gas: bool = False
    """Gas floats on the content, at the front of a patient who lies on the back."""
    capsule: bool = False
    """Surrounded by fat, so that the neighbourhood gives nothing away either."""


ORGANS = (  # later ones cover earlier ones and the bowel; the look-alikes come last and stay whole
    Organ("trachea", (300, 12, 0), (42, 9, 9), -980, tube=True),
    Organ("trachea", (259, 13, -20), (8, 8, 26), -980),
    Organ("trachea", (259, 13, 22), (8, 8, 28), -980),
    Organ("oesophagus", (250, 36, 6), (90, 7, 8), 35, tube=True),
    Organ("heart", (220, -32, 22), (46, 42, 52), 42, 45, "above"),
    Organ("heart", (216, -30, 40), (28, 24, 25), 42, 100, "above"),
    Organ("heart", (228, -40, -8), (26, 22, 22), 42, 90, "above"),
    Organ("aorta", (165, 32, 22), (120, 12, 12), 42, 110, tube=True),
    Organ("aorta", (284, 4, 10), (13, 40, 14), 42, 110),
    Organ("aorta", (262, -24, -6), (26, 14, 14), 42, 110, tube=True),
    Organ("cava", (100, 32, -24), (95, 11, 12), 42, 90, tube=True),
    Organ("cava", (285, -14, -28), (45, 9, 9), 42, 90, tube=True),
    Organ("iliac", (22, 38, 30), (30, 9, 9), 42, 100, tube=True),
    Organ("iliac", (22, 38, -30), (30, 9, 9), 42, 100, tube=True),
    Organ("psoas", (58, 52, 40), (78, 19, 17), 55, 10),
    Organ("psoas", (58, 52, -40), (78, 19, 17), 55, 10),
    Organ("ilium", (8, 42, 122), (52, 50, 11), 330),
    Organ("ilium", (8, 42, -122), (52, 50, 11), 330),
    Organ("pancreas", (122, -6, 18), (11, 13, 58), 40, 40),
    Organ("colon", (80, 5, -118), (48, 23, 20), 30, 10, "below", gas=True),
    Organ("colon", (85, 25, 120), (62, 19, 18), 30, 10, "below", gas=True),
    Organ("colon", (104, -74, 8), (15, 17, 84), 30, 10, "below", gas=True),
    Organ("liver", (150, -14, -82), (76, 84, 70), 55, 45, "below"),
    Organ("liver", (166, -48, -8), (34, 42, 68), 55, 45, "below"),
    Organ("liver", (152, -6, -60), (6, 9, 42), 50, 95, "below"),
    Organ("gallbladder", (112, -54, -50), (20, 15, 14), 8),
    Organ("stomach", (158, -36, 66), (46, 40, 44), 25, 15, "below", gas=True),
    Organ("spleen", (150, 50, 108), (42, 38, 26), 50, 60, "below"),
    Organ("bladder", (24, -22, 0), (28, 32, 40), 8),
    Organ("kidney_right", (82, 52, -70), (44, 23, 26), 32, 110),
    Organ("kidney_right", (82, 52, -70), (22, 9, 9), -20, 30),
    Organ("kidney_left", (90, 52, 70), (44, 23, 26), 32, 110),
    Organ("kidney_left", (90, 52, 70), (22, 9, 9), -20, 30),
    Organ("gland_right", (154, 50, -42), (20, 17, 17), 42, 25, capsule=True),
    Organ("gland_left", (154, 50, 42), (20, 17, 17), 42, 25, capsule=True),
    Organ("nodule_upper", (280, -64, 0), (18, 18, 18), 42, 25, capsule=True),
    Organ("nodule_lower", (70, -62, 0), (18, 18, 18), 42, 25, capsule=True),
)


def vary_organs(organs: Sequence[Organ], rng: np.random.Generator) -> list[Organ]:
    """Return one individual's organs: shifted by up to 8 mm, resized by up to 15 %, offset by up to 15 HU.

    The offset, like the amount of contrast agent, is the same for all names that agree up to the first "_".
    """
    contrast = rng.uniform(0, 1)
    names = dict.fromkeys(organ.name for organ in organs)
    shift_mm = {name: rng.uniform(-8, 8, 3) for name in names}
    size = {name: rng.uniform(0.85, 1.15) for name in names}
    offset_hu = {family: rng.uniform(-15, 15) for family in dict.fromkeys(name.split("_")[0] for name in names)}
    return [
        organ._replace(
            centre_mm=tuple(np.add(organ.centre_mm, shift_mm[organ.name])),
            radii_mm=tuple(np.multiply(organ.radii_mm, size[organ.name])),
            hu=organ.hu + contrast * organ.contrast_hu + offset_hu[organ.name.split("_")[0]],
        )
        for organ in organs
    ]


def bowel_loops(rng: np.random.Generator, number: int = 48) -> tuple[Organ, ...]:
    """Return loops of small bowel: somewhere in the belly, of any content, every fifth with gas."""
    centres_mm, radii_mm = rng.uniform((22, -82, -92), (105, 18, 92), (number, 3)), rng.uniform(8, 20, (number, 3))
    return tuple(
        Organ(f"bowel{index}", tuple(centre), tuple(radii), 30, 10, "below", gas=index % 5 == 0)
        for index, (centre, radii) in enumerate(zip(centres_mm, radii_mm, strict=True))
    )


class Canvas:
    """A voxel grid laid over the average body, and the image and labels painted on it.

    Args:
        axes_mm: Place of the grid's planes along z, y and x before the deformation.
        bend_mm: Displacement along z, y and x, three arrays (Z, Y, X).
    """

    def __init__(self, axes_mm: Sequence[np.ndarray], bend_mm: Sequence[np.ndarray]) -> None:
        self._axes_mm = axes_mm
        self._reach_mm = [float(np.abs(bend).max()) for bend in bend_mm]
        grid = np.meshgrid(*(axis.astype(np.float32) for axis in axes_mm), indexing="ij", sparse=True)
        self.z_mm, self.y_mm, self.x_mm = (axis + bend for axis, bend in zip(grid, bend_mm, strict=True))
        self.image_ZYX = np.full(self.z_mm.shape, AIR_HU, np.float32)
        self.labels_ZYX = np.zeros(self.z_mm.shape, np.uint8)
        self.radius_ZYX = _superellipse(self.y_mm / HALF_DEPTH_MM, self.x_mm / HALF_WIDTH_MM)
        """Distance from the long axis in units of the average skin."""
        self.cavity_ZYX = self.radius_ZYX - _cavity_radius(self.z_mm)
        """Negative within the ribs and the muscles of the belly, in the same units."""
        self.above_mm = self.z_mm - _diaphragm_mm(self.y_mm, self.x_mm)
        """Height above the diaphragm."""

    def box(self, low_3: Sequence[float] | np.ndarray, high_3: Sequence[float] | np.ndarray) -> tuple[slice, ...]:
        """Return slices which hold every voxel between two corners in the average body, whatever the deformation."""
        return tuple(
            slice(*np.searchsorted(axis, (low - reach, high + reach)))
            for axis, reach, low, high in zip(self._axes_mm, self._reach_mm, low_3, high_3, strict=True)
        )

    def paint(self, organ: Organ) -> None:
        """Paint one organ over what is there, and its label, which is 0 where `LABELS` does not know the name."""
        margin = 5.0 if organ.capsule else 0.0
        centre, radii = np.array(organ.centre_mm), np.array(organ.radii_mm)
        box = self.box(centre - radii - margin, centre + radii + margin)
        offsets_mm = [at[box] - middle for at, middle in zip((self.z_mm, self.y_mm, self.x_mm), centre, strict=True)]
        if organ.capsule:
            self.image_ZYX[box][_ellipsoid(offsets_mm, radii + margin) < 1] = _FAT_HU
        if organ.tube:
            inside = (_ellipsoid(offsets_mm[1:], radii[1:]) < 1) & (np.abs(offsets_mm[0]) < radii[0])
        else:
            inside = _ellipsoid(offsets_mm, radii) < 1
        if organ.side != "both":
            sign = 1 if organ.side == "above" else -1
            inside &= (sign * self.above_mm[box] > 3) & (self.cavity_ZYX[box] < -0.01)
        self.image_ZYX[box][inside] = organ.hu
        self.labels_ZYX[box][inside] = LABELS.get(organ.name, 0)
        if organ.gas:
            lumen = inside & (_ellipsoid(offsets_mm, radii - 4) < 1) & (offsets_mm[1] < -0.25 * radii[1])
            self.image_ZYX[box][lumen] = -950


def paint_trunk(canvas: Canvas, girth: float, vessels_ZYX: np.ndarray) -> None:
    """Paint skin, fat, muscles, the lungs with their vessels, and the fat around the organs.

    Args:
        canvas: What to paint on.
        girth: Radius of the skin, 1 for the average body.
        vessels_ZYX: Share of blood in each voxel if it turns out to be lung, 0 to 1.
    """
    image, radius, cavity = canvas.image_ZYX, canvas.radius_ZYX, canvas.cavity_ZYX
    image[radius < girth] = 10  # skin
    image[radius < girth - 0.02] = _FAT_HU
    image[radius < 0.91] = _MUSCLE_HU
    image[cavity < 0] = _FAT_HU + 10
    mediastinum_mm = 22 + 16 * np.exp(-(((canvas.z_mm - 230) / 40) ** 2))
    lungs = (cavity < -0.01) & (canvas.above_mm > 0) & (np.abs(canvas.x_mm - 4) > mediastinum_mm)
    image[lungs] = -870 + 800 * vessels_ZYX[lungs]
    canvas.labels_ZYX[lungs] = np.where(canvas.x_mm[lungs] < 0, LABELS["lung_right"], LABELS["lung_left"])


def paint_skeleton(canvas: Canvas) -> None:
    """Paint ribs with cartilage, the breastbone, the muscles of the back and the spine with its canal."""
    z_mm, y_mm, x_mm = canvas.z_mm, canvas.y_mm, canvas.x_mm
    image, cavity = canvas.image_ZYX, canvas.cavity_ZYX
    level_mm = z_mm - 0.4 * y_mm  # ribs descend towards the front
    ribs = (cavity > 0.012) & (cavity < 0.07) & (np.mod(level_mm, _RIB_MM) < 10) & (level_mm > 125)
    ribs &= (np.abs(x_mm) > 15) & ((z_mm > 175) | (y_mm > -30))
    image[ribs] = np.where(y_mm[ribs] < -72, 95, np.where(np.abs(cavity[ribs] - 0.041) < 0.015, 250, _CORTEX_HU))
    sternum = (cavity > 0) & (cavity < 0.08) & (np.abs(x_mm) < 17) & (y_mm < 0) & (z_mm > 190)
    image[sternum] = _MARROW_HU + 40

    box = canvas.box((-50, 40, -62), (400, 125, 62))
    z_mm, y_mm, x_mm = z_mm[box], y_mm[box], x_mm[box]
    image, labels = image[box], canvas.labels_ZYX[box]
    muscle = _ellipsoid((y_mm - 95, np.abs(x_mm) - 30), (16, 26)) < 1
    image[muscle], labels[muscle] = _MUSCLE_HU, 0
    phase = np.mod(z_mm, _VERTEBRA_MM) / _VERTEBRA_MM
    column = _ellipsoid((y_mm - 64, x_mm), (17, 22))
    canal_mm = np.hypot(y_mm - 89, x_mm)
    bone = (column < 1) & (phase > 0.25)
    arch = (canal_mm < 14) & (phase > 0.35)
    arch |= (np.abs(y_mm - 85) < 5) & (np.abs(x_mm) < 38) & (np.abs(phase - 0.6) < 0.2)
    arch |= (np.abs(x_mm) < 4) & (np.abs(y_mm - 105) < 8) & (np.abs(phase - 0.65) < 0.25)
    image[column < 1] = 75  # the discs
    image[bone] = np.where((column[bone] > 0.7) | (np.abs(phase[bone] - 0.625) > 0.32), _CORTEX_HU, _MARROW_HU)
    image[arch] = _CORTEX_HU
    labels[(column < 1) | arch] = LABELS["spine"]
    image[canal_mm < 8] = 25
    labels[canal_mm < 8] = 0


def vertebra_number(z_mm: np.ndarray) -> np.ndarray:
    """Return the vertebra's number, 1 for the lowest, at heights in the average body; a disc is the next one's."""
    return np.clip(z_mm // _VERTEBRA_MM, 0, None) + 1


def _superellipse(*ratios: np.ndarray) -> np.ndarray:
    """Return the radius in the norm of exponent 2.4, in which a disc looks like a section of a trunk."""
    return np.add.reduce([np.abs(ratio) ** np.float32(2.4) for ratio in ratios]) ** np.float32(1 / 2.4)


def _ellipsoid(offsets_mm: Sequence[np.ndarray], radii_mm: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the squared distance from the centre, 1 on the surface."""
    return np.add.reduce([(offset / radius) ** 2 for offset, radius in zip(offsets_mm, radii_mm, strict=True)])


def _cavity_radius(z_mm: np.ndarray) -> np.ndarray:
    """Return the inner radius of the trunk's wall, which closes like a dome above the lungs."""
    return 0.82 * np.sqrt(np.clip(1 - (np.clip(z_mm - 265, 0, None) / 85) ** 2, 0.02, 1))


def _diaphragm_mm(y_mm: np.ndarray, x_mm: np.ndarray) -> np.ndarray:
    """Return the height of the diaphragm: two domes, the right one higher, steep towards the back."""
    domes = 204 - 0.008 * (np.abs(x_mm) - 70) ** 2 - 0.006 * (y_mm + 10) ** 2
    return domes - 10 / (1 + np.exp(-x_mm / 15))
