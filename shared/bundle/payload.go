package bundle

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
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

// minRun is the shortest base64 run worth decoding: a shorter one costs more in
// the table of segments than it saves.
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

var base64Run = regexp.MustCompile(fmt.Sprintf(`(?:[A-Za-z0-9+/]{%d,}|[A-Za-z0-9_-]{%d,})={0,2}`, minRun, minRun))

type segment struct {
	kind byte
	data []byte
}

// segments splits text into literals and the maximal base64 runs that encode
// again to exactly the same text, in the first alphabet of the list that does.
func segments(text []byte) []segment {
	var out []segment
	addLiteral := func(b []byte) {
		if len(b) == 0 {
			return
		}
		if n := len(out); n > 0 && out[n-1].kind == literal {
			out[n-1].data = append(out[n-1].data[:len(out[n-1].data):len(out[n-1].data)], b...)
			return
		}
		out = append(out, segment{literal, b})
	}
	done := 0
	for _, at := range base64Run.FindAllIndex(text, -1) {
		addLiteral(text[done:at[0]])
		done = at[1]
		run := text[at[0]:at[1]]
		kind, data := decodeRun(run)
		if kind == literal {
			addLiteral(run)
			continue
		}
		out = append(out, segment{kind, data})
	}
	addLiteral(text[done:])
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

// decodePayload rebuilds a payload of exactly length bytes. It inflates at most
// length bytes and their table, and accepts only the table that the sealer would
// have made of the text.
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
		// A table is never longer than its text by more than the count and one entry.
		inflated, err := inflate(data, length+2*binary.MaxVarintLen32+1)
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
