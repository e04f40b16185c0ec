"""What the scripts share: reading and writing the table."""

import csv

MEASURES = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]


def read(path):
    """The rows of the table as dictionaries; measures are numbers, or None where they are missing."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for measure in MEASURES:
            row[measure] = None if row[measure] in ("NA", "") else float(row[measure])
    return rows


def write(path, rows):
    """Writes rows with their columns in order."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:g}" if isinstance(value, float) else value for key, value in row.items()})


def by_species(rows):
    """The rows of each species, species in the order of the alphabet."""
    groups = {}
    for row in rows:
        groups.setdefault(row["species"], []).append(row)
    return dict(sorted(groups.items()))
