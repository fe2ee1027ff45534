"What the checker of stored outputs must notice"
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip('execnb', reason='notebooks run in the development environment')

def cell(source, *printed):
    outputs = [{'output_type': 'stream', 'name': 'stdout', 'text': [p]} for p in printed]
    return {'cell_type': 'code', 'id': f'c{abs(hash(source)) % 10**6}', 'execution_count': None, 'metadata': {}, 'source': source, 'outputs': outputs}

@pytest.mark.parametrize('source, stored, stale', [
    ('print(2.5)', ['2.5\n'], False), ('print(2.5)', ['2.6\n'], True), ('print(2.5)', [], True),
    ('x = 1', ['2.5\n'], True), ('x = 1', [], False),
    ('#| timing\nprint(2.5)', ['9\n'], False), ('#| mnist\nprint(2.5)', ['9\n'], False)])
def test_stored_output_is_compared_with_what_the_cell_shows(tmp_path, source, stored, stale):
    path = tmp_path/'page.ipynb'
    path.write_text(json.dumps({'cells': [cell(source, *stored)], 'metadata': {}, 'nbformat': 4, 'nbformat_minor': 5}))
    done = subprocess.run([sys.executable, ROOT/'tools/run_nbs.py', '--check', path], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, 'is stale' in done.stdout) == (stale, stale), done.stdout + done.stderr
