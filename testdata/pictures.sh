#!/usr/bin/env bash
# Makes the pictures of the documentation from real runs: docs/pictures/page.png,
# sheet.png and terminal.png. Needs bin/azs-agent, chromium, pdftoppm and Go.
set -eu -o pipefail
cd "$(dirname "$0")/.."
out=$PWD/docs/pictures
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

chromium=$(command -v chromium || command -v chromium-browser)
shoot() { # PAGE PICTURE WIDTH,HEIGHT
    "$chromium" --headless --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=2000 \
        --user-data-dir="$work/browser" --window-size="$3" --screenshot="$2" "file://$1" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
}

bin/azs-agent --home "$work/none" --quiet show testdata/golden/good-request.azc --html "$work/show.html" --pdf "$work/show.pdf" >/dev/null
shoot "$work/show.html" "$out/page.png" 960,860

pdftoppm -r 75 -png "$work/show.pdf" "$work/sheet"
{
    echo '<!doctype html><style>body { margin: 0; background: #8a929c; display: flex; gap: 20px; padding: 20px } img { box-shadow: 0 2px 8px #0006 }</style>'
    for p in "$work"/sheet-*.png; do echo "<img src=\"file://$p\">"; done
} >"$work/sheets.html"
shoot "$work/sheets.html" "$out/sheet.png" 1302,917

AZS_PICTURES=$out go test -count=1 -run '^TestTerminalPicture$' ./shared/frame/render >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
ls -l "$out"
