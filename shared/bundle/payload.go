package bundle

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Encoding is how a payload stands in the body.
type Encoding string

// The payload encodings.
const (
	Identity   Encoding = "identity"
	B64Deflate Encoding = "b64-deflate"
)

// MaxPayload is the largest payload, decoded: 1 MiB.
const MaxPayload = 1 << 20

// minRun is the number of digits of the shortest base64 run worth decoding: a
// shorter one costs more in the table of segments than it saves.
const minRun = 16

// A text is a row of segments: what stands between base64 runs as it is, and the
// runs themselves decoded.
const (
	literal = iota
	stdPadded
	stdRaw
	urlPadded
	urlRaw
)

var alphabets = map[byte]*base64.Encoding{
	stdPadded: base64.StdEncoding.Strict(),
	stdRaw:    base64.RawStdEncoding.Strict(),
	urlPadded: base64.URLEncoding.Strict(),
	urlRaw:    base64.RawURLEncoding.Strict(),
}

// alphabet tells for each byte whether it is a digit of base64 and of base64url.
var alphabet = func() (is [256]struct{ std, url bool }) {
	const both = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	for _, c := range []byte(both + "+/") {
		is[c].std = true
	}
	for _, c := range []byte(both + "-_") {
		is[c].url = true
	}
	return is
}()

// runLength returns the length of the base64 run that text starts with: the
// longest row of digits of one of the two alphabets, at least minRun of them,
// and up to two "=". It is 0 when there is none.
func runLength(text []byte) int {
	std, url := 0, 0
	for std < len(text) && alphabet[text[std]].std {
		std++
	}
	for url < len(text) && alphabet[text[url]].url {
		url++
	}
	n := max(std, url)
	if n < minRun {
		return 0
	}
	for end := min(n+2, len(text)); n < end && text[n] == '='; {
		n++
	}
	return n
}

type segment struct {
	kind byte
	data []byte
}

// segments splits text into literals and the base64 runs, leftmost first, that
// encode again to exactly the same text in the first alphabet of the list that
// does. A run that no alphabet encodes again is part of the literal around it.
func segments(text []byte) []segment {
	var out []segment
	done, at := 0, 0 // the literal that is still open is text[done:at]
	for at < len(text) {
		n := runLength(text[at:])
		if n == 0 {
			at++
			continue
		}
		kind, data := decodeRun(text[at : at+n])
		if kind == literal {
			at += n
			continue
		}
		if done < at {
			out = append(out, segment{literal, text[done:at]})
		}
		out = append(out, segment{kind, data})
		at += n
		done = at
	}
	if done < len(text) {
		out = append(out, segment{literal, text[done:]})
	}
	return out
}

func decodeRun(run []byte) (byte, []byte) {
	for _, kind := range []byte{stdPadded, stdRaw, urlPadded, urlRaw} {
		enc := alphabets[kind]
		data, err := enc.DecodeString(string(run))
		if err == nil && enc.EncodeToString(data) == string(run) {
			return kind, data
		}
	}
	return literal, nil
}

// table spells the segments: uvarint count, for each one byte of kind and a
// uvarint length, then all the data.
func table(segs []segment) []byte {
	b := binary.AppendUvarint(nil, uint64(len(segs)))
	for _, s := range segs {
		b = append(b, s.kind)
		b = binary.AppendUvarint(b, uint64(len(s.data)))
	}
	for _, s := range segs {
		b = append(b, s.data...)
	}
	return b
}

// rebuild turns a table back into the text, of at most limit bytes.
func rebuild(b []byte, limit int) ([]byte, error) {
	bad := errors.New("table of segments is damaged")
	uvarint := func() (int, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > uint64(MaxPayload) {
			return 0, false
		}
		b = b[n:]
		return int(v), true
	}
	count, ok := uvarint()
	if !ok || count > len(b)/2 {
		return nil, bad
	}
	segs := make([]segment, count)
	sizes := make([]int, count)
	for i := range segs {
		if len(b) == 0 {
			return nil, bad
		}
		segs[i].kind, b = b[0], b[1:]
		if sizes[i], ok = uvarint(); !ok {
			return nil, bad
		}
	}
	var out []byte
	for i, s := range segs {
		if sizes[i] > len(b) {
			return nil, bad
		}
		s.data, b = b[:sizes[i]], b[sizes[i]:]
		switch enc := alphabets[s.kind]; {
		case s.kind == literal:
			out = append(out, s.data...)
		case enc == nil:
			return nil, bad
		default:
			out = enc.AppendEncode(out, s.data)
		}
		if len(out) > limit {
			return nil, fmt.Errorf("payload is longer than the %d bytes that the body states", limit)
		}
	}
	if len(b) != 0 {
		return nil, bad
	}
	return out, nil
}

