"""Body styles: the proportions that the cars of one style share.

Lengths are in meters. Positions along the car are fractions of its length from the nose; heights
are fractions of its height.
"""

from dataclasses import dataclass

Range = tuple[float, float]
Profile = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Style:
    """One body style.

    Attributes:
        weight: relative frequency of the style.
        length, width, height, clearance, wheel_radius: ranges in meters.
        wheelbase: distance between the axles, as a fraction of the length.
        overhang: distance from the nose to the front axle, as a fraction of the length.
        top: side view of the roof line from nose to tail, as (position, height).
        belt: height of the lower edge of the side windows, at the nose and at the tail.
        lean: fraction by which the roof is narrower than the belt line.
        round_front, round_rear: length of the rounded front and rear in the plan view, in meters.
        cowl, roof_front: positions of the lower and the upper edge of the windscreen.
        roof_rear, glass_end: positions of the upper and the lower edge of the rear window.
        doors: positions of the gaps between doors; the last gap ends the rear door.
        privacy: probability of dark glass behind the front doors.
        rails: probability of roof rails.
    """

    weight: float
    length: Range
    width: Range
    height: Range
    clearance: Range
    wheel_radius: Range
    wheelbase: float
    overhang: float
    top: Profile
    belt: Range
    lean: float
    round_front: float
    round_rear: float
    cowl: float
    roof_front: float
    roof_rear: float
    glass_end: float
    doors: tuple[float, ...]
    privacy: float
    rails: float


SEDAN = Style(
    weight=0.36,
    length=(4.55, 5.05),
    width=(1.78, 1.90),
    height=(1.42, 1.50),
    clearance=(0.19, 0.23),
    wheel_radius=(0.315, 0.345),
    wheelbase=0.580,
    overhang=0.190,
    top=(
        (0.0, 0.430), (0.012, 0.490), (0.05, 0.540), (0.15, 0.615), (0.275, 0.675), (0.345, 0.810),
        (0.42, 0.945), (0.48, 0.985), (0.56, 1.0), (0.64, 0.985), (0.70, 0.945), (0.79, 0.835),
        (0.86, 0.755), (0.93, 0.745), (0.975, 0.735), (0.99, 0.690), (1.0, 0.560),
    ),
    belt=(0.615, 0.675),
    lean=0.20,
    round_front=0.55,
    round_rear=0.42,
    cowl=0.278,
    roof_front=0.425,
    roof_rear=0.705,
    glass_end=0.850,
    doors=(0.300, 0.515, 0.720),
    privacy=0.05,
    rails=0.0,
)  # fmt: skip

COUPE = Style(
    weight=0.09,
    length=(4.20, 4.75),
    width=(1.80, 1.90),
    height=(1.33, 1.40),
    clearance=(0.16, 0.20),
    wheel_radius=(0.325, 0.350),
    wheelbase=0.570,
    overhang=0.195,
    top=(
        (0.0, 0.430), (0.012, 0.500), (0.05, 0.550), (0.16, 0.630), (0.305, 0.695), (0.38, 0.830),
        (0.46, 0.955), (0.53, 1.0), (0.61, 0.990), (0.70, 0.940), (0.80, 0.860), (0.90, 0.785),
        (0.97, 0.750), (0.99, 0.700), (1.0, 0.570),
    ),
    belt=(0.625, 0.700),
    lean=0.24,
    round_front=0.60,
    round_rear=0.50,
    cowl=0.308,
    roof_front=0.465,
    roof_rear=0.680,
    glass_end=0.880,
    doors=(0.330, 0.610),
    privacy=0.05,
    rails=0.0,
)  # fmt: skip

