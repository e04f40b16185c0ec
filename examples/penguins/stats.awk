# Describes the four measures of each species as JSON. The standard deviation is that of a sample (n - 1).

BEGIN {
    FS = ","
    measures = split("bill_length_mm bill_depth_mm flipper_length_mm body_mass_g", measure, " ")
}

NR == 1 {
    for (i = 1; i <= NF; i++) column[$i] = i
    next
}

{
    if (!($1 in count)) order[++species] = $1
    n = ++count[$1]
    for (m = 1; m <= measures; m++) value[$1, m, n] = $(column[measure[m]])
}

function describe(name, m,    n, i, sum, squares, mean, sorted, median) {
    n = count[name]
    for (i = 1; i <= n; i++) { sorted[i] = value[name, m, i] + 0; sum += sorted[i] }
    mean = sum / n
    for (i = 1; i <= n; i++) squares += (sorted[i] - mean) * (sorted[i] - mean)
    sort_numbers(sorted, n)
    median = n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
    return sprintf("{\"mean\":%.3f,\"sd\":%.3f,\"min\":%g,\"median\":%g,\"max\":%g}",
        mean, n > 1 ? square_root(squares / (n - 1)) : 0, sorted[1], median, sorted[n])
}

END {
    printf "{"
    for (s = 1; s <= species; s++) {
        printf "%s\"%s\":{\"count\":%d", (s > 1 ? "," : ""), order[s], count[order[s]]
        for (m = 1; m <= measures; m++) printf ",\"%s\":%s", measure[m], describe(order[s], m)
        printf "}"
    }
    print "}"
}
