"The stepper in a real browser: played to the end, by mouse and keys, in light, dark and narrow."
import numpy as np
import pytest

from backprop_lit.insight import step
from backprop_lit.tensor import Tensor

rng = np.random.default_rng(0)
pytestmark = pytest.mark.filterwarnings('ignore::RuntimeWarning')


def leaf(value, name=None): return Tensor(value, requires_grad=True, name=name)


def worked():
    x, y, z = leaf(-2., 'x'), leaf(5., 'y'), leaf(-4., 'z')
    q = x + y
    f = q * z
    q.name, f.name = 'q', 'f'
    return [x, y, z], f


def fifth():
    x = leaf(2., 'x')
    p = x
    for _ in range(4): p = p * x
    return [x], p


def network():
    X = Tensor(rng.normal(size=(8, 5)), name='X')
    W, b, V = [leaf(rng.normal(size=s), n) for s, n in (((5, 6), 'W'), ((6,), 'b'), ((6, 3), 'V'))]
    return [W, b, V], (((X @ W + b).relu() @ V) ** 2).mean()


def folded():
    x, w = leaf(1., 'x'), leaf(.5, 'w')
    y = x
    for _ in range(2500): y = y * w + x
    return [x, w], y


def undefined():
    p, q = leaf(0., 'p'), leaf(np.array([np.inf, 1., 2., 3., 4., 5.]), 'q')
    return [p, q], p.log() * p + (q * q).sum()


GRAPHS = [worked, fifth, network, folded, undefined]


@pytest.fixture
def opened(browser, tmp_path):
    "A function that opens a page with players, or one of them as saved"
    contexts = []
    def visit(*players, scheme='light', width=1000, motion='no-preference', page=None):
        context = browser.new_context(viewport=dict(width=width, height=800),
                                      color_scheme=scheme, reduced_motion=motion)
        contexts.append(context)
        tab = context.new_page()
        tab.wrong = []
        tab.on('console', lambda m: m.type == 'error' and tab.wrong.append(m.text))
        tab.on('pageerror', lambda e: tab.wrong.append(str(e)))
        tab.on('dialog', lambda d: (tab.wrong.append('dialog'), d.dismiss()))
        tab.on('request', lambda r: r.url.startswith(('file:', 'about:')) or tab.wrong.append(r.url))
        path = tmp_path/'walk.html'
        if len(players) == 1 and page is None: players[0].save(path)
        else: path.write_text(page or '<!doctype html><meta charset="utf-8">'
                              + '<p>between</p>'.join(p.html for p in players), encoding='utf-8')
        tab.goto(f'file://{path}')
        return tab
    yield visit
    for c in contexts: c.close()


def words(tab): return tab.locator('.bpl-say').first.inner_text()
def number(tab): return int(words(tab).split()[1])
def count(tab): return int(tab.locator('.bpl-bar input').first.get_attribute('max')) + 1


def final(tab):
    "The gradients that the boxes hold in the page, by their label in the list"
    return tab.evaluate('''() => Object.fromEntries([...document.querySelectorAll('.bpl-bar option')]
        .map(o => [o.textContent, document.querySelector(`.bpl-n[data-n="${o.value}"]`)])
        .filter(([, g]) => g && g.dataset.grad).map(([l, g]) => [l, g.dataset.grad]))''')


@pytest.mark.parametrize('graph', GRAPHS)
def test_played_to_the_end_it_shows_the_gradients_of_backward(opened, graph):
    leaves, root = graph()
    tab = opened(step(root))
    tab.evaluate('document.querySelector(".bpl-step").dataset.wait = 1')
    tab.get_by_role('button', name='Play').click()
    tab.get_by_role('button', name='Play again').wait_for(timeout=20000)
    assert number(tab) == count(tab) and 'over' in words(tab)
    shown = final(tab)
    root.backward()
    for x in leaves:
        g = x.grad.value
        with np.errstate(all='ignore'): want = g.item() if g.size == 1 else np.sqrt((g * g).sum())
        assert float(shown[x.name]) == want or np.isnan(want) and shown[x.name] == 'NaN'
    assert tab.locator('.bpl-badge:visible').count() == 0
    assert tab.wrong == []


