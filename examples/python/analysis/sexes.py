"""Mean body mass of females and males of each species, and by how much males are heavier; null where there are none."""

import argparse
import json
import statistics

import penguins

parser = argparse.ArgumentParser()
parser.add_argument("table")
parser.add_argument("-o", "--output", required=True)
args = parser.parse_args()


def compare(rows):
    masses = {sex: [row["body_mass_g"] for row in rows if row["sex"] == sex] for sex in ("female", "male")}
    female, male = (statistics.mean(values) if values else None for values in masses.values())
    return {
        "female_g": female and round(female, 1),
        "male_g": male and round(male, 1),
        "males_heavier_percent": round(100 * (male / female - 1), 1) if female and male else None,
    }


result = {species: compare(rows) for species, rows in penguins.by_species(penguins.read(args.table)).items()}
with open(args.output, "w", encoding="utf-8") as file:
    json.dump(result, file)
