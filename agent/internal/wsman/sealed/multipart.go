package sealed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The form of a sealed body ([MS-WSMV] 2.2.9.1): two parts between lines
// "--Encrypted Boundary", their header lines indented by a tab and no blank line
// anywhere.
const (
	boundary      = "--Encrypted Boundary"
	protocol      = "application/HTTP-SPNEGO-session-encrypted"
	contentType   = `multipart/encrypted;protocol="` + protocol + `";boundary="Encrypted Boundary"`
	signatureSize = 16
)

// MaxBody is the most bytes of a reply that are read: far over the largest
// envelope that is asked for.
const MaxBody = 4 << 20

// encodeBody spells a sealed message of plain bytes.
func encodeBody(plain int, signature, sealed []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\r\n\tContent-Type: %s\r\n\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=%d\r\n", boundary, protocol, plain)
	fmt.Fprintf(&b, "%s\r\n\tContent-Type: application/octet-stream\r\n", boundary)
	var size [4]byte
	binary.LittleEndian.PutUint32(size[:], uint32(len(signature)))
	b.Write(size[:])
	b.Write(signature)
	b.Write(sealed)
	b.WriteString(boundary + "--\r\n")
	return b.Bytes()
}

// decodeBody reads a sealed body of exactly one message and returns the length
// of the plain text that it states, the signature and the sealed bytes. Some
// servers write a blank behind the two hyphens of a boundary.
func decodeBody(contentType string, body []byte) (plain int, signature, sealed []byte, err error) {
	if !isSealed(contentType) {
		return 0, nil, nil, fmt.Errorf("the reply is not sealed: its content type is %q", contentType)
	}
	bad := func(what string) error { return fmt.Errorf("the sealed reply is damaged: %s", what) }
	body, ok := cutBoundary(body)
	if !ok {
		return 0, nil, nil, bad("it does not start with the boundary")
	}
	header, rest, err := headers(body)
	if err != nil {
		return 0, nil, nil, err
	}
	original, ok := header["originalcontent"]
	if !ok || !strings.EqualFold(header["content-type"], protocol) {
		return 0, nil, nil, bad("its first part is not the description")
	}
	plain = -1
	for _, field := range strings.Split(original, ";") {
		if name, value, _ := strings.Cut(strings.TrimSpace(field), "="); strings.EqualFold(name, "Length") {
			if plain, err = strconv.Atoi(value); err != nil || plain < 0 || plain > MaxBody {
				return 0, nil, nil, bad("the length that it states is out of range")
			}
		}
	}
	if plain < 0 {
		return 0, nil, nil, bad("it states no length")
	}
	if rest, ok = cutBoundary(rest); !ok {
		return 0, nil, nil, bad("its second part is missing")
	}
	const octets = "\tContent-Type: application/octet-stream\r\n"
	if len(rest) < len(octets) || !strings.EqualFold(string(rest[:len(octets)]), octets) {
		return 0, nil, nil, bad("its second part is not the message")
	}
	rest = rest[len(octets):]
	// The sealed bytes may hold anything, so the end is looked for from behind.
	rest = bytes.TrimSuffix(rest, []byte("\r\n"))
	for _, end := range []string{boundary + "--", "-- Encrypted Boundary--"} {
		if data, found := bytes.CutSuffix(rest, []byte(end)); found {
			if len(data) < 4+signatureSize || binary.LittleEndian.Uint32(data) != signatureSize {
				return 0, nil, nil, bad("its signature is not of 16 bytes")
			}
			return plain, data[4 : 4+signatureSize], data[4+signatureSize:], nil
		}
	}
	return 0, nil, nil, bad("it has no end")
}

func isSealed(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(kind), "multipart/encrypted") && strings.Contains(contentType, protocol)
}

func cutBoundary(b []byte) ([]byte, bool) {
	for _, start := range []string{boundary + "\r\n", "-- Encrypted Boundary\r\n"} {
		if rest, ok := bytes.CutPrefix(b, []byte(start)); ok {
			return rest, true
		}
	}
	return nil, false
}

// headers reads the indented lines of a part.
func headers(b []byte) (map[string]string, []byte, error) {
	out := map[string]string{}
	for len(b) > 0 && (b[0] == '\t' || b[0] == ' ') {
		line, rest, ok := bytes.Cut(b, []byte("\r\n"))
		name, value, colon := strings.Cut(strings.TrimSpace(string(line)), ":")
		if !ok || !colon || len(out) == 8 {
			return nil, nil, errors.New("the sealed reply is damaged: a header line is not one")
		}
		out[strings.ToLower(name)] = strings.TrimSpace(value)
		b = rest
	}
	return out, b, nil
}
