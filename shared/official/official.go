// Package official reads and writes the text files of the official registration
// scripts: the registration token that Get-AzsRegistrationToken writes on the
// stamp, and the activation key that Get-AzsActivationKey writes on the
// internet side.
//
// The property: a text that is accepted is, character for character, the text
// that the far side made. [Clean] takes away what shells, editors and terminals
// put around and between the characters (byte order marks, line ends, blanks,
// characters without width, one pair of quotes) and nothing else; no reader
// here decodes a text and encodes it again. What did not survive the way is
// refused before the trip, with the place and the likely cause: cut by a
// prompt, a terminal or cmd.exe, letter case changed, characters lost, other
// text around it.
//
// The classes of a text:
//
//   - [JSON]: standard base64 with padding of one JSON object. Every token known
//     in public is of this class.
//   - [JWS]: three parts in base64url with full stops between (RFC 7515), header
//     and payload JSON objects. Every activation key known in public is one.
//   - [Opaque]: any other base64 of at least [MinOpaque] characters. It passes
//     with a warning, because the inner layouts of the token versions 3.0, 4.0
//     and 6.0 are not published. A text with a full stop is never opaque.
//   - damaged: everything else. It is refused.
//
// JSON is read as the official scripts read it (ConvertFrom-Json): names match
// without case, and an object that has one name twice, up to case, is refused,
// because two readers could see two different values. That holds for the
// outermost object, the only one whose names are read. Unknown names pass. After
// the object only white space may follow; anything else is a second text.
//
// The limits. An opaque text carries no redundancy, so one that lost a multiple
// of four characters looks whole; the warning says so. A readable one that lost
// them inside of its list of hardware hashes may still be JSON: that a hash is
// then of another length than the rest is a warning, no refusal, because nobody
// says that they must be alike. Letter case is judged by
// sense: a text is refused when nine in ten of its groups of four characters
// read as ASCII text in some choice of case, its first group as the start of a
// JSON object, and it does not read so as it stands. Of the groups of a random
// text 42 in 100 can be read so; for the shortest opaque text the chance of a
// wrong refusal is below one in a thousand million, and it falls by a factor
// of a million with every hundred characters more. A single letter in the wrong
// case inside of a name or a hash that leaves the JSON valid cannot be seen.
// And the signature of a key cannot be checked, see [Unverified].
//
// Errors are of kind [fault.Refused]; they give positions and at most one foreign
// character, never a part of a token or key.
package official

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// Limits in characters of the cleaned text, and in bytes of the file. A token of
// sixteen large hosts has about 55,000 characters.
const (
	MaxLength  = 1 << 20   // longer is refused
	WarnLength = 256 << 10 // longer gets a warning
	MinOpaque  = 128       // shorter is not taken for an opaque text
	MaxRaw     = 4 << 20   // bytes of a file; UTF-16 with short lines fits
)

// Form is the class of a text.
type Form int

// The classes that are accepted.
const (
	Opaque Form = iota + 1 // base64 of something that cannot be read
	JSON                   // base64 of a JSON object
	JWS                    // compact JSON web signature
)

// String names the form for people.
func (f Form) String() string {
	switch f {
	case Opaque:
		return "opaque base64"
	case JSON:
		return "base64 JSON"
	case JWS:
		return "JWS"
	}
	return fmt.Sprintf("form %d", int(f))
}

// Token is a registration token that can make the trip.
type Token struct {
	Text     secret.Text // exactly the cleaned text
	Form     Form
	Encoding Encoding // of the file that it came from
	Claims   Claims   // zero for an opaque token
	Warnings []string // sentences for the operator
	Digest   [sha256.Size]byte
}

// Claims is what a readable token says of its stamp. A string that the token does
// not have is empty, a flag that it does not have is nil.
type Claims struct {
	CloudID                string // need not be a GUID
	ObjectID               string
	BillingModel           string
	AgreementNumber        string
	UsageReporting         *bool
	MarketplaceSyndication *bool
	RegionNames            []string
	Nodes                  int // hosts in hardwareInfo
	Issuer                 string
	Version                string
}

var (
	tokenFile = subject{
		file: "token file", thing: "registration token",
		hint: "azs-agent token --token-file FILE   # a FILE fresh from Get-AzsRegistrationToken -TokenOutputFilePath FILE, carried as a file, never pasted",
	}
	keyFile = subject{
		file: "key file", thing: "activation key",
		hint: "azs-relay register REQUEST --key-out FILE   # or Get-AzsActivationKey -KeyOutputFilePath FILE; carried as a file, never pasted",
	}
)

// subject is what a reader reads, for its sentences.
type subject struct{ file, thing, hint string }

func (s subject) refuse(format string, args ...any) error {
	e := fault.New(fault.Refused, "the "+format, args...)
	if s.hint != "" {
		e.Hint("%s", s.hint)
	}
	return e
}

// ReadToken reads the contents of a token file. The error of a damaged token says
// what is wrong, at which line and column, and what likely did it.
func ReadToken(raw []byte) (*Token, error) {
	c, doc, err := read(tokenFile, raw)
	if err != nil {
		return nil, err
	}
	if doc.form == JWS && doc.claims.has("subscriptionId") && doc.claims.has("registrationName") {
		return nil, tokenFile.refuse("token file holds an activation key, not a registration token")
	}
	t := &Token{
		Text:     secret.New(c.text),
		Form:     doc.form,
		Encoding: c.encoding,
		Warnings: append(lengthWarning(tokenFile, c.text), doc.warnings...),
		Digest:   sha256.Sum256([]byte(c.text)),
	}
	if doc.form == Opaque {
		t.Warnings = append(t.Warnings, "the registration token cannot be read: it goes on as it is, and neither its cloud id nor its end can be checked")
		return t, nil
	}
	v := values{fields: doc.claims}
	t.Claims = v.claims()
	t.Warnings = append(t.Warnings, v.problems...)
	if w := doc.claims.unevenHashes(); w != "" {
		t.Warnings = append(t.Warnings, w)
	}
	if t.Claims.CloudID == "" {
		t.Warnings = append(t.Warnings, "the registration token names no cloud id")
	}
	return t, nil
}

// Describe gives one line on the token without a part of it: form, length, the
// encoding of its file and the digest.
func (t *Token) Describe() string { return describe(t.Form, t.Text, t.Encoding, t.Digest) }

// Write returns the contents of a token or key file: UTF-8 without byte order
// mark and one line end. [Clean] gives the same text back.
func Write(text secret.Text) []byte { return []byte(text.Reveal() + "\n") }

func describe(form Form, text secret.Text, enc Encoding, digest [sha256.Size]byte) string {
	return fmt.Sprintf("%v, %d characters, file in %v, SHA-256 %x", form, text.Len(), enc, digest)
}

func lengthWarning(s subject, text string) []string {
	if len(text) <= WarnLength {
		return nil
	}
	return []string{fmt.Sprintf("the %s has %d characters, more than any stamp known (%d)", s.thing, len(text), WarnLength)}
}

// read cleans and classifies the contents of a file.
func read(s subject, raw []byte) (*cleaned, document, error) {
	c, err := clean(s, raw)
	if err != nil {
		return nil, document{}, err
	}
	doc, flaw := classify(c.text)
	if (flaw != nil || doc.form == Opaque) && !strings.HasPrefix(c.text, jsonStart) {
		if i := c.textBefore(); i > 0 {
			return nil, document{}, s.refuse("%s holds other text before the %s, which begins only at %v", s.file, s.thing, c.place(i))
		}
	}
	if flaw != nil {
		return nil, document{}, c.refuse(s, flaw)
	}
	return c, doc, nil
}
