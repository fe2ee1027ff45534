"""Pages for Sphinx and the README, made from the notebooks by nbdev's own processors.

usage: python tools/nbsite.py FOLDER      writes FOLDER/*.md and, at the root, README.md
"""
import html
import json
import os
import re
import shutil
import sys
from pathlib import Path

import slim

ROOT = Path(__file__).resolve().parent.parent
PARTS = [('Part I: slopes', 3), ('Part II: the engine', 8), ('Part III: networks', 14),
         ('Part IV: the engine room', 89), ('Appendices', 1e9)]   # and their last chapters
NOTE = '<!-- Made from nbs/{} by `make docs`: edit the notebook, not this file. -->'

def joined(text): return ''.join(text) if isinstance(text, list) else text

def plain(markdown):
    "The words of a line of Markdown, for titles and descriptions"
    return re.sub(r'[`*$\\]|\[([^\]]*)\]\([^)]*\)', lambda m: m[1] or '', markdown).strip()

def raw(text): return f'```````{{raw}} html\n{text}\n```````'

def code_block(text, language='python', look=''):
    look = f':class: {look}\n' if look else ''
    return f'```````{{code-block}} {language}\n{look}\n{text}\n```````'

class Chapter:
    "A notebook after nbdev's processors, with its place in the book"
    def __init__(self, path, config):
        from execnb.nbio import read_nb
        from nbdev import processors as p
        self.path, self.nb = path, read_nb(path)
        exports = re.search(r'#\|\s*default_exp\s+(\S+)', path.read_text(encoding='utf-8'))
        self.module = exports and re.match(r'\w+', exports[1])[0]
        number = re.match(r'(\d+)_', path.stem)
        self.number = int(number[1]) if number else 10**6
        self.label = number[1] if number else ''
        self.page = path.stem.removeprefix(number[0]) if number else path.stem
        self.keep = {c.id: [*c.get('outputs', [])] for c in self.nb.cells}
        class Processors(p.FilterDefaults):
            "All that choose and clean cells; execution, links and layout are done here"
            def base_procs(self):
                ours = {'insert_warning', 'exec_show_docs', 'add_links', 'add_fold',
                        'mv_exports'}
                return [q for q in super().base_procs() if q.__name__ not in ours]
        Processors()(self.nb)
        front = getattr(self.nb, 'frontmatter_', {})
        self.title = str(front.get('title') or path.stem)
        self.description = str(front.get('description') or '')

def directives(source):
    "Leading `#| key: value` lines as a dictionary, and the code under them"
    found, lines = {}, source.splitlines()
    while lines and (m := re.match(r'\s*#\s*\|\s*([\w-]+)\s*:?\s*(.*?)\s*$', lines[0])):
        value = m[2]
        if value[:1] == value[-1:] == '"' and len(value) > 1:
            value = re.sub(r'\\([\\"])', r'\1', value[1:-1])
        found[m[1]] = value.strip("'") if value[:1] == "'" else value
        lines.pop(0)
    return found, '\n'.join(lines).strip('\n')

# outputs ------------------------------------------------------------------------------

def svg(text, key):
    "An SVG picture made to live in a page: with ids of its own"
    text = text[text.index('<svg'):]
    if slim.made_by_matplotlib(text): return slim.slim(text, key)
    for name in sorted(set(re.findall(r'\bid="([^"]+)"', text))):
        text = re.sub(rf'(\bid="|url\(#|href="#){re.escape(name)}(?=["\)])',
                      rf'\g<1>{key}-{name}', text)
    return text

def picture(data, alt, key):
    "A picture as HTML, or None"
    said = f' role="img" aria-label="{html.escape(alt)}"' if alt else ''
    if 'text/html' in data: return f'<div class="bp-html">{data["text/html"]}</div>'
    if 'image/svg+xml' in data:
        return f'<div class="bp-fig"{said}>{svg(data["image/svg+xml"], key)}</div>'
    for kind in ('image/png', 'image/jpeg'):
        if kind in data:
            return (f'<div class="bp-fig"><img alt="{html.escape(alt)}" '
                    f'src="data:{kind};base64,{data[kind].strip()}"></div>')

