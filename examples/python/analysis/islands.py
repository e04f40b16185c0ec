"""Counts species by island."""

import argparse
import collections
import json

import penguins

parser = argparse.ArgumentParser()
parser.add_argument("table")
parser.add_argument("-o", "--output", required=True)
args = parser.parse_args()

rows = penguins.read(args.table)
islands = sorted({row["island"] for row in rows})
result = {}
for species, members in penguins.by_species(rows).items():
    counts = collections.Counter(row["island"] for row in members)
    result[species] = {island: counts[island] for island in islands}
with open(args.output, "w", encoding="utf-8") as file:
    json.dump(result, file)
