"""Fail unless everything generated is what the notebooks give, and is committed.

Rebuilds package, site and README with `make docs`, then says which files were not in step.
"""
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATHS = ['nbs', 'backprop_lit', 'docs', 'README.md', 'pyproject.toml']

def run(*command): return subprocess.run(command, cwd=ROOT, check=True, text=True,
                                         stdout=subprocess.PIPE).stdout

def snapshot():
    "Fingerprints of all files that git has or would take"
    names = run('git', 'ls-files', '-z', '-co', '--exclude-standard', '--', *PATHS)
    files = [ROOT/n for n in names.split('\0') if n and (ROOT/n).is_file()]
    return {str(f.relative_to(ROOT)): hashlib.sha256(f.read_bytes()).hexdigest()
            for f in files}

def main():
    before = snapshot()
    sys.stdout.flush()
    make, clean = os.environ.get('MAKE', 'make'), Path(sys.executable).with_name('nbdev_clean')
    for command in ([make, 'docs'], [clean]):
        if subprocess.run(command, cwd=ROOT).returncode: sys.exit('Not rebuilt: see above.')
    after = snapshot()
    stale = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
    status = run('git', 'status', '--porcelain', '--', *PATHS).rstrip()
    if stale:
        print('Not what the notebooks give (now rebuilt):', *stale, sep='\n  ')
    if status:
        print('Differs from the last commit, or is not committed:', status, sep='\n')
        print(run('git', 'diff', '--stat', '--', *PATHS))
    if stale or status:
        sys.exit('Not in step. Edit notebooks only, run `make docs`, commit all it writes.')
    print('In step: package, site and README are what the notebooks give.')

if __name__ == '__main__': main()
