"""Holds azc.py against the vectors: check.py TESTDATA FORMAT.md INSIDES [FILE IDENTITY PAYLOAD-SHA256]…

Prints what it wrongly refused or took, and at its end one line with the names of the
bad-* files that it took. What is sealed by ML-KEM, INSIDES has in clear, NAME.inside
for each. Every further triple is a bundle that is opened with an X25519 identity.
"""
import hashlib, json, re, sys, base64
from pathlib import Path

import azc

testdata, document, insides = map(Path, sys.argv[1:4])
golden, vectors = testdata / 'golden', testdata / 'vectors'
azc.dictionary = next(line for line in document.read_bytes().split(b'\n') if hashlib.sha256(line).hexdigest() == azc.DICTIONARY_SHA256)
given = json.loads((vectors / 'vectors.json').read_text())
failed = 0


def check(ok, *why):
    global failed
    if not ok:
        failed += 1
        print('WRONG', *why)


def key(name):
    return base64.b64decode((vectors / 'keys' / (name + '.pub')).read_text().split()[1])


def to(name):
    return azc.recipients_fingerprint((vectors / 'keys' / (name + '.age.pub')).read_bytes().split())


pair = azc.pair((golden / 'good-pairing.azcw').read_bytes(), (golden / 'good-pairing-relay.azcw').read_bytes())


def opened(path):
    """As the receiver of its kind would: a request, a receipt and a rekey come from the agent."""
    raw = path.read_bytes()
    first = raw[:64].split(b'\n')[0]
    if b'pairing' in first:
        return azc.Bundle(raw)
    answer = b' answer' in first
    return azc.Bundle(raw, key('relay' if answer else 'agent'), pair, to('agent' if answer else 'relay'))


for want in given['Bundles']:
    name = want['Name']
    try:
        b, w = opened(golden / (name + '.azc')), opened(golden / (name + '.azcw'))
        m = b.manifest
        check((b.manifest_raw, b.blobs, b.sealed) == (w.manifest_raw, w.blobs, w.sealed), name, 'has two spellings of two bundles')
        check(azc.wire(b.manifest_raw, b.blobs, b.sealed) == (golden / (name + '.azcw')).read_bytes(), name, 'is written otherwise')
        check(b.manifest_raw.decode() == want['Manifest'] and m.context.hex() == want['Context'] and m.digest.hex() == want['Digest'], name, 'manifest')
        check([azc.unb64(x) for x in b.blobs] == want['Signatures'], name, 'signatures')
        check(hashlib.sha256(b.sealed).hexdigest() == want['SealedSHA256'], name, 'sealed')
        inside = want['BodyHeader'].encode() + (base64.b64decode(want['Deflated']) if want['Encoding'] == 'b64-deflate' else b'')
        fields, payload = azc.body(inside, m)
        check(payload.decode() == want['Payload'], name, 'payload')
        if want['Payload']:
            check(azc.table_of(payload) == base64.b64decode(want['Table']), name, 'table')
        if fields.get('card') and 'card' in fields:
            card = azc.Bundle(fields['card'])
            check(card.manifest.kind == 'pairing', name, 'holds no card')
        if m.kind == 'pairing':
            check(b.fields == fields, name, 'is read otherwise')
    except azc.Refused as e:
        check(False, name, 'is refused:', e)
for s in given['Segments']:
    check(azc.table_of(s['Text'].encode()).hex() == s['TableHex'], 'segments of', s['Text'][:40])
    check(azc.rebuild(bytes.fromhex(s['TableHex'])) == s['Text'].encode(), 'rebuilt', s['Text'][:40])
for i in given['IDs']:
    check(azc.id_text(bytes.fromhex(i['Hex'])) == i['ID'] and azc.identifier(i['ID']).hex() == i['Hex'], 'id', i['ID'])

for s in json.loads((vectors / 'frames.json').read_text())['Sets']:
    frames, wire = [azc.Frame(t) for t in s['Frames']], base64.b64decode(s['Wire'])
    check(len(frames) == s['N'] and azc.join(frames[:s['K']]) == wire, 'frames of', s['Name'])
    check(azc.join(frames[-s['K']:]) == wire and azc.join(frames[1::2][:s['K']]) == wire, 'other frames of', s['Name'])

taken, refused = [], 0
for path in sorted(golden.glob('bad-*.azc*')):
    try:
        b, inside = opened(path), insides / (path.name + '.inside')
        if inside.exists():
            azc.body(inside.read_bytes(), b.manifest)
        taken.append(path.name)
    except azc.Refused:
        refused += 1

more = sys.argv[4:]
for path, identity, digest in zip(more[::3], more[1::3], more[2::3]):
    raw = Path(path).read_bytes()
    b = azc.Bundle(raw)
    _, payload = b.open(identity)
    check(hashlib.sha256(payload).hexdigest() == digest, path, 'holds another payload')
    for i in range(0, len(b.sealed), 97):  # what was edited behind the signature, and inside
        edited = b.sealed[:i] + bytes([b.sealed[i] ^ 1]) + b.sealed[i + 1:]
        try:
            azc.body(azc.decrypt(edited, identity), b.manifest)
            check(False, path, 'is opened though byte', i, 'of its sealed section was edited')
        except (azc.Refused, azc.NotOurs):
            pass

print('%d good, %d bad refused, taken: %s' % (len(given['Bundles']), refused, ' '.join(taken)))
sys.exit(1 if failed else 0)
