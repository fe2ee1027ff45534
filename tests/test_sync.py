"Everything generated is in step with the notebooks, and the book keeps its own laws."
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import resolve_name
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = 'backprop_lit'
NOTEBOOKS = sorted((ROOT/'nbs').glob('[!_.]*.ipynb'))
FORBIDDEN = re.compile(r'\b(?:TODO|FIXME|XXX|(?i:simply|obviously))\b')

def source(cell): return ''.join(cell['source'])

def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']

def run(*command, cwd):
    "Run a command of this environment; its output when it fails"
    bin = Path(sys.executable).parent
    env = os.environ | {'PATH': f'{bin}{os.pathsep}{os.environ["PATH"]}'}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

def modules(root):
    "{name: text} of the package's modules"
    found = sorted((root/PACKAGE).rglob('*.py'))
    return {str(p.relative_to(root)): p.read_text(encoding='utf-8') for p in found}

@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    "A copy of the project whose package is exported afresh"
    pytest.importorskip('nbdev')
    copy = tmp_path_factory.mktemp('project')
    for name in ('nbs', PACKAGE): shutil.copytree(ROOT/name, copy/name)
    for name in ('settings.ini', 'pyproject.toml', 'README.md'): shutil.copy(ROOT/name, copy)
    for path in (copy/PACKAGE).rglob('*.py'):
        if path.name != '__init__.py': path.unlink()
    run('nbdev_export', cwd=copy)
    return copy

def differing(root, copy):
    ours, fresh = modules(root), modules(copy)
    return sorted(n for n in ours.keys() | fresh.keys() if ours.get(n) != fresh.get(n))

def test_package_is_what_the_notebooks_export(exported):
    assert differing(ROOT, exported) == [], 'run `make docs`; edit notebooks, not modules'

def test_a_hand_edit_of_a_module_is_seen(exported, tmp_path):
    shutil.copytree(ROOT/PACKAGE, tmp_path/PACKAGE)
    victim = next(p for p in sorted((tmp_path/PACKAGE).glob('[a-z]*.py')))
    victim.write_text(victim.read_text(encoding='utf-8') + '\n# by hand\n', encoding='utf-8')
    assert f'{PACKAGE}/{victim.name}' in differing(tmp_path, exported)

def test_export_leaves_metadata_alone(exported):
    for name in ('settings.ini', 'pyproject.toml'):
        assert (exported/name).read_bytes() == (ROOT/name).read_bytes(), name

def test_versions_agree():
    settings = (ROOT/'settings.ini').read_text(encoding='utf-8')
    version = re.search(r'^version = (\S+)$', settings, re.M)[1]
    assert f'__version__ = "{version}"' in modules(ROOT)[f'{PACKAGE}/__init__.py']

def test_notebooks_are_clean(tmp_path):
    pytest.importorskip('nbdev')
    shutil.copytree(ROOT/'nbs', tmp_path/'nbs')
    shutil.copy(ROOT/'settings.ini', tmp_path)
    run('nbdev_clean', cwd=tmp_path)
    dirty = [p.name for p in NOTEBOOKS
             if p.read_bytes() != (tmp_path/'nbs'/p.name).read_bytes()]
    assert dirty == [], 'run nbdev_clean (or install the hooks: nbdev_install_hooks)'

@pytest.mark.skipif(not (ROOT/'nbs'/'index.ipynb').exists(), reason='no index notebook')
def test_readme_is_what_the_index_gives():
    pytest.importorskip('nbdev')
    code = ('import nbsite; from nbdev.config import get_config\n'
            'from pathlib import Path\n'
            'chapter = nbsite.Chapter(Path("nbs/index.ipynb").resolve(), get_config())\n'
            'old = Path("README.md").read_text(encoding="utf-8")\n'
            'assert nbsite.readme(chapter, {}) == old, "README.md: run `make docs`"')
    script = f'import sys; sys.path.insert(0, "tools")\n{code}'
    run(sys.executable, '-c', script, cwd=ROOT)

# the book's laws ----------------------------------------------------------------------

