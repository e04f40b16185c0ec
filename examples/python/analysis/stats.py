"""Describes the four measures of each species. The standard deviation is that of a sample (n - 1)."""

import argparse
import json
import statistics

import penguins

parser = argparse.ArgumentParser()
parser.add_argument("table")
parser.add_argument("-o", "--output", required=True)
args = parser.parse_args()


def describe(values):
    return {
        "mean": round(statistics.mean(values), 3),
        "sd": round(statistics.stdev(values), 3) if len(values) > 1 else 0,
        "min": min(values),
        "median": round(statistics.median(values), 3),
        "max": max(values),
    }


result = {}
for species, rows in penguins.by_species(penguins.read(args.table)).items():
    result[species] = {measure: describe([row[measure] for row in rows]) for measure in penguins.MEASURES}
    result[species]["count"] = len(rows)

with open(args.output, "w", encoding="utf-8") as file:
    json.dump(result, file)
