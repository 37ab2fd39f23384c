// Package officialtest makes registration tokens and activation keys that look
// like the real ones, for tests, benchmarks, demonstrations and the simulated
// Azure. It is to package official what net/http/httptest is to net/http.
//
// The layout is the one of the only public token, the example of a registration
// in Microsoft's swagger (api-version 2017-06-01): standard base64 of compact
// JSON with the billing model, the identities of the stamp and, for each host, a
// 32-digit hexadecimal hash of every part. Three names of a later recorded
// activation key, regionNames, agreementNumber and usageReportingEnabled, are
// added to it. Nothing else is known in public: the inner layout of the token
// versions 3.0, 4.0 and 6.0 is not, and no example with several hosts is. The
// sizes are therefore a model, about 1.85 KB a host for [Typical] servers and
// 3.5 KB for [Large] ones, not a measurement.
//
// Everything follows from the [Spec]: the same Spec gives the same bytes on
// every machine, because the parts come from the ChaCha8 generator of
// math/rand/v2. Nothing here is secret and nothing was ever issued by anybody.
package officialtest

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
)

// Server counts the hashed parts of one host. Every part costs 35 bytes of JSON,
// about 47 characters of the token.
type Server struct{ NIC, CPU, Disk, Memory int }

// Two servers that span what a stamp is built of.
var (
	Typical = Server{NIC: 4, CPU: 2, Disk: 12, Memory: 16}
	Large   = Server{NIC: 8, CPU: 2, Disk: 26, Memory: 32}
)

// Spec says which token to make. The zero Spec is a disconnected stamp of one
// typical host under the capacity model.
type Spec struct {
	Seed                   uint64
	Nodes                  int    // hosts; 0 is 1
	Server                 Server // parts of each host; zero is Typical
	CloudID                string // "" is CloudID(Seed)
	BillingModel           string // "" is Capacity
	AgreementNumber        string // "" is a made-up one under Capacity, else none
	UsageReporting         bool
	MarketplaceSyndication bool
	Version                string // of the layout; "" is 1.0
}

// token is the JSON of a token; the order of the fields is the order of the names.
type token struct {
	BillingModel           string   `json:"billingModel"`
	ObjectID               string   `json:"objectId"`
	CloudID                string   `json:"cloudId"`
	MarketplaceSyndication bool     `json:"marketplaceSyndicationEnabled"`
	HardwareInfo           []host   `json:"hardwareInfo"`
	RegionNames            []string `json:"regionNames"`
	AgreementNumber        string   `json:"agreementNumber"`
	UsageReporting         bool     `json:"usageReportingEnabled"`
	Issuer                 string   `json:"issuer"`
	Version                string   `json:"version"`
}

type host struct {
	NumCores int64    `json:"numCores"`
	BIOS     []string `json:"bios"`
	NIC      []string `json:"nic"`
	CPU      []string `json:"cpu"`
	Name     string   `json:"name"`
	Disk     []string `json:"disk"`
	UUID     string   `json:"uuid"`
	Memory   []string `json:"memory"`
}

// CloudID returns the cloud id of a stamp: a version 4 UUID in lower case that
// depends on the seed alone.
func CloudID(seed uint64) string { return source(seed, "cloud").uuid() }

// Token returns the registration token: one line of standard base64 with
// padding, without a line end, as Get-AzsRegistrationToken gives it.
func Token(s Spec) string {
	return base64.StdEncoding.EncodeToString(TokenJSON(s))
}

// TokenJSON returns the compact JSON inside of [Token].
func TokenJSON(s Spec) []byte {
	s = s.withDefaults()
	src := source(s.Seed, "token")
	t := token{
		BillingModel:           s.BillingModel,
		ObjectID:               src.uuid(),
		CloudID:                s.CloudID,
		MarketplaceSyndication: s.MarketplaceSyndication,
		RegionNames:            []string{"local"},
		AgreementNumber:        s.AgreementNumber,
		UsageReporting:         s.UsageReporting,
		Issuer:                 "azs-courier officialtest",
		Version:                s.Version,
	}
	rack := src.rng.Uint64() % 10000
	for i := range s.Nodes {
		t.HardwareInfo = append(t.HardwareInfo, host{
			NumCores: int64(s.Server.CPU) * 16,
			BIOS:     src.hashes(1),
			NIC:      src.hashes(s.Server.NIC),
			CPU:      src.hashes(s.Server.CPU),
			Name:     fmt.Sprintf("HC1u%02da%04d", 15+i, rack),
			Disk:     src.hashes(s.Server.Disk),
			UUID:     src.uuid(),
			Memory:   src.hashes(s.Server.Memory),
		})
	}
	return compact(t)
}

func (s Spec) withDefaults() Spec {
	if s.Nodes == 0 {
		s.Nodes = 1
	}
	if s.Server == (Server{}) {
		s.Server = Typical
	}
	if s.CloudID == "" {
		s.CloudID = CloudID(s.Seed)
	}
	if s.BillingModel == "" {
		s.BillingModel = "Capacity"
	}
	if s.AgreementNumber == "" && s.BillingModel == "Capacity" {
		s.AgreementNumber = fmt.Sprintf("E%07d", source(s.Seed, "agreement").rng.Uint64()%10_000_000)
	}
	if s.Version == "" {
		s.Version = "1.0"
	}
	return s
}