def test_buttons_keys_and_slider_go_forward_and_back(opened):
    tab = opened(step(worked()[1]))
    assert number(tab) == 1 and tab.get_by_role('button', name='One step back').is_disabled()
    assert '?' in tab.locator('.bpl-n[data-n="0"]').inner_html()        # f is not computed yet
    seen = [words(tab)]
    for _ in range(count(tab) - 1):
        tab.get_by_role('button', name='One step forward').click()
        seen.append(words(tab))
    assert tab.get_by_role('button', name='One step forward').is_disabled()
    tab.locator('.bpl-pic').focus()
    for text in seen[-2::-1]:
        tab.keyboard.press('ArrowLeft')
        assert words(tab) == text
    tab.keyboard.press('End')
    assert words(tab) == seen[-1]
    tab.keyboard.press('Home')
    tab.keyboard.press('ArrowRight')
    assert words(tab) == seen[1]
    tab.locator('.bpl-bar input').fill('4')
    assert words(tab) == seen[4]
    assert 'grad q += grad f · z' in seen[4].replace('\xa0', ' ')
    assert '1 · (−4)' in seen[4] and 'q is complete' in seen[4]
    assert tab.wrong == []


def test_space_plays_and_pauses(opened):
    tab = opened(step(worked()[1]))
    tab.evaluate('document.querySelector(".bpl-step").dataset.wait = 60')
    panel = tab.locator('.bpl-say')
    tab.locator('.bpl-pic').focus()
    tab.keyboard.press(' ')
    tab.wait_for_function('document.querySelector(".bpl-bar input").value >= 2')
    assert panel.get_attribute('aria-live') == 'off'
    tab.keyboard.press(' ')
    here = number(tab)
    tab.wait_for_timeout(200)
    assert number(tab) == here < count(tab) and panel.get_attribute('aria-live') == 'polite'


def test_keys_do_not_reach_the_page_around(opened):
    page = ('<!doctype html><meta charset="utf-8">' + step(worked()[1]).html + '<button id="b">b</button>'
            '<script>window.keys = []; document.addEventListener("keydown", e => keys.push(e.key))</script>')
    tab = opened(page=page)
    tab.locator('.bpl-pic').focus()
    for key in ('ArrowRight', 'ArrowLeft', 'End', 'Home', ' ', ' ', 'a'): tab.keyboard.press(key)
    tab.locator('#b').focus()
    tab.keyboard.press('ArrowRight')
    assert tab.evaluate('keys') == ['a', 'ArrowRight'] and number(tab) == 1
    tab.get_by_role('button', name='One step forward').focus()
    tab.keyboard.press('Enter')
    assert number(tab) == 2


def test_waiting_counts_and_freed_boxes(opened):
    tab = opened(step(fifth()[1]))
    turn = next(i for i in range(count(tab)) if not tab.locator('.bpl-bar input').fill(str(i))
                and 'backward' in words(tab))
    badges = tab.locator('.bpl-badge:visible').all_text_contents()
    assert sorted(badges) == ['1', '1', '1', '5']
    tab.locator('.bpl-bar input').fill(str(turn + 2))
    assert '4' in tab.locator('.bpl-badge:visible').all_text_contents()
    assert tab.locator('.bpl-freed').count() == 1 and 'freed' in words(tab)


def test_a_click_explains_by_paths(opened):
    leaves, root = fifth()
    tab = opened(step(root))
    tab.locator('.bpl-n', has_text='x').last.click()
    text = tab.locator('.bpl-more').inner_text()
    assert 'grad x = 80, the sum over 5 paths:' in text and text.count('→ x:') == 5
    assert '16 + 16 + 16 + 16 + 16 = 80' in text
    tab.get_by_label('Explain a node').select_option('f')
    assert 'f = v3 · x = 16 · 2 = 32' in tab.locator('.bpl-more').inner_text().replace('\xa0', ' ')


def test_too_many_paths_or_arrays_or_hooks_are_explained_by_consumers(opened):
    x = leaf(1., 'x')
    y = x
    for _ in range(40): y = y + y
    hooked = leaf(3., 'h')
    z = hooked * 2.
    z.register_hook(lambda g: g * 10.)
    for root, name, said in ((y, 'x', '5.498e+11 from v1'), (network()[1], 'W', 'from v1'), (z * z, 'h', '240 from v1')):
        tab = opened(step(root))
        tab.get_by_label('Explain a node').select_option(name)
        text = tab.locator('.bpl-more').inner_text()
        assert 'the sum of what its consumers send:' in text and said in text, text
        assert tab.wrong == []


def test_pointing_lights_the_way_to_the_root(opened):
    tab = opened(step(worked()[1]))
    tab.locator('.bpl-n', has_text='x').first.hover()
    assert tab.locator('.bpl-n.bpl-path').count() == 3 and tab.locator('.bpl-e.bpl-path').count() == 2
    tab.locator('.bpl-say').hover()
    assert tab.locator('.bpl-path').count() == 0