// encodePayload picks the smallest encoding that rebuilds to the identical bytes.
func encodePayload(payload []byte) (Encoding, []byte) {
	packed := deflate(table(segments(payload)))
	if len(packed) >= len(payload) {
		return Identity, payload
	}
	if again, err := decodePayload(B64Deflate, packed, len(payload)); err != nil || !bytes.Equal(again, payload) {
		return Identity, payload
	}
	return B64Deflate, packed
}

// maxTable returns the largest table that a text of length bytes can have. Of n
// segments, every second one is a run; a run of at least 16 digits decodes to at
// least 4 bytes less, which pays for its own entry and for that of the literal
// before it, but for one byte of length where the literal has 128 bytes and two
// where it has 16,384. There remain the count and the entry of a last literal.
func maxTable(length int) int { return length + length/128 + 8 }

// decodePayload rebuilds a payload of exactly length bytes. It inflates at most
// the table of so many, and accepts only the table that the sealer would have
// made of the text.
func decodePayload(enc Encoding, data []byte, length int) ([]byte, error) {
	if length < 0 || length > MaxPayload {
		return nil, fmt.Errorf("payload length %d is out of range", length)
	}
	switch enc {
	case Identity:
		if len(data) != length {
			return nil, fmt.Errorf("payload has %d bytes, the body states %d", len(data), length)
		}
		return data, nil
	case B64Deflate:
		inflated, err := inflate(data, maxTable(length))
		if err != nil {
			return nil, err
		}
		text, err := rebuild(inflated, length)
		if err != nil {
			return nil, err
		}
		if len(text) != length {
			return nil, fmt.Errorf("payload has %d bytes, the body states %d", len(text), length)
		}
		if !bytes.Equal(table(segments(text)), inflated) {
			return nil, errors.New("payload is not segmented as it must be")
		}
		return text, nil
	}
	return nil, fmt.Errorf("payload encoding %q is unknown", enc)
}

func deflate(data []byte) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriterDict(&b, flate.BestCompression, dictionary)
	if err != nil {
		panic(err) // the level is a constant in range
	}
	_, _ = w.Write(data) // a bytes.Buffer does not fail
	_ = w.Close()
	return b.Bytes()
}

// inflate reads one DEFLATE stream that fills data to its end and gives at most
// limit bytes.
func inflate(data []byte, limit int) ([]byte, error) {
	in := bytes.NewReader(data)
	out, err := io.ReadAll(io.LimitReader(flate.NewReaderDict(in, dictionary), int64(limit)+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("payload does not inflate: %w", err)
	case len(out) > limit:
		return nil, fmt.Errorf("payload inflates to more than the %d bytes that the body states", limit)
	case in.Len() != 0:
		return nil, fmt.Errorf("payload has %d bytes behind its end", in.Len())
	}
	return out, nil
}

// dictionary is the preset window of b64-deflate (RFC 1951 has none of its own;
// zlib's raw inflateSetDictionary takes it): the names and constants that
// registration tokens and activation keys are known to hold, those of the token
// last, because near matches are cheaper. It is part of the format and never
// changes; a better one would be another encoding.
var dictionary = []byte(`","alg":"RS256"}{"kid":"{"subscriptionId":"","resourceGroupName":"azurestack","registrationName":"AzureStack-` +
	`","certPinningRootSubjects":["CN=","certPinningIntermediateThumbprints":["","usageEndpoint":"https://","marketplaceEndpoint":"https://management.azure.com",` +
	`"usageResourceUri":"https://","marketplaceResourceUri":"https://","expires":"T00:00:00Z","9999-12-30T23:59:59.9999999Z",` +
	`"issuer":"","regionNames":["local"],"agreementNumber":"","usageReportingEnabled":true,"marketplaceSyndicationEnabled":true,` +
	`"version":"1.0"}{"billingModel":"Development","objectId":"","cloudId":"","billingModel":"Capacity","objectId":"-4","cloudId":"-4",` +
	`"usageReportingEnabled":false,"marketplaceSyndicationEnabled":false,"hardwareInfo":[{"numCores":32,"bios":[""],"nic":["","","cpu":["","name":"","disk":["","uuid":"-4","memory":["` +
	`"]},{"numCores":`)