// Place says where Azure keeps a registration, and until when its key is good.
type Place struct {
	SubscriptionID, ResourceGroup, RegistrationName string

	Expires string // "" is 9999-12-30T23:59:59.9999999Z, the value of the recorded keys
}

// Kid is the key identifier in the header of [Key]. It is made up: Microsoft's
// own key is not published, so nobody can check a signature by it.
const Kid = "6f6666696369616c746573746b657931"

// SignatureSize is the length in bytes of the signature of an activation key:
// RSA with 2048 bits.
const SignatureSize = 256

// KeyPayload returns the claims that Azure puts into the activation key for a
// token, compact JSON with the names in the order of the recorded key of 2019:
// the place of the registration, the certificate pins, the endpoints, the
// expiry, and then what the token says of the stamp. The token must be base64 of
// JSON; the error says when it is not.
func KeyPayload(tokenText string, p Place) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(tokenText)
	if err != nil {
		return nil, fmt.Errorf("registration token: %w", err)
	}
	var t struct {
		BillingModel           string          `json:"billingModel"`
		ObjectID               string          `json:"objectId"`
		CloudID                string          `json:"cloudId"`
		MarketplaceSyndication bool            `json:"marketplaceSyndicationEnabled"`
		HardwareInfo           json.RawMessage `json:"hardwareInfo"`
		RegionNames            json.RawMessage `json:"regionNames"`
		AgreementNumber        string          `json:"agreementNumber"`
		UsageReporting         bool            `json:"usageReportingEnabled"`
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, fmt.Errorf("registration token: %w", err)
	}
	for _, list := range []*json.RawMessage{&t.HardwareInfo, &t.RegionNames} {
		if len(*list) == 0 {
			*list = json.RawMessage("[]")
		}
	}
	if p.Expires == "" {
		p.Expires = "9999-12-30T23:59:59.9999999Z"
	}
	pins := source(0, "certificates")
	thumbprints := make([]string, 6)
	for i := range thumbprints {
		thumbprints[i] = fmt.Sprintf("%X", pins.bytes(20))
	}
	return compact(struct {
		SubscriptionID         string          `json:"subscriptionId"`
		ResourceGroup          string          `json:"resourceGroupName"`
		RegistrationName       string          `json:"registrationName"`
		RootSubjects           []string        `json:"certPinningRootSubjects"`
		Intermediates          []string        `json:"certPinningIntermediateThumbprints"`
		UsageEndpoint          string          `json:"usageEndpoint"`
		MarketplaceEndpoint    string          `json:"marketplaceEndpoint"`
		UsageResource          string          `json:"usageResourceUri"`
		MarketplaceResource    string          `json:"marketplaceResourceUri"`
		Expires                string          `json:"expires"`
		CloudID                string          `json:"cloudId"`
		ObjectID               string          `json:"objectId"`
		BillingModel           string          `json:"billingModel"`
		HardwareInfo           json.RawMessage `json:"hardwareInfo"`
		RegionNames            json.RawMessage `json:"regionNames"`
		AgreementNumber        string          `json:"agreementNumber"`
		UsageReporting         bool            `json:"usageReportingEnabled"`
		MarketplaceSyndication bool            `json:"marketplaceSyndicationEnabled"`
		Issuer                 string          `json:"issuer"`
		Version                string          `json:"version"`
	}{
		p.SubscriptionID, p.ResourceGroup, p.RegistrationName,
		[]string{"CN=Simulated Root, OU=CyberTrust, O=azs-courier, C=IE"}, thumbprints,
		"https://pas.example.invalid", "https://syndication.example.invalid",
		"https://usage.example.invalid/3b1c6f5d", "https://syndication.example.invalid/3b1c6f5d",
		p.Expires, t.CloudID, t.ObjectID, t.BillingModel, t.HardwareInfo, t.RegionNames,
		t.AgreementNumber, t.UsageReporting, t.MarketplaceSyndication, "Microsoft.AzureStack", "1.0",
	}), nil
}

// Key returns an activation key, a compact JWS (RFC 7515) of the payload. Sign
// gets the signing input, header and payload in base64url with a full stop
// between, and returns the signature; nil puts [SignatureSize] bytes there that
// look like one and that no key made. As in the recorded keys the header has a
// blank after its comma and no typ.
func Key(payload []byte, sign func(input []byte) []byte) string {
	enc := base64.RawURLEncoding
	input := enc.EncodeToString([]byte(`{"kid":"`+Kid+`", "alg":"RS256"}`)) + "." + enc.EncodeToString(payload)
	if sign == nil {
		sign = func(input []byte) []byte { return source(uint64(len(input)), "signature").bytes(SignatureSize) }
	}
	return input + "." + enc.EncodeToString(sign([]byte(input)))
}

// stream is a source of parts. Each use has its own, named, so that more hosts
// do not change the cloud id.
type stream struct{ rng *rand.ChaCha8 }

func source(seed uint64, use string) stream {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	copy(key[8:], use)
	return stream{rand.NewChaCha8(key)}
}

func (s stream) bytes(n int) []byte {
	b := make([]byte, n)
	_, _ = s.rng.Read(b) // never fails
	return b
}

func (s stream) hashes(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = hex.EncodeToString(s.bytes(16))
	}
	return out
}

func (s stream) uuid() string {
	b := s.bytes(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func compact(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // strings, booleans and JSON that was parsed before
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}
