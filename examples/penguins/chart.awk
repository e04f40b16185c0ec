# Draws the penguins: body mass by flipper length, a fit with its 95 % confidence band for each species, and above it how
# flipper lengths are distributed. Writes SVG 1.1.
#
# Colour and shape both tell the species, so the chart can be read without colours. The three colours are told apart with
# all common forms of colour blindness.

BEGIN {
    FS = ","
    width = 960; height = 690
    left = 84; right = 930; top = 196; bottom = 600       # the plot
    strip_top = 112; strip_bottom = 184                   # the distributions above it
    x_low = 170; x_high = 235; y_low = 2500; y_high = 6500
    ink = "#1f2933"; faint = "#6b7785"; grid = "#e4e8ec"; paper = "#ffffff"
    colour["Adelie"] = "#d95f02"; colour["Chinstrap"] = "#7b3fa0"; colour["Gentoo"] = "#0b7a75"
    label_x["Adelie"] = 173.5; label_y["Adelie"] = 5250
    label_x["Chinstrap"] = 204.5; label_y["Chinstrap"] = 2990
    label_x["Gentoo"] = 213.5; label_y["Gentoo"] = 3640
}

function px(x) { return left + (x - x_low) / (x_high - x_low) * (right - left) }
function py(y) { return bottom - (y - y_low) / (y_high - y_low) * (bottom - top) }

function text(x, y, size, fill, anchor, extra, words) {
    printf "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%s\" fill=\"%s\" text-anchor=\"%s\"%s>%s</text>\n",
        x, y, size, fill, anchor, extra, words
}

function line(x1, y1, x2, y2, stroke, thickness) {
    printf "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"%s\"/>\n",
        x1, y1, x2, y2, stroke, thickness
}

# A circle, a triangle or a square around a point.
function marker(species, x, y, size) {
    if (species == "Adelie")
        return sprintf("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>", x, y, size)
    if (species == "Chinstrap")
        return sprintf("<path d=\"M%.1f %.1fl%.1f %.1fh%.1fz\"/>", x, y - 1.25 * size, 1.2 * size, 2.1 * size, -2.4 * size)
    return sprintf("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>",
        x - 0.92 * size, y - 0.92 * size, 1.84 * size, 1.84 * size)
}

FNR == 1 { next }

part == "fits" {
    order[++species] = $1
    n[$1] = $2; slope[$1] = $3; intercept[$1] = $4; r2[$1] = $5; spread[$1] = $6
    mean[$1] = $7; sxx[$1] = $8; low[$1] = $9; high[$1] = $10
    total += $2
    next
}

part == "bins" {
    if ($4 == 0 && bins[$1] == 0) next                    # before the first penguin of the species
    from[$1, ++bins[$1]] = $2; to[$1, bins[$1]] = $3; count[$1, bins[$1]] = $4
    if ($4 > most) most = $4
    bin_mm = $3 - $2
    if ($4 > 0) used[$1] = bins[$1]                       # so far the last bin with one
    next
}

part == "points" { points[$1] = points[$1] marker($1, px($5), py($6), 4.2) "\n" }

# The distribution of one species as an outline with steps.
function distribution(s,    b, path, h) {
    path = sprintf("M%.1f %.1f", px(from[s, 1]), strip_bottom)
    for (b = 1; b <= used[s]; b++) {
        h = strip_bottom - count[s, b] / most * (strip_bottom - strip_top)
        path = path sprintf("L%.1f %.1fL%.1f %.1f", px(from[s, b]), h, px(to[s, b]), h)
    }
    path = path sprintf("L%.1f %.1fZ", px(to[s, used[s]]), strip_bottom)
    printf "<path d=\"%s\" fill=\"%s\" fill-opacity=\"0.28\" stroke=\"%s\" stroke-width=\"1.4\" stroke-linejoin=\"round\"/>\n",
        path, colour[s], colour[s]
}

