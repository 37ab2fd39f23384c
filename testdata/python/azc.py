"""A reader of azs-courier bundles, written from docs/FORMAT.md and the vectors alone.

It shares nothing with the programs: it is here to hold that the document is enough.
Sections are those of docs/FORMAT.md. Whatever is not spelt as they say raises Refused.

Limit: it opens what is sealed to an X25519 recipient. Python's cryptography has no
ML-KEM, so of hybrid recipients it checks all that stands outside.
"""
import base64, binascii, hashlib, hmac, re, struct, zlib

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils, x25519
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Refused(Exception):
    """The bundle is not as the document says."""


class NotOurs(Exception):
    """The age file has no X25519 recipient that this identity opens."""


def need(ok, why):
    if not ok:
        raise Refused(why)


# 1. Layers: limits

MAX_FILE, MAX_MANIFEST, MAX_LINES, MAX_SIGNATURES, MAX_BLOB = 2 << 20, 4096, 32, 8, 1024
MAX_HEADER, MAX_HEADER_LINES, MAX_PAYLOAD = 32768, 64, 1 << 20

# 2. Lines

KINDS = ('request', 'answer', 'receipt', 'pairing', 'rekey')
CROCKFORD = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
RFC4648 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'


def exact(decode, encode):
    """A type whose every value has one spelling: what decodes must encode again to it."""
    def parse(s):
        try:
            v = decode(s)
        except (ValueError, KeyError, binascii.Error, OverflowError) as e:
            raise Refused('%r: %s' % (s, e))
        need(encode(v) == s, '%r is not the one spelling' % s)
        return v
    return parse


def b64(s):
    return base64.b64decode(s, validate=True)


def unb64(b):
    return base64.b64encode(b).decode()


def id_text(raw):
    return base64.b32encode(raw).decode().rstrip('=').translate(str.maketrans(RFC4648, CROCKFORD))


def id_raw(s):
    need(len(s) == 26 and all(c in CROCKFORD for c in s), '%r is no id' % s)
    return base64.b32decode(s.translate(str.maketrans(CROCKFORD, RFC4648)) + '======')


def hexa(n):
    return lambda s: (need(re.fullmatch('[0-9a-f]{%d}' % (2 * n), s), '%r is no digest' % s), bytes.fromhex(s))[1]


def fingerprint_raw(s):
    need(re.fullmatch(r'SHA256:[A-Za-z0-9+/]{43}', s), '%r is no fingerprint' % s)
    return b64(s[7:] + '=')


def number(s):
    need(re.fullmatch('0|[1-9][0-9]*', s), '%r is no number' % s)
    return int(s)


