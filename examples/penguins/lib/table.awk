# A CSV table as a Markdown table: the first column to the left, the others to the right.

BEGIN { FS = "," }
{
    row = "|"
    for (i = 1; i <= NF; i++) row = row " " (NR == 1 ? words($i) : $i) " |"
    print row
    if (NR == 1) {
        row = "|---|"
        for (i = 2; i <= NF; i++) row = row "---:|"
        print row
    }
}

# `female_g` -> `female (g)`
function words(name) {
    if (sub(/_g_per_mm$/, "", name)) return name " (g/mm)"
    if (sub(/_percent$/, "", name)) { gsub(/_/, " ", name); return name " (%)" }
    if (match(name, /_(g|mm)$/)) name = substr(name, 1, RSTART - 1) " (" substr(name, RSTART + 1) ")"
    gsub(/_/, " ", name)
    return name
}
