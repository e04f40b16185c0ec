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
        "islands": "Where they live",
        "sexes": "Females and males",
        "tables": "Tables by species",
        "rows": "rows",
        "head": ["species", "measure", "n", "mean", "sd", "min", "median", "max"],
        "fit_head": ["species", "n", "slope (g/mm)", "intercept (g)", "r²"],
        "sex_head": ["species", "mean mass of females (g)", "mean mass of males (g)", "males heavier (%)"],
        "all": "all",
        "units": {},
    },
    "de": {
        "title": "Die Pinguine von Palmer",
        "measures": "Maße",
        "fits": "Körpermasse in Abhängigkeit von der Flossenlänge",
        "islands": "Wo sie leben",
        "sexes": "Weibchen und Männchen",
        "tables": "Tabellen nach Arten",
        "rows": "Zeilen",
        "head": ["Art", "Maß", "n", "Mittel", "s", "min", "Median", "max"],
        "fit_head": ["Art", "n", "Steigung (g/mm)", "Achsenabschnitt (g)", "r²"],
        "sex_head": ["Art", "mittlere Masse der Weibchen (g)", "mittlere Masse der Männchen (g)", "Männchen schwerer (%)"],
        "all": "alle",
        "units": {
            "bill depth (mm)": "Schnabelhöhe (mm)",
            "bill length (mm)": "Schnabellänge (mm)",
            "body mass (g)": "Körpermasse (g)",
            "flipper length (mm)": "Flossenlänge (mm)",
        },
    },
}

parser = argparse.ArgumentParser()
parser.add_argument("--stats", required=True)
parser.add_argument("--fits", required=True)
parser.add_argument("--islands", required=True)
parser.add_argument("--sexes", required=True)
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


def fixed(value, digits):
    """A number with its digits, which canonical JSON does not keep: 20.0 is stored as 20."""
    return None if value is None else f"{value:.{digits}f}"


def table(head, rows, text_columns):
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join("---" if at < text_columns else "---:" for at in range(len(head))) + "|"
    for row in rows:
        yield "| " + " | ".join("-" if cell is None else str(cell) for cell in row) + " |"


def unit(measure):
    name, _, unit = measure.rpartition("_")
    text = f"{name.replace('_', ' ')} ({unit})"
    return words["units"].get(text, text)


measures = [
    [
        species,
        unit(measure),
        values["count"],
        *(fixed(values[measure][key], 1) for key in ("mean", "sd")),
        *(f"{values[measure][key]:g}" for key in ("min", "median", "max")),
    ]
    for species, values in load(args.stats).items()
    for measure in values
    if measure != "count"
]
fits = [
    [species, fit["n"], fixed(fit["slope_g_per_mm"], 3), fixed(fit["intercept_g"], 1), fixed(fit["r2"], 3)]
    for species, fit in load(args.fits).items()
]
islands = load(args.islands)
names = list(next(iter(islands.values())))
places = [[species, *counts.values(), sum(counts.values())] for species, counts in islands.items()]
sexes = [
    [species, *(fixed(row[key], 1) for key in ("female_g", "male_g", "males_heavier_percent"))]
    for species, row in load(args.sexes).items()
]
counts = [
    f"- [{path.name}](by_species/{path.name}): {len(path.read_text(encoding='utf-8').splitlines()) - 1} {words['rows']}"
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
    f"## {words['islands']}",
    "",
    *table([words["head"][0], *names, words["all"]], places, 1),
    "",
    f"## {words['sexes']}",
    "",
    *table(words["sex_head"], sexes, 1),
    "",
    f"## {words['tables']}",
    "",
    *counts,
]
pathlib.Path(args.output).write_text("\n".join(lines) + "\n", encoding="utf-8")
