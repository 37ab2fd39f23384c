package official

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

var byteOrderMark = []byte{0xef, 0xbb, 0xbf}

// fields is a JSON object by its names, folded.
type fields map[string]json.RawMessage

func (f fields) has(name string) bool { return len(f[fold(name)]) > 0 }

// fold makes names comparable without case.
func fold(name string) string { return strings.ToLower(name) }

// jsonFlaw is what is wrong with the bytes inside of base64.
type jsonFlaw struct {
	offset int    // bytes that were good
	early  bool   // there is nothing wrong but that it stops
	what   string // a predicate
}

// flaw turns it into one of the text, in which the base64 stands from start to
// end.
func (j *jsonFlaw) flaw(subject string, start, end int) *flaw {
	if j.early {
		return &flaw{what: fmt.Sprintf("%s ends early, at byte %d", subject, j.offset), at: -1, cut: true}
	}
	return &flaw{what: fmt.Sprintf("%s %s at byte %d", subject, j.what, j.offset), at: max(start, min(start+j.offset/3*4+j.offset%3, end-1))}
}

// parseObject reads data, which must be one JSON object in UTF-8, with or
// without byte order mark, and white space around it.
func parseObject(data []byte) (fields, *jsonFlaw) {
	body := bytes.TrimPrefix(data, byteOrderMark)
	skipped := len(data) - len(body)
	if i := invalidUTF8(body); i >= 0 {
		return nil, &jsonFlaw{offset: skipped + i, early: !utf8.FullRune(body[i:]), what: "is not UTF-8"}
	}
	if start := bytes.TrimLeft(body, " \t\r\n"); len(start) > 0 && start[0] != '{' {
		return nil, &jsonFlaw{offset: len(data) - len(start), what: "is no JSON object"}
	}
	var whole json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(&whole); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, &jsonFlaw{offset: len(data), early: true}
	} else if err != nil {
		var syntax *json.SyntaxError
		offset := int64(len(body))
		if errors.As(json.Unmarshal(body, &whole), &syntax) {
			offset = max(syntax.Offset-1, 0)
		}
		return nil, &jsonFlaw{offset: skipped + int(offset), what: "is broken"}
	}
	end := int(dec.InputOffset())
	if rest := bytes.TrimLeft(body[end:], " \t\r\n"); len(rest) > 0 {
		return nil, &jsonFlaw{offset: len(data) - len(rest), what: fmt.Sprintf("is followed by %d more bytes", len(rest))}
	}

	out := fields{}
	dec = json.NewDecoder(bytes.NewReader(whole))
	_, _ = dec.Token() // the brace
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, &jsonFlaw{offset: skipped + end, what: "is broken"}
		}
		key := fold(name.(string))
		if _, twice := out[key]; twice {
			at := skipped + end - len(whole) + int(dec.InputOffset())
			return nil, &jsonFlaw{offset: at, what: "has one name twice"}
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, &jsonFlaw{offset: skipped + end, what: "is broken"}
		}
		out[key] = value
	}
	return out, nil
}

// invalidUTF8 returns the offset of the first byte that is not UTF-8, or -1.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// values reads claims and collects what is not as expected.
type values struct {
	fields   fields
	problems []string
}

func (v *values) get(name string, into any, kind string) bool {
	raw := v.fields[fold(name)]
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return false
	}
	if err := json.Unmarshal(raw, into); err != nil {
		v.problems = append(v.problems, fmt.Sprintf("the value of %q is not %s", name, kind))
		return false
	}
	return true
}

// text reads a string; a number counts as its digits.
func (v *values) text(name string) string {
	var number json.Number
	if raw := v.fields[fold(name)]; len(raw) > 0 && raw[0] != '"' && json.Unmarshal(raw, &number) == nil {
		return number.String()
	}
	var s string
	v.get(name, &s, "a string")
	return s
}

func (v *values) flag(name string) *bool {
	var b bool
	if !v.get(name, &b, "true or false") {
		return nil
	}
	return &b
}

func (v *values) list(name string) []string {
	var l []string
	v.get(name, &l, "a list of strings")
	return l
}

// hosts returns the length of hardwareInfo.
func (v *values) hosts() int {
	var l []json.RawMessage
	v.get("hardwareInfo", &l, "a list")
	return len(l)
}

// unevenHashes returns a warning when a few of the parts' hashes in hardwareInfo
// differ in length from all others, or "". It is the trace of characters lost
// between two quotation marks.
func (f fields) unevenHashes() string {
	var hosts []map[string]any
	if json.Unmarshal(f[fold("hardwareInfo")], &hosts) != nil {
		return ""
	}
	lengths, total := map[int]int{}, 0
	for _, host := range hosts {
		for _, value := range host {
			parts, _ := value.([]any)
			for _, p := range parts {
				if hash, ok := p.(string); ok && hash != "" {
					lengths[len(hash)]++
					total++
				}
			}
		}
	}
	usual := 0
	for length, n := range lengths {
		if n > lengths[usual] {
			usual = length
		}
	}
	if odd := total - lengths[usual]; odd > 0 && odd*4 < total {
		return fmt.Sprintf("%d of %d hardware hashes have not the usual length of %d: characters may be missing", odd, total, usual)
	}
	return ""
}

// claims reads what tokens and keys both say of the stamp.
func (v *values) claims() Claims {
	return Claims{
		CloudID:                v.text("cloudId"),
		ObjectID:               v.text("objectId"),
		BillingModel:           v.text("billingModel"),
		AgreementNumber:        v.text("agreementNumber"),
		UsageReporting:         v.flag("usageReportingEnabled"),
		MarketplaceSyndication: v.flag("marketplaceSyndicationEnabled"),
		RegionNames:            v.list("regionNames"),
		Nodes:                  v.hosts(),
		Issuer:                 v.text("issuer"),
		Version:                v.text("version"),
	}
}
