"""A client of the privileged endpoint that shares no code with this project.

NTLM and sealing are those of the C library gss-ntlmssp by GSSAPI, HTTP and XML
those of Python. It reads a job from standard input:

    {"address": "HOST:PORT", "user": "DOMAIN\\\\NAME", "password": "…", "ca": "PEM or empty",
     "calls": [{"cmdlet": "New-RegistrationToken", "script": false,
                "arguments": [["BillingModel", "Development"], [null, 1]]}]}

It opens a session, runs the calls one after another, deletes the shell, and
writes what it saw:

    {"trips": 20, "requests": 22, "calls": [{"state": 4, "replies": 1,
     "messages": [[type, "CLIXML"]]}]}

Whatever is not as MS-WSMV and MS-PSRP say ends it with an AssertionError.
"""
import base64
import hashlib
import http.client
import json
import re
import ssl
import struct
import sys
import uuid
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

import gssapi
from gssapi.raw import ChannelBindings, acquire_cred_with_password

NTLM = gssapi.OID.from_int_seq("1.3.6.1.4.1.311.2.2.10")
FLAGS = gssapi.RequirementFlag
PROTOCOL = "application/HTTP-SPNEGO-session-encrypted"
KIND = 'multipart/encrypted;protocol="%s";boundary="Encrypted Boundary"' % PROTOCOL
BOUNDARY = b"--Encrypted Boundary"

SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
TRANSFER = "http://schemas.xmlsoap.org/ws/2004/09/transfer/"
NS = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
    "p": "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd",
    "rsp": SHELL,
    "f": "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault",
}
TIMED_OUT = "2150858793"

SESSION_CAPABILITY, INIT_POOL, POOL_STATE = 0x10002, 0x10004, 0x21005
PRIVATE_DATA, CREATE_PIPELINE, PIPELINE_STATE = 0x21009, 0x21006, 0x41006
NOBODY = uuid.UUID(int=0)


class Connection:
    """One TCP connection, one NTLM context, one sealed message at a time."""

    def __init__(self, job):
        host = job["address"].rsplit(":", 1)[0]
        self.requests, bindings = 0, None
        if job.get("ca"):
            trust = ssl.create_default_context(cadata=job["ca"])
            self.http = http.client.HTTPSConnection(job["address"], timeout=90, context=trust)
            self.http.connect()
            # tls-server-end-point of RFC 5929, for a certificate signed with SHA-256.
            certificate = hashlib.sha256(self.http.sock.getpeercert(True)).digest()
            bindings = ChannelBindings(application_data=b"tls-server-end-point:" + certificate)
        else:
            self.http = http.client.HTTPConnection(job["address"], timeout=90)
        name = gssapi.Name(job["user"], gssapi.NameType.user)
        known = acquire_cred_with_password(name, job["password"].encode(), mechs=[NTLM], usage="initiate")
        self.context = gssapi.SecurityContext(
            name=gssapi.Name("HTTP@" + host, gssapi.NameType.hostbased_service),
            creds=gssapi.Credentials(known.creds),
            mech=NTLM,
            usage="initiate",
            flags=FLAGS.confidentiality | FLAGS.integrity | FLAGS.replay_detection | FLAGS.out_of_sequence_detection,
            channel_bindings=bindings,
        )
        status, header, _ = self.negotiate(self.context.step())
        assert status == 401, "the challenge came with HTTP status %d" % status
        scheme, _, challenge = header.get("WWW-Authenticate").partition(" ")
        assert scheme == "Negotiate", scheme
        status, _, _ = self.negotiate(self.context.step(base64.b64decode(challenge)))
        assert status == 200, "the login was answered with HTTP status %d" % status
        assert self.context.complete

    def negotiate(self, token):
        return self.post(b"", {"Authorization": "Negotiate " + base64.b64encode(token).decode()})

    def post(self, body, header):
        self.requests += 1
        self.http.request("POST", "/wsman", body, header)
        reply = self.http.getresponse()
        return reply.status, reply.headers, reply.read()

    def exchange(self, envelope):
        """Seals an envelope, and returns the status and the unsealed reply."""
        sealed = self.context.wrap(envelope, True)
        assert sealed.encrypted
        length = b"\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=%d\r\n"
        head = BOUNDARY + b"\r\n\tContent-Type: " + PROTOCOL.encode() + b"\r\n" + length
        head += BOUNDARY + b"\r\n\tContent-Type: application/octet-stream\r\n"
        tail = BOUNDARY + b"--\r\n"
        body = head % len(envelope) + struct.pack("<I", 16) + sealed.message + tail
        status, header, reply = self.post(body, {"Content-Type": KIND, "Accept-Encoding": "identity"})
        assert header.get("Content-Type") == KIND, (status, header.items(), reply[:200])
        stated = int(re.search(rb"Length=(\d+)\r\n", reply).group(1))
        assert reply.startswith(head % stated) and reply.endswith(tail), reply[:400]
        message = reply[len(head % stated) : -len(tail)]
        assert struct.unpack("<I", message[:4]) == (16,)
        plain = self.context.unwrap(message[4:])
        assert plain.encrypted and len(plain.message) == stated
        return status, plain.message


