package official_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

var place = officialtest.Place{
	SubscriptionID:   "dd8597b4-8739-4467-8b10-f8679f62bfbf",
	ResourceGroup:    "azurestack",
	RegistrationName: "testregistration",
}

// modelled returns a token and the key that Azure would give for it.
func modelled(t testing.TB, spec officialtest.Spec) (token, key string) {
	t.Helper()
	token = officialtest.Token(spec)
	payload, err := officialtest.KeyPayload(token, place)
	if err != nil {
		t.Fatal(err)
	}
	return token, officialtest.Key(payload, nil)
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func generator(seed uint64) *rand.ChaCha8 {
	var s [32]byte
	for i := range 8 {
		s[i] = byte(seed >> (8 * i))
	}
	return rand.NewChaCha8(s)
}

// opaque returns base64 of n random bytes.
func opaque(seed uint64, n int) string {
	b := make([]byte, n)
	_, _ = generator(seed).Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

func ptr[T any](v T) *T { return &v }

func TestReadTokenClaims(t *testing.T) {
	text := officialtest.Token(officialtest.Spec{Seed: 9, Nodes: 4, UsageReporting: true})
	tok, err := official.ReadToken([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var inside struct{ ObjectID, AgreementNumber string }
	if err := json.Unmarshal(officialtest.TokenJSON(officialtest.Spec{Seed: 9, Nodes: 4, UsageReporting: true}), &inside); err != nil {
		t.Fatal(err)
	}
	want := official.Claims{
		CloudID: officialtest.CloudID(9), ObjectID: inside.ObjectID, BillingModel: "Capacity",
		AgreementNumber: inside.AgreementNumber, UsageReporting: ptr(true), MarketplaceSyndication: ptr(false),
		RegionNames: []string{"local"}, Nodes: 4, Issuer: "azs-courier officialtest", Version: "1.0",
	}
	if diff := cmp.Diff(want, tok.Claims); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	if tok.Form != official.JSON || len(tok.Warnings) != 0 {
		t.Errorf("form %v, warnings %q", tok.Form, tok.Warnings)
	}
	wantLine := fmt.Sprintf("base64 JSON, %d characters, file in UTF-8, SHA-256 %x", len(text), tok.Digest)
	if got := tok.Describe(); got != wantLine || strings.Contains(got, text[:12]) {
		t.Errorf("Describe() = %q, want %q", got, wantLine)
	}
}

// What the token says may be spelt and typed in other ways than the only public
// example; nothing of that stops it.
func TestReadTokenIsTolerant(t *testing.T) {
	noCloud := []string{"the registration token names no cloud id"}
	tests := []struct {
		name, json string
		want       official.Claims
		warnings   []string
	}{
		{"empty object", `{}`, official.Claims{}, noCloud},
		{"other case", `{"CLOUDID":"x","HardwareInfo":[{"Bios":[]}],"Version":"6.0"}`, official.Claims{CloudID: "x", Nodes: 1, Version: "6.0"}, nil},
		{"unknown names", `{"cloudId":"not a GUID","licence":{"cloudId":"y","cloudId":"z"}}`, official.Claims{CloudID: "not a GUID"}, nil},
		{"negative cores", `{"cloudId":"x","hardwareInfo":[{"numCores":-1191822123},{"numCores":99999999999999999999}]}`, official.Claims{CloudID: "x", Nodes: 2}, nil},
		{"nulls", `{"cloudId":"x","usageReportingEnabled":null,"regionNames":null}`, official.Claims{CloudID: "x"}, nil},
		{"numbers", `{"cloudId":"x","agreementNumber":12345678,"version":1.0}`, official.Claims{CloudID: "x", AgreementNumber: "12345678", Version: "1.0"}, nil},
		{"byte order mark and blanks", "\uFEFF\r\n{\"cloudId\" : \"x\"}\r\n", official.Claims{CloudID: "x"}, nil},
		{"other script", `{"cloudId":"x","regionNames":["東京"]}`, official.Claims{CloudID: "x", RegionNames: []string{"東京"}}, nil},
		{"other types", `{"cloudId":{},"usageReportingEnabled":"yes","hardwareInfo":7}`, official.Claims{}, []string{
			`the value of "cloudId" is not a string`, `the value of "usageReportingEnabled" is not true or false`,
			`the value of "hardwareInfo" is not a list`, noCloud[0]}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tok, err := official.ReadToken([]byte(b64(tt.json)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, tok.Claims); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.warnings, tok.Warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// A line lost inside of the hashes leaves JSON; it leaves a hash of another length
// too.
func TestUnevenHashesWarn(t *testing.T) {
	token := officialtest.Token(officialtest.Spec{Seed: 4, Nodes: 3})
	tok, err := official.ReadToken([]byte(token[:400] + token[440:]))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"1 of 104 hardware hashes have not the usual length of 32: characters may be missing"}
	if diff := cmp.Diff(want, tok.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// A token may be a JWS: its claims are those of the payload.
func TestReadTokenAsJWS(t *testing.T) {
	text := officialtest.Key(officialtest.TokenJSON(officialtest.Spec{Seed: 2, Nodes: 3}), nil)
	tok, err := official.ReadToken([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if tok.Form != official.JWS || tok.Claims.CloudID != officialtest.CloudID(2) || tok.Claims.Nodes != 3 || tok.Text.Reveal() != text {
		t.Errorf("%s: claims %+v", tok.Describe(), tok.Claims)
	}
}

// An opaque token passes with a warning, whatever its bytes are: random ones,
// readable ones that are no JSON, JSON in UTF-16.
func TestOpaquePasses(t *testing.T) {
	const warning = "the registration token cannot be read: it goes on as it is, and neither its cloud id nor its end can be checked"
	check := func(name, text string, more ...string) {
		t.Helper()
		tok, err := official.ReadToken([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		if diff := cmp.Diff(append(more, warning), tok.Warnings); tok.Form != official.Opaque || tok.Text.Reveal() != text || diff != "" {
			t.Errorf("%s: form %v, warnings (-want +got):\n%s", name, tok.Form, diff)
		}
	}
	for seed := range uint64(20000) {
		check(fmt.Sprintf("seed %d", seed), opaque(seed, 96+int(seed%64)))
	}
	for seed := range uint64(2000) {
		check(fmt.Sprintf("long, seed %d", seed), opaque(seed, 600+int(seed%3000)))
	}
	// The first bytes alone do not make a random text a damaged JSON.
	for seed := range uint64(2000) {
		raw, err := base64.StdEncoding.DecodeString(opaque(seed, 300))
		if err != nil {
			t.Fatal(err)
		}
		copy(raw, `{"`)
		check(fmt.Sprintf("brace, seed %d", seed), base64.StdEncoding.EncodeToString(raw))
	}
	var wide []byte
	for _, c := range officialtest.TokenJSON(officialtest.Spec{}) {
		wide = append(wide, c, 0)
	}
	check("JSON in UTF-16", base64.StdEncoding.EncodeToString(wide))
	check("XML", b64("<license>"+strings.Repeat("<host/>", 40)+"</license>"))
	check("text beginning with y", b64(strings.Repeat("yes, and so on; ", 20)))
	check("JSON list", b64("["+strings.Repeat(`{"a":1},`, 20)+"0]"))
	check("base64 of base64", b64(officialtest.Token(officialtest.Spec{})))

	url := strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(opaque(1, 601)), "=")
	check("base64url", url, "the text is base64url, not base64 as every registration token known in public")
}

// recase changes the case of each letter with the given chance.
func recase(text string, seed uint64, chance float64) string {
	rng := rand.New(generator(seed))
	out := []byte(text)
	for i, c := range out {
		if letter := c|0x20 >= 'a' && c|0x20 <= 'z'; letter && rng.Float64() < chance {
			out[i] ^= 0x20
		}
	}
	return string(out)
}

// A token or key whose letters changed their case is refused, whichever way they
// changed it.
func TestScrambledCaseIsRefused(t *testing.T) {
	const sentence = "the case of its letters was changed on the way"
	ways := map[string]func(string, uint64) string{
		"half":       func(s string, seed uint64) string { return recase(s, seed, 0.5) },
		"a quarter":  func(s string, seed uint64) string { return recase(s, seed, 0.25) },
		"swapped":    func(s string, seed uint64) string { return recase(s, seed, 1) },
		"upper":      func(s string, _ uint64) string { return strings.ToUpper(s) },
		"lower":      func(s string, _ uint64) string { return strings.ToLower(s) },
		"first only": func(s string, _ uint64) string { return "E" + s[1:] },
	}
	for name, change := range ways {
		named := 0
		const seeds = 250
		for seed := range uint64(seeds) {
			spec := officialtest.Spec{Seed: seed, Nodes: 1 + int(seed%3), UsageReporting: seed%2 == 0}
			token, key := modelled(t, spec)
			_, err := official.ReadToken([]byte(change(token, seed)))
			if err == nil {
				t.Errorf("%s, seed %d: token accepted", name, seed)
				continue
			}
			if strings.Contains(err.Error(), sentence) {
				named++
			}
			if _, err := official.ReadKey([]byte(change(key, seed))); err == nil {
				t.Errorf("%s, seed %d: key accepted", name, seed)
			} else if fault.KindOf(err) != fault.Refused {
				t.Errorf("%s, seed %d: %v", name, seed, err)
			}
		}
		t.Logf("%s: cause named for %d of %d tokens", name, named, seeds)
		if named < seeds*9/10 {
			t.Errorf("%s: the cause is named for %d of %d tokens only", name, named, seeds)
		}
	}
}

func TestDamagedTokens(t *testing.T) {
	// The cloud id's length decides how many padding characters there are.
	spec := func(padding int) officialtest.Spec {
		for id := "a-cloud-id"; ; id += "x" {
			s := officialtest.Spec{Seed: 4, Nodes: 3, CloudID: id}
			if len(officialtest.TokenJSON(s))%3 == (3-padding)%3 {
				return s
			}
		}
	}
	token, padded := officialtest.Token(spec(0)), officialtest.Token(spec(2))
	_, key := modelled(t, officialtest.Spec{Seed: 4, Nodes: 3})
	long := officialtest.Token(officialtest.Spec{Seed: 4, Nodes: 5})
	text := string(officialtest.TokenJSON(spec(0)))
	blob := opaque(1, 768)
	bits := []byte(opaque(1, 100))
	bits[len(bits)-3]++
	n := len(token)
	tests := []struct{ name, raw, want string }{
		{"cut by Read-Host", token[:1022] + "\r\n", "its length, 1022, is not a multiple of 4, and the JSON inside ends early, at byte 766; it stops after 1022 characters, at line 1, column 1022: that is all that Read-Host takes of a pasted line"},
		{"cut by Read-Host after a blank", " " + token[:1021], "its length, 1021, is not a multiple of 4, and the JSON inside ends early, at byte 765; it stops after 1021 characters, at line 1, column 1022: with blanks and quotes there are 1022, and that is all that Read-Host takes of a pasted line"},
		{"cut by a terminal", token[:4095], "its length, 4095, is not a multiple of 4, and the JSON inside ends early, at byte 3071; it stops after 4095 characters, at line 1, column 4095: that is the longest line that a terminal takes"},
		{"cut by cmd.exe", long[:8191], "its length, 8191, is not a multiple of 4, and the JSON inside ends early, at byte 6143; it stops after 8191 characters, at line 1, column 8191: that is the longest line of cmd.exe"},
		{"cut elsewhere", token[:2000], "the JSON inside ends early, at byte 1500; it stops after 2000 characters, at line 1, column 2000"},
		{"cut at 4095 in UTF-16", string(encodings[official.UTF16LEBOM](token[:4095] + "\r\n")), "its length, 4095, is not a multiple of 4, and the JSON inside ends early, at byte 3071; it stops after 4095 characters, at line 1, column 4095: that is the longest line that a terminal takes"},
		{"last line lost", strings.Join(strings.Split(wrap(token, 80, "\n"), "\n")[:20], "\n"), "the JSON inside ends early, at byte 1200; it stops after 1600 characters, at line 20, column 80"},
		{"opaque cut by Read-Host", opaque(1, 900)[:1022], "its length, 1022, is not a multiple of 4; it stops after 1022 characters, at line 1, column 1022: that is all that Read-Host takes of a pasted line"},
		{"opaque base64url cut by a terminal", strings.NewReplacer("+", "-", "/", "_").Replace(opaque(2, 9000))[:4095], "its last character is one that no encoder writes there, at line 1, column 4095; it stops after 4095 characters, at line 1, column 4095: that is the longest line that a terminal takes"},
		{"one character lost", token[:700] + token[701:], fmt.Sprintf("its length, %d, is not a multiple of 4; it stops after %d characters, at line 1, column %d", n-1, n-1, n-1)},
		{"padding lost", strings.TrimRight(padded, "="), fmt.Sprintf("2 of the padding characters '=' at its end are missing, at line 1, column %d", len(padded)-2)},
		{"padding half lost", padded[:len(padded)-1], fmt.Sprintf("1 of the padding characters '=' at its end are missing, at line 1, column %d", len(padded)-1)},
		{"three padding characters", b64("{}x") + "====", "it ends in 4 padding characters, at line 1, column 5"},
		{"unused bits", string(bits), "its last character is one that no encoder writes there, at line 1, column 134"},
		{"opaque base64url cut at a good place", strings.Repeat("ab_c", 1024)[:4094] + "A", "its end is missing; it stops after 4095 characters, at line 1, column 4095: that is the longest line that a terminal takes"},
		{"line lost", token[:80] + token[160:], "the JSON inside is broken at byte 72, at line 1, column 97"},
		{"beginning lost", token[400:], "its beginning is missing: the JSON inside has an end and no start, at line 1, column 1"},
		{"not UTF-8 inside", b64(text[:100] + "\xff" + text[101:]), "the JSON inside is not UTF-8 at byte 100, at line 1, column 134"},
		{"something after the object", b64(text + "\r\n{}"), fmt.Sprintf("the JSON inside is followed by 2 more bytes at byte %d, at line 1, column %d", len(text)+2, (len(text)+2)/3*4+(len(text)+2)%3+1)},
		{"name twice", b64(`{"cloudId":"a","CloudID":"b"}`), "the JSON inside has one name twice at byte 24, at line 1, column 33"},
		{"in the file twice", token + "\r\n" + token + "\r\n", "it stands in the file twice, at line 2, column 1"},
		{"two tokens", padded + "\r\n" + token, fmt.Sprintf("%d more characters follow the padding at its end, at line 1, column %d", n+1, len(padded)-1)},
		{"two kinds of base64", strings.Repeat("AAAA", 50) + "A+AA\nA-AA", "'+' and '-' do not stand in the same kind of base64, at line 2, column 2"},
		{"short word", "null", "it is no JSON, and for anything else 4 characters are too few"},
		{"class name", "System.Object", "the header is no JSON object at byte 0, at line 1, column 1"},
		{"table", token[:100] + "...", "it ends in \"...\", as a table of PowerShell cuts a long value, at line 1, column 101"},
		{"short opaque", blob[:124], "it is no JSON, and for anything else 124 characters are too few"},
		{"base64 with a full stop", blob[:100] + "." + blob[100:] + "+/", "the character '+' does not stand in base64url, of which a text with full stops is made"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tok, err := official.ReadToken([]byte(tt.raw))
			if err == nil {
				t.Fatalf("accepted: %s", tok.Describe())
			}
			want := "the registration token is damaged: " + tt.want
			if got := err.Error(); got != want && !(tt.name == "base64 with a full stop" && strings.HasPrefix(got, want)) {
				t.Errorf("error\n got %s\nwant %s", got, want)
			}
			refusal(t, err, tt.raw)
		})
	}
	for _, tt := range []struct{ name, raw, want string }{
		{"a key", key, "the token file holds an activation key, not a registration token"},
		{"a heading", "RegistrationToken\r\n-----------------\r\n" + token, "the token file holds other text before the registration token, which begins only at line 3, column 1"},
		{"a word", "token " + token, "the token file holds other text before the registration token, which begins only at line 1, column 7"},
		{"JSON as it is", text, "the token file holds the foreign character '{' (U+007B) at line 1, column 1: it looks like JSON around or instead of the registration token"},
		{"empty", "\uFEFF", "the token file holds nothing but blanks"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := official.ReadToken([]byte(tt.raw))
			if err == nil || err.Error() != tt.want {
				t.Fatalf("error\n got %v\nwant %s", err, tt.want)
			}
			refusal(t, err, tt.raw)
		})
	}
}

// refusal checks what holds for every refusal: its kind, a command in its hint,
// and that no part of the file shows in it.
func refusal(t *testing.T, err error, raw string) {
	t.Helper()
	if fault.KindOf(err) != fault.Refused || !strings.HasPrefix(fault.HintOf(err), "azs-") {
		t.Errorf("%v is of kind %v with the hint %q", err, fault.KindOf(err), fault.HintOf(err))
	}
	for i := 0; i+12 <= len(raw); i++ {
		if strings.Contains(err.Error(), raw[i:i+12]) {
			t.Errorf("%v shows %q of the file", err, raw[i:i+12])
			return
		}
	}
}

// Every cut of a token is refused, wherever it falls.
func TestEveryCutIsRefused(t *testing.T) {
	token, key := modelled(t, officialtest.Spec{Seed: 6})
	for n := 1; n < len(token); n++ {
		if _, err := official.ReadToken([]byte(token[:n])); err == nil {
			t.Errorf("a token cut after %d of %d characters is accepted", n, len(token))
		}
	}
	for n := 1; n < len(key); n++ {
		if _, err := official.ReadKey([]byte(key[:n])); err == nil {
			t.Errorf("a key cut after %d of %d characters is accepted", n, len(key))
		}
	}
}

// fixture reads an example of Microsoft's swagger, in which the case of the
// letters of tokens and keys is scrambled.
func fixture(t *testing.T, name string, into any) {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			break
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Skip("no go.work above the package: the fixtures are found from there")
		}
		dir = up
	}
	raw, err := os.ReadFile(filepath.Join(dir, "../shared/fixtures/azure", name))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the fixture is not there: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

func TestFixturesAreRefused(t *testing.T) {
	const want = "is damaged: the case of its letters was changed on the way: in another choice of capitals it reads as JSON, as it stands it does not, at line 1, column 1"
	for _, name := range []string{"registration-put.json", "registration-patch.json"} {
		t.Run(name, func(t *testing.T) {
			var f struct {
				Parameters struct {
					Token struct {
						Properties struct{ RegistrationToken string }
					}
				}
			}
			fixture(t, name, &f)
			text := f.Parameters.Token.Properties.RegistrationToken
			if len(text) != 880 {
				t.Fatalf("the token of the fixture has %d characters, want 880", len(text))
			}
			_, err := official.ReadToken([]byte(text))
			if err == nil || err.Error() != "the registration token "+want {
				t.Fatalf("error\n got %v\nwant %s", err, want)
			}
			refusal(t, err, text)
		})
	}
	t.Run("activation-key-post.json", func(t *testing.T) {
		var f struct {
			Responses map[string]struct {
				Body struct{ ActivationKey string }
			}
		}
		fixture(t, "activation-key-post.json", &f)
		text := f.Responses["200"].Body.ActivationKey
		if len(text) != 2399 {
			t.Fatalf("the key of the fixture has %d characters, want 2399", len(text))
		}
		_, err := official.ReadKey([]byte(text))
		if err == nil || err.Error() != "the activation key "+want {
			t.Fatalf("error\n got %v\nwant %s", err, want)
		}
		refusal(t, err, text)
	})
}