# The fit of one species with the band in which it lies with a confidence of 95 % (normal approximation).
function fit(s,    steps, i, x, y, e, upper, lower) {
    steps = 24
    for (i = 0; i <= steps; i++) {
        x = low[s] + (high[s] - low[s]) * i / steps
        y = intercept[s] + slope[s] * x
        e = 1.96 * spread[s] * square_root(1 / n[s] + (x - mean[s]) * (x - mean[s]) / sxx[s])
        upper = upper sprintf("%s%.1f %.1f", i ? "L" : "M", px(x), py(y + e))
        lower = sprintf("L%.1f %.1f", px(x), py(y - e)) lower
    }
    printf "<path d=\"%s%sZ\" fill=\"%s\" fill-opacity=\"0.16\"/>\n", upper, lower, colour[s]
    line(px(low[s]), py(intercept[s] + slope[s] * low[s]), px(high[s]), py(intercept[s] + slope[s] * high[s]), colour[s], 2.4)
}

END {
    if (total == 0) exit 1
    split("one two three", number, " ")
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\"", width, height, width, height
    print " font-family=\"system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif\" role=\"img\">"
    print "<title>Body mass of penguins by the length of their flippers</title>"
    printf "<rect width=\"%d\" height=\"%d\" rx=\"10\" fill=\"%s\"/>\n", width, height, paper

    text(left, 46, 25, ink, "start", " font-weight=\"700\"", "Longer flippers, heavier penguins")
    text(left, 72, 14.5, faint, "start", "", sprintf("%d penguins of %s species at Palmer Station, Antarctica, 2007 to 2009.", total, number[species]))
    text(left, 92, 14.5, faint, "start", "", "Lines: least squares for each species, with 95 % confidence bands.")

    for (y = 3000; y <= 6500; y += 500) {
        line(left, py(y), right, py(y), grid, 1)
        text(left - 12, py(y) + 4.5, 13, faint, "end", "", sprintf("%.1f", y / 1000))
    }
    for (x = 170; x <= 230; x += 10) {
        line(px(x), top, px(x), bottom, grid, 1)
        text(px(x), bottom + 22, 13, faint, "middle", "", x)
    }
    line(left, bottom, right, bottom, faint, 1.2)
    line(left, strip_bottom, right, strip_bottom, grid, 1)
    text((left + right) / 2, bottom + 48, 14, ink, "middle", "", "Flipper length (mm)")
    text(30, (top + bottom) / 2, 14, ink, "middle", sprintf(" transform=\"rotate(-90 30 %.1f)\"", (top + bottom) / 2), "Body mass (kg)")

    for (i = 1; i <= species; i++) distribution(order[i])
    text(left, strip_top + 12, 12, faint, "start", "", sprintf("Penguins per %g mm", bin_mm))
    for (i = 1; i <= species; i++)
        printf "<g fill=\"%s\" fill-opacity=\"0.62\" stroke=\"%s\" stroke-width=\"0.7\">\n%s</g>\n", colour[order[i]], paper, points[order[i]]
    for (i = 1; i <= species; i++) if (slope[order[i]] != "-") fit(order[i])

    for (i = 1; i <= species; i++) {
        s = order[i]
        x = px(label_x[s]); y = py(label_y[s])
        printf "<g fill=\"%s\">%s</g>\n", colour[s], marker(s, x + 6, y - 5.5, 6)
        halo = " paint-order=\"stroke\" stroke=\"" paper "\" stroke-width=\"4\" stroke-linejoin=\"round\""
        text(x + 20, y, 16, colour[s], "start", " font-weight=\"700\"" halo, s)
        words = n[s] (n[s] == 1 ? " penguin" : " penguins")
        if (slope[s] != "-") words = words sprintf(", %+.0f g per mm (r&#178; = %.2f)", slope[s], r2[s])
        text(x + 20, y + 18, 12.5, faint, "start", halo, words)
    }
    text(right, height - 18, 12, faint, "end", "", "Data: Gorman, Williams and Fraser (2014), Palmer Station LTER; palmerpenguins, CC0")
    print "</svg>"
}