def enumeration(name, kind, text, number, ref):
    """An enumeration's value. Every one brings its type names along."""
    types = "".join("<T>%s</T>" % t for t in (kind, "System.Enum", "System.ValueType", "System.Object"))
    return '<Obj N="%s" RefId="%d"><TN RefId="%d">%s</TN><ToString>%s</ToString><I32>%d</I32></Obj>' % (
        name, ref, ref, types, text, number)


AUTOMATION = "System.Management.Automation."
APARTMENT = enumeration("ApartmentState", AUTOMATION + "Runspaces.ApartmentState", "Unknown", 2, 2)
NO_HOST = '<Obj N="HostInfo" RefId="3"><MS>%s</MS></Obj>' % "".join(
    '<B N="%s">true</B>' % n for n in ("_isHostNull", "_isHostUINull", "_isHostRawUINull", "_useRunspaceHost"))
CAPABILITY = (
    '<Obj RefId="0"><MS><Version N="protocolversion">2.3</Version><Version N="PSVersion">2.0</Version>'
    '<Version N="SerializationVersion">1.1.0.1</Version></MS></Obj>')
POOL = (
    '<Obj RefId="0"><MS><I32 N="MinRunspaces">1</I32><I32 N="MaxRunspaces">1</I32>'
    + enumeration("PSThreadOptions", AUTOMATION + "Runspaces.PSThreadOptions", "Default", 0, 1)
    + APARTMENT + NO_HOST + '<Nil N="ApplicationArguments"/></MS></Obj>')


def value(v):
    if v is None:
        return '<Nil N="V"/>'
    if isinstance(v, bool):
        return '<B N="V">%s</B>' % str(v).lower()
    if isinstance(v, int):
        return '<I32 N="V">%d</I32>' % v
    return '<S N="V">%s</S>' % escape(v)


def pipeline(cmdlet, script, arguments):
    """The CLIXML of CREATE_PIPELINE with one command."""
    merges = "".join(
        enumeration(n, AUTOMATION + "Runspaces.PipelineResultTypes", "None", 0, 20 + i)
        for i, n in enumerate(("MergeMyResult", "MergeToResult", "MergePreviousResults", "MergeError",
                               "MergeWarning", "MergeVerbose", "MergeDebug", "MergeInformation")))
    given = "".join(
        '<Obj RefId="%d"><MS>%s%s</MS></Obj>' % (50 + i, '<S N="N">%s</S>' % escape(n) if n else '<Nil N="N"/>', value(v))
        for i, (n, v) in enumerate(arguments))
    types = '<TN RefId="%d"><T>System.Collections.ArrayList</T><T>System.Object</T></TN>'
    command = (
        '<Obj RefId="6"><MS><S N="Cmd">%s</S><B N="IsScript">%s</B><Nil N="UseLocalScope"/>%s'
        '<Obj N="Args" RefId="7"><TNRef RefId="9"/><LST>%s</LST></Obj></MS></Obj>'
        % (escape(cmdlet), str(script).lower(), merges, given))
    return (
        '<Obj RefId="0"><MS><B N="NoInput">true</B>' + APARTMENT
        + enumeration("RemoteStreamOptions", AUTOMATION + "Runspaces.RemoteStreamOptions", "0", 0, 1)
        + '<B N="AddToHistory">false</B>' + NO_HOST
        + '<Obj N="PowerShell" RefId="4"><MS><B N="IsNested">false</B><Nil N="ExtraCmds"/><Obj N="Cmds" RefId="5">'
        + types % 9 + "<LST>" + command + '</LST></Obj><Nil N="History"/><B N="RedirectShellErrorOutputPipe">false</B>'
        '</MS></Obj><B N="IsNested">false</B></MS></Obj>')


