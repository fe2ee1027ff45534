"The site in a real browser, as a reader opens it: from the disk, without a network."
import gzip
import re
from functools import lru_cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

DOCS = Path(__file__).resolve().parent.parent/'docs'
WIDE, NARROW = dict(width=1440, height=900), dict(width=390, height=844)
OTHER = {'genindex.html', 'search.html', '404.html'}
PAGES = sorted(str(p.relative_to(DOCS)) for p in DOCS.rglob('*.html')
               if '_modules' not in p.parts)
CHAPTERS = [p for p in PAGES if '/' not in p and p not in OTHER]
MOST = 500_000             # bytes that one page may load, as a server sends them

LOOK = """() => {
    const article = document.querySelector('article'), all = q => [...article.querySelectorAll(q)]
    const prose = article.cloneNode(true)
    prose.querySelectorAll('pre, code, svg, script, style, .katex, .bp-html')
        .forEach(n => n.remove())
    return {
        prose: prose.textContent,
        levels: all('h1, h2, h3, h4, h5').map(h => +h.tagName[1]),
        silent: all('img').filter(i => !i.alt).map(i => i.outerHTML.slice(0, 120))
            .concat(all('.bp-fig').filter(f => !f.getAttribute('aria-label')
                && !f.querySelector('img, svg title, svg[aria-label]'))
                .map(f => f.innerHTML.slice(0, 120))),
        math: all('.katex').length, bad: all('.katex-error').length,
        font: document.fonts.check('1em KaTeX_Main') } }"""

@lru_cache(None)
def size(path):
    "Bytes on the way to a reader: text is compressed, fonts are already"
    data = path.read_bytes()
    return len(data) if path.suffix == '.woff2' else len(gzip.compress(data))

@pytest.fixture(scope='session')
def window(browser):
    "One page for all tests; whatever goes wrong is gathered in `page.wrong`"
    page = browser.new_context(viewport=WIDE).new_page()
    page.wrong, page.bytes = [], {}
    page.on('console', lambda m: m.type == 'error' and page.wrong.append(m.text))
    page.on('pageerror', lambda e: page.wrong.append(str(e)))
    page.on('requestfailed', lambda r: page.wrong.append(f'failed: {r.url}'))
    def seen(request):
        if not request.url.startswith(('file:', 'data:', 'blob:', 'about:')):
            page.wrong.append(f'outside: {request.url}')
        elif request.url.startswith('file:'):
            path = Path(re.sub(r'[?#].*', '', request.url.removeprefix('file://')))
            page.bytes[path.name] = size(path) if path.is_file() else 0
    page.on('request', seen)
    return page

@pytest.fixture
def opened(window, docs):
    "A function that opens a page of the site, as if for the first time"
    def visit(name):
        window.goto('about:blank')
        window.set_viewport_size(WIDE)
        window.emulate_media(color_scheme='light')
        window.wrong.clear(), window.bytes.clear()
        window.goto(f'file://{docs}/{name}')
        window.evaluate('document.fonts.ready.then(() => 0)')
        return window
    return visit

@pytest.mark.parametrize('name', PAGES)
def test_page(opened, name):
    page = opened(name)
    found = page.evaluate(LOOK) if name not in OTHER else {}
    page.set_viewport_size(NARROW)
    wide = page.evaluate('document.documentElement.scrollWidth')
    assert wide <= 390, f'scrolls sideways: {wide} px'
    assert page.wrong == []
    assert sum(page.bytes.values()) <= MOST, page.bytes
    if not found: return
    left = re.findall(r'\$[^$\n]{1,60}\$|\\(?:frac|partial|begin|text)\b', found['prose'])
    assert left == [], 'mathematics that was not rendered'
    assert found['bad'] == 0 and (found['font'] or not found['math'])
    levels = found['levels']
    assert levels[:1] == [1] and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:])), levels
    assert found['silent'] == [], 'give the cell `#| fig-alt: "..."`'

@pytest.fixture(scope='session')
def served(docs):
    "The site behind a web server of this machine"
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(docs)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()

@pytest.mark.parametrize('name', [*CHAPTERS, 'search.html?q=unbroadcast'])
def test_over_http(browser, served, name):
    page, wrong = browser.new_page(), []
    page.on('console', lambda m: m.type == 'error' and wrong.append(m.text))
    page.on('pageerror', lambda e: wrong.append(str(e)))
    page.on('requestfailed', lambda r: wrong.append(f'failed: {r.url}'))
    page.on('request', lambda r: r.url.startswith((served, 'data:', 'blob:')) or wrong.append(r.url))
    answer = page.goto(f'{served}/{name}')
    assert answer.ok and wrong == []
    if 'search' in name: page.wait_for_selector('#search-results li')
    page.close()

def test_titles_and_descriptions(docs):
    titles = {}
    for name in CHAPTERS:
        text = (docs/name).read_text(encoding='utf-8')
        title = re.search('<title>(.*?)</title>', text, re.S)[1]
        assert re.search(r'<meta content="[^"]{10,}" name="description"', text), name
        titles.setdefault(title, []).append(name)
    assert {t: n for t, n in titles.items() if len(n) > 1} == {}

def a_symbol(docs):
    "A public name that the reference lists"
    found = re.search(r'id="backprop_lit\.\w+\.(\w+)"',
                      ''.join(p.read_text(encoding='utf-8')
                              for p in sorted((docs/'api').glob('*.html'))))
    return found[1]

@pytest.mark.parametrize('kind', ['symbol', 'word'])
def test_search_from_the_disk(opened, docs, kind):
    word = a_symbol(docs) if kind == 'symbol' else 'slope'
    page = opened(f'search.html?q={word}')
    page.wait_for_selector('#search-results li')
    links = page.locator('#search-results li a').evaluate_all('a => a.map(x => x.href)')
    assert any('api/' in n if kind == 'symbol' else 'api/' not in n for n in links), links
    assert page.wrong == []

def brightness(page):
    colour = page.evaluate('getComputedStyle(document.body).backgroundColor')
    return sum(map(int, re.findall(r'\d+', colour)[:3]))

def test_dark_mode_follows_the_system_and_the_switch(opened):
    page = opened('index.html')
    assert brightness(page) > 600
    page.emulate_media(color_scheme='dark')
    assert brightness(page) < 200
    page.emulate_media(color_scheme='light')
    switch = page.locator('.theme-toggle:visible').first
    seen = set()
    for _ in range(3):                     # and back to what the system says
        switch.click()
        seen.add(brightness(page) > 400)
    assert seen == {True, False}
    assert page.wrong == []

def test_keyboard_reaches_the_text(opened):
    page = opened('index.html')
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.textContent').strip() == 'Skip to content'

@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('name', ['index.html', *CHAPTERS[:2], *[
    p for p in PAGES if p.startswith('api/')][:1]])
def test_accessibility(opened, name, scheme):
    axe = pytest.importorskip('axe_playwright_python.sync_playwright')
    page = opened(name)
    page.emulate_media(color_scheme=scheme)
    rules = {'runOnly': ['wcag2a', 'wcag2aa']}
    apart = {'exclude': [['.katex'], ['.bp-fig svg']]}         # many nodes, no rules
    found = axe.Axe().run(page, context=apart, options=rules).response
    serious = [f'{v["id"]}: {node["html"][:150]} {node["failureSummary"][:200]}'
               for v in found['violations'] if v['impact'] in ('serious', 'critical')
               for node in v['nodes']]
    assert serious == []
