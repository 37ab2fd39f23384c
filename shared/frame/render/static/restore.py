import base64, hashlib, sys, zlib
digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
shards = {}
for line in sys.stdin:
    t = line.rstrip("\r\n")
    b = b""
    for i in range(0, len(t), 3):
        x, y, z = (digits.index(c) for c in t[i:i+3])
        b += (x + 45*y + 2025*z).to_bytes(2, "big")
    if zlib.crc32(b[:12] + b[16:]) != int.from_bytes(b[12:16], "big"):
        sys.exit("a code was misread: " + t)
    id, k, length = b[2:6], b[6], int.from_bytes(b[9:12], "big")
    shards[b[8]] = b[16:16 + (length + k - 1)//k]
lost = [i for i in range(k) if i not in shards]
if lost:
    sys.exit("codes with these indexes are missing: %s" % lost)
wire = b"".join(shards[i] for i in range(k))[:length]
if hashlib.sha256(wire).digest()[:4] != id:
    sys.exit("the codes are not of one bundle")
at = 4
def take(n):
    global at
    at += n
    return wire[at-n:at]
def number(n):
    return int.from_bytes(take(n), "big")
def armor(label, data, width):
    s = base64.b64encode(data).decode()
    lines = [s[i:i+width] for i in range(0, len(s), width)]
    return "\n".join(["-----BEGIN %s-----" % label] + lines + ["-----END %s-----\n" % label])
text = take(number(2)).decode() + "\n"
for i in range(number(1)):
    text += armor("SSH SIGNATURE", take(number(2)), 70)
sealed = take(number(4))
text += armor("AGE ENCRYPTED FILE" if sealed[:3] == b"age" else "AZS-COURIER BODY", sealed, 64)
open("bundle.azc", "w", newline="\n").write(text)
