"""Run notebooks as `nbdev_test` does, and store their outputs, or compare them (--check)."""
import argparse
import os
import re
import sys
from pathlib import Path

from fastcore.parallel import parallel
from fastcore.xtras import working_directory

NUMBER = re.compile(r'[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?')
OVERWRITTEN = re.compile(r'[^\n]*\r(?!\n)')       # what a progress bar writes over
FIGURES = """
from matplotlib_inline.backend_inline import set_matplotlib_formats as _formats
_formats('svg', metadata={'Date': None, 'Creator': None})
import matplotlib as _mpl
_mpl.rcParams.update({'svg.hashsalt': 'backprop_lit', 'svg.fonttype': 'none'})
del _formats, _mpl
"""

def joined(text): return ''.join(text) if isinstance(text, list) else text

def tidy(outputs):
    "Outputs as they are stored: no stderr, no overwritten progress, SVG as lines"
    kept = [o for o in outputs if o.get('name') != 'stderr']
    for out in kept:
        if out['output_type'] == 'stream':
            out['text'] = OVERWRITTEN.sub('', joined(out['text'])).splitlines(True)
        svg = out.get('data', {}).get('image/svg+xml')
        if svg: out['data']['image/svg+xml'] = joined(svg).splitlines(True)
    return [o for o in kept if o['output_type'] != 'stream' or o['text']]

def seen(out):
    "What a reader sees of an output: its text, and the kinds of its pictures"
    if out['output_type'] == 'stream': return joined(out['text'])
    data = out['data']
    texts = [k for k in sorted(data) if k.startswith('text/') and k != 'text/html']
    return '\n'.join([*sorted(data), *(joined(data[k]) for k in texts)])

def same(a, b, rtol=1e-3, atol=1e-6):
    "Whether two texts agree, their numbers up to a tolerance"
    if NUMBER.sub('#', a) != NUMBER.sub('#', b): return False
    pairs = zip(map(float, NUMBER.findall(a)), map(float, NUMBER.findall(b)))
    return all(abs(x - y) <= atol + rtol * abs(y) for x, y in pairs)

def fresh(old, new):
    return len(old) == len(new) and all(same(seen(x), seen(y)) for x, y in zip(old, new))

def skipper(fn, config, flags):
    "A function that says which cells `nbdev_test` would not run"
    from nbdev.frontmatter import FrontmatterProc
    from nbdev.process import NBProcessor
    nb = NBProcessor(fn, procs=FrontmatterProc, process=True).nb
    whole = str(getattr(nb, 'frontmatter_', {}).get('skip_exec', '')).lower() == 'true'
    skip = set(config.tst_flags.split()) - set(flags.split())
    marks = {c.id: getattr(c, 'directives_', None) or {} for c in nb.cells}
    def skips(cell):
        marked = marks.get(cell.id, {})
        never = marked.get('eval:', [''])[0].lower() == 'false'
        return (whole or cell.cell_type != 'code' or 'nbdev_export(' in cell.source
                or never or not skip.isdisjoint(marked))
    return skips

def run(fn, check=False, flags=''):
    "Run one notebook; the list of what is wrong with it"
    os.environ['IN_TEST'] = '1'
    from execnb.nbio import read_nb, write_nb
    from execnb.shell import CaptureShell
    from nbdev.clean import clean_nb
    from nbdev.config import get_config
    config = get_config()
    sys.path.insert(0, str(config.config_path))
    skips, nb, shell = skipper(fn, config, flags), read_nb(fn), CaptureShell(fn)
    before = {c.id: [*c.get('outputs', [])] for c in nb.cells}
    for cell in nb.cells:       # the shell leaves a cell that shows nothing as it was
        if not skips(cell): cell.outputs = []
    if shell.run_cell(FIGURES).exception: return [f'{fn.name}: matplotlib is missing']
    try:
        with working_directory(fn.parent): shell.run_all(nb, exc_stop=True, preproc=skips)
    except Exception:
        return [shell.prettytb(fname=fn)]
    for cell in nb.cells:
        if cell.cell_type == 'code': cell.outputs = tidy(cell.get('outputs', []))
    clean_nb(nb)
    if not check: write_nb(nb, fn); return []
    return [f'{fn.name}, cell {c.idx_} ({c.id}): the stored output is stale'
            for c in nb.cells if not skips(c) and '#| timing' not in c.source.splitlines()
            and not fresh(before[c.id], c.outputs)]

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='compare, write nothing')
    parser.add_argument('--flags', default='', help='also run cells marked so: "mnist slow"')
    parser.add_argument('notebooks', nargs='*', help='all of nbs/ when none is named')
    args = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    files = ([Path(f).resolve() for f in args.notebooks]
             or sorted((root/'nbs').glob('[!_.]*.ipynb')))
    wrong = parallel(run, files, check=args.check, flags=args.flags,
                     n_workers=0 if len(files) == 1 else 2)
    lines = [line for found in wrong for line in found]
    print('\n'.join(lines) or f'{len(files)} notebooks: outputs '
          + ('agree' if args.check else 'stored'))
    sys.exit(bool(lines))

if __name__ == '__main__':
    import run_nbs          # the shell takes over __main__ in the workers, so they must
    run_nbs.main()          # find run() in a module of its own
