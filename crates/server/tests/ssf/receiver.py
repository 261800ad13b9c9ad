"""A receiver of security events that shares no code with the transmitter.

verify URL ROOT AUDIENCE TOKEN...   verifies tokens by PyJWT and by python-jose with the keys that the server
                                    publishes, and prints the claims of each on a line.
serve URL ROOT AUDIENCE CERTIFICATE KEY PORT
                                    takes what is pushed, and prints the claims of each token on a line. Each line
                                    of its own input is the answer to one more request: "202", or a status and an
                                    error in place of it.
"""

import http.server
import json
import ssl
import sys
import urllib.request

import jose.jws
import jwt


def fetch(url, root):
    context = ssl.create_default_context(cafile=root)
    with urllib.request.urlopen(url, context=context) as answer:
        return json.load(answer)


class Judge:
    def __init__(self, url, root, audience):
        metadata = fetch(url + "/.well-known/ssf-configuration", root)
        assert metadata["spec_version"] == "1_0" and metadata["issuer"] == url, metadata
        self.url, self.audience = url, audience
        self.keys = fetch(metadata["jwks_uri"], root)
        self.set = jwt.PyJWKSet.from_dict(self.keys)

    def claims(self, token):
        header = jwt.get_unverified_header(token)
        assert header["typ"] == "secevent+jwt", header
        key = self.set[header["kid"]]
        required = ["iss", "iat", "jti", "aud", "sub_id", "events"]
        claims = jwt.decode(
            token, key, algorithms=["ES256"], audience=self.audience, issuer=self.url, options={"require": required}
        )
        assert "sub" not in claims and "exp" not in claims, claims
        assert len(claims["events"]) == 1, claims
        second = json.loads(jose.jws.verify(token, self.keys, algorithms=["ES256"]))
        assert second == claims
        return claims


def say(value):
    print(json.dumps(value), flush=True)


def verify(judge, tokens):
    for token in tokens:
        say(judge.claims(token))


def serve(judge, certificate, key, port):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            assert self.headers["Content-Type"] == "application/secevent+jwt", self.headers
            body = self.rfile.read(int(self.headers["Content-Length"]))
            claims = judge.claims(body.decode())
            say({"claims": claims, "authorization": self.headers["Authorization"], "path": self.path})
            status, _, error = sys.stdin.readline().strip().partition(" ")
            answer = json.dumps({"err": error, "description": "told to"}).encode() if error else b""
            self.send_response(int(status))
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    server = http.server.HTTPServer(("127.0.0.1", int(port)), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    say({"listening": port})
    server.serve_forever()


def main():
    command, url, root, audience, *rest = sys.argv[1:]
    judge = Judge(url, root, audience)
    if command == "verify":
        verify(judge, rest)
    else:
        serve(judge, *rest)


main()
