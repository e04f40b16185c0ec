# Writes the report in Markdown. Arguments: the results of stats, fits, islands and sexes. The folder of the tables by
# species is an input that is not named in the command, so its path comes in the environment.
set -eu
stats=$1 fits=$2 islands=$3 sexes=$4

echo "# Palmer penguins"
echo
echo "![Body mass by flipper length](penguins.svg)"
echo
echo "## Measures"
echo
awk -f lib/stats_table.awk "$stats"
echo
echo "sd: standard deviation of the sample."
echo
echo "## Body mass as a function of flipper length"
echo
echo "Least squares, for each species: mass = intercept + slope * flipper length."
echo
cut -d, -f1-6 "$fits" | awk -f lib/table.awk
echo
echo "## Where they live"
echo
awk -f lib/table.awk "$islands"
echo
echo "## Females and males"
echo
echo "Mean body mass."
echo
awk -f lib/table.awk "$sexes"
echo
echo "## Tables by species"
echo
for file in "$E3_INPUT_by_species"/*.csv; do
    name=${file##*/}
    echo "- [$name](by_species/$name): $(($(wc -l < "$file") - 1)) rows"
done
echo
echo "Data: Horst, Hill and Gorman (2020), palmerpenguins (CC0), from Gorman, Williams and Fraser (2014),"
echo "<https://doi.org/10.1371/journal.pone.0090081>."
