# square_root(x), by Newton's method. Some builds of busybox awk (Debian's is one) have neither `sqrt` nor `^`.

function square_root(x,    root, i) {
    if (x <= 0) return 0
    root = x > 1 ? x : 1                       # not less than the result, so that it only falls
    for (i = 0; i < 60; i++) root = (root + x / root) / 2
    return root
}
