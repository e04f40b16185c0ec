"""The report in Markdown, in English or German."""

import argparse
import json
import os
import pathlib

WORDS = {
    "en": {
        "title": "Palmer penguins",
        "measures": "Measures",
        "fits": "Body mass as a function of flipper length",
        "tables": "Tables by species",
        "rows": "rows",
        "head": ["species", "measure", "n", "mean", "sd", "min", "median", "max"],
        "fit_head": ["species", "n", "slope (g/mm)", "intercept (g)", "r²"],
    },
    "de": {
        "title": "Die Pinguine von Palmer",
        "measures": "Maße",
        "fits": "Körpermasse in Abhängigkeit von der Flossenlänge",
        "tables": "Tabellen nach Arten",
        "rows": "Zeilen",
        "head": ["Art", "Maß", "n", "Mittel", "s", "min", "Median", "max"],
        "fit_head": ["Art", "n", "Steigung (g/mm)", "Achsenabschnitt (g)", "r²"],
    },
}

parser = argparse.ArgumentParser()
parser.add_argument("--stats", required=True)
parser.add_argument("--fits", required=True)
parser.add_argument("--tables", required=True, type=pathlib.Path)
parser.add_argument("-o", "--output", required=True)
args = parser.parse_args()

language = os.environ.get("REPORT_LANGUAGE", "en")
if language not in WORDS:
    raise SystemExit(f"REPORT_LANGUAGE is {language!r}: expected one of {', '.join(WORDS)}")
words = WORDS[language]


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def table(head, rows, text_columns):
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join("---" if at < text_columns else "---:" for at in range(len(head))) + "|"
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"


def unit(measure):
    name, _, unit = measure.rpartition("_")
    return f"{name.replace('_', ' ')} ({unit})"


measures = [
    [species, unit(measure), values["count"], *(values[measure][key] for key in ("mean", "sd", "min", "median", "max"))]
    for species, values in load(args.stats).items()
    for measure in values
    if measure != "count"
]
fits = [
    [species, fit["n"], fit["slope_g_per_mm"], fit["intercept_g"], fit["r2"]]
    for species, fit in load(args.fits).items()
]
counts = [
    f"- {path.name}: {len(path.read_text(encoding='utf-8').splitlines()) - 1} {words['rows']}"
    for path in sorted(args.tables.iterdir())
]
lines = [
    f"# {words['title']}",
    "",
    f"## {words['measures']}",
    "",
    *table(words["head"], measures, 2),
    "",
    f"## {words['fits']}",
    "",
    *table(words["fit_head"], fits, 1),
    "",
    f"## {words['tables']}",
    "",
    *counts,
]
pathlib.Path(args.output).write_text("\n".join(lines) + "\n", encoding="utf-8")
