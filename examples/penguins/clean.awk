# Keeps the rows that are complete and plausible.
#
# In: the table of the Palmer penguins, and a JSON object with `min_mass_g`, the least plausible body mass in grams.
# Out: the same columns without the rows that miss a measure or the sex, or are lighter than that.

BEGIN {
    FS = OFS = ","
    while ((getline line < params) > 0) text = text line
    if (!match(text, /"min_mass_g":[0-9.]+/)) {
        print "clean: no min_mass_g in the parameters: " text > "/dev/stderr"
        exit 1
    }
    min_mass = substr(text, RSTART + 13, RLENGTH - 13) + 0
}

NR == 1 { print; next }

{
    for (i = 1; i <= NF; i++) if ($i == "NA" || $i == "") { incomplete++; next }
    if ($6 < min_mass) { light++; next }
    print
    kept++
}

END {
    if (min_mass == "") exit 1    # `exit` in BEGIN comes here too
    printf "kept %d rows; dropped %d incomplete and %d too light\n", kept, incomplete, light > "/dev/stderr"
    if (kept == 0) {
        print "clean: no row is left; is min_mass_g too large?" > "/dev/stderr"
        exit 1
    }
}
