#!/usr/bin/env bash
# From text to notebook: text/NAME.py -> nbs/NAME.ipynb (cell ids kept), cleaned, its module
# exported, executed, outputs stored.
# usage: tools/nb.sh NAME [NAME ...]      FLAGS="mnist slow" also runs the cells marked so
# text/env, if there is one, is read first: the place for settings such as BACKPROP_LIT_DATA.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}"
if [ -f text/env ]; then set -a; . text/env; set +a; fi
for name in "$@"; do
  name=$(basename "${name%.*}")
  old=(); if [ -f "nbs/$name.ipynb" ]; then old=(--update); fi
  jupytext -q ${old[@]+"${old[@]}"} --to ipynb -o "nbs/$name.ipynb" "text/$name.py"
  python - "$name" <<'PY'
import fcntl, pathlib, sys
from execnb.nbio import read_nb, write_nb
from nbdev.clean import clean_nb
from nbdev.export import nb_export
fn = pathlib.Path('nbs')/f'{sys.argv[1]}.ipynb'
nb = read_nb(fn)
nb.metadata = {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}
clean_nb(nb); write_nb(nb, fn)
with open('text/.lock', 'w') as lock:      # exports share the index of symbols
    fcntl.flock(lock, fcntl.LOCK_EX)
    if any('default_exp' in c.source for c in nb.cells): nb_export(fn)
PY
  python tools/run_nbs.py --flags "${FLAGS:-}" "nbs/$name.ipynb"
done
