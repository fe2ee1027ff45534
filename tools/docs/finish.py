"The last touches: files that go beside the pages, and no trace of the builder's machine."
import html
import re
import shutil
from pathlib import Path

LONG = 60                        # characters that a line of code shows without scrolling

def copy(app, error):
    "Put the extra files beside the pages, and drop what differs from build to build"
    if error: return
    out = Path(app.outdir)
    shutil.copytree(Path(app.srcdir)/'_extra', out, dirs_exist_ok=True)
    for name in ('.buildinfo', '.buildinfo.bak', 'objects.inv'):
        (out/name).unlink(missing_ok=True)
    shutil.rmtree(out/'_sources', ignore_errors=True)
    for path in out.rglob('*.map'): path.unlink()      # for debugging the theme only

    for page in out.rglob('*.html'):
        text = page.read_text(encoding='utf-8')
        if text != (better := polished(text)): page.write_text(better, encoding='utf-8')

def polished(text):
    "What the theme leaves out or puts in needlessly"
    text = text.replace('class="caption" role="heading">',
                        'class="caption" role="heading" aria-level="2">')
    return re.sub(r'<pre>.*?</pre>', code, text, flags=re.S)

def code(block):
    "No marks on what has the colour of the text; keys for what scrolls sideways"
    text = re.sub(r'<span class="(?:n|p|w)">([^<]*)</span>', r'\1', block[0])
    lines = html.unescape(re.sub('<[^>]*>', '', text)).splitlines()
    wide = max(map(len, lines), default=0) > LONG
    return text.replace('<pre>', '<pre tabindex="0">') if wide else text

def setup(app):
    app.connect('build-finished', copy)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