def when(s):
    m = re.fullmatch(r'(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z', s, re.ASCII)
    need(m, '%r is no time' % s)
    y, mo, d, h, mi, sec = map(int, m.groups())
    leap = y % 4 == 0 and (y % 100 != 0 or y % 400 == 0)
    days = 29 if leap and mo == 2 else (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[mo] if 1 <= mo <= 12 else 0
    need(1 <= d <= days and h < 24 and mi < 60 and sec < 60, '%r is no time' % s)
    return (y, mo, d, h, mi, sec)


def text_encode(b, blanks=False):
    out = []
    for i, c in enumerate(b):
        edge = c == 0x20 and (i == 0 or i == len(b) - 1)
        out.append(chr(c) if 0x20 <= c <= 0x7e and c != 0x25 and not edge and not (blanks and c == 0x20) else '%%%02X' % c)
    s = ''.join(out)
    return '%2D' if s == '-' else s


def text_decode(s):
    need(not re.search(r'%(?![0-9A-F]{2})', s), '%r has a broken escape' % s)
    return re.sub(rb'%([0-9A-F]{2})', lambda m: bytes([int(m.group(1), 16)]), s.encode('ascii'))


def words(s):
    out = []
    for w in s.split(' '):
        need(w != '', 'two blanks in a list')
        b = text_decode(w)
        need(text_encode(b, blanks=True) == w, '%r is not the one spelling' % w)
        out.append(b)
    return out


def flag(s):
    need(s in ('true', 'false'), '%r is no flag' % s)
    return s == 'true'


def count(s):
    n = number(s)
    need(1 <= n <= 2147483647, '%r is no count' % s)
    return n


def one_of(*choices):
    def parse(s):
        need(s in choices, '%r is none of %s' % (s, choices))
        return s
    parse.always = True
    return parse


def present(parse):
    def always(s):
        return parse(s)
    always.always = True
    return always


def at_most(limit, least=0):
    def parse(s):
        n = number(s)
        need(least <= n <= limit, '%s is not from %d to %d' % (s, least, limit))
        return n
    parse.always = True
    return parse


identifier = exact(id_raw, id_text)
digest = exact(hexa(32), bytes.hex)
fingerprint = exact(fingerprint_raw, lambda b: 'SHA256:' + unb64(b).rstrip('='))
octets = exact(b64, unb64)
text = exact(text_decode, text_encode)


def not_zero(parse):
    def f(s):
        v = parse(s)
        need(any(v), 'zero')
        return v
    return f


def body_time(s):
    v = when(s)
    need(v != (1, 1, 1, 0, 0, 0), 'the first second of year 1 is spelt -')
    return v


def header(raw, magic, most_bytes, most_lines):
    """Returns the kind and the (name, value) pairs of a manifest or a body header."""
    need(len(raw) <= most_bytes, 'the header is too long')
    need(raw.endswith(b'\n'), 'the last line has no end')
    lines = raw[:-1].split(b'\n')
    need(len(lines) <= most_lines, 'too many lines')
    first = lines[0]
    need(first.startswith(magic), 'the first line is not of this version')
    kind = first[len(magic):].decode('latin-1')
    need(kind in KINDS, '%r is no kind' % kind)
    fields = []
    for line in lines[1:]:
        m = re.fullmatch(rb'([a-z0-9-]+): ([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)', line)
        need(m, '%r is no line' % line)
        fields.append((m.group(1).decode(), m.group(2).decode()))
    return kind, fields


def by_table(fields, table):
    need([n for n, _ in fields] == [n for n, _ in table], 'the fields are not those of the kind, in their order')
    out = {}
    for (name, value), (_, parse) in zip(fields, table):
        if value == '-':
            need(not getattr(parse, 'always', False), '%s is never absent' % name)
            out[name] = None
        else:
            out[name] = parse(value)
    return out


# 3. Manifest

MANIFEST = [
    ('bundle', present(not_zero(identifier))), ('pair', not_zero(identifier)), ('seq', at_most(2 ** 63 - 1, 1)), ('from', present(fingerprint)),
    ('to', fingerprint), ('re', not_zero(digest)), ('created', present(when)), ('expires', present(when)), ('size', at_most(MAX_FILE)), ('sha256', present(digest)),
]


class Manifest:
    def __init__(self, raw):
        self.raw = raw
        self.kind, fields = header(raw, b'azs-courier/v1 ', MAX_MANIFEST, MAX_LINES)
        self.fields = by_table(fields, MANIFEST)
        card = self.kind == 'pairing'
        need((self.fields['pair'] is None) == card, 'pair is absent in a pairing and nowhere else')
        need((self.fields['to'] is None) == card, 'to is absent in a pairing and nowhere else')
        reply = self.kind in ('answer', 'receipt')
        need((self.fields['re'] is not None) == reply, 're stands in answer and receipt and nowhere else')
        need(reply or self.fields['expires'] >= self.fields['created'], 'expires is before created')
        core = raw[:raw.index(b'\nsize: ') + 1]
        self.context = hashlib.sha256(core).digest()
        self.digest = hashlib.sha256(raw).digest()


# 4. Signatures

NAMESPACE, APPROVAL = b'azs-courier@v1', b'azs-courier-approval@v1'
TYPES = {b'ssh-ed25519': None, b'sk-ssh-ed25519@openssh.com': None,
         b'ecdsa-sha2-nistp256': (ec.SECP256R1(), hashes.SHA256(), b'nistp256'), b'ecdsa-sha2-nistp384': (ec.SECP384R1(), hashes.SHA384(), b'nistp384')}


class Strings:
    """The strings of an SSH wire encoding."""
    def __init__(self, raw):
        self.raw = raw

    def take(self, n):
        need(len(self.raw) >= n, 'it is cut short')
        out, self.raw = self.raw[:n], self.raw[n:]
        return out

    def string(self):
        return self.take(struct.unpack('>I', self.take(4))[0])

    def mpint(self):
        b = self.string()
        need(b and b[0] < 0x80 and any(b) and not (b[0] == 0 and b[1] < 0x80), 'a number is not positive or not in its shortest spelling')
        return int.from_bytes(b, 'big')

    def end(self):
        need(self.raw == b'', 'something follows')


def signature(blob, manifest):
    """Verifies an SSHSIG blob over the manifest; returns the key's wire encoding and the namespace."""
    s = Strings(blob)
    need(s.take(6) == b'SSHSIG' and s.take(4) == b'\0\0\0\1', 'it is no SSHSIG of version 1')
    key, namespace, reserved, algorithm, sig = s.string(), s.string(), s.string(), s.string(), s.string()
    s.end()
    need(reserved == b'' and algorithm == b'sha512', 'reserved is not empty, or the hash is not sha512')
    signed = b'SSHSIG' + b''.join(struct.pack('>I', len(x)) + x for x in (namespace, reserved, algorithm, hashlib.sha512(manifest).digest()))
    k, v = Strings(key), Strings(sig)
    kind = k.string()
    need(kind in TYPES, 'keys of type %r sign nothing' % kind)
    need(v.string() == kind, 'the signature is of another format than its key')
    value = v.string()
    try:
        if kind.endswith(b'ed25519') or kind.startswith(b'sk-'):
            public = k.string()
            need(len(public) == 32 and len(value) == 64, 'an Ed25519 key has 32 bytes and its signature 64')
            if kind.startswith(b'sk-'):
                application = k.string()
                flags = v.take(5)
                need(flags[0] & 1, 'the user of the security key was not present')
                signed = hashlib.sha256(application).digest() + flags + hashlib.sha256(signed).digest()
            ed25519.Ed25519PublicKey.from_public_bytes(public).verify(value, signed)
        else:
            curve, digest_, name = TYPES[kind]
            need(k.string() == name, 'the curve is not that of the type')
            point = k.string()
            need(len(point) == 1 + 2 * (curve.key_size // 8) and point[0] == 4, 'the point is compressed')
            rs = Strings(value)
            r, q = rs.mpint(), rs.mpint()
            rs.end()
            ec.EllipticCurvePublicKey.from_encoded_point(curve, point).verify(utils.encode_dss_signature(r, q), signed, ec.ECDSA(digest_))
    except (InvalidSignature, ValueError) as e:
        raise Refused('the signature does not fit: %r' % e)
    k.end()
    v.end()
    return key, namespace


def signers(kind, blobs, manifest):
    keys, authors = [], 2 if kind == 'rekey' else 1
    for i, blob in enumerate(blobs):
        key, namespace = signature(blob, manifest)
        need(namespace == (NAMESPACE if i < authors else APPROVAL), 'signature %d is in namespace %r' % (i + 1, namespace))
        need(key not in keys, 'a key signed twice')
        keys.append(key)
    need(len(keys) >= authors, 'a signature of the author is missing')
    return keys


# 5 and 6. Text and wire spelling

AGE, BODY = b'age-encryption.org/v1\n', b'azs-courier-body/v1 '


def block(raw, label, width):
    begin, end = b'-----BEGIN %s-----\n' % label, b'-----END %s-----\n' % label
    need(raw.startswith(begin), 'a block %r is missing' % label)
    stop = raw.find(end)
    need(stop >= 0, 'a block %r has no end' % label)
    lines = raw[len(begin):stop]
    try:
        data = base64.b64decode(lines.replace(b'\n', b''), validate=True)
    except binascii.Error as e:
        raise Refused('a block %r is not base64: %s' % (label, e))
    coded = base64.b64encode(data)
    need(data and lines == b''.join(coded[i:i + width] + b'\n' for i in range(0, len(coded), width)), 'a block %r is wrapped otherwise' % label)
    return data, raw[stop + len(end):]


def split_text(raw):
    stop = raw.find(b'\n\n')
    need(stop >= 0, 'there is no empty line behind the manifest')
    manifest, rest = raw[:stop + 1], raw[stop + 2:]
    need(len(manifest) <= MAX_MANIFEST, 'the manifest is too long')
    blobs = []
    while rest.startswith(b'-----BEGIN SSH SIGNATURE-----\n'):
        blob, rest = block(rest, b'SSH SIGNATURE', 70)
        need(len(blob) <= MAX_BLOB, 'a signature is too long')
        blobs.append(blob)
        need(len(blobs) <= MAX_SIGNATURES, 'too many signatures')
    need(blobs, 'there is no signature')
    clear = rest.startswith(b'-----BEGIN AZS-COURIER BODY-----')
    sealed, rest = block(rest, b'AZS-COURIER BODY' if clear else b'AGE ENCRYPTED FILE', 64)
    need(sealed.startswith(BODY if clear else AGE), 'the sealed section is not what its label says')
    need(rest == b'', 'something follows the last line')
    return manifest, blobs, sealed


def split_wire(raw):
    s = Strings(raw)
    s.take(4)
    manifest = s.take(struct.unpack('>H', s.take(2))[0])
    need(len(manifest) <= MAX_MANIFEST and manifest.endswith(b'\n') and b'\n\n' not in manifest, 'the manifest is too long or has an empty line')
    n = s.take(1)[0]
    need(1 <= n <= MAX_SIGNATURES, '%d signatures' % n)
    blobs = []
    for _ in range(n):
        blob = s.take(struct.unpack('>H', s.take(2))[0])
        need(len(blob) <= MAX_BLOB, 'a signature is too long')
        blobs.append(blob)
    sealed = s.string()
    s.end()
    need(sealed.startswith((AGE, BODY)), 'neither age nor a body is in it')
    return manifest, blobs, sealed


def split(raw):
    need(len(raw) <= MAX_FILE, 'the file is too long')
    parts = split_wire(raw) if raw.startswith(b'AZC1') else split_text(raw)
    need(parts[0].startswith(b'azs-courier/v1 '), 'it is no bundle of this version')
    return parts


def wire(manifest, blobs, sealed):
    return (b'AZC1' + struct.pack('>H', len(manifest)) + manifest + bytes([len(blobs)]) +
            b''.join(struct.pack('>H', len(b)) + b for b in blobs) + struct.pack('>I', len(sealed)) + sealed)


# 7. Body

OPERATION = one_of('register', 'unregister', 'renew')
FIELDS = {
    'request': [('label', text), ('operation', OPERATION), ('cloud-id', text), ('stamp-version', text), ('nodes', count), ('billing-model', text),
                ('agreement-number', text), ('usage-reporting', flag), ('marketplace-syndication', flag), ('ms-asset-tag', text), ('token-version', text),
                ('token-sha256', not_zero(digest)), ('expect-subscription', text), ('expect-resource-group', text), ('expect-registration', text), ('note', text), ('card', octets)],
    'answer': [('label', text), ('operation', OPERATION), ('cloud-id', text), ('cloud', text), ('tenant', text), ('subscription', text), ('resource-group', text),
               ('registration', text), ('registration-id', text), ('billing-model', text), ('key-expires', text), ('key-sha256', not_zero(digest)), ('locked', flag),
               ('request-created', body_time), ('request-expires', body_time), ('received', body_time), ('note', text)],
    'receipt': [('label', text), ('outcome', one_of('written', 'applied')), ('cloud-id', text), ('applied', body_time), ('key-sha256', not_zero(digest)),
                ('journal', not_zero(digest)), ('note', text)],
    'pairing': [('role', one_of('agent', 'relay')), ('label', text), ('key', octets), ('recipients', words), ('approvers', words)],
    'rekey': [('card', octets)],
}


def body(raw, manifest):
    """Returns the fields and the payload of a body that was made for the manifest."""
    stop = raw.find(b'\n\n')
    need(stop >= 0, 'the body has no empty line')
    kind, fields = header(raw[:stop + 1], b'azs-courier-body/v1 ', MAX_HEADER, MAX_HEADER_LINES)
    need(kind == manifest.kind, 'the inside is a %s, the outside a %s' % (kind, manifest.kind))
    table = [('context', present(digest))] + FIELDS[kind] + [('encoding', one_of('identity', 'b64-deflate')), ('length', at_most(MAX_PAYLOAD))]
    out = by_table(fields, table)
    need(out['context'] == manifest.context, 'the inside was made for another outside')
    return out, payload(out['encoding'], out['length'], raw[stop + 2:])


# 8. Payload encodings

DICTIONARY_SHA256 = 'cc9690d6d877237647af229be3123df66670938e7a8505d1d6dc20d264fcd608'
dictionary = b''  # set from the document


def leb(n):
    out = b''
    while n >= 0x80:
        out, n = out + bytes([n & 0x7f | 0x80]), n >> 7
    return out + bytes([n])


ALPHABETS = (rb'[A-Za-z0-9+/]*', rb'[A-Za-z0-9_-]*')


def run_kind(run):
    """The first of the four that gives the run back, and the bytes; or None."""
    for kind, url, padded in ((1, False, True), (2, False, False), (3, True, True), (4, True, False)):
        plain = run.translate(bytes.maketrans(b'-_', b'+/')) if url else run
        if url and (b'+' in run or b'/' in run) or not url and (b'-' in run or b'_' in run):
            continue
        try:
            data = base64.b64decode(plain if padded else plain + b'=' * (-len(plain) % 4), validate=True)
        except binascii.Error:
            continue
        coded = base64.b64encode(data)
        if url:
            coded = coded.translate(bytes.maketrans(b'+/', b'-_'))
        if (coded if padded else coded.rstrip(b'=')) == run:
            return kind, data
    return None


def segments(data):
    out, at, literal = [], 0, b''
    while at < len(data):
        n = max(len(re.compile(a).match(data, at).group()) for a in ALPHABETS)
        step = 1
        if n >= 16:
            step = n + len(re.compile(rb'={0,2}').match(data, at + n).group())
            found = run_kind(data[at:at + step])
            if found:
                if literal:
                    out.append((0, literal))
                    literal = b''
                out.append(found)
                at += step
                continue
        literal += data[at:at + step]
        at += step
    return out + [(0, literal)] if literal else out


def table_of(data):
    segs = segments(data)
    return leb(len(segs)) + b''.join(bytes([k]) + leb(len(d)) for k, d in segs) + b''.join(d for _, d in segs)


def rebuild(table):
    at = 0

    def varint():
        nonlocal at
        n = shift = 0
        while True:
            need(at < len(table) and shift < 63, 'the table is cut')
            b = table[at]
            at += 1
            n |= (b & 0x7f) << shift
            shift += 7
            if b < 0x80:
                return n

    heads = []
    for _ in range(varint()):
        need(at < len(table), 'the table is cut')
        kind = table[at]
        at += 1
        need(kind <= 4, 'a segment is of kind %d' % kind)
        heads.append((kind, varint()))
    out = b''
    for kind, n in heads:
        need(at + n <= len(table), 'the table is cut')
        data = table[at:at + n]
        at += n
        if kind:
            coded = base64.b64encode(data)
            if kind >= 3:
                coded = coded.translate(bytes.maketrans(b'+/', b'-_'))
            data = coded if kind in (1, 3) else coded.rstrip(b'=')
        out += data
    need(at == len(table), 'something follows the table')
    return out


def payload(encoding, length, raw):
    if encoding == 'identity':
        need(len(raw) == length, '%d bytes, not the %d that were said' % (len(raw), length))
        return raw
    need(hashlib.sha256(dictionary).hexdigest() == DICTIONARY_SHA256, 'the dictionary is not the one of the document')
    limit = length + length // 128 + 8
    d = zlib.decompressobj(-15, zdict=dictionary)
    try:
        table = d.decompress(raw, limit + 1)
    except zlib.error as e:
        raise Refused('it is no DEFLATE: %s' % e)
    need(len(table) <= limit, 'it inflates to more than was said')
    need(d.eof and not d.unused_data and not d.unconsumed_tail, 'the stream is cut, or something follows it')
    out = rebuild(table)
    need(len(out) == length, '%d bytes, not the %d that were said' % (len(out), length))
    need(table_of(out) == table, 'the text is segmented otherwise')
    return out


# 9. Age (https://age-encryption.org/v1), X25519 recipients

def bech32(s):
    charset = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l'
    s = s.lower()
    hrp, data = s[:s.rindex('1')], [charset.index(c) for c in s[s.rindex('1') + 1:]]
    check = 1
    for v in [ord(c) >> 5 for c in hrp] + [0] + [ord(c) & 31 for c in hrp] + data:
        top, check = check >> 25, (check & 0x1ffffff) << 5 ^ v
        for i, g in enumerate((0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3)):
            check ^= g if top >> i & 1 else 0
    need(check == 1, 'bad checksum')
    bits = ''.join(format(v, '05b') for v in data[:-6])
    return hrp, bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits) // 8 * 8, 8))


def hkdf(key, salt, info, n=32):
    return HKDF(hashes.SHA256(), n, salt, info).derive(key)


def unpadded(s):
    return base64.b64decode(s + b'=' * (-len(s) % 4), validate=True)


def stanzas(sealed):
    """Returns the stanzas of an age file, its header's MAC and where the payload begins."""
    need(sealed.startswith(AGE), 'it is no age file')
    at, out = len(AGE), []
    while True:
        stop = sealed.index(b'\n', at)
        line, at = sealed[at:stop], stop + 1
        if line.startswith(b'--- '):
            return out, unpadded(line[4:]), at
        need(line.startswith(b'-> '), 'the age header is damaged')
        content = b''
        while True:
            stop = sealed.index(b'\n', at)
            row, at = sealed[at:stop], stop + 1
            content += row
            if len(row) < 64:
                break
        out.append((line[3:].split(b' '), unpadded(content)))


def decrypt(sealed, identity):
    hrp, secret = bech32(identity)
    need(hrp == 'age-secret-key-', 'it is no X25519 identity')
    mine = x25519.X25519PrivateKey.from_private_bytes(secret)
    public = mine.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    try:
        found, mac, at = stanzas(sealed)
        need(not any(a[0] == b'scrypt' for a, _ in found), 'there is a passphrase recipient')
        for args, wrapped in found:
            if args[0] != b'X25519' or len(args) != 2:
                continue
            share = unpadded(args[1])
            common = mine.exchange(x25519.X25519PublicKey.from_public_bytes(share))
            try:
                key = ChaCha20Poly1305(hkdf(common, share + public, b'age-encryption.org/v1/X25519')).decrypt(b'\0' * 12, wrapped, None)
            except InvalidTag:
                continue
            break
        else:
            raise NotOurs()
        head = sealed[:sealed.rindex(b'\n--- ', 0, at) + 4]
        need(hmac.compare_digest(hmac.new(hkdf(key, b'', b'header'), head, 'sha256').digest(), mac), 'the age header is damaged')
        stream = ChaCha20Poly1305(hkdf(key, sealed[at:at + 16], b'payload'))
        chunks, at, out, n = sealed, at + 16, b'', 0
        while True:
            chunk, at = chunks[at:at + 65552], at + 65552
            last = at >= len(chunks)
            out += stream.decrypt(n.to_bytes(11, 'big') + bytes([last]), chunk, None)
            if last:
                return out
            n += 1
    except (ValueError, InvalidTag) as e:
        raise Refused('the age file is damaged: %r' % e)


def recipients_fingerprint(recipients):
    return hashlib.sha256(b''.join(r + b'\n' for r in sorted(recipients))).digest()


def pair(agent_card, relay_card):
    return hashlib.sha256(b'azs-courier-pair/v1\n' + hashlib.sha256(agent_card).digest() + hashlib.sha256(relay_card).digest()).digest()[:16]


# 11. Open

class Bundle:
    """Steps 1 to 5 of section 11, and 7 with an identity. The caller's part, step 6, is not here."""

    def __init__(self, raw, pinned=None, pair=None, to=None, kinds=KINDS):
        self.manifest_raw, self.blobs, self.sealed = split(raw)
        peek = self.manifest_raw.split(b'\n')[0].rsplit(b' ', 1)[-1].decode('latin-1')
        self.keys = signers(peek, self.blobs, self.manifest_raw)
        need(pinned is None or self.keys[0] == pinned, 'it is signed by another key than the pinned one')
        self.manifest = m = Manifest(self.manifest_raw)
        need(m.fields['from'] == hashlib.sha256(self.keys[0]).digest(), 'from is not the key of the first signature')
        need(m.kind in kinds, 'a %s is not welcome here' % m.kind)
        if m.kind != 'pairing':
            need(pair is None or m.fields['pair'] == pair, 'it is of another pair')
            need(to is None or m.fields['to'] == to, 'it is for another receiver')
        need(m.fields['size'] == len(self.sealed), '%d of %d sealed bytes' % (len(self.sealed), m.fields['size']))
        need(m.fields['sha256'] == hashlib.sha256(self.sealed).digest(), 'the sealed bytes are not the signed ones')
        need(self.sealed.startswith(BODY) == (m.kind == 'pairing'), 'only a pairing is in clear')
        if m.kind == 'pairing':
            self.fields, self.payload = body(self.sealed, m)
            need(self.fields['key'] == self.keys[0] and len(self.keys) == 1, 'the card is not signed by its own key alone')
            need(self.fields['recipients'], 'the card has no recipient')
        elif not any(a[0] == b'scrypt' for a, _ in self.stanzas()):
            self.fields = self.payload = None
        else:
            raise Refused('there is a passphrase recipient')

    def stanzas(self):
        try:
            return stanzas(self.sealed)[0]
        except ValueError as e:
            raise Refused('the age header is damaged: %s' % e)

    def open(self, identity):
        self.fields, self.payload = body(decrypt(self.sealed, identity), self.manifest)
        return self.fields, self.payload


# 14. Optical frames

BASE45 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:'


def base45(s):
    need(len(s) % 3 == 0 and all(c in BASE45 for c in s), 'it is no base45 of an even length')
    out = b''
    for i in range(0, len(s), 3):
        n = sum(BASE45.index(c) * 45 ** j for j, c in enumerate(s[i:i + 3]))
        need(n <= 65535, 'three digits are too large')
        out += n.to_bytes(2, 'big')
    return out


class Frame:
    def __init__(self, s):
        raw = base45(s)
        need(len(raw) >= 16 and raw[:2] == b'\x0e\x1a', 'it is no frame')
        self.id, self.k, self.n, self.index = raw[2:6], raw[6], raw[7], raw[8]
        self.length = int.from_bytes(raw[9:12], 'big')
        need(zlib.crc32(raw[:12] + raw[16:]) == int.from_bytes(raw[12:16], 'big'), 'the checksum is wrong')
        need(1 <= self.k <= 127 and self.n == min(4 * self.k + 4, 255) and self.index < self.n and self.length > 0, 'its shape is impossible')
        size = -(-self.length // self.k)
        need(-(-self.length // size) == self.k and len(raw) == 16 + size + size % 2, 'its shape is impossible')
        need(not any(raw[16 + size:]), 'its padding is not zero')
        self.shard = raw[16:16 + size]


def field():
    exp, log, x = [0] * 510, [0] * 256, 1
    for i in range(255):
        exp[i] = exp[i + 255] = x
        log[x] = i
        x = x << 1 ^ (0x11d if x & 0x80 else 0)
    return exp, log


EXP, LOG = field()


def times(a, b):
    return EXP[LOG[a] + LOG[b]] if a and b else 0


def join(frames):
    """Joins k different frames of one bundle."""
    first, have = frames[0], {f.index: f for f in frames}
    need(all((f.id, f.k, f.n, f.length) == (first.id, first.k, first.n, first.length) for f in frames), 'they are of several bundles')
    need(len(have) >= first.k, 'frames are missing')
    xs = sorted(have)[:first.k]
    out = b''
    for j in range(first.k):
        if j in have:
            out += have[j].shard
            continue
        row = bytes(len(first.shard))
        for i in xs:  # Lagrange: subtraction is addition
            c = 1
            for o in xs:
                if o != i:
                    c = times(c, times(j ^ o, EXP[255 - LOG[i ^ o]]))
            row = bytes(a ^ times(c, b) for a, b in zip(row, have[i].shard))
        out += row
    need(not any(out[first.length:]), 'the filling is not zero')
    out = out[:first.length]
    need(hashlib.sha256(out).digest()[:4] == first.id, 'they join to something else')
    return out