class Session:
    """A runspace pool in a shell of its own."""

    def __init__(self, connection, address):
        self.connection, self.address = connection, address
        self.session, self.pool, self.shell = uuid.uuid4(), uuid.uuid4(), None
        self.sent = self.seen = self.trips = 0  # objects out and in, round trips
        data = b"".join(self.fragments(SESSION_CAPABILITY, NOBODY, CAPABILITY) + self.fragments(INIT_POOL, NOBODY, POOL))
        body = self.call(
            TRANSFER + "Create",
            '<rsp:Shell ShellId="%s"><rsp:InputStreams>stdin pr</rsp:InputStreams><rsp:OutputStreams>stdout</rsp:OutputStreams>'
            '<creationXml xmlns="http://schemas.microsoft.com/powershell">%s</creationXml></rsp:Shell>'
            % (str(self.pool).upper(), base64.b64encode(data).decode()),
            {"protocolversion": "2.3"})
        self.shell = body.find(".//w:Selector[@Name='ShellId']", NS).text
        types, state = [], None
        while state != "2":
            replies, done = self.receive(None)
            assert not done
            for kind, data in replies:
                types.append(kind)
                if kind == POOL_STATE:
                    state = ET.fromstring(data).find("MS/I32[@N='RunspaceState']").text
        assert types == [SESSION_CAPABILITY, PRIVATE_DATA, POOL_STATE], [hex(k) for k in types]

    def call(self, action, body, options=None, timeout_is_fine=False):
        """One round trip; returns the reply's Body, or None for a timeout."""
        self.trips += 1
        message = "uuid:" + str(uuid.uuid4()).upper()
        shell = '<w:SelectorSet><w:Selector Name="ShellId">%s</w:Selector></w:SelectorSet>' % self.shell if self.shell else ""
        chosen = "".join('<w:Option Name=%s MustComply="true">%s</w:Option>' % (quoteattr(k), escape(v)) for k, v in (options or {}).items())
        if chosen:
            chosen = '<w:OptionSet s:mustUnderstand="true">%s</w:OptionSet>' % chosen
        spaces = "".join(' xmlns:%s="%s"' % (k, v) for k, v in NS.items())
        envelope = (
            "<s:Envelope%s><s:Header>"
            '<a:Action s:mustUnderstand="true">%s</a:Action><a:To>http://%s/wsman</a:To>'
            "<a:ReplyTo><a:Address>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>"
            "<a:MessageID>%s</a:MessageID>"
            '<w:ResourceURI s:mustUnderstand="true">http://schemas.microsoft.com/powershell/PrivilegedEndpoint</w:ResourceURI>'
            '<w:MaxEnvelopeSize s:mustUnderstand="true">153600</w:MaxEnvelopeSize><w:OperationTimeout>PT20S</w:OperationTimeout>'
            '<w:Locale s:mustUnderstand="false" xml:lang="en-US"/><p:DataLocale s:mustUnderstand="false" xml:lang="en-US"/>'
            '<p:SessionId s:mustUnderstand="false">uuid:%s</p:SessionId>%s%s</s:Header><s:Body>%s</s:Body></s:Envelope>'
            % (spaces, action, self.address, message, str(self.session).upper(), shell, chosen, body))
        status, reply = self.connection.exchange(envelope.encode())
        root = ET.fromstring(reply)
        relates = root.findtext("s:Header/a:RelatesTo", namespaces=NS)
        assert relates and relates.upper() == message.upper(), (relates, message)
        found = root.find("s:Body", NS)
        fault = found.find("s:Fault", NS)
        assert (status == 500) == (fault is not None), (status, reply)
        if fault is not None:
            code = fault.find(".//f:WSManFault", NS).get("Code")
            assert timeout_is_fine and code == TIMED_OUT, reply
            return None
        assert status == 200, status
        return found

    def fragments(self, kind, pipeline, text):
        """A message to the server as fragments of at most 32 KiB."""
        self.sent += 1
        data = struct.pack("<II", 2, kind) + self.pool.bytes_le + pipeline.bytes_le + text.encode()
        size, out = 32768 - 21, []
        for start in range(0, len(data), size):
            blob = data[start : start + size]
            flags = (start == 0) | (start + size >= len(data)) << 1
            out.append(struct.pack(">QQBI", self.sent, len(out), flags, len(blob)) + blob)
        return out

    def receive(self, command):
        """One Receive: the whole messages, and whether the command is done. A
        message of several fragments must be whole at the end of the reply here,
        since nothing that the cmdlets write is larger than an envelope."""
        which = ' CommandId="%s"' % command if command else ""
        body = self.call(SHELL + "/Receive", "<rsp:Receive><rsp:DesiredStream%s>stdout</rsp:DesiredStream></rsp:Receive>" % which,
                         {"WSMAN_CMDSHELL_OPTION_KEEPALIVE": "TRUE"}, timeout_is_fine=True)
        if body is None:
            return [], False
        out, rest = [], b""
        for stream in body.iterfind("rsp:ReceiveResponse/rsp:Stream", NS):
            assert stream.get("CommandId") == command and stream.get("Name") == "stdout"
            fragment = base64.b64decode(stream.text, validate=True)
            number, index, flags, length = struct.unpack(">QQBI", fragment[:21])
            assert length == len(fragment) - 21 and len(fragment) <= 32768
            if flags & 1:
                assert not rest and number > self.seen and index == 0, (number, self.seen, index)
                self.seen, expected = number, 0
            assert number == self.seen and index == expected, (number, index)
            rest, expected = rest + fragment[21:], expected + 1
            if flags & 2:
                out.append(self.message(rest, uuid.UUID(command) if command else NOBODY))
                rest = b""
        assert not rest
        state = body.find("rsp:ReceiveResponse/rsp:CommandState", NS)
        return out, state is not None and state.get("State") == SHELL + "/CommandState/Done"

    def message(self, data, pipeline):
        to, kind = struct.unpack("<II", data[:8])
        pool, owner = uuid.UUID(bytes_le=data[8:24]), uuid.UUID(bytes_le=data[24:40])
        assert to == 1 and owner == pipeline, (to, owner, pipeline)
        assert pool == self.pool or (kind == SESSION_CAPABILITY and pool == NOBODY), pool
        assert data[40:43] == b"\xef\xbb\xbf", data[40:50]
        text = data[43:].decode()
        ET.fromstring(text)
        return kind, text

    def run(self, cmdlet, script, arguments):
        """Runs one command to its end."""
        owner = uuid.uuid4()
        command = str(owner).upper()
        first, *more = self.fragments(CREATE_PIPELINE, owner, pipeline(cmdlet, script, arguments))
        body = self.call(
            SHELL + "/Command",
            '<rsp:CommandLine CommandId="%s"><rsp:Command/><rsp:Arguments>%s</rsp:Arguments></rsp:CommandLine>'
            % (command, base64.b64encode(first).decode()))
        assert body.findtext("rsp:CommandResponse/rsp:CommandId", namespaces=NS).upper() == command
        for fragment in more:
            body = self.call(SHELL + "/Send", '<rsp:Send><rsp:Stream Name="stdin" CommandId="%s">%s</rsp:Stream></rsp:Send>'
                             % (command, base64.b64encode(fragment).decode()))
            assert body.find("rsp:SendResponse", NS) is not None
        messages, replies, done = [], 0, False
        while not done:
            got, done = self.receive(command)
            messages += got
            replies += 1
        body = self.call(SHELL + "/Signal", '<rsp:Signal CommandId="%s"><rsp:Code>%s/signal/terminate</rsp:Code></rsp:Signal>' % (command, SHELL))
        assert body.find("rsp:SignalResponse", NS) is not None
        states = [ET.fromstring(x).find("MS/I32[@N='PipelineState']").text for k, x in messages if k == PIPELINE_STATE]
        assert len(states) == 1 and messages[-1][0] == PIPELINE_STATE, [hex(k) for k, _ in messages]
        return {"state": int(states[0]), "replies": replies, "messages": messages}

    def close(self):
        self.call(TRANSFER + "Delete", "")


job = json.load(sys.stdin)
connection = Connection(job)
session = Session(connection, job["address"])
calls = [session.run(c["cmdlet"], c.get("script", False), c.get("arguments") or []) for c in job["calls"]]
session.close()
json.dump({"trips": session.trips, "requests": connection.requests, "calls": calls}, sys.stdout)