HATCHBACK = Style(
    weight=0.14,
    length=(3.65, 4.40),
    width=(1.68, 1.80),
    height=(1.43, 1.54),
    clearance=(0.18, 0.22),
    wheel_radius=(0.300, 0.330),
    wheelbase=0.610,
    overhang=0.195,
    top=(
        (0.0, 0.440), (0.014, 0.510), (0.05, 0.565), (0.14, 0.640), (0.255, 0.700), (0.33, 0.835),
        (0.40, 0.945), (0.47, 0.990), (0.56, 1.0), (0.70, 0.985), (0.82, 0.950), (0.89, 0.915),
        (0.945, 0.760), (0.978, 0.670), (0.993, 0.620), (1.0, 0.520),
    ),
    belt=(0.620, 0.690),
    lean=0.19,
    round_front=0.52,
    round_rear=0.40,
    cowl=0.258,
    roof_front=0.405,
    roof_rear=0.890,
    glass_end=0.972,
    doors=(0.285, 0.535, 0.755),
    privacy=0.25,
    rails=0.05,
)  # fmt: skip

CROSSOVER = Style(
    weight=0.25,
    length=(4.40, 5.05),
    width=(1.83, 1.98),
    height=(1.62, 1.79),
    clearance=(0.24, 0.30),
    wheel_radius=(0.350, 0.385),
    wheelbase=0.585,
    overhang=0.185,
    top=(
        (0.0, 0.470), (0.012, 0.550), (0.04, 0.590), (0.14, 0.640), (0.255, 0.680), (0.32, 0.810),
        (0.385, 0.935), (0.45, 0.980), (0.56, 1.0), (0.72, 0.990), (0.85, 0.965), (0.918, 0.945),
        (0.960, 0.760), (0.983, 0.650), (0.995, 0.590), (1.0, 0.500),
    ),
    belt=(0.605, 0.660),
    lean=0.175,
    round_front=0.46,
    round_rear=0.36,
    cowl=0.258,
    roof_front=0.390,
    roof_rear=0.918,
    glass_end=0.978,
    doors=(0.285, 0.515, 0.740),
    privacy=0.70,
    rails=0.60,
)  # fmt: skip

MINIVAN = Style(
    weight=0.06,
    length=(4.75, 5.15),
    width=(1.90, 2.00),
    height=(1.70, 1.80),
    clearance=(0.19, 0.23),
    wheel_radius=(0.330, 0.350),
    wheelbase=0.590,
    overhang=0.185,
    top=(
        (0.0, 0.420), (0.012, 0.480), (0.05, 0.530), (0.13, 0.590), (0.200, 0.645), (0.28, 0.790),
        (0.37, 0.935), (0.44, 0.980), (0.56, 1.0), (0.74, 0.995), (0.88, 0.975), (0.945, 0.955),
        (0.973, 0.760), (0.988, 0.640), (0.996, 0.560), (1.0, 0.460),
    ),
    belt=(0.575, 0.610),
    lean=0.150,
    round_front=0.55,
    round_rear=0.34,
    cowl=0.205,
    roof_front=0.375,
    roof_rear=0.945,
    glass_end=0.985,
    doors=(0.265, 0.480, 0.710),
    privacy=0.75,
    rails=0.60,
)  # fmt: skip

PICKUP = Style(
    weight=0.10,
    length=(5.30, 5.95),
    width=(1.88, 2.02),
    height=(1.78, 1.93),
    clearance=(0.34, 0.42),
    wheel_radius=(0.375, 0.410),
    wheelbase=0.620,
    overhang=0.165,
    top=(
        (0.0, 0.540), (0.008, 0.600), (0.03, 0.625), (0.14, 0.655), (0.235, 0.675), (0.285, 0.800),
        (0.335, 0.935), (0.37, 0.985), (0.43, 1.0), (0.55, 1.0), (0.607, 0.985), (0.625, 0.800),
        (0.638, 0.690), (0.660, 0.690), (0.85, 0.690), (0.985, 0.690), (0.995, 0.660), (1.0, 0.560),
    ),
    belt=(0.640, 0.655),
    lean=0.150,
    round_front=0.36,
    round_rear=0.16,
    cowl=0.238,
    roof_front=0.340,
    roof_rear=0.605,
    glass_end=0.632,
    doors=(0.262, 0.440, 0.590),
    privacy=0.40,
    rails=0.0,
)  # fmt: skip

STYLES = {
    "sedan": SEDAN,
    "coupe": COUPE,
    "hatchback": HATCHBACK,
    "crossover": CROSSOVER,
    "minivan": MINIVAN,
    "pickup": PICKUP,
}
