#!/usr/bin/env bash
# One notebook from its text form: text/NAME.py -> nbs/NAME.ipynb (cell ids kept), clean, export that notebook, execute, store outputs.
# usage: tools/nb.sh NAME [NAME ...]      FLAGS="mnist slow" also runs the cells marked so
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}"
for name in "$@"; do
  name=$(basename "${name%.*}")
  old=(); [ -f "nbs/$name.ipynb" ] && old=(--update)
  jupytext -q "${old[@]}" --to ipynb -o "nbs/$name.ipynb" "text/$name.py"
  python - "$name" <<'PY'
import sys, pathlib
from execnb.nbio import read_nb, write_nb
from nbdev.clean import clean_nb
from nbdev.export import nb_export
fn = pathlib.Path('nbs')/f'{sys.argv[1]}.ipynb'
nb = read_nb(fn)
nb.metadata = {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}
clean_nb(nb); write_nb(nb, fn)
if any('default_exp' in c.source for c in nb.cells): nb_export(fn)
PY
  python tools/run_nbs.py --flags "${FLAGS:-}" "nbs/$name.ipynb"
done
