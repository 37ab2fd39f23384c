package sealed

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// The form of a sealed body ([MS-WSMV] 2.2.9.1): two parts between lines
// "--Encrypted Boundary", their header lines indented by a tab and no blank line
// anywhere. What is read may leave the tab out, write a blank line behind the
// header as MIME does, and a blank behind the hyphens of a boundary, as Exchange
// does.
const (
	boundary      = "--Encrypted Boundary"
	spaced        = "-- Encrypted Boundary"
	protocol      = "application/HTTP-SPNEGO-session-encrypted"
	contentType   = `multipart/encrypted;protocol="` + protocol + `";boundary="Encrypted Boundary"`
	signatureSize = 16
	maxLine       = 1 << 10
)

// MaxBody is the most bytes of a reply that are read: far over the largest
// envelope that is asked for.
const MaxBody = 2 << 20

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
// of the plain text that it states, the 16 bytes of the signature and the sealed
// bytes.
func decodeBody(body []byte) (plain int, signature, sealed []byte, err error) {
	bad := func(what string) (int, []byte, []byte, error) {
		return 0, nil, nil, fmt.Errorf("the sealed reply is damaged: %s", what)
	}
	rest, ok := cutBoundary(body)
	if !ok {
		return bad("it does not start with the boundary")
	}
	description, rest, ok := headers(rest, 2)
	if !ok || !strings.EqualFold(description["content-type"], protocol) {
		return bad("its first part is not the description")
	}
	if plain, ok = statedLength(description["originalcontent"]); !ok {
		return bad("the length that it states is missing or out of range")
	}
	if rest, ok = cutBoundary(rest); !ok {
		return bad("its second part is missing")
	}
	message, rest, ok := headers(rest, 1)
	if !ok || !strings.EqualFold(message["content-type"], "application/octet-stream") {
		return bad("its second part is not the message")
	}
	// The sealed bytes may hold anything, so the end is looked for from behind.
	rest = bytes.TrimSuffix(rest, []byte("\r\n"))
	data, ok := bytes.CutSuffix(rest, []byte("--"))
	if ok {
		if data, ok = bytes.CutSuffix(data, []byte(boundary)); !ok {
			data, ok = bytes.CutSuffix(data, []byte(spaced))
		}
	}
	switch {
	case !ok:
		return bad("it has no end")
	case len(data) < 4+signatureSize || binary.LittleEndian.Uint32(data) != signatureSize:
		return bad("its signature is not of 16 bytes")
	}
	return plain, data[4 : 4+signatureSize], data[4+signatureSize:], nil
}

// isSealed says whether a Content-Type announces a sealed body.
func isSealed(contentType string) bool {
	kind, parameters, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(kind), "multipart/encrypted") &&
		strings.Contains(strings.ToLower(parameters), strings.ToLower(protocol))
}

func cutBoundary(b []byte) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(b, []byte(boundary+"\r\n"))
	if !ok {
		rest, ok = bytes.CutPrefix(b, []byte(spaced+"\r\n"))
	}
	return rest, ok
}

// headers reads the n header lines of a part, by their names in lower case, and
// the blank line that may follow.
func headers(b []byte, n int) (map[string]string, []byte, bool) {
	lines := map[string]string{}
	for range n {
		line, rest, ok := bytes.Cut(b, []byte("\r\n"))
		name, value, colon := strings.Cut(strings.TrimSpace(string(line[:min(len(line), maxLine)])), ":")
		if !ok || !colon || len(line) > maxLine {
			return nil, nil, false
		}
		lines[strings.ToLower(name)] = strings.TrimSpace(value)
		b = rest
	}
	return lines, bytes.TrimPrefix(b, []byte("\r\n")), true
}

// statedLength reads type=application/soap+xml;charset=UTF-8;Length=1234.
func statedLength(original string) (int, bool) {
	for _, field := range strings.Split(original, ";") {
		if name, value, _ := strings.Cut(strings.TrimSpace(field), "="); strings.EqualFold(name, "Length") {
			n, err := strconv.Atoi(value)
			return n, err == nil && n >= 0 && n <= MaxBody
		}
	}
	return 0, false
}