def output(out, alt, key):
    "(HTML of a picture or None, Markdown or None) of a stored output"
    if out['output_type'] == 'stream':
        return None, code_block(joined(out['text']).rstrip(), 'text', 'bp-out')
    if out['output_type'] == 'error':
        return None, code_block(f'{out["ename"]}: {out["evalue"]}', 'text', 'bp-out')
    data = {k: joined(v) for k, v in out.get('data', {}).items()}
    if shown := picture(data, alt, key): return shown, None
    if 'text/markdown' in data: return None, data['text/markdown']
    if 'text/latex' in data:
        return None, '$$\n' + data['text/latex'].strip().strip('$').strip() + '\n$$'
    return None, code_block(data.get('text/plain', '').rstrip(), 'text', 'bp-out')

def outputs(cell, marks, key):
    "The outputs of a cell as Markdown; those with a caption or an alternative as a figure"
    found = [output(o, marks.get('fig-alt', ''), f'{key}-{n}' if n else key)
             for n, o in enumerate(cell.get('outputs', [])) if o.get('name') != 'stderr']
    caption, parts = marks.get('fig-cap'), []
    last = max((n for n, (shown, _) in enumerate(found) if shown), default=None)
    for n, (shown, text) in enumerate(found):
        if shown and caption and n == last:
            label = f' id="{marks["label"]}"' if 'label' in marks else ''
            parts += [raw(f'<figure class="bp-figure"{label}>{shown}<figcaption>'),
                      caption, raw('</figcaption></figure>')]
        else: parts.append(raw(shown) if shown else text)
    return parts

# pages --------------------------------------------------------------------------------

