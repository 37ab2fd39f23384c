"""An endpoint whose NTLM is that of the C library gss-ntlmssp.

Usage: gss_endpoint.py [CERT.pem KEY.pem]. Accounts come from the file that
NTLM_USER_FILE names, lines DOMAIN:user:password. It prints its port, accepts
logins, unseals envelopes and answers each with "re: " and the envelope, sealed.
With a certificate it speaks TLS and demands its channel bindings. It ends when
its standard input does.
"""
import base64
import hashlib
import re
import ssl
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import gssapi

NTLM = gssapi.OID.from_int_seq("1.3.6.1.4.1.311.2.2.10")
PROTOCOL = "application/HTTP-SPNEGO-session-encrypted"
KIND = 'multipart/encrypted;protocol="%s";boundary="Encrypted Boundary"' % PROTOCOL
HEAD = (
    "--Encrypted Boundary\r\n\tContent-Type: %s\r\n"
    "\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=%%d\r\n"
    "--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n" % PROTOCOL
)
BINDINGS = None


class Endpoint(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        credentials = gssapi.Credentials(usage="accept", mechs=[NTLM])
        self.context = gssapi.SecurityContext(creds=credentials, usage="accept", channel_bindings=BINDINGS)

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Negotiate":
            try:
                out = self.context.step(base64.b64decode(token))
            except gssapi.exceptions.GSSError as error:
                print(error, file=sys.stderr)
                return self.answer(401, WWW_Authenticate="Negotiate")
            if self.context.complete:
                return self.answer(200)
            return self.answer(401, WWW_Authenticate="Negotiate " + base64.b64encode(out).decode())
        if not self.context.complete or self.headers.get("Content-Type") != KIND:
            return self.answer(401, WWW_Authenticate="Negotiate")
        length = int(re.search(rb"Length=(\d+)\r\n", body).group(1))
        head = (HEAD % length).encode()
        end = b"--Encrypted Boundary--\r\n"
        assert body.startswith(head) and body.endswith(end), body[:400]
        message = body[len(head) : -len(end)]
        assert struct.unpack("<I", message[:4]) == (16,)
        plain, encrypted, _ = self.context.unwrap(message[4:])
        assert encrypted and len(plain) == length
        reply = b"re: " + plain
        sealed, encrypted = self.context.wrap(reply, True)
        assert encrypted
        out = (HEAD % len(reply)).encode() + struct.pack("<I", 16) + sealed + end
        self.answer(500 if b"fault" in plain else 200, out, Content_Type=KIND)


server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
server.daemon_threads = True
if len(sys.argv) == 3:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[1], sys.argv[2])
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    with open(sys.argv[1]) as f:
        der = ssl.PEM_cert_to_DER_cert(f.read())
    data = b"tls-server-end-point:" + hashlib.sha256(der).digest()
    BINDINGS = gssapi.raw.ChannelBindings(application_data=data)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
