"""Mathematics to HTML and MathML at build time: KaTeX in an embedded JavaScript engine.

No script and no network for the reader; TeX with a mistake stops the build. KaTeX's files
come from a package that `make docs` puts into .venv/assets (settings.ini: katex_package).
"""
import re
import sys
from functools import lru_cache
from pathlib import Path

import dukpy
from docutils import nodes
from sphinx.util import logging

log = logging.getLogger(__name__)
ASSETS = Path(sys.prefix)/'assets'

def katex():
    "The folder of KaTeX's script, style and fonts"
    for found in sorted(ASSETS.glob('**/katex/katex.min.js')): return found.parent
    raise FileNotFoundError(f'no katex.min.js under {ASSETS}: run `make docs`')

@lru_cache(None)
def engine():
    js = dukpy.JSInterpreter()
    js.evaljs((katex()/'katex.min.js').read_text(encoding='utf-8') + ';0')
    return js

@lru_cache(None)
def render(tex, display):
    call = ('katex.renderToString(dukpy.tex, {displayMode: dukpy.display, '
            'throwOnError: true, strict: "error", output: "htmlAndMathml"})')
    return engine().evaljs(call, tex=tex, display=display)

def put(writer, node, tex, display, before='', after=''):
    try: writer.body.append(before + render(tex, display) + after)
    except dukpy.JSRuntimeError as e:
        log.warning('%s in %s', str(e).splitlines()[0], tex, location=node)
    raise nodes.SkipNode

def inline(writer, node): put(writer, node, node.astext(), False)

def block(writer, node):
    tag = rf'\tag{{{node["number"]}}}' if node.get('number') else ''
    name = f' id="{node["ids"][0]}"' if node['ids'] else ''
    keys = ' tabindex="0"' if len(node.astext()) > 90 else ''       # may scroll sideways
    put(writer, node, node.astext().strip() + tag, True,
        f'<div class="bp-math"{keys}{name}>', '</div>\n')

def style(app, config):
    "KaTeX's style and the fonts of today's browsers, as static files"
    dest = Path(app.doctreedir).parent/'katex-static'/'katex'
    (dest/'fonts').mkdir(parents=True, exist_ok=True)
    css = (katex()/'katex.min.css').read_text(encoding='utf-8')
    css = re.sub(r',url\([^)]*\.(?:woff|ttf)\) format\("(?:woff|truetype)"\)', '', css)
    (dest/'katex.min.css').write_text(css, encoding='utf-8')
    (dest/'LICENSE').write_bytes((katex()/'LICENSE').read_bytes())
    for font in sorted((katex()/'fonts').glob('*.woff2')):
        (dest/'fonts'/font.name).write_bytes(font.read_bytes())
    config.html_static_path.append(str(dest.parent))

def setup(app):
    app.connect('config-inited', style)
    app.add_html_math_renderer('katex_static', (inline, None), (block, None))
    app.add_css_file('katex/katex.min.css')
    return dict(parallel_read_safe=True, parallel_write_safe=True)