class Site:
    "The book: its chapters, its library, and what both become on the site"
    def __init__(self, config):
        from apidoc import Library
        from nbdev.doclinks import nbglob
        self.config = config
        paths = [p for p in nbglob(config.nbs_path, as_path=True)]
        self.chapters = sorted((Chapter(p, config) for p in paths),
                               key=lambda c: (c.number, c.page))
        self.files = {c.path.name: c for c in self.chapters}
        self.package = config.lib_path.name
        self.library = Library(self.package, {
            c.module: c.number for c in self.chapters if c.module})
        self.taught = {}                      # (module, name) -> label in a chapter

    def refer(self, markdown, here):
        "Links between notebooks become links between pages; to absent ones, plain words"
        def one(m):
            chapter = self.files.get(m[2])
            return f'[{m[1]}]({chapter.page}.md{m[3] or ""})' if chapter else m[1]
        link = r'\[((?:[^\[\]]|\[[^\[\]]*\])+)\]\((?:\./)?([\w-]+\.ipynb)(#[\w-]+)?\)'
        return self.library.link(re.sub(link, one, markdown), here)

    def code(self, chapter, number, cell):
        "A code cell with its outputs, as Markdown"
        marks, source = directives(cell.source)
        if marks.get('include') == 'false': return []
        if m := re.match(r'show_doc\(([\w.]+)', source): return self.shown(chapter, m[1])
        parts = []
        if 'exports' in (getattr(cell, 'directives_', None) or {}):
            parts += self.labels(chapter, source)
        if marks.get('echo') != 'false' and source.strip(): parts.append(code_block(source))
        key = f'{chapter.page}-{number}'
        results = outputs(cell, marks, key) if marks.get('output') != 'false' else []
        if 'code-fold' not in marks: return parts + results
        summary = marks.get('code-summary', 'Code')
        answer = summary.lower().startswith(('answer', 'solution'))
        opened = ' open' if marks['code-fold'] == 'show' else ''
        inside, outside = (parts + results, []) if answer else (parts, results)
        return [f'<details class="bp-code"{opened}>\n<summary>{summary}</summary>',
                *inside, '</details>', *outside]

    def labels(self, chapter, source):
        "Targets, so that the reference can lead to the definition in its chapter"
        names = re.findall(r'^(?:def|class|async def) (\w+)|^(\w+)\s*(?::[^=\n]+)?=[^=]',
                           source, re.M)
        return [self.label(chapter.module, a or b) for a, b in names
                if (a or b) in self.library.names.get(chapter.module, [])]

    def label(self, module, name):
        kind = 'def' if name.islower() else 'constant' if name.isupper() else 'class'
        mark = f'{kind}-{module}-{name}'.lower()             # labels do not tell cases apart
        if (module, name) in self.taught: return ''
        self.taught[module, name] = mark
        return f'({mark})='

    def shown(self, chapter, name):
        "What stands for `show_doc`: nothing under its own visible source, else the block"
        found = self.library.find(name, chapter.module)
        if not found or '.' in found[1] or found in self.taught: return []
        label = [self.label(*found)] if found[0] == chapter.module else []
        return [*label, self.library.block(*found, index=False)]

    def page(self, chapter):
        "The chapter as Markdown for Sphinx"
        parts = [self.head(chapter)]
        for number, cell in enumerate(chapter.nb.cells):
            if cell.cell_type == 'raw': continue
            if cell.cell_type == 'markdown':
                parts.append(self.refer(cell.source, chapter.module))
            else: parts += self.code(chapter, number, cell)
        return '\n\n'.join(p for p in parts if p) + '\n'

    def head(self, chapter):
        config, name = self.config, chapter.path.name
        about = json.dumps(plain(chapter.description), ensure_ascii=False)
        title = json.dumps(plain(chapter.title), ensure_ascii=False)
        meta = ['---', 'myst:', '  html_meta:', f'    description: {about}',
                f'    "property=og:title": {title}',
                f'    "property=og:description": {about}',
                '    "property=og:type": article',
                f'    "property=og:image": {self.config.doc_host}{self.config.doc_baseurl}'
                '/_static/card.png', '    "twitter:card": summary_large_image', '---']
        colab = (f'https://colab.research.google.com/github/{config.user}/{config.repo}'
                 f'/blob/{config.branch}/docs/notebooks/{name}')
        links = [f'Chapter {chapter.label}'] if chapter.label else []
        if chapter.page != 'index':
            links += [f'<a href="notebooks/{name}" download>Download this notebook</a>',
                      f'<a href="{colab}">Open in Colab</a>']
        if chapter.module:
            links.append(f'Reference: <a href="api/{chapter.module}.html">'
                         f'<code>{self.package}.{chapter.module}</code></a>')
        about = self.refer(chapter.description, chapter.module)
        line = raw(f'<p class="bp-links">{" · ".join(links)}</p>') if links else ''
        return '\n'.join(meta) + '\n\n' + '\n\n'.join(
            filter(None, [f'# {chapter.title}', about and f'*{about}*', line]))

    def reference(self, chapter):
        "The page of a module: every public name"
        module = chapter.module
        about = plain(f'Reference of {self.package}.{module}: {chapter.description}')
        parts = ['\n'.join(['---', 'myst:', '  html_meta:', '    description: '
                            + json.dumps(about, ensure_ascii=False), '---']),
                 f'# `{module}`', self.refer(chapter.description, module),
                 raw(f'<p>Chapter: <a href="../{chapter.page}.html">{plain(chapter.title)}</a> · '
                     f'<a href="../_modules/{self.package}/{module}.html">Source of the module</a></p>')]
        for name in self.library.names[module]:
            block = self.library.block(module, name)
            if mark := self.taught.get((module, name)):
                lines = block.split('\n')
                where = f'chapter {chapter.label}' if chapter.label else chapter.title
                block = '\n'.join([*lines[:-1], '', f'{{ref}}`Written in {where} <{mark}>`',
                                   lines[-1]])
            parts.append(block)
        return '\n\n'.join(parts) + '\n'

    def contents(self):
        "Hidden tables of contents: the parts of the book, then the reference"
        low, trees = -1, []
        for title, high in PARTS:
            pages = [f'{c.label + " · " if c.label else ""}{plain(c.title)} <{c.page}>'
                     for c in self.chapters if low < c.number <= high and c.page != 'index']
            if pages: trees.append(toctree(title, pages))
            low = high
        modules = [f'{c.module} <api/{c.module}>' for c in self.chapters if c.module]
        return '\n\n'.join([*trees, toctree('Reference', [*modules, 'Index <genindex>'])])

    def write(self, dest):
        for path in sorted(self.config.nbs_path.rglob('*')):       # pictures beside notebooks
            rel = path.relative_to(self.config.nbs_path)
            if (path.is_file() and path.suffix in ('.svg', '.png', '.jpg', '.gif', '.webp')
                    and not any(p[0] in '._' for p in rel.parts)):
                put(dest/rel, path.read_bytes())
        for chapter in self.chapters:
            text = self.page(chapter)
            if chapter.page == 'index': text += '\n' + self.contents() + '\n'
            put(dest/f'{chapter.page}.md', text)
            if chapter.page != 'index':
                put(dest/'_extra'/'notebooks'/chapter.path.name, self.download(chapter))
        for chapter in self.chapters:
            if chapter.module: put(dest/'api'/f'{chapter.module}.md', self.reference(chapter))
        if 'index.ipynb' not in self.files:
            put(dest/'index.md', f'# {self.package}\n\n{self.config.description}\n\n'
                + self.contents() + '\n')
        base = f'{self.config.doc_baseurl}/'.replace('//', '/')
        page = (ROOT/'tools'/'docs'/'404.html').read_text(encoding='utf-8')
        put(dest/'_extra'/'404.html', page.replace('{{base}}', base))

    def download(self, chapter):
        "The notebook to take away: no outputs, and a first cell that installs the package"
        nb = json.loads(chapter.path.read_text(encoding='utf-8'))
        for cell in nb['cells']:
            if cell['cell_type'] == 'code': cell.update(outputs=[], execution_count=None)
        repo = f'git+{self.config.git_url}'
        nb['cells'].insert(0, dict(
            cell_type='code', execution_count=None, id='install', metadata={}, outputs=[],
            source=['# The package and what its pages use\n',
                    f'%pip install -q "{self.package}[plot] @ {repo}"']))
        return json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + '\n'

