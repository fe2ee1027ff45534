"""Execute the notebooks the way nbdev_test does, and store (default) or compare (--check) their outputs."""
import argparse, os, re, sys
from pathlib import Path
from fastcore.parallel import parallel
from fastcore.xtras import working_directory

NUM = re.compile(r'[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?')

def text(out):
    "What a reader sees of an output, without images"
    if out['output_type'] == 'stream': return ''.join(out['text'])
    if out['output_type'] == 'error': return out['ename']
    d = out['data']
    keep = {k: ''.join(v) if isinstance(v, list) else v for k, v in d.items() if k.startswith('text/') and k != 'text/html'}
    return '\n'.join(f'{k}\n{v}' for k, v in sorted(keep.items())) + ' '.join(sorted(d))

def same(a, b, rtol=1e-3, atol=1e-6):
    if NUM.sub('#', a) != NUM.sub('#', b): return False
    return all(abs(float(x)-float(y)) <= atol + rtol*abs(float(y)) for x, y in zip(NUM.findall(a), NUM.findall(b)))

def run(fn, check=False, flags=''):
    os.environ['IN_TEST'] = '1'
    from execnb.nbio import read_nb, write_nb
    from execnb.shell import CaptureShell
    from nbdev.clean import clean_nb
    from nbdev.config import get_config
    from nbdev.process import NBProcessor
    cfg = get_config()
    sys.path.insert(0, str(cfg.config_path))
    skip = set(cfg.tst_flags.split()) - set(flags.split())
    nb, dirs = read_nb(fn), [getattr(c, 'directives_', {}) for c in NBProcessor(fn).nb.cells]
    old = [list(c.get('outputs', [])) for c in nb.cells]
    def no(c):
        d = dirs[c.idx_]
        return (c.cell_type != 'code' or 'nbdev_export(' in c.source
                or d.get('eval:', [''])[0].lower() == 'false' or bool(skip & d.keys()))
    k = CaptureShell(fn, mpl_format='svg')
    k.run_cell("from matplotlib_inline.backend_inline import set_matplotlib_formats as _f; _f('svg', metadata={'Date': None, 'Creator': None})\n"
               "import matplotlib as _m; _m.rcParams.update({'svg.hashsalt': 'backprop_lit', 'svg.fonttype': 'none'})")
    with working_directory(Path(fn).parent): k.run_all(nb, exc_stop=True, preproc=no)
    for c in nb.cells:
        for o in c.get('outputs', []):
            d = o.get('data', {})                      # as nbformat writes it, so that Jupyter and jupytext leave the bytes alone
            if isinstance(d.get('image/svg+xml'), str): d['image/svg+xml'] = d['image/svg+xml'].splitlines(True)
    if not check:
        clean_nb(nb); write_nb(nb, fn); return []
    return [f'{Path(fn).name} cell {c.idx_} ({c.id}): stored output is stale' for c, o in zip(nb.cells, old)
            if c.cell_type == 'code' and not no(c)
            and (len(o) != len(c.outputs) or not all(same(text(x), text(y)) for x, y in zip(o, c.outputs)))]

def main():
    p = argparse.ArgumentParser(); p.add_argument('--check', action='store_true'); p.add_argument('--flags', default=''); p.add_argument('nbs', nargs='*')
    a = p.parse_args()
    files = [Path(f).resolve() for f in a.nbs] or sorted(Path('nbs').resolve().glob('*.ipynb'))
    bad = [m for ms in parallel(run, files, check=a.check, flags=a.flags, n_workers=0 if len(files) == 1 else 2) for m in ms]
    print('\n'.join(bad) or 'ok'); sys.exit(bool(bad))

if __name__ == '__main__':
    import run_nbs          # CaptureShell takes over __main__ in the workers, so they must find run() elsewhere
    run_nbs.main()
