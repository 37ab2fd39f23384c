"""A privileged endpoint that shares no code with this project.

NTLM and sealing are those of the C library gss-ntlmssp by GSSAPI; HTTP, XML and
the little PSRP that six cmdlets need are those of Python. Accounts come from the
file that NTLM_USER_FILE names, lines DOMAIN:user:password. Its one argument is

    {"stamp": {"CloudID": "…"}, "token": "…", "odd": false, "cut": "", "idle": 0,
     "certificate": "PEM file", "key": "PEM file"}

odd      answers as a conforming server may and Windows mostly does not: another
         shell id, lower-case ids, other prefixes, no rsp:Shell, fragments
         that are tiny, share a Stream or span replies, timeouts at HTTP 200, empty
         replies, chunks, a host call, a space in the boundaries
cut      an action whose first request acts while its connection is closed
         instead of an answer, such as Receive
idle     seconds after which a quiet connection is closed; "dropped" is printed

It prints its port. At the end of its standard input it prints what it saw:

    {"logins": 1, "shells": 0, "commands": 0, "requests": 20, "ran": [["Cmdlet", {"Name": "value"}]]}

What is not as MS-WSMV and MS-PSRP say is printed on standard error and ends the
connection.
"""
import base64
import hashlib
import json
import re
import ssl
import struct
import sys
import threading
import traceback
import uuid
import xml.etree.ElementTree as ET
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

import gssapi

NTLM = gssapi.OID.from_int_seq("1.3.6.1.4.1.311.2.2.10")
PROTOCOL = "application/HTTP-SPNEGO-session-encrypted"
SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
TRANSFER = "http://schemas.xmlsoap.org/ws/2004/09/transfer"
RESOURCE = "http://schemas.microsoft.com/powershell/PrivilegedEndpoint"
NS = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
    "p": "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd",
    "r": SHELL,
    "c": "http://schemas.microsoft.com/powershell",
    "x": TRANSFER,
    "f": "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault",
}
UNDERSTAND = "{%s}mustUnderstand" % NS["s"]
TIMED_OUT, NO_SHELL = 2150858793, 2150858843

SESSION_CAPABILITY, INIT_POOL, POOL_STATE, PRIVATE_DATA = 0x10002, 0x10004, 0x21005, 0x21009
CREATE_PIPELINE, OUTPUT, PIPELINE_STATE = 0x21006, 0x41004, 0x41006
VERBOSE, PROGRESS, HOST_CALL, HOST_RESPONSE = 0x41008, 0x41010, 0x41100, 0x41101
NOBODY = uuid.UUID(int=0)

job = json.loads(sys.argv[1])
ODD = job.get("odd", False)
lock, telling = threading.Lock(), threading.Lock()
shells = {}
saw = {"logins": 0, "requests": 0, "ran": []}


class Fault(Exception):
    """A WSMan fault with its code."""


def defragment(data, whole):
    """Takes complete fragments and yields the messages; whole keeps the rest."""
    while data:
        number, index, flags, length = struct.unpack(">QQBI", data[:21])
        blob, data = data[21 : 21 + length], data[21 + length :]
        assert len(blob) == length <= 32747, (len(blob), length)
        if flags & 1:
            assert number > whole.get("number", 0) and index == 0 and not whole.get("data")
            whole.update(number=number, next=0, data=b"")
        assert (number, index) == (whole["number"], whole["next"])
        whole.update(next=index + 1, data=whole["data"] + blob)
        if flags & 2:
            message, whole["data"] = whole["data"], b""
            to, kind = struct.unpack("<II", message[:8])
            assert to == 2, to
            pool, owner = uuid.UUID(bytes_le=message[8:24]), uuid.UUID(bytes_le=message[24:40])
            yield kind, pool, owner, ET.fromstring(message[40:].decode("utf-8-sig"))


def member(element, name):
    """A member of an object by its name, N."""
    for group in ("MS", "Props"):
        for child in element.iterfind(group + "/*"):
            if child.get("N") == name:
                return child
    raise AssertionError("no %s in %s" % (name, ET.tostring(element)))


