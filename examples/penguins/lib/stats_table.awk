# The JSON of `stats` as a Markdown table. It is canonical JSON on one line: keys are sorted and there is no white space,
# so cutting it at its braces and commas is enough.

function unit(name) {
    if (name == "body_mass_g") return "body mass (g)"
    if (name == "flipper_length_mm") return "flipper length (mm)"
    if (name == "bill_length_mm") return "bill length (mm)"
    return "bill depth (mm)"
}

# The number behind a key in a piece of JSON.
function number(piece, key) {
    if (!match(piece, "\"" key "\":-?[0-9.e+]+")) exit 1
    return substr(piece, RSTART + length(key) + 3, RLENGTH - length(key) - 3) + 0
}

{
    print "| species | measure | n | mean | sd | min | median | max |"
    print "|---|---|---:|---:|---:|---:|---:|---:|"
    rest = substr($0, 2)
    while (match(rest, /"[A-Za-z]+":\{"bill_depth_mm"/)) {
        name = substr(rest, RSTART + 1, RLENGTH - length("\":{\"bill_depth_mm\"") - 1)
        rest = substr(rest, RSTART + length(name) + 3)
        end = index(rest, "}}")
        if (!end) end = length(rest)
        entry = substr(rest, 1, end)
        rest = substr(rest, end + 1)
        n = number(entry, "count")
        shown = name
        while (match(entry, /"[a-z_]+":\{[^}]*\}/)) {
            piece = substr(entry, RSTART, RLENGTH)
            entry = substr(entry, RSTART + RLENGTH)
            measure = substr(piece, 2, index(piece, "\":{") - 2)
            printf "| %s | %s | %d | %.1f | %.1f | %s | %s | %s |\n", shown, unit(measure), n, number(piece, "mean"),
                number(piece, "sd"), number(piece, "min"), number(piece, "median"), number(piece, "max")
            shown = ""
        }
    }
}
