"A Hub on the loopback address: all that huggingface_hub asks of one, to send to a repository and to fetch from it."
import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

TOKEN = 'hf_right'


class HubServer:
    "Repositories by name, each `{file: bytes}`; what is asked of it is in `asked`."
    def __init__(self):
        self.repositories, self.kinds, self.private, self.objects, self.asked = {}, {}, {}, {}, []
        self.refuses = {}  # beginning of a request -> status; None: the connection breaks off
        self.sizes = {}    # file -> the size that the Hub claims
        self._server = ThreadingHTTPServer(('127.0.0.1', 0), type('Handler', (_Handler,), dict(hub=self)))
        self.address = f'http://127.0.0.1:{self._server.server_port}'
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    def commit(self, name): return hashlib.sha1(repr(sorted(self.repositories[name].items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub = None
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args): "Says nothing."

    def do_HEAD(self): self.route()
    def do_GET(self): self.route()
    def do_POST(self): self.route()
    def do_PUT(self): self.route()

    def route(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        path = unquote(self.path.partition('?')[0])
        self.hub.asked.append(f'{self.command} {path}')
        for beginning, status in self.hub.refuses.items():
            if f'{self.command} {path}'.startswith(beginning):
                if status is None: return self.break_off()
                return self.answer({'error': 'refused'}, status)
        for method, pattern, act in self.ROUTES:
            if method == self.command.replace('HEAD', 'GET') and (found := re.fullmatch(pattern, path)):
                return act(self, body, *found.groups())
        self.answer({}, 404)

    def break_off(self):
        self.close_connection = True
        self.connection.shutdown(2)

    def answer(self, obj, status=200, headers=()):
        content = obj if isinstance(obj, bytes) else json.dumps(obj).encode()
        self.send_response(status)
        for key, value in {**dict(headers), 'Content-Length': str(len(content))}.items(): self.send_header(key, value)
        self.end_headers()
        if self.command != 'HEAD': self.wfile.write(content)

    def may_write(self):
        if self.headers.get('Authorization') == f'Bearer {TOKEN}': return True
        self.answer({'error': 'Invalid username or password.'}, 401)
        return False

    # Fetching

    def info(self, body, kind, name, revision=None):
        files = self.hub.repositories.get(name)
        is_private = self.hub.private.get(name, False)
        may_read = not is_private or self.headers.get('Authorization') == f'Bearer {TOKEN}'
        if files is None or not may_read: return self.answer({}, 404, {'X-Error-Code': 'RepoNotFound'})
        if revision not in (None, 'main', self.hub.commit(name)):
            return self.answer({}, 404, {'X-Error-Code': 'RevisionNotFound'})
        sizes = {file: len(content) for file, content in files.items()} | self.hub.sizes
        siblings = [dict(rfilename=file, size=sizes[file]) for file in files]
        self.answer(dict(id=name, sha=self.hub.commit(name), siblings=siblings, private=is_private, tags=[]))

    def resolve(self, body, name, revision, file):
        content = self.hub.repositories.get(name, {}).get(file)
        if content is None: return self.answer({}, 404, {'X-Error-Code': 'EntryNotFound'})
        etag = hashlib.sha256(content).hexdigest()
        self.answer(content, 200, {'X-Repo-Commit': revision, 'ETag': f'"{etag}"'})

    # Publishing

    def create(self, body):
        if not self.may_write(): return
        wanted = json.loads(body)
        name = f'{wanted["organization"]}/{wanted["name"]}'
        status = 409 if name in self.hub.repositories else 200
        if status == 200:  # one that is there stays as it is
            self.hub.repositories[name] = {}
            self.hub.kinds[name] = wanted.get('type', 'model')
            self.hub.private[name] = bool(wanted.get('private')) or wanted.get('visibility') == 'private'
        self.answer({'url': f'{self.hub.address}/{name}'}, status)

    def preupload(self, body, kind, name, revision):
        files = [dict(path=file['path'], shouldIgnore=False, oid=None,
                      uploadMode='lfs' if file['path'].endswith(('.safetensors', '.png')) else 'regular')
                 for file in json.loads(body)['files']]
        self.answer({'files': files})

    def batch(self, body, name):
        objects = []
        for o in json.loads(body)['objects']:
            where = dict(href=f'{self.hub.address}/lfs/{o["oid"]}')
            objects.append(dict(oid=o['oid'], size=o['size'], actions=dict(upload=where)))
        self.answer({'transfer': 'basic', 'objects': objects})

    def store(self, body, oid):
        self.hub.objects[oid] = body
        self.answer({})

    def publish(self, body, kind, name, revision):
        if not self.may_write(): return
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line['value']
            if line['key'] == 'file': files[value['path']] = base64.b64decode(value['content'])
            if line['key'] == 'lfsFile': files[value['path']] = self.hub.objects[value['oid']]
        self.hub.repositories[name].update(files)
        commit = self.hub.commit(name)
        self.answer({'success': True, 'commitOid': commit, 'commitUrl': f'{self.hub.address}/{name}/commit/{commit}'})

    def validate(self, body):
        if 'license: mitt' not in json.loads(body)['content']: return self.answer({'errors': [], 'warnings': []})
        self.answer({'errors': [{'message': '"license" must be one of [apache-2.0, ...]'}], 'warnings': []}, 400)

    NAME = r'([\w.-]+/[\w.-]+)'
    ROUTES = (
        ('GET', rf'/api/(models|spaces)/{NAME}(?:/revision/(.+))?', info),
        ('GET', rf'/{NAME}/resolve/([^/]+)/(.+)', resolve),
        ('POST', r'/api/repos/create', create),
        ('POST', r'/api/validate-yaml', validate),
        ('POST', rf'/api/(models|spaces)/{NAME}/preupload/(.+)', preupload),
        ('POST', rf'/(?:spaces/)?{NAME}\.git/info/lfs/objects/batch', batch),
        ('PUT', r'/lfs/(\w+)', store),
        ('POST', rf'/api/(models|spaces)/{NAME}/commit/(.+)', publish))
