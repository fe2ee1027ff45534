"Package metadata lives in settings.ini: edit it there, not here."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=['='])
config.read(Path(__file__).with_name('settings.ini'), encoding='utf-8')
meta = config['DEFAULT']
lib = meta['lib_path']
extras = {key.removesuffix('_requirements'): value.split()
          for key, value in meta.items() if key.endswith('_requirements')}
setup(
    version=meta['version'], description=meta['description'], keywords=meta['keywords'].split(),
    author=meta['author'], author_email=meta['author_email'], url=meta['git_url'],
    packages=find_packages(include=[lib, f'{lib}.*']), package_data={lib: ['*.npz', '*.txt']},
    install_requires=meta['requirements'].split(), extras_require=extras,
    entry_points={'console_scripts': meta['console_scripts'].split(),
                  'nbdev': [f'{lib}={lib}._modidx:d']})
