# Counts species by island.

BEGIN { FS = OFS = "," }
NR == 1 { next }
{
    if (!($1 in seen)) { seen[$1] = 1; species[++rows] = $1 }
    if (!($2 in known)) { known[$2] = 1; island[++columns] = $2 }
    count[$1, $2]++
}
END {
    printf "species"
    for (c = 1; c <= columns; c++) printf ",%s", island[c]
    print ",all"
    for (r = 1; r <= rows; r++) {
        printf "%s", species[r]
        all = 0
        for (c = 1; c <= columns; c++) { printf ",%d", count[species[r], island[c]]; all += count[species[r], island[c]] }
        printf ",%d\n", all
    }
}
