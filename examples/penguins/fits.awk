# Ordinary least squares of body mass (g) on flipper length (mm), for each species.
#
# A species with fewer than three penguins, or with flippers of one length only, has no fit: "-" stands for its numbers.
#
# mass = intercept + slope * flipper. With Sxx, Sxy, Syy the sums of squared deviations:
#   slope = Sxy / Sxx, r2 = Sxy^2 / (Sxx * Syy), residual sd = sqrt((Syy - slope * Sxy) / (n - 2)).

BEGIN { FS = OFS = "," }

NR == 1 {
    for (i = 1; i <= NF; i++) column[$i] = i
    next
}

{
    x = $(column["flipper_length_mm"])
    y = $(column["body_mass_g"])
    if (!($1 in n)) { order[++species] = $1; low[$1] = high[$1] = x }
    n[$1]++
    sx[$1] += x; sy[$1] += y; sxx[$1] += x * x; sxy[$1] += x * y; syy[$1] += y * y
    if (x < low[$1]) low[$1] = x
    if (x > high[$1]) high[$1] = x
}

END {
    print "species,n,slope_g_per_mm,intercept_g,r2,residual_sd_g,mean_flipper_mm,sxx_mm2,low_mm,high_mm"
    for (i = 1; i <= species; i++) {
        s = order[i]
        dxx = sxx[s] - sx[s] * sx[s] / n[s]
        dxy = sxy[s] - sx[s] * sy[s] / n[s]
        dyy = syy[s] - sy[s] * sy[s] / n[s]
        if (n[s] < 3 || dxx <= 0 || dyy <= 0) {
            printf "%s,%d,-,-,-,-,%.3f,-,%g,%g\n", s, n[s], sx[s] / n[s], low[s], high[s]
            continue
        }
        slope = dxy / dxx
        printf "%s,%d,%.3f,%.1f,%.3f,%.1f,%.3f,%.1f,%g,%g\n", s, n[s], slope, (sy[s] - slope * sx[s]) / n[s],
            dxy * dxy / (dxx * dyy), square_root((dyy - slope * dxy) / (n[s] - 2)), sx[s] / n[s], dxx, low[s], high[s]
    }
}
