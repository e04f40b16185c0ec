# One table for each species: FOLDER/SPECIES.csv, with the columns of the whole table.

BEGIN { FS = "," }
NR == 1 { head = $0; next }
{
    file = folder "/" tolower($1) ".csv"
    if (!(file in seen)) { print head > file; seen[file] = 1 }
    print > file
}