def bag(*members):
    return "<MS>" + "".join(members) + "</MS>"


def text(name, value):
    return '<S N="%s">%s</S>' % (name, escape(value))


class Shell:
    """A shell with its runspace pool, or (owner) one of its commands."""

    def __init__(self, pool, owner=NOBODY):
        self.pool, self.owner, self.whole = pool, owner, {}
        self.replies = []  # each a list of Streams, and whether the command is done
        self.answered = (None, None)  # the last Receive's message id and reply
        self.sent, self.commands = 0, {}

    def message(self, owner, kind, content, size=32747):
        """Fragments of a message to the client, numbered by the shell."""
        self.sent += 1
        pool = NOBODY if kind == SESSION_CAPABILITY else self.pool
        data = struct.pack("<II", 1, kind) + pool.bytes_le + owner.bytes_le
        if ODD or not content.startswith("<S>"):  # a text needs no object around it
            content = '<Obj RefId="0">%s</Obj>' % content
        data += ("\ufeff" + content).encode()
        parts = [data[i : i + size] for i in range(0, len(data), size)]
        return [
            struct.pack(">QQBI", self.sent, i, (i == 0) | (i == len(parts) - 1) << 1, len(p)) + p
            for i, p in enumerate(parts)
        ]

    def queue(self, owner, *messages):
        """Makes the replies in which messages are received."""
        if not ODD:
            out = [f for kind, content in messages for f in self.message(owner.owner, kind, content)]
            done = messages[-1][0] == PIPELINE_STATE
            owner.replies.append((out, "Done" if done else None))
            return
        for n, (kind, content) in enumerate(messages):
            done = "Done" if kind == PIPELINE_STATE else "Running"
            parts = self.message(owner.owner, kind, content, 150)
            owner.replies.append((None, None))  # nothing within the time
            if n % 2 == 0 or len(parts) < 2:
                owner.replies.append(([b"".join(parts)], done))  # all in one Stream
                continue
            owner.replies.append(([], "Running"))
            owner.replies.append((parts[:1], "Running"))  # one message in two replies
            owner.replies.append((parts[1:], done))

    def create(self, messages):
        kinds = []
        for kind, pool, owner, content in messages:
            kinds.append(kind)
            assert pool in (self.pool, NOBODY) and owner == NOBODY
            if kind == SESSION_CAPABILITY:
                assert member(content, "protocolversion").text.startswith("2."), content
        assert kinds == [SESSION_CAPABILITY, INIT_POOL], kinds
        versions = ("protocolversion", "2.3"), ("PSVersion", "2.0"), ("SerializationVersion", "1.1.0.1")
        capability = bag(*('<Version N="%s">%s</Version>' % v for v in versions))
        private = bag('<Obj N="ApplicationPrivateData" RefId="1"><DCT/></Obj>')
        state = bag('<I32 N="RunspaceState">2</I32>')
        self.queue(self, (SESSION_CAPABILITY, capability))
        self.queue(self, (PRIVATE_DATA, private), (POOL_STATE, state))

    def start(self, owner, data):
        """Takes the input of a command, which runs when it is whole."""
        command = self.commands[owner]
        for kind, pool, who, content in defragment(data, self.whole):
            assert pool == self.pool and who == owner, (pool, who)
            if kind == HOST_RESPONSE:
                assert member(content, "ci").text == "7" and member(content, "me") is not None
                self.finish(command)
                continue
            assert kind == CREATE_PIPELINE, hex(kind)
            [stage] = member(member(content, "PowerShell"), "Cmds").findall("LST/Obj")
            assert member(stage, "IsScript").text == "false"
            given = {}
            for a in member(stage, "Args").iterfind("LST/Obj"):
                name, value = member(a, "N"), member(a, "V")
                assert name.tag == "S" and value.tag in ("S", "I32", "B"), ET.tostring(a)
                given[name.text] = value.text or ""
            command.cmdlet, command.given = member(stage, "Cmd").text, given
            saw["ran"].append([command.cmdlet, given])
            if ODD and command.cmdlet == "New-RegistrationToken":
                method = '<Obj N="mi" RefId="1"><TN RefId="0"><T>System.Management.Automation.Remoting.RemoteHostMethodId</T></TN>'
                method += "<ToString>ReadLine</ToString><I32>11</I32></Obj>"
                call = bag('<I64 N="ci">7</I64>', method, '<Obj N="mp" RefId="2"><LST/></Obj>')
                self.queue(command, (HOST_CALL, call))  # and nothing more until it is answered
            else:
                self.finish(command)

    def finish(self, command):
        """What a cmdlet writes."""
        name, out, state = command.cmdlet, [], bag('<I32 N="PipelineState">4</I32>')
        if name == "Get-AzureStackStampInformation":
            stamp = "".join(text(k, v) for k, v in job["stamp"].items())
            out = [(OUTPUT, '<TN RefId="0"><T>System.Management.Automation.PSCustomObject</T></TN>' + bag(stamp, '<I32 N="NumberOfNodes">4</I32>'))]
        elif name == "New-RegistrationToken":
            out = [(OUTPUT, "<S>" + escape(job["token"]) + "</S>")]
        elif name == "New-AzureStackActivation":
            done = [text("Activity", name), text("StatusDescription", "half"), '<I32 N="PercentComplete">50</I32>']
            out = [(PROGRESS, bag(*done)), (VERBOSE, bag(text("InformationalRecord_Message", "the plan runs")))]
        elif name not in ("Set-RegistrationKeyPair", "Remove-AzureStackActivation", "Save-HCILicense"):
            record = '<Obj N="ExceptionAsErrorRecord" RefId="1"><ToString>no such command</ToString>%s</Obj>'
            state = bag('<I32 N="PipelineState">5</I32>', record % bag(text("FullyQualifiedErrorId", "CommandNotFoundException")))
        self.queue(command, *out, (PIPELINE_STATE, state))


