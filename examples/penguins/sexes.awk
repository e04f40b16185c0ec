# Mean body mass (g) of females and males of each species, and by how much males are heavier (%). "-": there are none.

BEGIN { FS = OFS = "," }
NR == 1 {
    for (i = 1; i <= NF; i++) column[$i] = i
    next
}
{
    sex = $(column["sex"])
    if (!($1 in seen)) { seen[$1] = 1; order[++species] = $1 }
    sum[$1, sex] += $(column["body_mass_g"])
    n[$1, sex]++
}
END {
    print "species,female_g,male_g,males_heavier_percent"
    for (i = 1; i <= species; i++) {
        s = order[i]
        females = n[s, "female"] + 0
        males = n[s, "male"] + 0
        female = females ? sum[s, "female"] / females : 0
        male = males ? sum[s, "male"] / males : 0
        printf "%s,%s,%s,%s\n", s, females ? sprintf("%.0f", female) : "-", males ? sprintf("%.0f", male) : "-",
            females && males ? sprintf("%.1f", 100 * (male / female - 1)) : "-"
    }
}
