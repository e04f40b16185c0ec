"""Keeps the rows that are complete and plausible."""

import argparse
import json
import sys

import penguins

parser = argparse.ArgumentParser()
parser.add_argument("table")
parser.add_argument("--params", required=True)
parser.add_argument("-o", "--output", required=True)
args = parser.parse_args()

with open(args.params, encoding="utf-8") as file:
    min_mass_g = json.load(file)["min_mass_g"]

rows = penguins.read(args.table)
complete = [
    row for row in rows if row["sex"] != "NA" and all(row[measure] is not None for measure in penguins.MEASURES)
]
kept = [row for row in complete if row["body_mass_g"] >= min_mass_g]
print(
    f"kept {len(kept)} rows; dropped {len(rows) - len(complete)} incomplete "
    f"and {len(complete) - len(kept)} lighter than {min_mass_g} g",
    file=sys.stderr,
)
if not kept:
    raise SystemExit("clean: no row is left; is min_mass_g too large?")
penguins.write(args.output, kept)