def operate(root):
    """Does what an envelope asks for, and returns the action and body of the reply."""
    header, body = root.find("s:Header", NS), root.find("s:Body", NS)
    action = header.find("a:Action", NS)
    resource = header.find("w:ResourceURI", NS)
    size = header.find("w:MaxEnvelopeSize", NS)
    for e in (action, resource, size):
        assert e.get(UNDERSTAND) == "true", ET.tostring(e)
    assert resource.text == RESOURCE and int(size.text) >= 8192, (resource.text, size.text)
    assert re.fullmatch(r"PT\d+(\.\d+)?S", header.findtext("w:OperationTimeout", namespaces=NS))
    session = header.findtext("p:SessionId", namespaces=NS)
    assert session and header.findtext("a:ReplyTo/a:Address", namespaces=NS).endswith("/role/anonymous")
    name = lambda i: str(i) if ODD else str(i).upper()

    if action.text == TRANSFER + "/Create":
        options = {o.get("Name"): o for o in header.iterfind("w:OptionSet/w:Option", NS)}
        assert options["protocolversion"].get("MustComply") == "true"
        asked = body.find("r:Shell", NS)
        assert asked.findtext("r:InputStreams", namespaces=NS) == "stdin pr" and asked.findtext("r:OutputStreams", namespaces=NS) == "stdout"
        pool = uuid.UUID(asked.get("ShellId"))
        shell, shell_id = Shell(pool), uuid.uuid4() if ODD else pool
        shell.create(defragment(base64.b64decode(asked.findtext("c:creationXml", namespaces=NS), validate=True), shell.whole))
        shell.session, shells[shell_id] = session, shell
        told = "" if ODD else "<r:Shell><r:ShellId>%s</r:ShellId><r:State>Connected</r:State></r:Shell>" % name(shell_id)
        return "Create", (
            "<x:ResourceCreated><a:Address>http://endpoint/wsman</a:Address><a:ReferenceParameters><w:ResourceURI>%s</w:ResourceURI>"
            '<w:SelectorSet><w:Selector Name="ShellId">%s</w:Selector></w:SelectorSet></a:ReferenceParameters></x:ResourceCreated>%s'
            % (RESOURCE, name(shell_id), told))

    selector = uuid.UUID(header.findtext("w:SelectorSet/w:Selector[@Name='ShellId']", namespaces=NS))
    if selector not in shells:
        raise Fault(NO_SHELL)
    shell = shells[selector]
    assert shell.session == session
    if action.text == TRANSFER + "/Delete":
        del shells[selector]
        return "Delete", ""

    assert action.text.startswith(SHELL + "/"), action.text
    verb = action.text[len(SHELL) + 1 :]
    if verb == "Command":
        line = body.find("r:CommandLine", NS)
        owner = uuid.UUID(line.get("CommandId"))
        shell.commands[owner] = Shell(shell.pool, owner)
        shell.start(owner, base64.b64decode(line.findtext("r:Arguments", namespaces=NS), validate=True))
        return verb, "<r:CommandResponse><r:CommandId>%s</r:CommandId></r:CommandResponse>" % name(owner)
    if verb == "Send":
        stream = body.find("r:Send/r:Stream", NS)
        assert stream.get("Name") in ("stdin", "pr")
        shell.start(uuid.UUID(stream.get("CommandId")), base64.b64decode(stream.text, validate=True))
        return verb, "<r:SendResponse/>"
    if verb == "Signal":
        signal = body.find("r:Signal", NS)
        assert signal.findtext("r:Code", namespaces=NS).lower().endswith("/signal/terminate")
        del shell.commands[uuid.UUID(signal.get("CommandId"))]
        return verb, "<r:SignalResponse/>"

    assert verb == "Receive", verb
    wanted = body.find("r:Receive/r:DesiredStream", NS)
    assert wanted.text == "stdout"
    of, attribute = shell, ""
    if wanted.get("CommandId"):
        owner = uuid.UUID(wanted.get("CommandId"))
        of, attribute = shell.commands[owner], ' CommandId="%s"' % name(owner)
    message = header.findtext("a:MessageID", namespaces=NS)
    if of.answered[0] != message:
        of.answered = message, of.replies.pop(0) if of.replies else (None, None)
    streams, state = of.answered[1]
    if streams is None:
        raise Fault(TIMED_OUT)
    out = "".join('<r:Stream%s Name="stdout">%s</r:Stream>' % (attribute, base64.b64encode(s).decode()) for s in streams)
    if state and attribute:
        out += '<r:CommandState%s State="%s/CommandState/%s"/>' % (attribute, SHELL, state)
    return verb, "<r:ReceiveResponse>" + out + "</r:ReceiveResponse>"


