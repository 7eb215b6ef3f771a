"Archives that are made to harm: refused with a sentence, and nothing of them lies anywhere afterwards."
import io
import tarfile

import pytest
from peaks import at_most

from s8fast.data.archives import unpack
from s8fast.errors import S8FastError

REG, DIR, SYM, LNK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE

#: Entries of an archive: name, type, content, target of a link; `{root}` is the folder of the test.
ARCHIVES = {
    'a path upwards': [('../outside.txt', REG, b'x', '')],
    'a path upwards, in the middle': [('a/../../outside.txt', REG, b'x', '')],
    'an absolute path': [('{root}/outside.txt', REG, b'x', '')],
    'a link out, then a file through it': [('link', SYM, b'', '{root}'), ('link/outside.txt', REG, b'x', '')],
    'a link upwards, then a file through it': [('link', SYM, b'', '..'), ('link/outside.txt', REG, b'x', '')],
    'a hard link to a file of the user': [('mine', LNK, b'', '{root}/mine.txt'), ('mine', REG, b'changed', '')],
    'a symbolic link to a file of the user': [('mine', SYM, b'', '{root}/mine.txt'), ('mine', REG, b'changed', '')],
    'a pipe': [('pipe', tarfile.FIFOTYPE, b'', '')],
    'a device': [('null', tarfile.CHRTYPE, b'', '')],
    'a drive': [('C:\\outside.txt', REG, b'x', '')],
    'a file where a folder is': [('a/b', REG, b'x', ''), ('a', REG, b'x', '')],
    'an empty name': [('', REG, b'x', '')],
    'a name that is too long': [('n'*5000, REG, b'x', '')],
}


def write_archive(path, *entries):
    with tarfile.open(path, 'w:gz') as f:
        for name, kind, content, link in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(content), link
            f.addfile(entry, io.BytesIO(content))
    return path


def assert_nothing_is_left(folder):
    assert not folder.exists() and not folder.with_name(f'{folder.name}.part').exists()


@pytest.mark.parametrize('name', ARCHIVES)
def test_an_entry_that_leads_elsewhere(tmp_path, count, name):
    (tmp_path/'mine.txt').write_text('mine')
    entries = [('good', REG, b'content', '')]
    for path, kind, content, link in ARCHIVES[name]:
        entries.append((path.format(root=tmp_path), kind, content, link.format(root=tmp_path)))
    archive = write_archive(tmp_path/'x.tgz', *entries)
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(S8FastError, match='could not be unpacked'): unpack(archive, tmp_path/'deep'/'data')
    (tmp_path/'deep').rmdir()  # empty
    assert sorted(tmp_path.rglob('*')) == before and (tmp_path/'mine.txt').read_text() == 'mine'
    count(['hostile archives'])


class Zeros(io.RawIOBase):
    "A file of so many zeros."
    def __init__(self, n): self.n = n
    def readable(self): return True

    def readinto(self, buffer):
        n = min(len(buffer), self.n)
        buffer[:n] = bytes(n)
        self.n -= n
        return n


KINDS = {'content': REG, 'long name': tarfile.GNUTYPE_LONGNAME, 'extended header': tarfile.XHDTYPE}

@pytest.mark.parametrize('kind', KINDS)
def test_an_archive_that_grows(tmp_path, count, kind):
    archive, size = tmp_path/'x.tgz', 120_000_000
    with tarfile.open(archive, 'w:gz', compresslevel=1) as f:
        entry = tarfile.TarInfo('big')
        entry.type, entry.size = KINDS[kind], size
        f.addfile(entry, io.BufferedReader(Zeros(size)))
    assert archive.stat().st_size < 3_000_000
    with at_most(30_000_000), pytest.raises(S8FastError, match='grows to more than 25,000,000 bytes'):
        unpack(archive, tmp_path/'data', max_bytes=25_000_000)
    assert_nothing_is_left(tmp_path/'data')
    count(['hostile archives'])


@pytest.mark.parametrize('size, says', [(1 << 34, 'grows to more than'), (1 << 20, 'no plain file')])
def test_an_archive_of_holes(tmp_path, count, size, says):
    "A sparse file: a byte, and holes that are written out."
    with tarfile.open(tmp_path/'x.tgz', 'w:gz', format=tarfile.PAX_FORMAT) as f:
        entry = tarfile.TarInfo('holes')
        entry.size, entry.pax_headers = 1, {'GNU.sparse.map': '0,1', 'GNU.sparse.size': str(size)}
        f.addfile(entry, io.BytesIO(b'x'))
    with tarfile.open(tmp_path/'x.tgz') as f: assert [(entry.issparse(), entry.size) for entry in f] == [(True, size)]
    with pytest.raises(S8FastError, match=says): unpack(tmp_path/'x.tgz', tmp_path/'data', max_bytes=50_000_000)
    assert_nothing_is_left(tmp_path/'data')
    count(['hostile archives'])


def test_an_archive_of_folders_in_folders(tmp_path, count):
    archive = write_archive(tmp_path/'x.tgz', ('a/'*1900, DIR, b'', ''))
    with pytest.raises(S8FastError, match='more than 32 deep'): unpack(archive, tmp_path/'data')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['x.tgz']
    count(['hostile archives'])
