# Mean body mass (g) of females and males of each species, and by how much males are heavier (%).

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
        female = sum[s, "female"] / n[s, "female"]
        male = sum[s, "male"] / n[s, "male"]
        printf "%s,%.0f,%.0f,%.1f\n", s, female, male, 100 * (male / female - 1)
    }
}