class Endpoint(BaseHTTPRequestHandler):
    """One TCP connection with its NTLM context."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = job.get("idle") or None
    bindings = None

    def setup(self):
        super().setup()
        credentials = gssapi.Credentials(usage="accept", mechs=[NTLM])
        self.context = gssapi.SecurityContext(creds=credentials, usage="accept", channel_bindings=self.bindings)

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if ODD and body:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for i in range(0, len(body), 700):
                part = body[i : i + 700]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        try:
            self.post()
        except Exception:
            traceback.print_exc()
            self.close_connection = True

    def post(self):
        saw["requests"] += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Negotiate":
            assert not body
            try:
                out = self.context.step(base64.b64decode(token))
            except gssapi.exceptions.GSSError as error:
                print(error, file=sys.stderr)
                return self.answer(401, WWW_Authenticate="Negotiate")
            if self.context.complete:
                saw["logins"] += 1
                return self.answer(200)
            return self.answer(401, WWW_Authenticate="Negotiate " + base64.b64encode(out).decode())
        if not self.context.complete or not self.headers.get("Content-Type", "").startswith("multipart/encrypted;"):
            return self.answer(401, WWW_Authenticate="Negotiate")
        plain = self.unseal(body)
        root = ET.fromstring(plain)
        with lock:
            try:
                verb, content, status = *operate(root), 200
                action = (TRANSFER if verb in ("Create", "Delete") else SHELL) + "/" + verb + "Response"
            except Fault as fault:
                verb, action, status = "fault", NS["w"] + "/fault", 500
                if ODD and fault.args[0] == TIMED_OUT:
                    status = 200
                content = (
                    "<s:Fault><s:Code><s:Value>s:Receiver</s:Value></s:Code><s:Reason><s:Text>fault</s:Text></s:Reason>"
                    '<s:Detail><f:WSManFault Code="%d" Machine="endpoint"/></s:Detail></s:Fault>' % fault.args[0])
        if job.get("cut") == verb:
            job["cut"] = ""
            self.close_connection = True
            return
        relates = root.findtext("s:Header/a:MessageID", namespaces=NS)
        spaces = "".join(' xmlns:%s="%s"' % n for n in NS.items())
        reply = (
            "<s:Envelope%s><s:Header><a:Action>%s</a:Action><a:MessageID>uuid:%s</a:MessageID><a:RelatesTo>%s</a:RelatesTo></s:Header>"
            "<s:Body>%s</s:Body></s:Envelope>" % (spaces, action, uuid.uuid4(), relates.lower() if ODD else relates, content))
        if ODD:
            reply = '<?xml version="1.0" encoding="utf-8"?>\n' + reply.replace("<s:", "<soap:").replace("</s:", "</soap:").replace("xmlns:s=", "xmlns:soap=").replace(">s:Receiver<", ">soap:Receiver<")
        self.seal(status, reply.encode())

    def unseal(self, body):
        head = b"--Encrypted Boundary\r\n\tContent-Type: %b\r\n\tOriginalContent: type=application/soap\\+xml;charset=UTF-8;Length=(\\d+)\r\n"
        head += b"--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n"
        found, end = re.match(head % PROTOCOL.encode(), body), b"--Encrypted Boundary--\r\n"
        assert found and body.endswith(end), body[:400]
        message = body[found.end() : -len(end)]
        assert struct.unpack("<I", message[:4]) == (16,)
        plain, encrypted, _ = self.context.unwrap(message[4:])
        assert encrypted and len(plain) == int(found[1])
        return plain

    def seal(self, status, plain):
        message, encrypted = self.context.wrap(plain, True)
        assert encrypted
        mark, end = (b"-- Encrypted Boundary", b"") if ODD else (b"--Encrypted Boundary", b"\r\n")
        body = mark + b"\r\n\tContent-Type: " + PROTOCOL.encode() + b"\r\n"
        body += b"\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=%d\r\n" % len(plain)
        body += mark + b"\r\n\tContent-Type: application/octet-stream\r\n" + struct.pack("<I", 16) + message + mark + b"--" + end
        kind = 'multipart/encrypted;protocol="%s";boundary="Encrypted Boundary"' % PROTOCOL
        if ODD:
            kind = 'multipart/encrypted; boundary="Encrypted Boundary"; protocol="%s"' % PROTOCOL
        self.answer(status, body, Content_Type=kind)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def shutdown_request(self, request):
        super().shutdown_request(request)
        if job.get("idle"):
            say("dropped")


def say(line):
    with telling:
        print(line, flush=True)


server = Server(("127.0.0.1", 0), Endpoint)
if job.get("certificate"):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(job["certificate"], job["key"])
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    with open(job["certificate"]) as f:
        der = ssl.PEM_cert_to_DER_cert(f.read())
    data = b"tls-server-end-point:" + hashlib.sha256(der).digest()
    Endpoint.bindings = gssapi.raw.ChannelBindings(application_data=data)
say(server.server_address[1])
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
with lock:
    saw.update(shells=len(shells), commands=sum(len(s.commands) for s in shells.values()))
    say(json.dumps(saw))
