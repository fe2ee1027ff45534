"Shared by all tests: where the project lies, and a browser."
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ARGS = ('--headless --no-sandbox --disable-gpu --disable-quic --no-first-run '
        '--disable-background-networking --disable-component-update --disable-sync').split()

@pytest.fixture(scope='session')
def root(): return ROOT

@pytest.fixture(scope='session')
def docs():
    "The built site"
    if not (ROOT/'docs'/'index.html').is_file(): pytest.skip('no site: run `make docs`')
    return ROOT/'docs'

@pytest.fixture(scope='session')
def browser():
    "Chromium, driven by Playwright"
    sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is missing')
    names = ('chromium', 'chromium-browser', 'google-chrome')
    path = os.environ.get('CHROMIUM') or next(filter(None, map(shutil.which, names)), None)
    if not path: pytest.skip('no Chromium: install it, or name it in CHROMIUM')
    with sync_api.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=path, args=ARGS)
        yield chromium
        chromium.close()