def test_two_on_one_page_are_independent(opened):
    tab = opened(step(worked()[1]), step(fifth()[1]))
    tab.get_by_role('button', name='One step forward').nth(1).click()
    texts = tab.locator('.bpl-phase').all_text_contents()
    assert texts[0].startswith('Step 1 of 12') and texts[1].startswith('Step 2 of 16')
    assert tab.locator('.bpl-bar').count() == 2 and tab.wrong == []


def test_a_script_as_a_name_does_not_run(opened):
    x = leaf(2., '<script>alert(1)</script>')
    y = leaf(3., '</script><img src=x onerror=alert(1)>')
    root = x * y
    root.name = '<svg onload=alert(1)>'
    tab = opened(step(root))
    tab.keyboard.press('End')
    tab.get_by_label('Explain a node').select_option(index=1)
    tab.locator('.bpl-bar input').fill('5')
    assert tab.wrong == [] and tab.locator('img').count() == 0
    assert tab.locator('svg').count() == 1


def test_put_in_later_as_notebooks_do(opened):
    tab = opened(page='<!doctype html><meta charset="utf-8"><div id="out"></div>')
    tab.evaluate('''html => { const out = document.getElementById('out'); out.innerHTML = html
        out.querySelectorAll('script').forEach(old => { const s = document.createElement('script')
            for (const a of old.attributes) s.setAttribute(a.name, a.value)
            s.textContent = old.textContent; old.replaceWith(s) }) }''', step(worked()[1]).html)
    assert number(tab) == 1 and tab.wrong == []


def test_without_scripts_picture_and_table_remain(browser, tmp_path):
    path = step(worked()[1]).save(tmp_path/'walk.html')
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(f'file://{path}')
    assert 'grad −4' in tab.locator('svg').inner_html() and tab.locator('.bpl-bar').count() == 0
    tab.locator('summary').click()
    assert 'q = x + y' in tab.locator('table').inner_text()
    context.close()


def test_less_motion_means_no_dot(opened):
    for motion, dots in (('no-preference', 1), ('reduce', 0)):
        tab = opened(step(worked()[1]), motion=motion)
        tab.locator('.bpl-bar input').fill('3')
        tab.get_by_role('button', name='One step forward').click()
        assert tab.locator('.bpl-dot').count() == dots
    tab.wait_for_timeout(50)


@pytest.mark.parametrize('graph', [worked, network, folded])
def test_narrow_does_not_scroll_sideways(opened, graph):
    tab = opened(step(graph()[1]), width=390)
    assert tab.evaluate('document.documentElement.scrollWidth') <= 390
    tab.locator('.bpl-bar input').fill('3')
    box = tab.locator('.bpl-n.bpl-on rect').first.bounding_box()
    pic = tab.locator('.bpl-pic').bounding_box()
    assert pic['x'] - 1 <= box['x'] + box['width'] / 2 <= pic['x'] + pic['width'] + 1


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('graph', [worked, network, folded])
def test_accessibility(opened, graph, scheme):
    axe = pytest.importorskip('axe_playwright_python.sync_playwright')
    tab = opened(step(graph()[1]), scheme=scheme)
    for place in ('7', str(count(tab) - 1)):
        tab.locator('.bpl-bar input').fill(place)
        tab.get_by_label('Explain a node').select_option(index=2)
        found = axe.Axe().run(tab).response['violations']
        assert [(v['id'], n['html'][:120]) for v in found for n in v['nodes']] == []


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_words_in_the_picture_have_contrast(opened, scheme):
    "Texts of boxes, also of freed ones, against the page: at least 4.5"
    tab = opened(step(worked()[1]), scheme=scheme, motion='reduce')
    tab.locator('.bpl-bar input').fill(str(count(tab) - 1))
    found = tab.evaluate('''() => { const c = document.createElement('canvas').getContext('2d')
        const rgb = s => { c.clearRect(0, 0, 1, 1); c.fillStyle = s; c.fillRect(0, 0, 1, 1)
            return [...c.getImageData(0, 0, 1, 1).data].slice(0, 3) }
        return [...document.querySelectorAll('.bpl-n tspan')].map(t => [rgb(getComputedStyle(t).fill),
            +getComputedStyle(t.closest('.bpl-n')).opacity * +getComputedStyle(t).opacity]) }''')
    page = 255. if scheme == 'light' else 18.
    def light(c):
        c = np.asarray(c, float) / 255
        return np.where(c <= .04045, c / 12.92, ((c + .055) / 1.055)**2.4) @ [.2126, .7152, .0722]
    for colour, opacity in found:
        a, b = light(np.asarray(colour) * opacity + page * (1 - opacity)), light([page] * 3)
        assert (max(a, b) + .05) / (min(a, b) + .05) >= 4.5, (colour, opacity)
