# Counts flipper lengths by species in bins of `bin_mm` millimetres; bins start at multiples of that.

BEGIN {
    FS = OFS = ","
    while ((getline line < params) > 0) text = text line
    if (!match(text, /"bin_mm":[0-9.]+/)) {
        print "histogram: no bin_mm in the parameters: " text > "/dev/stderr"
        exit 1
    }
    width = substr(text, RSTART + 9, RLENGTH - 9) + 0
}

NR == 1 {
    for (i = 1; i <= NF; i++) column[$i] = i
    next
}

{
    if (!($1 in seen)) { seen[$1] = 1; order[++species] = $1 }
    bin = int($(column["flipper_length_mm"]) / width)
    count[$1, bin]++
    if (first == "" || bin < first) first = bin
    if (last == "" || bin > last) last = bin
}

END {
    if (species == 0) exit 1
    print "species,from_mm,to_mm,count"
    for (i = 1; i <= species; i++)
        for (b = first; b <= last; b++)
            print order[i], b * width, (b + 1) * width, count[order[i], b] + 0
}
