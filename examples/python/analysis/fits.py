"""Ordinary least squares of body mass (g) on flipper length (mm), for each species; null where there is no fit."""

import argparse
import json
import math

import penguins

parser = argparse.ArgumentParser()
parser.add_argument("table")
parser.add_argument("-o", "--output", required=True)
args = parser.parse_args()


def fit(xs, ys):
    """slope = Sxy / Sxx and r2 = Sxy^2 / (Sxx * Syy), with S the sums of squared deviations."""
    n = len(xs)
    mean_x, mean_y = math.fsum(xs) / n, math.fsum(ys) / n
    sxx = math.fsum((x - mean_x) ** 2 for x in xs)
    syy = math.fsum((y - mean_y) ** 2 for y in ys)
    sxy = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys))
    if n < 3 or sxx == 0 or syy == 0:
        return {"n": n, "slope_g_per_mm": None, "intercept_g": None, "r2": None}
    slope = sxy / sxx
    return {
        "n": n,
        "slope_g_per_mm": round(slope, 3),
        "intercept_g": round(mean_y - slope * mean_x, 1),
        "r2": round(sxy**2 / (sxx * syy), 3),
    }


result = {
    species: fit([row["flipper_length_mm"] for row in rows], [row["body_mass_g"] for row in rows])
    for species, rows in penguins.by_species(penguins.read(args.table)).items()
}
with open(args.output, "w", encoding="utf-8") as file:
    json.dump(result, file)
