"""One table for each species, in a folder."""

import argparse
import pathlib

import penguins

parser = argparse.ArgumentParser()
parser.add_argument("table")
parser.add_argument("-o", "--output", required=True, type=pathlib.Path)
args = parser.parse_args()

args.output.mkdir()
for species, rows in penguins.by_species(penguins.read(args.table)).items():
    penguins.write(args.output / f"{species.lower()}.csv", rows)
