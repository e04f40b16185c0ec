# sort_numbers(values, n): sorts values[1..n] by insertion. There are a few hundred.

function sort_numbers(values, n,    i, j, value) {
    for (i = 2; i <= n; i++) {
        value = values[i]
        for (j = i - 1; j >= 1 && values[j] > value; j--) values[j + 1] = values[j]
        values[j + 1] = value
    }
}
