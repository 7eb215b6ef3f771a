"Packaging: every value comes from settings.ini."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

EXTRA = '_requirements'  # ends the keys of settings.ini that are extras
root = Path(__file__).resolve().parent
parser = ConfigParser(delimiters=['='])
parser.read(root/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
lib = cfg['lib_name']
readme = root/'README.md'  # absent only until `make readme` first runs
stages = 'Planning,Pre-Alpha,Alpha,Beta,Production/Stable,Mature,Inactive'.split(',')
status = cfg.getint('status')

setup(
    name=lib,
    version=cfg['version'],
    description=cfg['description'],
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    keywords=cfg['keywords'],
    author=cfg['author'],
    author_email=cfg['author_email'],
    license={'apache2': 'Apache-2.0'}[cfg['license']],
    license_files=['LICENSE'],
    url=cfg['git_url'],
    project_urls={'Documentation': cfg['doc_host'] + cfg['doc_baseurl']},
    packages=find_packages(include=[lib, f'{lib}.*']),
    # Files that the package reads beside its modules; MANIFEST.in names them for the source distribution.
    package_data={
        f'{lib}.models': ['*.c'],
        f'{lib}.interpret': ['*.jinja'],
        f'{lib}.deploy': ['*.jinja'],
        lib: ['pretrained/*'],
    },
    include_package_data=False,
    python_requires='>=' + cfg['min_python'],
    install_requires=cfg['requirements'].split(),
    extras_require={key.removesuffix(EXTRA): cfg[key].split() for key in cfg if key.endswith(EXTRA)},
    entry_points={
        'console_scripts': cfg['console_scripts'].split(),
        'nbdev': [f'{lib}={lib}._modidx:d'],
    },
    classifiers=[
        f'Development Status :: {status} - {stages[status - 1]}',
        'Intended Audience :: ' + cfg['audience'],
        'Natural Language :: ' + cfg['language'],
        'Programming Language :: Python :: 3',
    ],
    zip_safe=False,
)