def chapters():
    "{module: number of the chapter that exports it}"
    found = {}
    for path in NOTEBOOKS:
        number = re.match(r'(\d+)_', path.stem)
        for cell in cells(path):
            m = re.search(r'^#\|\s*default_exp\s+(\w+)', source(cell), re.M)
            if m and number: found[m[1]] = int(number[1])
    return found

def imported(tree, module):
    "Names of our own modules that a module imports, inside functions too"
    for node in ast.walk(tree):
        paths = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            base = resolve_name('.' * node.level + (node.module or ''), PACKAGE)
            paths = [f'{base}.{a.name}' for a in node.names]
        for path in paths:
            if path.startswith(f'{PACKAGE}.'): yield path.split('.')[1]

def test_modules_import_only_from_earlier_chapters():
    order, wrong = chapters(), []
    for module, number in order.items():
        if number >= 90: continue                    # appendices may look at everything
        tree = ast.parse(modules(ROOT)[f'{PACKAGE}/{module}.py'])
        wrong += [f'{module} ({number}) imports {name} ({order[name]})'
                  for name in imported(tree, module)
                  if name in order and order[name] >= number and order[name] < 90]
    assert wrong == []

def test_a_public_name_has_one_definition():
    where = {}
    for name, text in modules(ROOT).items():
        found = re.search(r'^__all__ = (\[.*?\])', text, re.M | re.S)
        if not found or name.endswith(('__init__.py', '_modidx.py')): continue
        listed = ast.literal_eval(found[1])
        for public in listed: where.setdefault(public, []).append(name)
    assert {n: m for n, m in where.items() if len(m) > 1} == {}

@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_page_has_no_forbidden_words(path):
    found = [f'cell {n}: {m[0]}' for n, cell in enumerate(cells(path))
             for m in FORBIDDEN.finditer(source(cell))]
    assert found == []

@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_page_links_lead_to_notebooks_that_exist(path):
    links = [m[1] for cell in cells(path) if cell['cell_type'] == 'markdown'
             for m in re.finditer(r'\]\((?:\./)?([\w/-]+\.ipynb)', source(cell))]
    assert [n for n in links if not (ROOT/'nbs'/n).is_file()] == []

@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_page_begins_with_title_and_one_sentence(path):
    first = source(cells(path)[0])
    assert re.match(r'# \S[^\n]*\n\n> \S[^\n]*\S\s*\Z', first), first[:200]

# the site -----------------------------------------------------------------------------

class Links(HTMLParser):
    "Targets and identifiers of a page"
    def __init__(self, text):
        super().__init__()
        self.ids, self.links = {''}, []
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs.get('id'), attrs.get('name') if tag == 'a' else None}
        if tag in ('a', 'link') and attrs.get('href'): self.links.append(attrs['href'])
        if tag in ('img', 'script') and attrs.get('src'): self.links.append(attrs['src'])

def test_every_link_of_the_site_resolves(docs):
    pages = {p: Links(p.read_text(encoding='utf-8')) for p in sorted(docs.rglob('*.html'))}
    broken = []
    for page, parsed in pages.items():
        for link in parsed.links:
            if re.match(r'[a-z][a-z+.-]*:|//|/', link): continue
            path, _, anchor = link.partition('#')
            target = (page.parent/unquote(path.split('?')[0])).resolve() if path else page
            if target.is_dir(): target /= 'index.html'
            there = target.is_file() and (target not in pages or not anchor
                                          or unquote(anchor) in pages[target].ids)
            if not there: broken.append(f'{page.relative_to(docs)}: {link}')
    assert broken == []

def test_site_has_a_page_for_each_notebook(docs):
    missing = [p.stem for p in NOTEBOOKS
               if not (docs/f'{re.sub(r"^[0-9]+_", "", p.stem)}.html').is_file()]
    assert missing == [], 'run `make docs`'

def test_readme_links_resolve():
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    links = [m[1] for m in re.finditer(r'\]\(([^)\s#]+)', text)]
    assert [n for n in links if '://' not in n and not (ROOT/n).exists()] == []