def toctree(caption, entries):
    return '\n'.join(['```{toctree}', ':hidden:', f':caption: "{caption}"', '',
                      *entries, '```'])

def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode('utf-8'))

# README -------------------------------------------------------------------------------

def github(markdown):
    "Links and mathematics as GitHub's Markdown wants them"
    markdown = re.sub(r'\]\((?:\./)?([\w-]+\.ipynb)', r'](nbs/\1', markdown)
    markdown = re.sub(r'(!\[[^\]]*\]\()(?!https?:|nbs/|docs/)', r'\1nbs/', markdown)
    markdown = re.sub(r'^\$\$\n(.*?)\n\$\$$', r'```math\n\1\n```', markdown,
                      flags=re.S | re.M)
    return re.sub(r'(?<![\\$`\w])\$([^$\n`]+)\$(?![\w$])', r'$`\1`$', markdown)

def readme(chapter, pictures):
    "README.md of the index notebook; its pictures are added to the dictionary `pictures`"
    parts = [NOTE.format(chapter.path.name), f'# {chapter.title}',
             f'> {chapter.description}' if chapter.description else '']
    for cell in chapter.nb.cells:
        if cell.cell_type == 'markdown': parts.append(github(cell.source))
        if cell.cell_type != 'code': continue
        marks, code = directives(cell.source)
        if marks.get('include') == 'false' or code.startswith('show_doc('): continue
        if marks.get('echo') != 'false': parts.append(f'```python\n{code}\n```')
        shown = cell.get('outputs', []) if marks.get('output') != 'false' else []
        parts += [github_output(o, marks, pictures) for o in shown]
    return '\n\n'.join(p.strip() for p in parts if p and p.strip()) + '\n'

def github_output(out, marks, pictures):
    data = {k: joined(v) for k, v in out.get('data', {}).items()}
    if 'image/svg+xml' in data:
        name = f'readme-{len(pictures) + 1}.svg'
        pictures[name] = standalone(data['image/svg+xml'])
        return f'![{marks.get("fig-alt", "")}](docs/{name})'
    text = joined(out['text']) if 'text' in out else data.get('text/plain', '')
    if 'text/html' in data or out.get('name') == 'stderr' or not text.strip(): return ''
    return f'```text\n{text.rstrip()}\n```'

def standalone(text):
    "An SVG picture as a file of its own, readable on a dark page too"
    text = text[text.index('<svg'):]
    if 'xmlns=' not in text[:text.index('>')]:
        text = text.replace('<svg', '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    style = ('<style>svg:root{color:#24292f}@media (prefers-color-scheme:dark)'
             '{svg:root{color:#e6edf3}}</style>')
    return re.sub(r'(<svg[^>]*>)', lambda m: m[1] + style, text, count=1) + '\n'

def main(dest):
    os.environ['IN_TEST'] = '1'
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT/'tools')]
    from nbdev.config import get_config
    config, dest = get_config(), Path(dest).resolve()
    shutil.rmtree(dest, ignore_errors=True)
    site = Site(config)
    site.write(dest)
    if index := site.files.get(config.readme_nb):
        pictures = {}
        put(ROOT/'README.md', readme(index, pictures))
        for name, text in pictures.items(): put(dest/'_extra'/name, text)

if __name__ == '__main__': main(sys.argv[1])
